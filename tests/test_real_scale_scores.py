"""Scores against lr at real scales: tile by tile, in parts, and beside what is damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from emsr import scales
from emsr.degradation import degrade, upsample
from emsr.steps import tiles
from sr_project import tissue_like
from test_real_scale_pipeline import REAL


class Held:
    """An array in memory, read as those on disk are."""

    def __init__(self, voxels: np.ndarray) -> None:
        self.voxels, self.shape = voxels, voxels.shape

    def __getitem__(self, index: Any) -> Any:
        self.found = self.voxels[index]
        return self

    def read(self) -> Any:
        return self

    def result(self) -> np.ndarray:
        return self.found


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
@pytest.mark.parametrize("scale", REAL, ids=scales.name)
def test_scores_of_tiles_are_those_of_the_section(
    scale: scales.Scale, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lr = tissue_like((1, 60, 50))
    sr = np.clip(upsample(lr, scale).astype(int) + tissue_like((1, *scales.fine_plane((60, 50), scale)), 1) % 9, 0, 255)
    sr = sr.astype(np.uint8)
    images = tiles.Images(Held(lr), Held(sr), None, scale, kernel)
    monkeypatch.setattr(tiles, "TILE", 50)
    area = ((11, 70), (5, 64))
    assert np.array_equal(tiles.bicubic(images, 0, area), upsample(lr, scale)[0, 11:70, 5:64])
    found = tiles.consistency(images, 0)
    error = (degrade(sr, scale, kernel)[0].astype(float) - lr[0]) ** 2
    assert found["sr"].pixels == lr.size
    assert found["sr"].psnr() == pytest.approx(10 * np.log10(255**2 / error.mean()))
    # a part that was made, and a damaged part in it
    height, width = images.whole[0][1], images.whole[1][1]
    part, damaged = ((31, height - 9), (17, width)), ((60, 70), (40, 41))
    images = replace(images, made=lambda z: [part], damaged={0: [damaged]})
    some, spoilt = tiles.consistency(images, 0)["sr"], sr.copy()
    assert 0 < some.pixels < found["sr"].pixels
    spoilt[0, :31], spoilt[0, height - 9 :], spoilt[0, :, :17], spoilt[0, 60:70, 40:41] = 0, 0, 0, 255
    same = tiles.consistency(replace(images, sr=Held(spoilt)), 0)["sr"]
    assert (same.pixels, same.psnr()) == (some.pixels, some.psnr()), "what was not made is in no figure"
