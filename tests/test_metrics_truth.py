"""What of a truth is counted: border tolerance in nanometres against distance transforms, and enclosed organelles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import find_boundaries

from emsr.metrics.enclosed import Which, absorb_enclosed, enclosing
from emsr.metrics.tolerance import Tolerance, dilated
from emsr.metrics.truth import border_halo, borders, near_border, section_objects

SIZES = st.sampled_from([(10.0, 10.0, 10.0), (40.0, 4.0, 4.0), (47.5, 4.6, 4.6), (30.0, 6.0, 8.0), (0.1, 0.1, 0.1)])
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))


def blocks(seed: int, shape: tuple[int, int, int], objects: int = 4) -> np.ndarray:
    """Random labels in blocks of 1 x 3 x 3 voxels, cut to ``shape``."""
    coarse = np.random.default_rng(seed).integers(0, objects, shape).astype(np.uint64)
    return coarse.repeat(3, axis=1).repeat(3, axis=2)[:, : shape[1], : shape[2]]


def distance(marked: np.ndarray, voxel_size: tuple[float, float, float], in_plane: bool) -> np.ndarray:
    """Distance in nm of each voxel from the nearest marked one, by scipy; infinite where there is none."""
    if in_plane:
        return np.stack([distance(section[None], voxel_size, False)[0] for section in marked])
    if not marked.any():
        return np.full(marked.shape, np.inf)
    return distance_transform_edt(~marked, sampling=voxel_size)


@given(st.integers(0, 2**31), SHAPES, SIZES, st.integers(0, 6), st.booleans())
def test_dilation_is_the_distance_transform_at_every_level(
    seed: int, shape: tuple[int, int, int], size: tuple[float, float, float], reach: int, in_plane: bool
) -> None:
    values = np.random.default_rng(seed).choice(np.array([0, 0, 0, 9, 200], np.uint8), shape)
    nm = reach * size[2]
    result = dilated(values, Tolerance(nm, size, in_plane))
    for level in (9, 200):
        near = distance(values >= level, size, in_plane) <= nm * (1 + 1e-9)
        np.testing.assert_array_equal(result >= level, near)


@given(st.integers(0, 2**31), SHAPES, SIZES, st.booleans())
def test_near_border_is_the_distance_from_border_voxels(
    seed: int, shape: tuple[int, int, int], size: tuple[float, float, float], in_plane: bool
) -> None:
    labels, nm = blocks(seed, shape), 2.5 * size[1]
    thick = [find_boundaries(part, mode="thick", connectivity=1) for part in labels] if in_plane else None
    border = np.stack(thick) if thick else find_boundaries(labels, mode="thick", connectivity=1)
    np.testing.assert_array_equal(borders(labels, in_plane), border)
    expected = distance(border, size, in_plane) <= nm
    np.testing.assert_array_equal(near_border(labels, Tolerance(nm, size, in_plane)), expected)


@given(
    st.integers(0, 2**31), st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)), SIZES, st.booleans()
)
def test_a_shard_with_its_halo_sees_the_same(
    seed: int, shape: tuple[int, int, int], size: tuple[float, float, float], in_plane: bool
) -> None:
    labels, tolerance = blocks(seed, shape), Tolerance(3 * size[1], size, in_plane)
    rng = np.random.default_rng(seed)
    start = [int(rng.integers(0, length)) for length in shape]
    stop = [int(rng.integers(first, length)) + 1 for first, length in zip(start, shape, strict=True)]
    low = [max(first - halo, 0) for first, halo in zip(start, border_halo(tolerance), strict=True)]
    read = tuple(slice(a, b + halo) for a, b, halo in zip(low, stop, border_halo(tolerance), strict=True))
    core = tuple(slice(first - a, last - a) for first, last, a in zip(start, stop, low, strict=True))
    shard = near_border(labels[read], tolerance)[core]
    whole = tuple(map(slice, start, stop))
    np.testing.assert_array_equal(shard, near_border(labels, tolerance)[whole])


LINE = np.array([[[1, 1, 1, 1, 1, 2, 2, 2, 2, 2]]], np.uint64)  # the border lies between 4 and 5
BY_HAND = [
    (0.0, [], "0 nm leaves nothing out"),
    (1.0, [4, 5], "the border voxels themselves"),
    (4.0, [3, 4, 5, 6], "one voxel of 4 nm further"),
    (7.9, [3, 4, 5, 6], "not quite two"),
]


@pytest.mark.parametrize(("nm", "expected", "reason"), BY_HAND)
def test_border_tolerance_by_hand(nm: float, expected: list[int], reason: str) -> None:
    near = near_border(LINE, Tolerance(nm, (40, 4, 4), in_plane=True))
    assert np.flatnonzero(near).tolist() == expected, reason


def test_in_plane_ignores_what_changes_between_sections() -> None:
    labels = np.ones((2, 3, 3), np.uint64)
    labels[1] = 2
    assert near_border(labels, Tolerance(25, (40, 4, 4))).all()
    assert not near_border(labels, Tolerance(25, (40, 4, 4), in_plane=True)).any()
    assert border_halo(Tolerance(25, (40, 4, 4))) == (1, 7, 7)
    assert border_halo(Tolerance(25, (40, 4, 4), in_plane=True)) == (0, 7, 7)


@pytest.mark.parametrize(
    ("nm", "size", "words"),
    [
        (-1.0, (4, 4, 4), "tolerance of -1.0 nm"),
        (float("nan"), (4, 4, 4), "tolerance of nan nm"),
        (5.0, (4, 0, 4), "voxel size"),
        (5.0, (4, 4), "three lengths"),
    ],
)
def test_bad_tolerance(nm: float, size: tuple[float, float, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tolerance(nm, size)


def test_dilation_refuses_what_it_would_round() -> None:
    with pytest.raises(ValueError, match="float64"):
        dilated(np.zeros((2, 2, 2)), Tolerance(1, (1, 1, 1)))


def test_objects_of_a_section_are_connected_over_edges() -> None:
    section = np.array([[2**63 + 1, 0, 2**63 + 1], [2**63, 2**63 + 1, 0]], np.uint64)
    objects = section_objects(section)
    assert objects[0, 1] == objects[1, 2] == 0
    assert len(np.unique(objects[section > 0])) == 4
    assert section_objects(np.full((2, 2), 7)).tolist() == [[1, 1], [1, 1]]


def cell() -> np.ndarray:
    """Cell 1 with organelle 5 inside; cell 2 with organelle 6 at the cell's border and 7 inside 8, inside 2."""
    labels = np.ones((7, 9, 20), np.uint64)
    labels[:, :, 10:] = 2
    labels[3, 4, 4:6] = 5
    labels[3, 4, 10] = 6  # touches 1 too
    labels[2:5, 3:6, 14:17] = 8
    labels[3, 4, 15] = 7
    return labels


