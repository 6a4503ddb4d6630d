"""Mutex watershed against a plain one, and the traps of the library that does it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import variation_of_information

from emsr.geometry import Triple
from emsr.segmentation.fragments import pieces, watershed
from emsr.segmentation.mutex import NEAREST, mutex_watershed
from segmentable import cells, noise, same_partition

LONG: tuple[Triple, ...] = (*NEAREST, (0, -3, 0), (0, 2, -2), (-2, 0, 0), (1, 0, 1))


def naive(affinities: np.ndarray, offsets: tuple[Triple, ...], bias: list[float]) -> np.ndarray:
    """Wolf et al. 2018, algorithm 1: edges by strength; an attractive one merges unless a mutex forbids it."""
    shape = affinities.shape[1:]
    cluster = {place: {place} for place in np.ndindex(shape)}
    forbidden: set[frozenset[Triple]] = set()
    edges = []
    for channel, offset in enumerate(offsets):
        for place in np.ndindex(shape):
            other = tuple(np.add(place, offset).tolist())
            if other in cluster:
                weight = float(affinities[(channel, *place)]) - 255 * bias[channel]
                edges.append((-abs(weight), channel, place, other, weight > 0))
    for _, _, one, other, attractive in sorted(edges, key=lambda edge: edge[:3]):
        first, second = cluster[one], cluster[other]
        barred = any(frozenset((p, q)) in forbidden for p in first for q in second)
        if first is second or barred:
            continue
        if attractive:
            first |= second
            for place in second:
                cluster[place] = first
        else:
            forbidden.add(frozenset((one, other)))
    attracted = {end for *_, one, other, attractive in edges if attractive for end in (one, other)}
    labels = np.zeros(shape, np.int64)
    for place in attracted:
        labels[place] = 1 + int(np.ravel_multi_index(min(cluster[place]), shape))
    return labels


@pytest.mark.parametrize("offsets", [NEAREST, LONG])
@settings(max_examples=15)
@given(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)), st.integers(0, 999), st.booleans())
def test_labels_equal_the_definition(offsets: tuple[Triple, ...], shape: Triple, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    affinities = rng.integers(0, 256, (len(offsets), *shape), np.uint8)
    if ties:
        affinities = affinities // 64 * 64
    bias = rng.choice([0.3, 0.5, 0.7], len(offsets)).tolist()
    found, expected = mutex_watershed(affinities, offsets, bias), naive(affinities, offsets, bias)
    assert np.array_equal(found == 0, expected == 0)
    assert same_partition(found, expected)


def test_the_cluster_of_the_first_voxel_is_not_background() -> None:
    """mwatershed names a cluster after a voxel of it, and the first voxel is number 0."""
    for seed in range(20):
        affinities = noise((2, 5, 5), seed)
        affinities[:, 0, 0, 1] = affinities[:, 0, 1, 0] = 255  # the first voxel is attracted to two others
        labels = mutex_watershed(affinities)
        assert labels[0, 0, 0] == labels[0, 0, 1] != 0


def test_a_voxel_that_repels_all_is_background() -> None:
    affinities = np.full((3, 1, 1, 5), 255, np.uint8)
    affinities[2, 0, 0, 2:4] = 0
    assert (mutex_watershed(affinities) > 0).ravel().tolist() == [True, True, False, True, True]


def test_long_range_edges_keep_a_gap_in_a_membrane_shut() -> None:
    """Nearest neighbours alone leak through one weak place; an edge across it that repels more strongly does not."""
    affinities = np.full((4, 1, 3, 6), 200, np.uint8)
    affinities[2, 0, :, 3] = [100, 180, 100]
    affinities[3] = 0  # (0, 0, -3): the two sides are apart
    assert len(np.unique(mutex_watershed(affinities[:3]))) == 1
    labels = mutex_watershed(affinities, (*NEAREST, (0, 0, -3)))
    assert np.array_equal(labels[0, :, :3] == labels[0, 0, 0], np.ones((3, 3), bool))
    assert not (labels[0, :, 3:] == labels[0, 0, 0]).any()


def test_it_cuts_cells_as_watershed_does_but_not_the_membrane() -> None:
    affinities = cells((1, 60, 60), 4, size=12)
    affinities[0] = 0  # one section
    one, other = watershed(affinities), pieces(mutex_watershed(affinities))
    inside = (other > 0)[0]
    merge, split = variation_of_information(one[0][inside], other[0][inside])
    assert 0.5 < inside.mean() < 1
    assert merge < 0.5
    assert split < 0.5 + np.log2(len(np.unique(one)))


BAD = [
    ({"bias": 1.2}, "bias 1.2 is outside"),
    ({"bias": [0.5, 0.5]}, "2 values of bias for 3 offsets"),
    ({"offsets": NEAREST[::-1]}, "must start with"),  # x, y, z: channels in another order
    ({"offsets": (*NEAREST, (0, 0, 0))}, r"\(4, z, y, x\)"),  # four offsets, three channels
]


@pytest.mark.parametrize(("changed", "reason"), BAD)
def test_bad_input_is_refused(changed: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        mutex_watershed(noise((2, 3, 3), 0), **changed)
