"""Checkpoints of EDSR-PyTorch: their keys, range and channels; what is wrong with one is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from emsr.commands.import_weights import import_weights
from emsr.models import checkpoint, edsr

State = dict[str, Tensor]
BLOCKS = {"published": 2, "full": 3}
MEANS = torch.tensor([0.4488, 0.4371, 0.4040])


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published presets with few channels and blocks, so that a checkpoint is small."""
    torch.manual_seed(1)
    for kind, blocks in BLOCKS.items():
        monkeypatch.setitem(edsr.PRESETS, kind, replace(edsr.PRESETS[kind], width=6, blocks=blocks))


def theirs(kind: str, scale: int, colours: int = 3, levels: int = 255, means: Tensor | None = None) -> State:
    """Random tensors under the keys that EDSR-PyTorch writes; mean shifts only with ``means`` in [0, 1]."""
    shapes = {"head.0": (6, colours), f"body.{BLOCKS[kind]}": (6, 6), "tail.1": (colours, 6)}
    shapes |= {f"body.{block}.body.{conv}": (6, 6) for block in range(BLOCKS[kind]) for conv in (0, 2)}
    steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    shapes |= {f"tail.0.{2 * level}": (6 * by**2, 6) for level, by in enumerate(steps)}
    state = {f"{name}.weight": torch.randn(*shape, 3, 3) / (9 * shape[1]) ** 0.5 for name, shape in shapes.items()}
    state |= {f"{name}.bias": 0.1 * levels * torch.randn(shape[0]) for name, shape in shapes.items()}
    for which, sign in (("sub", -1), ("add", 1)) if means is not None else ():
        state[f"{which}_mean.weight"] = torch.eye(colours)[:, :, None, None]
        state[f"{which}_mean.bias"] = sign * levels * means
    return state


def given(state: State, kind: str, images: Tensor) -> Tensor:
    """What their network gives for (batch, colours, y, x) in its own range."""

    def through(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    shifted = "sub_mean.bias" in state
    x = head = through("head.0", through("sub_mean", images) if shifted else images)
    for block in range(BLOCKS[kind]):
        inner = through(f"body.{block}.body.2", through(f"body.{block}.body.0", x).relu())
        x = x + edsr.PRESETS[kind].res_scale * inner
    x = head + through(f"body.{BLOCKS[kind]}", x)
    for level in range(4):
        if (weight := state.get(f"tail.0.{2 * level}.weight")) is not None:
            x = F.pixel_shuffle(through(f"tail.0.{2 * level}", x), round((len(weight) / 6) ** 0.5))
    x = through("tail.1", x)
    return through("add_mean", x) if shifted else x


@pytest.mark.parametrize(("kind", "scale", "colours", "levels", "means", "edge", "why"), [
    ("published", 2, 3, 255, MEANS, 9, "as published: zeros around three means are not those around one"),
    ("published", 3, 1, 255, None, 0, "one step of three"),
    ("full", 4, 3, 255, MEANS, 11, "as published, with its own res_scale"),
    ("full", 2, 3, 255, MEANS.mean().repeat(3), 0, "one mean: exact at the edges too"),
    ("published", 4, 3, 1, MEANS.mean().repeat(3), 0, "trained on [0, 1], which its mean shift tells"),
    ("published", 8, 1, 255, None, 0, "grey, without mean shift"),
    ("published", 4, 3, 255, None, 0, "three channels without mean shift"),
])  # fmt: skip
@torch.no_grad()
def test_imported_weights_compute_the_same(
    kind: str, scale: int, colours: int, levels: int, means: Tensor | None, edge: int, why: str, tmp_path: Path
) -> None:
    state = theirs(kind, scale, colours, levels, means)
    torch.save(state, tmp_path / "edsr.pt")
    out = tmp_path / "weights.safetensors"
    import_weights(tmp_path / "edsr.pt", stage="image", scale=scale, out=out)
    model: Any = checkpoint.load(out, stage="image", scale=scale)
    lr = torch.rand(1, 1, 1, 2 * edge + 6, 2 * edge + 6)
    wanted = given(state, kind, levels * lr[:, 0].expand(1, colours, -1, -1)).mean(1, keepdim=True) / levels
    inside = slice(scale * edge, wanted.shape[-1] - scale * edge)
    torch.testing.assert_close(
        model(lr)[..., inside, inside], wanted[..., inside, inside], atol=1e-5, rtol=0, msg=lambda text: why + text
    )
    card = checkpoint.load_card(out)
    said = {"model": "edsr", "preset": kind, "sections": 1, "channels_made_one": colours, "levels": levels}
    assert {key: card[key] for key in said} == said
    assert card["options"]["mean"] == pytest.approx(0.0 if means is None else float(means.mean()), abs=1e-6)


def without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(("spoil", "scale", "message"), [
    (dict, None, "scale None is not one of edsr's: say which with --scale, one of 2, 3, 4, 8, 16"),
    (dict, 5, "scale 5 is not one of edsr's"),
    (dict, 8, r"no published EDSR of x8: missing tail\.0\.4\.weight, tail\.0\.4\.bias; check --scale"),
    (dict, 2, r"no published EDSR of x2: unknown tail\.0\.2\.weight"),
    (without("body.1.body.2.bias"), 4, r"missing body\.1\.body\.2\.bias"),
    (without("add_mean.bias"), 4, r"missing add_mean\.bias"),
    (lambda state: state | {"head.0.weight": torch.zeros(6, 4, 3, 3)}, 4, r"head\.0\.weight is \(6, 4, 3, 3\)"),
    (lambda state: state | {"head.0.weight": torch.zeros(6)}, 4, r"misshapen head\.0\.weight is \(6,\)"),
    (lambda state: state | {"sub_mean.weight": torch.zeros(3, 3, 1, 1)}, 4, "sub_mean is spoilt"),
    (lambda state: {"conv_first.weight": torch.zeros(1)}, 4, r"missing head\.0\.weight"),
])  # fmt: skip
def test_wrong_checkpoints(spoil: Callable[[State], Any], scale: int | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "edsr_baseline_x4.pt"
    torch.save(spoil(theirs("published", 4, means=MEANS)), file)
    with pytest.raises(ValueError, match=message) as caught:
        import_weights(file, stage="image", scale=scale, out=tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [file], "nothing is written"
