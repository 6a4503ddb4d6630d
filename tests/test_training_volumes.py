"""Affinities from labels and patches with labels, on volumes of a few voxels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from emsr.models.stage import Stage
from emsr.training.volumes import LabelledSeries, Spot, VolumePatches, VolumeRequest, affinities, widened
from labelled import ROUGH, STAGE, series, tissue

LARGE = 2**53  # the first whole number that float64 cannot tell from the next


def ids(*rows: list[int]) -> np.ndarray:
    """One section of labels."""
    return np.array([rows], np.uint64)


@pytest.mark.parametrize(
    ("before", "border", "after", "why"),
    [
        (ids([1, 1, 1, 2, 2, 2]), 0, ids([1, 1, 1, 2, 2, 2]), "border 0 changes nothing"),
        (ids([1, 1, 1, 2, 2, 2]), 1, ids([1, 1, 0, 0, 2, 2]), "each object loses one pixel"),
        (ids([1, 1, 1, 2, 2, 2]), 2, ids([1, 0, 0, 0, 0, 2]), "or two"),
        (ids([1, 1, 0, 2, 2]), 1, ids([1, 1, 0, 2, 2]), "one pixel of background is border enough"),
        (ids([1, 1, 0, 2, 2]), 2, ids([1, 0, 0, 0, 2]), "but not for a border of two"),
        (ids([1, 1, 0, 0, 0]), 1, ids([1, 1, 0, 0, 0]), "towards background nothing is lost"),
        (ids([1, 1, 1], [1, 1, 1], [1, 1, 2]), 1, ids([1, 1, 1], [1, 0, 0], [1, 0, 0]), "corners touch too"),
        (ids([LARGE, LARGE, LARGE + 1]), 1, ids([LARGE, 0, 0]), "ids are compared as whole numbers"),
        (ids([2**64 - 1, 2**64 - 1, 2**64 - 1]), 1, ids([2**64 - 1] * 3), "the largest id is no filling"),
        (ids([2**64 - 1, 2**64 - 1, 1]), 1, ids([2**64 - 1, 0, 0]), "and has borders"),
        (np.array([[[1]], [[2]]], np.uint64), 3, np.array([[[1]], [[2]]], np.uint64), "sections do not touch"),
    ],
)
def test_borders_widen_in_the_plane(before: np.ndarray, border: int, after: np.ndarray, why: str) -> None:
    np.testing.assert_array_equal(widened(before, border), after, err_msg=why)


@settings(max_examples=60)
@given(arrays(np.uint64, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3)), st.integers(0, 3))
def test_widening_is_its_definition(labels: np.ndarray, border: int) -> None:
    expected = labels.copy()
    for z, y, x in np.ndindex(labels.shape):
        window = labels[z, max(y - border, 0) : y + border + 1, max(x - border, 0) : x + border + 1]
        if len(set(window.ravel().tolist()) - {0}) > 1:
            expected[z, y, x] = 0
    np.testing.assert_array_equal(widened(labels, border), expected)


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_labels_of_another_type_are_one_line(kind: type) -> None:
    with pytest.raises(ValueError, match=r"labels are (float32|int64), but ids count from 0: convert them to uint64"):
        widened(np.ones((1, 2, 2), kind), 1)


def test_affinities_by_hand() -> None:
    labels = np.array([[[1, 1, 2], [0, 1, 2]], [[1, 2, 2], [0, 0, 2]]], np.uint64)
    found, known = affinities(labels)
    z = [[[0, 0, 0], [0, 0, 0]], [[1, 0, 1], [0, 0, 1]]]
    y = [[[0, 0, 0], [0, 1, 1]], [[0, 0, 0], [0, 0, 1]]]
    x = [[[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 0]]]
    np.testing.assert_array_equal(found, np.array([z, y, x], bool))
    assert not known[0, 0].any()
    assert not known[1, :, 0].any()
    assert not known[2, :, :, 0].any()
    assert known.sum() == 6 + 6 + 8, "all that have a lower neighbour"


def test_one_unknown_voxel_hides_its_six_affinities() -> None:
    seen = np.ones((3, 3, 3), bool)
    seen[1, 1, 1] = False
    found, known = affinities(np.ones((3, 3, 3), np.uint64), seen)
    hidden = affinities(np.ones((3, 3, 3), np.uint64))[1] & ~known
    assert [tuple(row) for row in np.argwhere(hidden)] == [
        *((0, 1, 1, 1), (0, 2, 1, 1)),
        *((1, 1, 1, 1), (1, 1, 2, 1)),
        *((2, 1, 1, 1), (2, 1, 1, 2)),
    ]
    assert not found[hidden].any()


@settings(max_examples=40)
@given(arrays(np.uint64, st.tuples(*[st.integers(1, 5)] * 3), elements=st.sampled_from([0, 1, LARGE, LARGE + 1])))
def test_objects_come_back_from_affinities(labels: np.ndarray) -> None:
    """Voxels joined by affinities, by SciPy, are the connected pieces of the labels, by scikit-image."""
    found, _ = affinities(labels)
    number = np.arange(labels.size).reshape(labels.shape)
    strides = (number.shape[1] * number.shape[2], number.shape[2], 1)
    pairs = np.concatenate([[number[f], number[f] - s] for f, s in zip(found, strides, strict=True)], axis=1)
    graph = coo_array((np.ones(pairs.shape[1]), pairs), shape=(labels.size, labels.size))
    pieces = connected_components(graph, directed=False)[1].reshape(labels.shape)
    small = np.searchsorted(np.array([0, 1, LARGE, LARGE + 1], np.uint64), labels)
    expected = label(small, connectivity=1, background=0)
    both = set(zip(pieces[small > 0].tolist(), expected[small > 0].tolist(), strict=True))
    assert len(both) == len({a for a, _ in both}) == len({b for _, b in both})
    assert not np.isin(pieces[small == 0], pieces[small > 0]).any()


class Watched:
    """An array that remembers which sections were read."""

    def __init__(self, voxels: np.ndarray) -> None:
        self.voxels, self.shape, self.seen = voxels, voxels.shape, set[int]()

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        self.seen |= set(range(self.shape[0])[box[0]])
        return self.voxels[box]


def patches(
    stage: Stage = STAGE, of: Any = None, window: Any = (4, 10, 10), target: Any = (4, 10, 10)
) -> VolumePatches:
    return VolumePatches([of or series()], VolumeRequest(window, target, stage), 0, "x")


@pytest.mark.parametrize("border", [0, 1, 2])
@pytest.mark.parametrize(
    ("window", "target", "why"),
    [
        ((4, 10, 10), (4, 10, 10), "as large as the input"),
        ((6, 16, 16), (2, 6, 6), "the middle of the input, whose rim reaches beyond the volume"),
        ((12, 16, 16), (10, 12, 12), "more sections than the range has"),
    ],
)
def test_patches_are_crops_of_the_whole_volumes_affinities(border: int, window: Any, target: Any, why: str) -> None:
    one = series([(2, 10)], bad={5})
    seen = np.zeros(one.image.shape, bool)
    seen[2:10] = True
    seen[5] = False
    whole, known = affinities(widened(one.labels[:, :, :], border), seen)
    halo = [(w - t) // 2 for w, t in zip(window, target, strict=True)]
    drawn = patches(replace(STAGE, border=border), one, window, target)
    for batch in [*drawn.fixed(12), drawn.batch(0)]:
        for place, image, found, sure in zip(batch.places, batch.image, batch.target, batch.known, strict=True):
            lower = [place.z + 2, place.y, place.x]
            box = tuple(slice(a, a + n) for a, n in zip(lower, (min(target[0], 8), *target[1:]), strict=True))
            inside = (slice(0, 8), slice(None), slice(None))
            np.testing.assert_array_equal(sure[:, *inside], known[:, *box], err_msg=why)
            np.testing.assert_array_equal(found[:, *inside], whole[:, *box] & known[:, *box], err_msg=why)
            assert not sure[:, 8:].any(), "beyond the range nothing is known"
            middle = image[0][tuple(slice(h, h + s.stop - s.start) for h, s in zip(halo, box, strict=True))]
            np.testing.assert_array_equal(middle, one.image[box], err_msg=why)


def test_the_rim_of_an_input_is_mirrored_at_the_ends_of_its_range() -> None:
    one = series([(3, 9)])
    image = patches(of=one, window=(8, 16, 16), target=(2, 10, 10)).read([(Spot(0, 0, 0, 0, 0), None)]).image[0, 0]
    expected = np.pad(one.image[3:8, :13, :13], ((3, 0), (3, 0), (3, 0)), mode="reflect")
    np.testing.assert_array_equal(image, expected)


def test_patches_never_leave_their_range() -> None:
    image, labels = (Watched(part) for part in tissue())
    drawn = patches(ROUGH, LabelledSeries("a", image, labels, ((2, 6), (9, 12))), (8, 16, 16), (4, 10, 10))
    for step in range(40):
        drawn.batch(step)
    drawn.fixed(6)
    assert image.seen == labels.seen == {2, 3, 4, 5, 9, 10, 11}


def test_which_patches_depends_on_seed_stream_and_step_alone() -> None:
    def made(seed: int, stream: str, step: int) -> bytes:
        batch = VolumePatches([series(), series(seed=1)], VolumeRequest((4, 10, 10), (4, 10, 10), ROUGH), seed, stream)
        found = batch.batch(step)
        return b"".join(part.tobytes() for part in (found.image, found.target, found.known))

    assert made(1, "a", 2) == made(1, "a", 2)
    assert len({made(1, "a", 2), made(2, "a", 2), made(1, "b", 2), made(1, "a", 3)}) == 4


def test_all_places_and_series_occur_but_none_with_only_bad_sections() -> None:
    several = VolumePatches(
        [series([(0, 6), (6, 12)], bad=range(6)), series(seed=1)],
        VolumeRequest((4, 10, 10), (4, 10, 10), STAGE),
        0,
        "x",
    )
    places = [place for step in range(200) for place in several.batch(step).places]
    assert {(p.series, p.run) for p in places} == {(0, 1), (1, 0)}
    assert {p.z for p in places if p.series} == set(range(9))
    assert {p.y for p in places} == set(range(21))
    assert {p.x for p in places} == set(range(17))
    assert all(batch.known.any() for batch in several.fixed(20))


@pytest.mark.parametrize("seed", range(4))
def test_image_and_affinities_are_deformed_alike(seed: int) -> None:
    """Turned, upside down and with shifted sections, the image is still the labels, and shows its own affinities."""
    stage = replace(STAGE, border=0, batch=8, augment=True, shift_share=0.7, shift=3)
    plain, moved = replace(stage, augment=False, shift_share=0), patches(stage).batch(seed)
    expected = [affinities(image[0]) for image in moved.image]
    expected = [(found & (image[0] > 0), known) for (found, known), image in zip(expected, moved.image, strict=True)]
    for (found, known), target, sure in zip(expected, moved.target, moved.known, strict=True):
        np.testing.assert_array_equal(found[known & sure], target[known & sure])
    assert not np.array_equal(patches(plain).batch(seed).image, moved.image)


@pytest.mark.parametrize(("window", "target"), [((2, 9, 9), (2, 9, 9)), ((6, 15, 15), (2, 9, 9))])
def test_a_turned_patch_is_the_volume_turned_about_its_middle(window: Any, target: Any) -> None:
    """By SciPy from whole sections: image and affinities, in the middle of the volume, where all is known."""
    one = series()
    stage = replace(STAGE, border=0, rotation_share=1.0, rotation=180.0)
    made = patches(stage, one, window, target).read([(Spot(0, 0, 5, 10, 8), np.random.default_rng(4))])
    numbers = np.random.default_rng(4)
    numbers.random()
    angle = np.deg2rad(numbers.uniform(-180, 180))
    z, y, x = np.meshgrid(np.arange(-1, 2), np.arange(-5, 5), np.arange(-5, 5), indexing="ij")
    turned = [5 + z, 14 + np.cos(angle) * y + np.sin(angle) * x, 12 + np.cos(angle) * x - np.sin(angle) * y]
    halo = [(w - t) // 2 for w, t in zip(window, target, strict=True)]
    image = made.image[0, 0][tuple(slice(h, h + t) for h, t in zip(halo, target, strict=True))]
    assert np.abs(map_coordinates(np.asarray(one.image).astype(float), turned, order=1)[1:, 1:, 1:] - image).max() < 0.6
    labels = map_coordinates(np.asarray(one.labels).astype(np.int64), turned, order=0).astype(np.uint64)
    assert made.known.all()
    np.testing.assert_array_equal(made.target[0], affinities(labels)[0][:, 1:, 1:, 1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelledSeries("a", np.zeros((3, 4, 4)), np.zeros((3, 4, 5)), ()), r"labels \[3, 4, 5\] of volume a"),
        (lambda: series([(3, 13)]), r"range \[3, 13\] is not within volume a of 12 sections"),
        (lambda: series([(3, 3)]), r"range \[3, 3\] is not within"),
        (lambda: patches(of=series(bad=range(12))), r"no undamaged section .* for x from in a: widen the ranges"),
        (lambda: VolumeRequest((4, 9, 9), (4, 4, 4), STAGE), r"output \[4, 4, 4\] does not lie in the middle"),
        (lambda: VolumeRequest((4, 8, 8), (4, 8, 4), STAGE), r"output \[4, 8, 4\] is not square"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
