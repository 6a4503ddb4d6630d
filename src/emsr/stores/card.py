"""Image cards: the small JSON beside an array that says what it holds and proves it by hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsr.durable import read_json, sweep, write_sealed

SCHEMA = 1
KEYS = frozenset(
    ("schema", "array", "shape", "dtype", "voxel_size_nm", "translation_nm", "section_sha256", "sha256")
    + ("damaged", "missing", "source", "degradation", "hr_shape")
)


def root_sha256(section_sha256: Sequence[str]) -> str:
    """One hash of a volume: sha256 over the joined hexadecimal hashes of its sections."""
    return hashlib.sha256("".join(section_sha256).encode()).hexdigest()


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Write an image card; `schema` and the root hash `sha256` are filled in. ValueError where a key is lacking.

    What killed processes left of files beside it is removed.
    """
    whole = {"schema": SCHEMA, "sha256": root_sha256(card["section_sha256"]), **card}
    if lacking := KEYS - set(whole):
        raise ValueError(f"card {path} lacks {', '.join(sorted(lacking))}")
    write_sealed(path, whole)
    sweep(Path(path).parent)


def read_card(path: Path) -> dict[str, Any]:
    """Read an image card; FileNotFoundError or ValueError, in one line, where it is absent, torn or of another kind."""
    card = read_json(path, SCHEMA)
    if not isinstance(card, dict) or (lacking := KEYS - set(card)):
        reason = f"lacks {', '.join(sorted(lacking))}" if isinstance(card, dict) else "is no JSON object"
        raise ValueError(f"{path} is no image card ({reason}): delete it and run the step that makes it again")
    return card


def covered(card: Mapping[str, Any] | None) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The part (y, x, half-open, in voxels) that a registered image shows of all sections; None of any other image."""
    if not card or "covered" not in card:
        return None
    (top, bottom), (left, right) = card["covered"]
    return (top, bottom), (left, right)


def array_path(card_path: Path, card: dict[str, Any]) -> Path:
    """Where the array of a card lies: its name is relative to the card."""
    return Path(card_path).parent / str(card["array"])
