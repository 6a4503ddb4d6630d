"""Weights on disk are whole, and are what their card says, or one line says why not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from emsr.durable import read_json
from emsr.models import checkpoint
from network_goldens import TINY, card


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    about = card("gpemsr", "flow", 8, TINY)
    path = tmp_path / "flow.safetensors"
    checkpoint.save(path, checkpoint.network(about).state_dict(), about)
    return path


def test_equal_states_are_equal_bytes(weights: Path, tmp_path: Path) -> None:
    about, other = checkpoint.load_card(weights), tmp_path / "again.safetensors"
    shuffled = dict(reversed(list(checkpoint.load_state(weights).items())))
    checkpoint.save(other, shuffled, about)
    assert other.read_bytes() == weights.read_bytes()
    assert about["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def relabel(path: Path, **changes: Any) -> None:
    """Change the card; sha256 "own" is that of the file as it is."""
    file = path.with_suffix(".json")
    own = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if changes.pop("resign", False) else {}
    file.write_text(json.dumps(read_json(file) | changes | own))


def spoil(path: Path) -> None:
    path.write_bytes(b"no tensors")
    relabel(path, resign=True)


@pytest.mark.parametrize(("damage", "message", "error"), [
    (truncate, "has sha256 .* its card says", ValueError),  # half a copy
    (spoil, "is not safetensors", ValueError),  # another file with a matching card
    (lambda path: path.unlink(), "flow.safetensors does not exist", FileNotFoundError),
    (lambda path: path.with_suffix(".json").unlink(), "need their card", FileNotFoundError),
    (lambda path: path.with_suffix(".json").write_text("{"), "is not JSON", ValueError),
    (lambda path: path.with_suffix(".json").write_text("[]"), "is no card of weights", ValueError),
    (lambda path: relabel(path, stage="codebook"), "missing .*unknown levels", ValueError),  # a card of another network
])  # fmt: skip
def test_weights_that_cannot_be_used(weights: Path, damage: Any, message: str, error: type[Exception]) -> None:
    damage(weights)
    with pytest.raises(error, match=message) as caught:
        checkpoint.load(weights)
    assert "\n" not in str(caught.value)


def test_weights_of_another_stage_or_scale(weights: Path) -> None:
    with pytest.raises(ValueError, match="holds weights of stage flow, fusion is needed"):
        checkpoint.load(weights, stage="fusion")
    with pytest.raises(ValueError, match="holds weights of scale 8, 4 is needed"):
        checkpoint.load(weights, scale=4)


def test_a_card_must_say_what_the_weights_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="options, scale, sections, stage missing"):
        checkpoint.save(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {"model": "gpemsr"})
    assert not list(tmp_path.iterdir()), "nothing is written before the card is right"
