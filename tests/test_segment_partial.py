"""Segments of an sr that was made in part: of what was made alone, and a later whole run keeps what holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsr.durable import read_json
from emsr.geometry import ShardGrid
from emsr.plan import read_plan
from emsr.shards import shard_name
from emsr.steps.left_out import of_images
from emsr.stores.card import read_card
from emsr.stores.zarr import open_array
from segment_project import Chain, image, weights
from segmentable import tiles
from sr_project import SrProject, tissue_like, write_weights

LR = (12, 20, 28)  # sr 12 x 80 x 112 in shards of 4 x 64 x 64
PILOT = [[0, 8], [0, 20], [0, 9]]  # makes sections 0 to 7 of columns 0 to 63
SHARD = (3, 32, 48)  # of affinities, which those of sr do not divide
MADE = np.s_[:8, :, :64]


@pytest.fixture(scope="module")
def piloted(tmp_path_factory: pytest.TempPathFactory) -> tuple[SrProject, Chain]:
    """A pilot and the segments of it."""
    folder = tmp_path_factory.mktemp("partial")
    sr = SrProject(folder, write_weights(folder, "bicubic", 4))
    sr.write_lr(tissue_like(LR))
    sr.settings["pilot"] = PILOT
    sr.all()
    chain = Chain(folder / "chain", shard=SHARD)
    chain.all(folder / "sr.json", weights(folder))
    return sr, chain


def read(chain: Chain, name: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(chain.folder / name)
    return found


def records(chain: Chain, kind: str) -> dict[str, tuple[int, dict[str, Any]]]:
    """Record and its time stamp by shard."""
    folder = chain.folder / kind / read(chain, f"{kind}/allocate.json")["records"]
    return {file.stem: (file.stat().st_mtime_ns, read_json(file)) for file in folder.glob("*.json")}


def reads(chain: Chain, shard: str) -> np.ndarray:
    """The voxels of sr (bool) that the windows of a shard of affinities read: brute force over all windows."""
    plan = read_plan(read(chain, "affinities/allocate.json"))
    index: Any = tuple(map(int, shard.split("_")))
    inside = np.zeros(plan.shape, bool)
    inside[plan.grid.box(index).slices] = True
    found = np.zeros(plan.shape, bool)
    for z in plan.starts(0):
        for y in plan.starts(1):
            for x in plan.starts(2):
                window = np.s_[z : z + plan.depth, y : y + plan.window, x : x + plan.window]
                if inside[window].any():
                    found[window] = True
    assert not any(plan.halo), "or windows would read more"
    return found


def test_what_was_not_made_has_no_segments(piloted: tuple[SrProject, Chain]) -> None:
    _, chain = piloted
    made = np.zeros((12, 80, 112), bool)
    made[MADE] = True
    fragments, segments = chain.voxels("fragments.json"), chain.voxels("segments.json")
    assert not fragments[~made].any()
    assert not segments[~made].any()
    assert (fragments[made] > 0).all(), "the watershed leaves no voxel out"
    assert read_card(chain.folder / "segments.json")["skipped"]["shards"] == 8
    grid = ShardGrid((12, 80, 112), SHARD)
    empty = {shard_name(index) for index in grid.indices if not made[grid.box(index).slices].any()}
    for kind in ("affinities", "fragments"):
        assert {name for name, (_, record) in records(chain, kind).items() if record.get("skipped")} == empty
    graphs = {file.stem for file in (chain.folder / "agglomeration" / "graph").glob("*.npz")}
    assert graphs == {shard_name(index) for index in grid.indices} - empty


def test_affinities_are_those_of_the_image_as_it_lies(piloted: tuple[SrProject, Chain], tmp_path: Path) -> None:
    sr, chain = piloted
    other = Chain(tmp_path / "other", shard=SHARD)
    other.all(image(tmp_path, sr.voxels()), weights(tmp_path))
    assert np.array_equal(*(one.voxels("affinities.json")[(slice(None), *MADE)] for one in (chain, other)))
    assert "shard_inputs_sha256" not in read(other, "affinities/allocate.json"), "an image without records"


def test_the_later_whole_run_keeps_what_holds(tmp_path: Path) -> None:
    sr = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 4))
    sr.write_lr(tissue_like(LR))
    sr.settings["pilot"] = PILOT
    sr.all()
    chain, fresh = (Chain(tmp_path / name, shard=SHARD) for name in ("chain", "fresh"))
    card, chain.fragments["halo"], fresh.fragments["halo"] = tmp_path / "sr.json", [0, 0, 0], [0, 0, 0]
    chain.all(card, weights(tmp_path))
    before = {kind: records(chain, kind) for kind in ("affinities", "fragments")}
    del sr.settings["pilot"]
    sr.all()
    segments = chain.all(card, weights(tmp_path))
    assert np.array_equal(segments, fresh.all(card, weights(tmp_path)))
    for name in ("affinities.json", "fragments.json"):
        assert np.array_equal(chain.voxels(name), fresh.voxels(name))
    made = np.zeros((12, 80, 112), bool)
    made[MADE] = True
    kept = {name for name, (time, _) in records(chain, "affinities").items() if before["affinities"][name][0] == time}
    assert kept == {name for name in before["affinities"] if not (reads(chain, name) & ~made).any()}
    assert kept, "there are some"
    same = {name for name, (time, _) in records(chain, "fragments").items() if before["fragments"][name][0] == time}
    assert same == kept, "blocks without a halo read their own shard"
    assert read(chain, "segments.json")["sha256"] == read(fresh, "segments.json")["sha256"]


def test_records_of_whole_layers_still_hold(piloted: tuple[SrProject, Chain], tmp_path: Path) -> None:
    """An image that has come without records, as before, and now has some."""
    sr, _ = piloted
    (tmp_path / "a").mkdir()
    plain = image(tmp_path / "a", sr.voxels())
    chain = Chain(tmp_path / "chain", shard=SHARD)
    chain.predict(plain, weights(tmp_path))
    before = records(chain, "affinities")
    (tmp_path / "b").mkdir()
    again = image(tmp_path / "b", sr.voxels())
    shards = tmp_path / "b" / "hr.records"
    shards.mkdir()
    (shards / "0_0_0.json").write_text('{"sha256": "x"}')
    chain.predict(again, weights(tmp_path))
    assert "shard_inputs_sha256" in read(chain, "affinities/allocate.json")
    assert records(chain, "affinities") == before


def test_only_what_was_made_chooses_the_threshold(piloted: tuple[SrProject, Chain], tmp_path: Path) -> None:
    _, chain = piloted
    labels = tiles((12, 80, 112), 12, 5)
    asked = {"validation": [[6, 10]], "candidates": [0.2, 0.5, 0.8]}
    found = chain.choose(
        {"labels": str(image(tmp_path, labels, name="labels", voxel_size_nm=[40.0, 8.0, 8.0])), **asked}
    )
    assert found["sections"] == [6, 7]
    assert found["left_out"] == {"8": "not made in the image", "9": "not made in the image"}
    cut = np.zeros_like(labels)
    cut[MADE] = labels[MADE]
    (tmp_path / "cut").mkdir()
    asked["validation"] = [[6, 8]]
    assert (
        chain.choose(
            {"labels": str(image(tmp_path / "cut", cut, name="labels", voxel_size_nm=[40.0, 8.0, 8.0])), **asked}
        )["voi"]
        == found["voi"]
    )
    asked["validation"] = [[8, 12]]
    with pytest.raises(ValueError, match="is damaged, missing or not made: name others"):
        chain.choose(
            {"labels": str(image(tmp_path / "cut", cut, name="labels2", voxel_size_nm=[40.0, 8.0, 8.0])), **asked}
        )


def test_left_out_voxels_are_counted_once(piloted: tuple[SrProject, Chain]) -> None:
    _, chain = piloted
    card = read_card(chain.folder / "segments.json") | {"damaged_parts": {"2": [[[0, 4], [60, 80]]]}}
    stated = of_images([card]).stated(range(2, 4), (80, 112))
    black = 6 * (82 - 58)  # a block of 2 voxels more on every side
    assert stated["damaged_voxels"] == black
    assert stated["sections"] == {"2": 80 * 48 + 6 * (64 - 58), "3": 80 * 48}
    assert stated["voxels"] == sum(stated["sections"].values())


def test_sr_that_is_whole_states_what_each_shard_reads(tmp_path: Path) -> None:
    """What was computed from a whole sr stands when one of its shards changes elsewhere."""
    sr = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 4))
    lr = tissue_like(LR)
    sr.write_lr(lr)
    sr.all()
    chain = Chain(tmp_path / "chain", shard=SHARD)
    chain.predict(tmp_path / "sr.json", weights(tmp_path))
    before = records(chain, "affinities")
    lr[11, :, 20:] = 0
    sr.write_lr(lr)
    whole = open_array(tmp_path / "sr.zarr").read().result()
    sr.all()
    changed = open_array(tmp_path / "sr.zarr").read().result() != whole
    chain.predict(tmp_path / "sr.json", weights(tmp_path))
    redone = {name for name, (time, _) in records(chain, "affinities").items() if before[name][0] != time}
    needed = {name for name in before if (reads(chain, name) & changed).any()}
    assert needed <= redone < set(before)
