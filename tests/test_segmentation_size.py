"""Agglomeration follows from memory how, not what; ids are of any size, and shards hold a single fragment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emsr.durable import read_json, write_json
from emsr.geometry import ShardGrid, Triple, triple
from emsr.segmentation import memory
from emsr.segmentation.agglomeration import agglomerate
from emsr.segmentation.graph import contacts
from emsr.segmentation.memory import check_lookup, rows_within
from emsr.shards import shard_name
from emsr.steps import agglomeration, graph_files, segment, threshold
from emsr.stores.zarr import Layout, create, open_array, write_box
from segmentable import noise, same_partition, tiles

SHARD: Triple = (2, 16, 16)
FAR = np.uint64(2**40 + 1)  # between ids: from the second on they are beyond uint32


def stored(folder: Path, name: str, voxels: np.ndarray) -> Path:
    """A card as a proof writes it, with its array."""
    shape = triple(voxels.shape[-3:])
    channels = 3 if voxels.ndim == 4 else 0
    create(folder / f"{name}.zarr", Layout(shape, voxels.dtype.name, SHARD, SHARD, (1.0, 1.0, 1.0), channels=channels))
    grid = ShardGrid(shape, SHARD)
    for box in grid.boxes():
        write_box(open_array(folder / f"{name}.zarr", write=True), box.start, voxels[(..., *box.slices)])
    place = {"voxel_size_nm": [1.0] * 3, "translation_nm": [0.0] * 3, "damaged": {}, "missing": {}}
    hashes = {shard_name(index): name for index in grid.indices}
    fixed = {"array": f"{name}.zarr", "shape": shape, "shard": SHARD, "shards": hashes, "sha256": name}
    write_json(folder / f"{name}.json", {**fixed, **place, "image_sha256": "image", "weights_sha256": "weights"})
    return folder / f"{name}.json"


def run(folder: Path, out: str, memory_mb: int, method: str = "exact") -> Path:
    settings = {"method": method, "until": 0.6, "affinities": str(folder / "affinities.json")}
    agglomeration.agglomerate(
        settings, folder / "fragments.json", folder / f"{out}.json", workers=1, memory_mb=memory_mb
    )
    return folder / out / "history.npz"


def far_apart(shape: Triple) -> np.ndarray:
    """About 400 fragments with ids up to 2^48."""
    return (tiles(shape, 4, 0) + np.uint64(1)) * FAR


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    shape = (5, 40, 32)
    stored(tmp_path, "affinities", noise(shape, 0))
    stored(tmp_path, "fragments", far_apart(shape))
    return tmp_path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if edges were large: a megabyte holds about fifty."""
    monkeypatch.setattr(memory, "PER_EDGE", 20_000)


