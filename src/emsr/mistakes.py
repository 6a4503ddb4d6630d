"""Mistakes in a config as one line: where, which value, why, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from emsr import plugins

NAME = r"^[A-Za-z0-9][A-Za-z0-9_]{0,99}$"  # of volumes, trainings and segmentations, which become names of folders
PART = re.compile(r"(function-.*\[.*)?WeightsFile")
INTERNAL = re.compile(r"constrained-str|(function-.*\[.*)?WeightsFile|\[key\]")  # what pydantic says of its own kinds
Kinds = Mapping[str, type[BaseModel]]


def one_line(error: ValidationError, root: type[BaseModel], kinds: Kinds) -> str:
    """The first mistake of ``error``; ``kinds`` are the parts of schema ``root`` by the key that they stand under."""
    mistakes: list[Any] = [mistake for mistake in error.errors() if not _of_other_kind(mistake)] or list(error.errors())
    first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")  # misspelt keys leave some missing
    where = ".".join(str(part) for part in first["loc"] if not INTERNAL.match(str(part)))
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"config: {plugins.unknown('key', where, _known_keys(first['loc'][:-1], root, kinds))}{more}"
    if first["type"] == "missing":
        hint = "config.yaml shows every key, and an overlay is laid over it: --configfile config.yaml MINE.yaml"
        return f"config: {where} is missing; {hint}{more}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch" and first["ctx"]["pattern"] == NAME:
        reason = "names hold letters, digits and _, at most 100, and begin with no _"
        if first["loc"][-1] == "[key]":
            where = ".".join(map(str, first["loc"][:-2]))
    shown = "" if first["type"] == "value_error" else f" is {_short(first['input'])}:"
    return f"config: {where}{shown}{' ' if where else ''}{reason}{more}"


def _of_other_kind(mistake: Any) -> bool:
    """Whether a value that may be a name or a part is judged as the one that it is not."""
    is_text = isinstance(mistake["input"], str)
    as_text, as_part = "constrained-str" in mistake["loc"], mistake["type"] in ("model_type", "dict_type")
    return (as_text and not is_text) or (as_part and is_text and any(map(PART.match, map(str, mistake["loc"]))))


def _short(value: Any, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


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
