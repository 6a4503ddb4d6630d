"""Super-resolve whole electron-microscopy volumes, and prove what that was worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emsr.inference.memory import deviation as deviation
    from emsr.inference.memory import superresolve as superresolve
    from emsr.models.checkpoint import load as load_model

_PUBLIC = {
    "deviation": ("emsr.inference.memory", "deviation"),
    "load_model": ("emsr.models.checkpoint", "load"),
    "superresolve": ("emsr.inference.memory", "superresolve"),
}
__all__ = ["deviation", "load_model", "superresolve"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): ``import emsr`` alone imports no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'emsr' has no attribute {name!r}")
    from importlib import import_module

    module, function = _PUBLIC[name]
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
