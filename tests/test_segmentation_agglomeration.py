"""Exact agglomeration is one queue's, whatever finds it: rounds, parts, pieces; ties included."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr.segmentation import agglomeration
from emsr.segmentation.agglomeration import agglomerate, numbered, parts
from emsr.segmentation.graph import EDGE, empty, merged
from emsr.segmentation.history import History
from emsr.segmentation.lookup import roots
from emsr.segmentation.streamed import Source, agglomerate_streamed
from segmentable import same_partition

UNTIL = [0.0, 0.3, 0.5, 1.0]
graphs = st.builds(
    lambda nodes, seed, ties: random_graph(nodes, seed, ties), st.integers(2, 14), st.integers(0, 9999), st.booleans()
)


def random_graph(nodes: int, seed: int, ties: bool) -> np.ndarray:
    """About three edges a node between ids with gaps; with ties nearly all affinities are equal."""
    rng = np.random.default_rng(seed)
    graph = empty(3 * nodes)
    ids = np.sort(rng.choice(1000, nodes, replace=False) + 1).astype(np.uint64)
    u, v = rng.integers(0, nodes, (2, len(graph)))
    graph["u"], graph["v"] = ids[np.minimum(u, v)], ids[np.maximum(u, v)]
    graph["count"] = rng.integers(1, 4, len(graph))
    values = rng.choice([85, 170, 255], len(graph)) if ties else rng.integers(0, 256, len(graph))
    graph["sum"] = graph["count"] * values
    return merged([graph[graph["u"] != graph["v"]]])


def one_queue(graph: np.ndarray, until: float) -> list[tuple[int, int, float]]:
    """The definition in fractions: again and again the first pair by (score, last)."""
    rows = [
        ({int(edge["u"])}, {int(edge["v"])}, int(edge["count"]), int(edge["sum"]), n) for n, edge in enumerate(graph)
    ]
    found = []
    while rows:
        first = min(rows, key=lambda row: (1 - Fraction(row[3], 255 * row[2]), row[4]))
        score = 1 - Fraction(first[3], 255 * first[2])
        if not score < Fraction(until):
            break
        region = first[0] | first[1]
        found.append((*sorted((min(first[0]), min(first[1]))), float(score)))
        together: dict[frozenset[frozenset[int]], list[int]] = {}
        for one, other, count, total, last in rows:
            ends = frozenset(frozenset(region if end <= region else end) for end in (one, other))
            if len(ends) == 2:
                sums = together.setdefault(ends, [0, 0, 0])
                together[ends] = [sums[0] + count, sums[1] + total, max(sums[2], last)]
        rows = [(*map(set, ends), *sums) for ends, sums in together.items()]
    return found


def listed(history: History) -> list[tuple[int, int, float]]:
    assert np.array_equal(history.merges["c"], history.merges["a"])
    assert np.array_equal(history.merges["level"], history.merges["score"])
    return [(int(merge["a"]), int(merge["b"]), float(merge["score"])) for merge in history.merges]


@pytest.mark.parametrize("until", UNTIL)
@settings(max_examples=60)
@given(graphs)
def test_history_equals_one_queue_in_fractions(until: float, graph: np.ndarray) -> None:
    found, expected = listed(agglomerate(graph, until)), one_queue(graph, until)
    assert [merge[:2] for merge in found] == [merge[:2] for merge in expected]
    assert [merge[2] for merge in found] == pytest.approx([merge[2] for merge in expected], abs=1e-15)


@settings(max_examples=20)
@given(st.integers(0, 999), st.booleans())
def test_rounds_and_queue_find_the_same(seed: int, ties: bool) -> None:
    graph = random_graph(300, seed, ties)
    found = []
    for few in (0, 100, 10**9):  # one round then the queue, the default, rounds to the end
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(agglomeration, "FEW", few)
            found.append(listed(agglomerate(graph)))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 250


@settings(max_examples=20)
@given(st.integers(0, 999), st.booleans())
def test_a_smaller_threshold_is_the_beginning_of_the_history(seed: int, ties: bool) -> None:
    graph = random_graph(60, seed, ties)
    whole = agglomerate(graph, 1.0)
    for until in UNTIL:
        assert np.array_equal(whole.below(until), agglomerate(graph, until).merges)


@settings(max_examples=20)
@given(st.integers(0, 999), st.booleans())
def test_parts_are_agglomerated_apart(seed: int, ties: bool) -> None:
    graph, until = random_graph(80, seed, ties), 0.25
    fragments, edges = numbered(graph)
    part = parts(edges, len(fragments), until)
    of_u = part[np.searchsorted(fragments, graph["u"])]
    of_v = part[np.searchsorted(fragments, graph["v"])]
    apart = [agglomerate(graph[(of_u == number) & (of_v == number)], until).merges for number in np.unique(part)]
    whole = agglomerate(graph, until)
    assert sorted(np.concatenate(apart).tolist()) == sorted(whole.merges.tolist())
    assert len(np.unique(part)) > 1


class Shelf:
    """Keeps pieces in a list, and counts what is on it."""

    def __init__(self) -> None:
        self.kept: dict[Source, list[np.ndarray]] = {}
        self.longest = 0

    def keep(self, pieces: Iterator[np.ndarray]) -> Source:
        held = [piece.copy() for piece in pieces]
        self.longest = max([self.longest, *map(len, held)])

        def source() -> Iterator[np.ndarray]:
            return iter(held)

        self.kept[source] = held
        return source

    def drop(self, source: Source) -> None:
        del self.kept[source]


@pytest.mark.parametrize("until", UNTIL)
@settings(max_examples=12)
@given(st.integers(0, 999), st.booleans(), st.integers(1, 90))
def test_out_of_core_is_the_same_bit_for_bit(until: float, seed: int, ties: bool, rows: int) -> None:
    graph, shelf = random_graph(40, seed, ties), Shelf()
    pieces = np.split(graph, range(rows, len(graph), rows))
    found = agglomerate_streamed(lambda: iter(pieces), np.arange(1, 1001, dtype=np.uint64), until, shelf, rows)
    assert np.array_equal(found.merges, agglomerate(graph, until).merges)
    assert not shelf.kept
    assert shelf.longest <= rows


@pytest.mark.parametrize("seed", range(3))
def test_a_region_that_grows_by_one_at_a_time(seed: int) -> None:
    """A star has one merge in each round, and each changes nothing but the number of its arms."""
    graph = np.zeros(500, EDGE)
    graph["u"], graph["v"], graph["count"] = 1, np.arange(2, 502), 1000
    graph["sum"] = np.random.default_rng(seed).permutation(500) + 200_000
    expected = [int(leaf) for leaf in graph["v"][np.argsort(-graph["sum"])]]
    assert [merge[1] for merge in listed(agglomerate(graph))] == expected


def test_the_mean_is_over_contacts_and_not_over_edges() -> None:
    """1-2 merge first; together they touch 3 with 1 * 255 + 9 * 0 of 10 contacts, which is far from a merge."""
    graph = np.array([(1, 2, 1, 255), (1, 3, 1, 254), (2, 3, 9, 0)], EDGE)
    assert listed(agglomerate(graph, 0.5)) == [(1, 2, 0.0)]
    assert listed(agglomerate(graph, 1.0)) == [(1, 2, 0.0), (1, 3, pytest.approx(1 - 254 / 2550))]


def test_a_score_at_the_threshold_does_not_merge() -> None:
    """255 of 2 contacts is a mean of exactly 0.5, as waterz stops at scores that are not below the threshold."""
    graph = np.array([(1, 2, 2, 255)], EDGE)
    assert len(agglomerate(graph, 0.5).merges) == 0
    assert len(agglomerate(graph, 0.5000001).merges) == 1


def test_without_ties_the_numbers_of_fragments_do_not_matter() -> None:
    graph = random_graph(200, 3, ties=False)
    graph["count"] *= 1009
    graph["sum"] = graph["sum"] * 1009 + np.arange(len(graph)) % 1009  # no two scores are equal
    graph["sum"] = np.minimum(graph["sum"], 255 * graph["count"])
    ids = np.arange(1, 1001, dtype=np.uint64)
    other = np.random.default_rng(0).permutation(ids)
    turned = graph.copy()
    u, v = (other[graph[name].astype(int) - 1] for name in ("u", "v"))
    turned["u"], turned["v"] = np.minimum(u, v), np.maximum(u, v)
    one, two = roots(agglomerate(graph), ids, 0.4), roots(agglomerate(merged([turned])), ids, 0.4)
    assert same_partition(one, two[other.astype(int) - 1])


def test_a_graph_without_edges_has_no_merges() -> None:
    """No fragment, or a single one."""
    assert len(agglomerate(empty()).merges) == 0
    shelf = Shelf()
    found = agglomerate_streamed(lambda: iter([]), np.empty(0, np.uint64), 0.5, shelf)
    assert len(found.merges) == 0
    assert found.until == 0.5


@pytest.mark.parametrize("until", [-0.1, 1.1, np.nan, np.inf])
def test_a_threshold_outside_is_refused(until: float) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        agglomerate(random_graph(5, 0, ties=True), until)
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        agglomerate_streamed(lambda: iter([]), np.empty(0, np.uint64), until, Shelf())


def test_bad_pieces_are_refused() -> None:
    ids = np.arange(1, 9, dtype=np.uint64)
    graph = np.array([(1, 2, 1, 9), (3, 9, 1, 9)], EDGE)
    with pytest.raises(ValueError, match="not behind"):
        agglomerate_streamed(lambda: iter([graph[:1], graph[:1]]), ids, 0.5, Shelf())
    with pytest.raises(ValueError, match="not in the table of fragments"):
        agglomerate_streamed(lambda: iter([graph]), ids, 0.5, Shelf())
    with pytest.raises(ValueError, match="at least 1"):
        agglomerate_streamed(lambda: iter([graph]), ids, 0.5, Shelf(), rows=0)
