"""Mistakes in a config as one line: where, which value, why, and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from emsr import plugins

Kinds = Mapping[str, type[BaseModel]]


def one_line(error: ValidationError, root: type[BaseModel], kinds: Kinds) -> str:
    """The first mistake of ``error``; ``kinds`` are the parts of schema ``root`` by the key that they stand under."""
    first: Any = min(error.errors(), key=_rank)
    where = ".".join(str(part) for part in first["loc"] if part not in ("constrained-str", "WeightsFile"))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"config: {plugins.unknown('key', where, _known_keys(first['loc'][:-1], root, kinds))}{more}"
    if first["type"] == "missing":
        hint = "config.yaml shows every key, and an overlay is laid over it: --configfile config.yaml MINE.yaml"
        return f"config: {where} is missing; {hint}{more}"
    reason = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] == "value_error" else f" is {first['input']!r}:"
    return f"config: {where}{shown}{' ' if where else ''}{reason}{more}"


def _rank(mistake: Any) -> int:
    """Misspelt keys come before the keys that they leave missing, and one kind of weights speaks for its own input."""
    if mistake["type"] == "extra_forbidden":
        return 0
    return 2 if "constrained-str" in mistake["loc"] and not isinstance(mistake["input"], str) else 1


def _known_keys(parent: tuple[Any, ...], root: type[BaseModel], kinds: Kinds) -> list[str]:
    """Full names of the keys that the schema has below ``parent``."""
    part = root
    for above, name in zip((None, *parent), parent, strict=False):
        if isinstance(name, str) and above not in (
            "volumes",
            "trainings",
            "segmentations",
        ):  # below these stand names of the user's
            part = kinds.get(name, part)
    return [".".join([*map(str, parent), known]) for known in part.model_fields]
