"""The region graph: every contact once, exact sums, any shards, any order, any pieces."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr.geometry import ShardGrid, Triple
from emsr.segmentation import graph as graphs_of
from emsr.segmentation.graph import EDGE, check_graph, contacts, empty, merge_streams, merged, read_graph
from segmentable import noise, reader

shapes = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))


def some_fragments(shape: Triple, seed: int) -> np.ndarray:
    """Few ids, far apart, 0 among them."""
    ids = np.array([0, 3, 4, 2**40, 2**63 + 5], np.uint64)
    return ids[np.random.default_rng(seed).integers(0, len(ids), shape)]


def naive(fragments: np.ndarray, affinities: np.ndarray) -> list[tuple[int, ...]]:
    """Voxel by voxel."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place in np.ndindex(fragments.shape):
        for axis in range(3):
            below = list(place)
            below[axis] -= 1
            pair = sorted((int(fragments[place]), int(fragments[tuple(below)])))
            if below[axis] >= 0 and pair[0] != pair[1] and pair[0] != 0:
                found[pair[0], pair[1]].append(int(affinities[(axis, *place)]))
    return [(*pair, len(values), sum(values)) for pair, values in sorted(found.items())]


@settings(max_examples=40)
@given(shapes, st.integers(0, 999))
def test_contacts_equal_the_definition(shape: Triple, seed: int) -> None:
    fragments, affinities = some_fragments(shape, seed), noise(shape, seed)
    graph = contacts(fragments, affinities)
    check_graph(graph)
    assert graph.tolist() == naive(fragments, affinities)


def test_a_hand_made_section() -> None:
    fragments = np.array([[[1, 1, 2], [1, 3, 2]]], np.uint64)
    affinities = np.arange(18, dtype=np.uint8).reshape(3, 1, 2, 3)
    # 1-2 along x at (0, 2); 1-3 along y at (1, 1) and along x there; 2-3 along x at (1, 2)
    assert contacts(fragments, affinities).tolist() == [(1, 2, 1, 14), (1, 3, 2, 10 + 16), (2, 3, 1, 17)]


@settings(max_examples=30)
@given(shapes, st.tuples(*[st.integers(1, 4)] * 3), st.integers(0, 999))
def test_shards_add_up_in_any_order(shape: Triple, shard: Triple, seed: int) -> None:
    fragments, affinities = some_fragments(shape, seed), noise(shape, seed)
    graphs = [read_graph(box, reader(fragments), reader(affinities)) for box in ShardGrid(shape, shard).boxes()]
    random.Random(seed).shuffle(graphs)
    assert np.array_equal(merged(graphs), contacts(fragments, affinities))


def in_pieces(graph: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The graph cut at random places, empty pieces among them."""
    cuts = np.sort(rng.integers(0, len(graph) + 1, rng.integers(0, 6)))
    yield from np.split(graph, cuts)


@settings(max_examples=60)
@given(st.integers(0, 6), st.integers(2, 7), st.integers(0, 9999))
def test_streams_merge_to_the_same_in_groups_of_any_size(count: int, at_once: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graphs = []
    for _ in range(count):
        graph = empty(int(rng.integers(0, 30)))
        graph["u"] = rng.integers(1, 6, len(graph))
        graph["v"] = graph["u"] + rng.integers(1, 6, len(graph)).astype(np.uint64)
        graph["count"], graph["sum"] = 1, rng.integers(0, 256, len(graph))
        graphs.append(merged([graph]))
    with mock.patch.object(graphs_of, "AT_ONCE", at_once):
        found = list(merge_streams([in_pieces(graph, rng) for graph in graphs]))
    assert np.array_equal(np.concatenate([empty(), *found]), merged(graphs))
    assert all(len(piece) for piece in found)


def test_merging_holds_one_piece_of_each_source() -> None:
    """A source is asked for its next piece only when the one before is used up."""
    asked = []

    def source(name: int, step: int) -> Iterator[np.ndarray]:
        for number in range(20):
            asked.append((name, number))
            graph = empty(5)
            graph["u"], graph["v"] = 1, 10 + step * (5 * number + np.arange(5))
            graph["count"] = graph["sum"] = 1
            yield graph

    stream = merge_streams([source(0, 1), source(1, 50)])
    next(stream)
    assert asked == [(0, 0), (1, 0), (0, 1)]
    list(stream)
    assert len(asked) == 40


def test_a_step_of_merging_looks_at_few_sources() -> None:
    """However many there are; otherwise time grows with the square of the shards."""
    count = 300
    sources = [iter(np.array([[(1 + row, 10**6 + k, 1, 1)] for row in range(3)], EDGE)) for k in range(count)]
    with mock.patch.object(graphs_of, "_behind", wraps=graphs_of._behind) as looked:
        assert sum(map(len, merge_streams(sources))) == 3 * count
    assert looked.call_count <= 64 * 3 * count, "at most 64 for each piece"


def test_sums_do_not_overflow() -> None:
    graph = np.array([(1, 2, 2**40, 255 * 2**40)], EDGE)
    assert merged([graph] * 3).tolist() == [(1, 2, 3 * 2**40, 3 * 255 * 2**40)]


def test_a_box_without_contacts_has_an_empty_graph() -> None:
    for value in (0, 9):  # no fragment at all, a single one
        assert len(contacts(np.full((2, 3, 3), value, np.uint64), noise((2, 3, 3), 0))) == 0
    assert len(merged([])) == 0
    assert list(merge_streams([])) == []


BAD_FRAGMENTS = [
    (np.zeros((2, 3, 3), np.int64), "int64"),  # ids are uint64
    (np.zeros((4, 3, 3), np.uint64), r"\(4, 3, 3\)"),  # two voxels more
    (np.zeros((3, 3), np.uint64), r"\(3, 3\)"),  # a section without its axis
]


@pytest.mark.parametrize(("fragments", "named"), BAD_FRAGMENTS)
def test_bad_fragments_are_refused(fragments: np.ndarray, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        contacts(fragments, noise((2, 3, 3), 0))


BAD_GRAPHS = [
    ([(1, 3, 1, 0), (1, 2, 1, 0)], "row 1"),  # not sorted by v
    ([(2, 3, 1, 0), (1, 4, 1, 0)], "row 1"),  # not sorted by u
    ([(1, 2, 1, 0), (1, 2, 1, 0)], "row 1"),  # a pair twice: shards that were not merged
    ([(2, 1, 1, 0)], "row 0"),  # u and v the wrong way round
    ([(0, 1, 1, 0)], "row 0"),  # background has no contacts
    ([(1, 2, 0, 0)], "row 0"),  # no contact at all
    ([(1, 2, 1, 256)], "row 0"),  # an affinity above 1
]


@pytest.mark.parametrize(("rows", "named"), BAD_GRAPHS)
def test_bad_graphs_are_refused(rows: list[tuple[int, ...]], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check_graph(np.array(rows, EDGE))


def test_a_graph_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="not one row"):
        check_graph(np.zeros((3, 2), np.uint64))
    check_graph(empty())
