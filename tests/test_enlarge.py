"""The bicubic rival as an image of its own."""

from __future__ import annotations

import numpy as np
import pytest

from emsr import degradation
from emsr.steps.data import degrade, enlarge, ingest
from emsr.stores.card import read_card
from test_steps_data import all_of, coarse, cremi, settings, state, tissue_like

LAYOUT = {"shard": [4, 64, 64], "chunk": [4, 32, 32]}


@pytest.mark.parametrize(("scale", "shape"), [(4, (5, 283, 301)), (8, (3, 70, 150)), (3, (2, 9, 200))])
def test_shards_equal_enlarging_whole_sections(tmp_path, scale, shape):
    ingest(settings(cremi(tmp_path / "x.h5", tissue_like(shape))), tmp_path / "hr.json")
    degrade(coarse(scale), tmp_path / "hr.json", tmp_path / "lr.json")
    enlarge({"scale": scale, **LAYOUT}, tmp_path / "lr.json", tmp_path / "bicubic.json", workers=2)
    np.testing.assert_array_equal(
        all_of(tmp_path / "bicubic.json"), degradation.upsample(all_of(tmp_path / "lr.json"), scale)
    )
    fine, card = read_card(tmp_path / "hr.json"), read_card(tmp_path / "bicubic.json")
    assert card["shape"] == read_card(tmp_path / "lr.json")["hr_shape"]
    np.testing.assert_allclose(card["voxel_size_nm"], fine["voxel_size_nm"])
    np.testing.assert_allclose(card["translation_nm"], fine["translation_nm"], atol=1e-9)


def test_damage_is_that_of_lr_and_reruns_write_nothing(tmp_path):
    raw = tissue_like((12, 64, 72))
    raw[5] = 0
    ingest(settings(cremi(tmp_path / "x.h5", raw)), tmp_path / "hr.json")
    degrade(coarse(4), tmp_path / "hr.json", tmp_path / "lr.json")
    enlarge({"scale": 4, **LAYOUT}, tmp_path / "lr.json", tmp_path / "b/bicubic.json")
    assert read_card(tmp_path / "b/bicubic.json")["damaged"] == read_card(tmp_path / "lr.json")["damaged"] != {}
    before = state(tmp_path / "b")
    enlarge({"scale": 4, **LAYOUT}, tmp_path / "lr.json", tmp_path / "b/bicubic.json", workers=3)
    assert state(tmp_path / "b") == before
