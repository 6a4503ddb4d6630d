"""For each super-resolver a file of its name: what makes it small enough for tests, and its published size.

``OPTIONS`` are changes to preset ``small``; ``COUNTS`` are parameters by preset and scale; ``TRAINS`` is False for what
no single stage trains whole; ``LAST_STAGE`` then says that the last one learns beside whatever the others hold. Where
they are stated, ``RATE`` is the learning rate that suits the small network, ``STEPS`` are enough for it (else 300),
``MULTIPLE`` what the sides of its windows are multiples of, ``FLOAT32`` that mixed precision changes nothing, and
``used(network, lr)`` a scalar that depends on every parameter, where sr does not. ``SECTIONS`` is how many sections it
takes to reach all of the network, ``COUNTED`` the sections of the published size. ``CANCELS`` are published parameters
that change nothing.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType
from typing import Any

from emsr import plugins

NAMES = [name for name in plugins.names("models") if plugins.output(plugins.file_of("models", name)) == "sr"]


def about(name: str) -> ModuleType:
    """The file of model ``name`` in this folder; a model without one fails."""
    return importlib.import_module(f"{__name__}.{name}")


def options(name: str) -> Any:
    """The options of the small network."""
    return replace(plugins.load("models", name).PRESETS["small"], **about(name).OPTIONS)


def build(name: str, scale: int, sections: int = 1) -> Any:
    """The small network, untrained."""
    return plugins.load("models", name).build(scale, sections, options(name))


def sections(name: str) -> int:
    """How many sections the small network must see to use all of itself."""
    return int(getattr(about(name), "SECTIONS", 1))


def counted(name: str) -> int:
    """How many sections the network of published size sees."""
    return int(getattr(about(name), "COUNTED", sections(name)))


def multiple(name: str) -> int:
    """What the sides of windows must be multiples of."""
    return int(getattr(about(name), "MULTIPLE", 1))