def changed(labels: np.ndarray, mapping: dict[int, int]) -> np.ndarray:
    """Labels with some ids replaced, one after the other."""
    labels = labels.copy()
    for inner, outer in mapping.items():
        labels[labels == inner] = outer
    return labels


WHICH = [
    (Which(max_voxels=2), {5: 1, 7: 8}, "small ones; 8 is too large and 6 touches two cells"),
    (Which(max_voxels=30), {5: 1, 7: 2, 8: 2}, "7 goes along with 8 around it"),
    (Which(ids=[7]), {7: 8}, "only the listed one"),
    (Which(ids=[8, 7, 99]), {7: 2, 8: 2}, "in any order, and a listed id may lie elsewhere in the volume"),
    (Which(max_voxels=1, share=0.8), {6: 2, 7: 8}, "5 of the 6 faces of 6 touch 2"),
]


@pytest.mark.parametrize(("which", "mapping", "reason"), WHICH)
def test_enclosed_objects_are_absorbed(which: Which, mapping: dict[int, int], reason: str) -> None:
    labels = cell()
    before = labels.copy()
    np.testing.assert_array_equal(absorb_enclosed(labels, which), changed(labels, mapping), err_msg=reason)
    np.testing.assert_array_equal(labels, before)


def test_an_object_at_the_volumes_end_goes_only_if_listed() -> None:
    labels = np.ones((3, 5, 5), np.uint8)
    labels[0, 2, 2] = 9
    assert enclosing(labels, Which(max_voxels=5)) == {}
    assert enclosing(labels, Which(ids=[9])) == {9: 1}


def test_in_a_single_section_its_faces_are_no_ends() -> None:
    labels = np.ones((1, 5, 5), np.uint8)
    labels[0, 2, 2] = 9
    assert enclosing(labels, Which(max_voxels=5)) == {9: 1}


def test_background_encloses_nothing() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 4
    np.testing.assert_array_equal(absorb_enclosed(labels, Which(max_voxels=5)), labels)


def test_bad_wishes() -> None:
    with pytest.raises(ValueError, match=r"object 6 is not enclosed: it touches 2 labels, most of all 2"):
        absorb_enclosed(cell(), Which(ids=[6]))
    with pytest.raises(ValueError, match="object 8 is not enclosed: it touches 2 labels"):  # what is in it stays
        absorb_enclosed(cell(), Which(ids=[8]))
    with pytest.raises(ValueError, match="object 2 is not enclosed"):  # the larger of two that touch
        absorb_enclosed(np.array([[[1, 2, 2]]]), Which(ids=[2]))
    with pytest.raises(ValueError, match="nothing to absorb"):
        Which()
    with pytest.raises(ValueError, match=r"share 0\.3"):
        Which(max_voxels=5, share=0.3)
    with pytest.raises(ValueError, match="labels of float64"):
        enclosing(np.zeros((2, 2, 2)), Which(max_voxels=5))
