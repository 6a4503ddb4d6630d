"""From an image to segments through the steps: the same as in memory, whatever shards, jobs and workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsr.durable import read_json
from emsr.segmentation.fragments import BlockGrid, fragments_in
from emsr.segmentation.whole import waterz_whole
from emsr.steps import affinities as predicting
from emsr.steps import fragments as cutting
from emsr.stores.card import read_card
from emsr.stores.zarr import open_array
from segment_project import SHAPE, Chain, image, weights
from segmentable import same_partition
from sr_project import tissue_like


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Chain, np.ndarray]:
    folder = tmp_path_factory.mktemp("segment")
    card, weight = image(folder, tissue_like(SHAPE)), weights(folder)
    chain = Chain(folder / "a")
    return card, weight, chain, chain.all(card, weight)


def test_the_chain_equals_its_parts_in_memory(reference: tuple[Path, Path, Chain, np.ndarray]) -> None:
    _, _, chain, segments = reference
    affinities, fragments = chain.voxels("affinities.json"), chain.voxels("fragments.json")
    assert affinities.shape == (3, *SHAPE)
    assert np.ptp(affinities) > 20, "a test of grey voxels would show nothing"
    grid = BlockGrid(SHAPE, (1, 16, 16), (0, 8, 8))
    expected = fragments_in(grid.grid.box((0, 0, 0)), grid, lambda box: affinities[(..., *box.slices)])
    assert np.array_equal(fragments[:1, :16, :16], expected)
    assert same_partition(waterz_whole(affinities, fragments, 0.5, bins=0)[0], segments)
    assert len(np.unique(segments)) < len(np.unique(fragments))
    first = np.unique(segments, return_index=True)
    assert first[0].tolist() == list(range(1, len(first[0]) + 1))
    assert (np.diff(first[1]) > 0).all(), "numbered by first voxel"
    card = read_card(chain.folder / "segments.json")
    assert card["segments"] == len(first[0])
    assert card["voxel_size_nm"] == [40.0, 4.0, 4.0]
    assert card["translation_nm"] == [20.0, 2.0, 2.0]
    assert (card["threshold"], card["threshold_source"]) == (0.5, "config")


@pytest.mark.parametrize(("jobs", "workers", "shard"), [(1, 3, (3, 32, 32)), (5, 2, (9, 80, 64)), (3, 1, (3, 16, 48))])
def test_bookkeeping_changes_no_voxel(
    reference: tuple[Path, Path, Chain, np.ndarray],
    tmp_path: Path,
    jobs: int,
    workers: int,
    shard: tuple[int, int, int],
) -> None:
    card, weight, chain, segments = reference
    other = Chain(tmp_path, jobs, workers, shard)
    assert np.array_equal(other.all(card, weight), segments)
    for stage in ("affinities.json", "fragments.json"):
        assert np.array_equal(other.voxels(stage), chain.voxels(stage)), stage
    assert read_json(tmp_path / "segments.json")["sha256"] == read_json(chain.folder / "segments.json")["sha256"]


def test_another_threshold_reads_the_history_alone(reference: tuple[Path, Path, Chain, np.ndarray]) -> None:
    _, _, chain, segments = reference
    counts = [len(np.unique(chain.segments(threshold))) for threshold in (0.0, 0.3, 0.5, 0.9)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == len(np.unique(chain.voxels("fragments.json")))
    assert counts[2] == len(np.unique(segments))
    with pytest.raises(ValueError, match=r"threshold 0.95 lies above 0.9"):
        chain.segments(0.95)
    chain.segments(0.5)


def test_finished_shards_are_left_alone_and_lost_ones_made_again(
    reference: tuple[Path, Path, Chain, np.ndarray], tmp_path: Path
) -> None:
    card, weight, _, segments = reference
    chain = Chain(tmp_path)
    chain.all(card, weight)
    for stage, run in (("affinities", predicting.affinities), ("fragments", cutting.fragments)):
        records = sorted((tmp_path / stage).glob("*.records/*.json"))
        records[2].unlink()
        settings = chain.affinities if stage == "affinities" else chain.fragments
        computed = []
        for job in ("1-of-2", "2-of-2"):
            mark = tmp_path / stage / "jobs" / f"{job}.json"
            run(settings, tmp_path / stage / "allocate.json", job, mark, workers=1)
            computed += read_json(mark.with_suffix(".stats.json"))["computed"]
        assert computed == [records[2].stem]
    assert np.array_equal(chain.merge(), segments)


def test_a_result_number_of_one_step_names_no_other_array(
    reference: tuple[Path, Path, Chain, np.ndarray], tmp_path: Path
) -> None:
    """`Records` and `allocated` know no result number of `allocate_fragments` either."""
    _, _, chain, _ = reference
    out = tmp_path / "fragments" / "allocate.json"
    names = set()
    for result in (1, 2):
        settings = {**chain.fragments, "result": result}
        cutting.allocate_fragments(settings, chain.folder / "affinities.json", out)
        names.add(read_json(out)["array"])
    assert len(names) == 1


def test_a_spoilt_shard_is_noticed(reference: tuple[Path, Path, Chain, np.ndarray], tmp_path: Path) -> None:
    card, weight, _, _ = reference
    chain = Chain(tmp_path)
    chain.predict(card, weight)
    array = next((tmp_path / "affinities").glob("*.zarr"))
    opened = open_array(array, write=True)
    opened[:, 0:3, 0:32, 0:32].write(np.zeros((3, 3, 32, 32), np.uint8)).result()
    mark = tmp_path / "affinities" / "jobs" / "1-of-2.json"
    with pytest.raises(ValueError, match=r"shard 0_0_0 .*does not hold the voxels of its record"):
        predicting.prove_affinities(
            chain.affinities, mark.parents[1] / "allocate.json", [mark], tmp_path / "affinities.json", workers=1
        )


def test_results_may_lie_behind_a_link_and_weights_elsewhere(
    reference: tuple[Path, Path, Chain, np.ndarray], tmp_path: Path
) -> None:
    """A relative path that was right as the folder was named is wrong from where the folder is."""
    _, _, _, segments = reference
    real = tmp_path / "a" / "deep" / "place" / "volume"
    real.mkdir(parents=True)
    (tmp_path / "volume").symlink_to(real)
    (tmp_path / "weights").mkdir()
    card = image(tmp_path / "volume", tissue_like(SHAPE))
    assert np.array_equal(Chain(tmp_path / "volume").all(card, weights(tmp_path / "weights")), segments)


def test_a_damaged_section_is_predicted_from_its_good_neighbour(tmp_path: Path) -> None:
    voxels = tissue_like(SHAPE)
    voxels[4] = 0
    chain = Chain(tmp_path)
    chain.predict(image(tmp_path, voxels, damaged=(4,)), weights(tmp_path))
    voxels[4] = voxels[3]
    other = Chain(tmp_path / "b")
    other.predict(image(tmp_path / "b", voxels), weights(tmp_path))
    assert np.array_equal(chain.voxels("affinities.json"), other.voxels("affinities.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overlap": 32}, "segment.overlap 32 leaves no step for a window of 32: use 0 to 31"),
        ({"depth_overlap": 5}, "segment.depth_overlap 5 leaves no step for a window of 5"),
        ({"window": 30}, "cannot take 30 voxels along y"),
        ({"shard": [3, 33, 32]}, r"shard \(3, 33, 32\) is not a multiple of chunk"),
    ],
)
def test_settings_that_do_not_fit_are_refused_first(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    chain = Chain(tmp_path)
    chain.affinities |= change
    with pytest.raises(ValueError, match=message):
        chain.predict(image(tmp_path, tissue_like(SHAPE)), weights(tmp_path))
    assert not (tmp_path / "affinities").exists()


def test_blocks_must_divide_shards(reference: tuple[Path, Path, Chain, np.ndarray], tmp_path: Path) -> None:
    card, weight, _, _ = reference
    chain = Chain(tmp_path)
    chain.predict(card, weight)
    chain.fragments["block"] = [1, 24, 16]
    with pytest.raises(ValueError, match="let block divide shard"):
        chain.cut()
