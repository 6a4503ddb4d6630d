"""The network through streaming gives what it gives a window at a time, all sections at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emsr.inference.stream import stream_column
from emsr.models import checkpoint
from emsr.plan import Plan, neighbour_table
from sr_project import tissue_like, write_weights

PUBLISHED_PARTS = {"mask_features": "vgg", "flow_scale": 4, "flow_levels": 4, "flow_channels": 3}


class Floats:
    """A network as `stream_column` calls it, without rounding; keeps what the indexer said of each section."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.indices: dict[bytes, Tensor] = {}

    def section(self, lr: np.ndarray) -> tuple[Tensor, ...]:
        image = torch.from_numpy(lr).float()[None, None] / 255
        self.indices[lr.tobytes()] = self.model.references(image).logits.argmax(-1)
        return tuple(self.model.section(image))

    def centre(self, states: Sequence[tuple[Tensor, ...]], *where: Any) -> np.ndarray:
        found: np.ndarray = self.model.centre(list(states))[0, 0].numpy()
        return found


@pytest.mark.parametrize(
    ("scale", "side", "change", "reason"),
    [
        (4, 16, {}, "four times"),
        (8, 16, {}, "eight times, a code for two lr pixels"),
        (16, 8, {}, "sixteen times, a code for each lr pixel"),
        (8, 16, {"flow": "correlation"}, "features of flow are part of a section's state"),
        (8, 20, PUBLISHED_PARTS, "what the published network has: VGG, three channels and four times finer for flow"),
    ],
)
@torch.no_grad()
def test_streaming_the_network_equals_a_window_at_a_time(
    tmp_path: Path, scale: int, side: int, change: dict[str, Any], reason: str
) -> None:
    """`forward` in training mode puts all sections of a window through every part at once, and keeps no state."""
    model: Any = checkpoint.load(write_weights(tmp_path, "gpemsr", scale, sections=5, options=change))
    volume = tissue_like((9, side, side))
    table = neighbour_table(9, 5, 1, (3,), (6,))
    plan, streamed = Plan((9, side, side), scale, side, 4, (9, 64, 64), table), Floats(model.eval())
    got = dict(stream_column(streamed, plan, (0, 0), range(9), lambda box: volume[box.slices]))  # type: ignore[arg-type]
    assert sorted(got) == [0, 1, 2, 3, 4, 5, 7, 8], "both ends, beside damage, and damage itself"
    model.train()
    for z, voxels in got.items():
        lr = torch.from_numpy(volume[list(table[z] or ())]).float()[None, :, None] / 255
        indices = model.references(lr[0]).logits.argmax(-1)
        assert torch.equal(indices, torch.cat([streamed.indices[volume[each].tobytes()] for each in table[z] or ()]))
        assert np.abs(voxels - model(lr)[0, 0].numpy()).max() <= 1e-5, f"{reason}, section {z}"
        assert voxels.std() > 0.01
