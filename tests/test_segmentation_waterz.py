"""The merged region graph of shards gives waterz's result on whole volumes: exact, and as published with 256 bins."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest

from emsr.geometry import Box, ShardGrid, Triple
from emsr.segmentation.agglomeration import agglomerate
from emsr.segmentation.binned import agglomerate_binned
from emsr.segmentation.fragments import BlockGrid, fragments_in
from emsr.segmentation.graph import EDGE, contacts, merged, read_graph
from emsr.segmentation.lookup import first_voxels, lookup, relabelled, roots
from emsr.segmentation.whole import silenced, waterz_whole
from segmentable import cells, noise, reader, same_partition, tiles

SHAPE = (8, 40, 44)


def volumes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Affinities and fragments: without structure, with background, and cut as the workflow does it."""
    grid = BlockGrid(SHAPE, (1, 20, 22), (0, 6, 6))
    smooth = cells(SHAPE, 2)
    cut = fragments_in(Box((0, 0, 0), SHAPE), grid, reader(smooth))
    mixed = np.uint8(0.5 * cells(SHAPE, 3) + 0.5 * noise(SHAPE, 3))
    return {
        "noise": (noise(SHAPE, 0), tiles(SHAPE, 4, 0) + np.uint64(1)),
        "background": (noise(SHAPE, 1), tiles(SHAPE, 3, 1)),
        "cells": (smooth, cut),
        "noisy cells": (mixed, tiles(SHAPE, 3, 4) + np.uint64(1)),
    }


VOLUMES = volumes()


def graph_of(name: str, shard: Triple = (3, 16, 20)) -> np.ndarray:
    affinities, fragments = VOLUMES[name]
    boxes = ShardGrid(SHAPE, shard).boxes()
    return merged(read_graph(box, reader(fragments), reader(affinities)) for box in boxes)


def segments(name: str, found: np.ndarray) -> np.ndarray:
    return found[np.searchsorted(np.unique(VOLUMES[name][1]), VOLUMES[name][1])]


@pytest.mark.parametrize("threshold", [0.21, 0.5, 1.0])
@pytest.mark.parametrize(("side", "seed"), [(6, 2), (7, 0), (7, 2), (7, 3)])
def test_exact_agglomeration_equals_waterz_merge_by_merge(side: int, seed: int, threshold: float) -> None:
    """Where no two merges have one score; fragments are large enough for that."""
    shape = (12, 40, 44)
    affinities, fragments = noise(shape, seed), tiles(shape, side, seed) + np.uint64(1)
    expected, merges = waterz_whole(affinities, fragments, threshold, bins=0)
    history = agglomerate(contacts(fragments, affinities), threshold)
    assert len(np.unique(history.merges["score"])) == len(history.merges) > 0
    assert history.merges[["a", "b", "c"]].tolist() == merges[["a", "b", "c"]].tolist()
    assert history.merges["score"] == pytest.approx(merges["score"], abs=2e-5)  # float32 running means
    ids = np.unique(fragments)
    assert np.array_equal(roots(history, ids, threshold)[np.searchsorted(ids, fragments)], expected)


def best_of(edges: dict[frozenset[int], list[int]]) -> float:
    return min((1 - total / (255 * count) for count, total in edges.values()), default=np.inf)


@pytest.mark.parametrize("name", VOLUMES)
def test_waterz_merges_an_edge_of_the_smallest_score_each_time(name: str) -> None:
    """Of equal scores, which uint8 makes common, waterz may take another than we do, but never a worse one."""
    threshold, slack = 0.45, 2e-6
    edges = {frozenset((int(u), int(v))): [int(count), int(total)] for u, v, count, total in graph_of(name)}
    merges = waterz_whole(*VOLUMES[name], threshold, bins=0)[1]
    assert len(merges) > 50
    for a, b, c, score in merges.tolist():
        count, total = edges[frozenset((a, b))]
        assert 1 - total / (255 * count) == pytest.approx(score, abs=slack)
        assert score <= best_of(edges) + slack
        assert c == a < b
        del edges[frozenset((a, b))]
        for pair in [pair for pair in edges if b in pair]:
            moved = edges.setdefault(pair - {b} | {a}, [0, 0])
            moved[:] = np.add(moved, edges.pop(pair)).tolist()
    assert best_of(edges) >= threshold - slack


@pytest.mark.parametrize("name", VOLUMES)
def test_exact_agglomeration_gives_as_many_segments_as_waterz(name: str) -> None:
    merges = waterz_whole(*VOLUMES[name], 0.45, bins=0)[1]
    assert len(agglomerate(graph_of(name), 0.45).merges) == pytest.approx(len(merges), rel=0.01)


@pytest.mark.parametrize("threshold", [0.21, 0.5, 0.55, 0.75, 1.0])
@pytest.mark.parametrize("name", VOLUMES)
def test_binned_agglomeration_equals_waterz_merge_by_merge(name: str, threshold: float) -> None:
    expected, merges = waterz_whole(*VOLUMES[name], threshold, bins=256)
    history = agglomerate_binned(graph_of(name), threshold)
    assert history.merges[["a", "b", "c"]].tolist() == merges[["a", "b", "c"]].tolist()
    assert history.merges["score"] == pytest.approx(merges["score"], abs=2e-5)
    assert np.array_equal(segments(name, roots(history, np.unique(VOLUMES[name][1]), threshold)), expected)