@pytest.mark.usefixtures("tiny")
def test_too_little_memory_for_the_graph_changes_no_byte(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = run(volume, "in_memory", 8000)
    asked = []
    streamed = graph_files._streamed
    monkeypatch.setattr(graph_files, "_streamed", lambda *words: asked.append(words[-1]) or streamed(*words))
    spilt = run(volume, "over_files", 402)
    edges = read_json(volume / "over_files.json")["counts"]["edges_of_shards"]
    assert 10 <= asked[0] < edges / 5, "a graph that nearly fits would not be cut"
    assert held.read_bytes() == spilt.read_bytes()
    assert len(graph_files.part(held, "merges")) > 50
    assert not (volume / "over_files" / "scratch").exists()


@pytest.mark.usefixtures("tiny")
def test_too_little_memory_for_either_way_is_one_line(volume: Path) -> None:
    with pytest.raises(ValueError, match=r"400 MB .* by method exact: rerun .*agglomerate:mem_mb=401$"):
        run(volume, "none", 400)
    with pytest.raises(ValueError, match=r"402 MB .* by method waterz: rerun .*take method exact"):
        run(volume, "none", 402, "waterz")
    assert not (volume / "none.json").exists()


def test_ids_beyond_uint32_stay_as_they_are(volume: Path) -> None:
    """From voxels to the history and to segments: what small ids give, and no id is cut off."""
    shape = (5, 40, 32)
    fragments, small = far_apart(shape), tiles(shape, 4, 0) + np.uint64(1)
    merges = graph_files.part(run(volume, "far", 8000), "merges")
    expected = agglomerate(contacts(small, noise(shape, 0)), 0.6).merges
    for name in ("a", "b", "c"):
        assert np.array_equal(merges[name], expected[name] * FAR)
    segments = segmented(volume, "far")
    ids, first = np.unique(segments, return_index=True)
    assert (np.diff(first) > 0).all()
    assert ids.tolist() == list(range(1, len(np.unique(fragments)) - len(merges) + 1))


def segmented(folder: Path, name: str) -> np.ndarray:
    write_json(folder / "threshold.json", {"threshold": 0.6, "source": "config"})
    card = folder / "segments.json"
    segment.segment({"chunk": SHARD}, folder / f"{name}.json", folder / "threshold.json", card, workers=1)
    return open_array(folder / "segments.zarr").read().result()


def test_graphs_of_a_volume_of_another_width_are_not_reused(tmp_path: Path) -> None:
    """Shards hold the same voxels, but the number of a voxel depends on the volume's width."""
    for width in (48, 32, 48):
        folder, whole = tmp_path / f"{width}", far_apart((5, 40, 48))
        if not folder.exists():
            folder.mkdir()
            stored(folder, "affinities", noise((5, 40, 48), 0)[..., :width])
            stored(folder, "fragments", whole[..., :width])
            run(folder, "fresh", 8000)
        assert run(folder, "../kept", 8000).read_bytes() == (folder / "fresh" / "history.npz").read_bytes()
        kept, fresh = (
            {file.name for file in (path / "graph").iterdir()} for path in (tmp_path / "kept", folder / "fresh")
        )
        assert kept == fresh, "no file of the wider volume stays"


def test_a_graph_of_the_same_shard_is_kept(volume: Path) -> None:
    run(volume, "twice", 8000)
    before = {file: file.stat().st_mtime_ns for file in (volume / "twice" / "graph").iterdir()}
    run(volume, "twice", 8000)
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_a_history_too_large_for_memory_is_one_line(volume: Path) -> None:
    run(volume, "merged", 8000)
    merged, chosen, card = (volume / f"{name}.json" for name in ("merged", "threshold", "segments"))
    with pytest.raises(ValueError, match=r"^400 MB .* history of \d+ fragments .*choose_threshold:mem_mb=736$"):
        threshold.choose_threshold({"threshold": 0.5}, merged, chosen, workers=1, memory_mb=400)
    write_json(chosen, {"threshold": 0.5, "source": "config"})
    with pytest.raises(ValueError, match=r"^400 MB .* and 1024 voxels at a time: rerun .* segment:mem_mb=401$"):
        segment.segment({"chunk": SHARD}, merged, chosen, card, workers=2, memory_mb=400)
    assert not card.exists()
    assert not card.with_suffix(".zarr").exists()


SINGLE = [
    ("one fragment in all", [[7, 7], [7, 7]], 1),
    ("one fragment in each shard", [[1, 2], [3, 2**63 + 1]], 1),
    ("a shard of background alone", [[1, 0], [0, 4]], 2),
]


@pytest.mark.parametrize(("why", "ids", "count"), SINGLE, ids=[row[0] for row in SINGLE])
@pytest.mark.parametrize("method", ["exact", "waterz"])
def test_shards_with_a_single_fragment(tmp_path: Path, method: str, why: str, ids: list[list[int]], count: int) -> None:
    fragments = np.kron(np.array([ids], np.uint64), np.ones(SHARD, np.uint64))
    stored(tmp_path, "affinities", np.full((3, *fragments.shape), 200, np.uint8))
    stored(tmp_path, "fragments", fragments)
    run(tmp_path, "merged", 8000, method)
    segments = segmented(tmp_path, "merged")
    assert segments.max() == count
    assert same_partition(segments == 0, fragments == 0)


ROOM = memory.BASE // memory.MEGABYTE
WAYS = [
    ("everything fits", (2000, 0, "exact", ROOM + 1), None),
    ("fifty times what fits", (10**7, 0, "exact", ROOM + 100), 200_000),
    ("one edge too many", (2_000_001, 0, "exact", ROOM + 1000), 2_000_000),
    ("fragments take their part", (2_000_000, 1_000_000, "exact", ROOM + 1000), 1_200_000),
    ("fragments beyond uint32", (10**10, 2**33, "exact", 3_600_000), 327_252_326),
    ("no more than int32 can number", (10**11, 0, "exact", 10**9), memory.MOST),
    ("the published queue fits", (2000, 0, "waterz", ROOM + 1), None),
]


@pytest.mark.parametrize(("why", "asked", "rows"), WAYS, ids=[row[0] for row in WAYS])
def test_the_way_follows_from_memory(why: str, asked: tuple[int, int, str, int], rows: int | None) -> None:
    assert rows_within(*asked) == rows


REFUSED = [
    ((10**7, 0, "exact", ROOM + 99), rf"0 fragments and 10000000 edges .*mem_mb={ROOM + 100}$"),
    ((10**7, 0, "waterz", 5000), rf"5000 MB .*mem_mb={ROOM + 5000}, or take method exact"),
    ((2**31, 0, "waterz", 10**9), "2147483648 edges are more than the 1073741824 .* take method exact"),
]


@pytest.mark.parametrize(("asked", "named"), REFUSED)
def test_what_fits_nowhere_is_one_line(asked: tuple[int, int, str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        rows_within(*asked)


ROOMY = memory.BASE + 10**6 * memory.PER_LOOKUP + 10**6 * memory.PER_VOXEL


@pytest.mark.parametrize(("fragments", "voxels"), [(10**6 + 1, 10**6), (10**6, 10**6 + 1)])
def test_fragments_and_voxels_count_for_a_lookup(fragments: int, voxels: int) -> None:
    limit = ROOMY // memory.MEGABYTE
    check_lookup(10**6, 10**6, limit, "segment")
    with pytest.raises(ValueError, match=rf"{fragments} fragments and {voxels} voxels .* segment:mem_mb={limit + 1}$"):
        check_lookup(fragments, voxels, limit, "segment")