def test_one_binned_history_holds_waterz_at_every_threshold() -> None:
    """Also between the borders of bins, where waterz stops at the first edge that is too dear.

    Not at k / 255, which is a score that float32 puts to either side.
    """
    history = agglomerate_binned(graph_of("noise"))
    assert not np.array_equal(history.merges["score"], history.merges["level"])
    for threshold in np.linspace(0.3, 0.7, 41):
        merges = waterz_whole(*VOLUMES["noise"], float(threshold), bins=256)[1]
        assert history.below(float(threshold))[["a", "b"]].tolist() == merges[["a", "b"]].tolist()


def test_binned_and_exact_are_not_the_same() -> None:
    """What a bin decides is not what the scores decide: why both exist."""
    graph = graph_of("noise")
    ids = np.unique(VOLUMES["noise"][1])
    assert not same_partition(roots(agglomerate(graph), ids, 0.5), roots(agglomerate_binned(graph), ids, 0.5))


def test_the_last_bin_holds_scores_of_one() -> None:
    """3-4 has score 1 and stands in front of 5-6 in the last bin, where waterz stops at threshold 1."""
    graph = np.array([(1, 2, 1, 200), (3, 4, 1, 0), (5, 6, 300, 255)], EDGE)
    fragments = np.zeros((1, 2, 700), np.uint64)
    fragments[0, :, 0], fragments[0, :, 2] = [1, 2], [3, 4]
    fragments[0, 0, 4:304], fragments[0, 1, 4:304] = 5, 6
    affinities = np.zeros((3, *fragments.shape), np.uint8)
    affinities[1, 0, 1, [0, 4]] = [200, 255]
    assert np.array_equal(contacts(fragments, affinities), graph)
    expected = waterz_whole(affinities, fragments, 1.0)[1]
    assert agglomerate_binned(graph, 1.0).merges[["a", "b"]].tolist() == expected[["a", "b"]].tolist() == [(1, 2)]


@pytest.mark.parametrize("shard", [(8, 40, 44), (1, 20, 22), (3, 7, 5)])
def test_shards_do_not_matter_to_graph_or_result(shard: Triple) -> None:
    assert np.array_equal(graph_of("cells", shard), graph_of("cells"))


def test_from_affinities_to_segments_shard_by_shard() -> None:
    """The whole way in shards, against waterz on the whole volume, numbered by first voxel."""
    affinities, fragments = VOLUMES["cells"]
    first = first_voxels(fragments, Box((0, 0, 0), SHAPE), SHAPE)
    table = lookup(agglomerate(graph_of("cells"), 0.5), first, 0.5)
    found = relabelled(fragments, table)
    assert same_partition(found, waterz_whole(affinities, fragments, 0.5, bins=0)[0])
    values, place = np.unique(found, return_index=True)
    assert values.tolist() == list(range(1, len(values) + 1))
    assert (np.diff(place) > 0).all()
    assert 1 < len(values) < len(first)


def test_waterz_is_called_safely() -> None:
    """Ids of any size, nothing overwritten, background left alone, nothing to do."""
    affinities, fragments = VOLUMES["background"]
    large = np.where(fragments > 0, fragments * np.uint64(2**40), fragments)
    kept = large.copy()
    found, merges = waterz_whole(affinities, large, 0.5)
    assert np.array_equal(large, kept)
    assert np.array_equal(found == 0, large == 0)
    assert np.array_equal(found, waterz_whole(affinities, fragments, 0.5)[0] * np.uint64(2**40))
    assert (merges["a"] % np.uint64(2**40) == 0).all()
    for value in (0, 7):  # no fragment at all, a single one
        found, merges = waterz_whole(affinities, np.full(SHAPE, value, np.uint64))
        assert (found == value).all()
        assert len(merges) == 0


BAD = [
    ({"threshold": 1.5}, r"threshold 1.5 is outside"),
    ({"threshold": np.nan}, r"threshold nan is outside"),
    ({"bins": 16}, "bins 16"),  # would be compiled when called
    ({"fragments": np.zeros((2, 2, 2), np.uint64)}, r"\(2, 2, 2\)"),
    ({"fragments": np.zeros(SHAPE, np.int32)}, "int32"),
]


@pytest.mark.parametrize(("changed", "reason"), BAD)
def test_bad_input_is_refused(changed: dict, reason: str) -> None:
    affinities, fragments = VOLUMES["noise"]
    with pytest.raises(ValueError, match=reason):
        waterz_whole(**{"affinities": affinities, "fragments": fragments, **changed})


def test_waterz_is_silent_and_standard_output_is_whole(capfd: pytest.CaptureFixture[str]) -> None:
    """What was written before and after comes out, also what Python held back, and nothing of what came between."""
    os.write(1, b"before ")
    waterz_whole(*VOLUMES["noise"], 0.5)
    with pytest.raises(ZeroDivisionError), silenced():
        os.write(1, b"lost" * (1 // 0))
    os.write(1, b"between ")
    with silenced(), silenced():
        os.write(1, b"twice ")
        ctypes.CDLL(None).printf(b"held back by C ")
    ctypes.CDLL(None).fflush(None)
    os.write(1, b"after")
    assert capfd.readouterr().out == "before between after"


def test_a_closed_standard_output_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    monkeypatch.setattr("sys.stdout", None)
    with silenced():
        pass
