"""Synthetic tissue: every ingredient that it promises can be measured in it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from emsr.tissue import Tissue, grow
from emsr.tissue.cut import place_of, sheet
from emsr.tissue.lattice import Pixels, lattice_around, tube_distance
from emsr.tissue.microscope import lay_down
from emsr.tissue.organelles import Organelles, Rods, Vesicles, place_organelles
from emsr.tissue.processes import Neuropil, grow_neuropil
from emsr.tissue.section import draw_stain, render

SHAPE = (24, 192, 192)
VOXEL = (40.0, 4.0, 4.0)
TINY = (8, 32, 48)


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return grow(SHAPE, VOXEL, seed=1)


@pytest.fixture(scope="module")
def anatomy() -> tuple[Neuropil, Organelles]:
    neuropil = grow_neuropil(lattice_around(SHAPE, VOXEL, 80), np.random.default_rng(3))
    return neuropil, place_organelles(neuropil, np.random.default_rng(4))


def correlations(raw: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in itertools.pairwise(raw)])


def splits(labels: NDArray[np.uint64], identity: int) -> bool:
    """Whether one profile of a process overlaps two separate ones of at least 20 pixels in the next section."""
    for here, there in itertools.pairwise(labels):
        profiles, count = ndimage.label(here == identity)
        following, _ = ndimage.label(there == identity)
        for profile in range(1, count + 1):
            under, pixels = np.unique(following[profiles == profile], return_counts=True)
            if np.count_nonzero((under > 0) & (pixels >= 20)) >= 2:
                return True
    return False


def test_shape_and_types(tissue: Tissue) -> None:
    assert (tissue.raw.shape, tissue.raw.dtype) == (SHAPE, np.uint8)
    assert (tissue.labels.shape, tissue.labels.dtype) == (SHAPE, np.uint64)


def test_same_seed_same_bytes_other_seed_other_tissue() -> None:
    first, again, other = grow(TINY, seed=5), grow(TINY, seed=5), grow(TINY, seed=6)
    assert np.array_equal(first.raw, again.raw)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, other.labels)


def test_damage_and_progress_leave_other_sections_alone() -> None:
    seen: list[int] = []

    def watch(sections: Iterable[int]) -> Iterable[int]:
        for section in sections:
            seen.append(section)
            yield section

    whole, spoilt = grow(TINY, damaged=()), grow(TINY, damaged=(2, 5), progress=watch)
    assert seen == list(range(TINY[0]))
    assert [z for z in range(TINY[0]) if not np.array_equal(whole.raw[z], spoilt.raw[z])] == [2, 5]
    assert np.array_equal(whole.labels, spoilt.labels)
    assert (set(whole.damaged), set(spoilt.damaged)) == (set(), {2, 5})


@pytest.mark.parametrize("seed", range(6))
def test_one_damaged_section_not_near_the_ends(seed: int) -> None:
    damaged = list(grow((8, 16, 16), seed=seed).damaged)
    assert len(damaged) == 1
    assert 2 <= damaged[0] < 4


def test_damaged_section_correlates_with_neither_neighbour(tissue: Tissue) -> None:
    (damaged,) = tissue.damaged
    along = correlations(tissue.raw)
    own = np.delete(along, [damaged - 1, damaged])
    assert 0.3 < own.mean() < 0.9
    assert own.min() > 0.1
    assert own.max() < 0.9
    assert np.abs(along[damaged - 1 : damaged + 1]).max() < 0.3 * own.mean()


def test_labels_cover_all_but_membranes(tissue: Tissue) -> None:
    assert 0.1 < np.mean(tissue.labels == 0) < 0.3
    assert len(np.unique(tissue.labels)) > 20


def test_membranes_are_dark_and_move_with_their_section(tissue: Tissue) -> None:
    """Labels are moved like the image: in every undamaged section what is label 0 is darker by 60 grey levels."""
    for z in set(range(SHAPE[0])) - set(tissue.damaged):
        raw, membrane = tissue.raw[z], tissue.labels[z] == 0
        assert raw[~membrane].mean() - raw[membrane].mean() > 60, z


def test_processes_run_end_and_branch(tissue: Tissue) -> None:
    labels = tissue.labels
    identities = [int(i) for i in np.unique(labels) if i]
    rim = np.unique(
        np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel(), labels[:, :, [0, -1]].ravel()])
    )
    spans = {i: int((labels == i).any((1, 2)).sum()) for i in identities}
    assert sum(span >= 20 for span in spans.values()) >= 2, "some run through most of the volume"
    assert any(3 <= spans[i] < 20 for i in set(identities) - set(rim.tolist())), "some lie inside with both their ends"
    assert sum(splits(labels, i) for i in identities) >= 2, "some branch"


def test_calibres_vary(tissue: Tissue) -> None:
    """Profiles go from thin axons (under 130 nm across) to dendrites (over 450 nm)."""
    areas = np.concatenate([np.unique(section, return_counts=True)[1][1:] for section in tissue.labels])
    diameters = 4.0 * np.sqrt(4 * areas / np.pi)
    assert np.percentile(diameters, 10) < 130
    assert diameters.max() > 450


def test_sections_differ_in_brightness_but_not_much(tissue: Tissue) -> None:
    means = tissue.raw.mean((1, 2))
    assert 1 < means.std() < 15
    assert 90 < means.mean() < 160
    assert 40 < tissue.raw.std() < 70


def test_noise_does_not_drown_the_image(tissue: Tissue) -> None:
    """Noise, estimated from a Laplacian that smooth structure does not pass, has 2 to 10 grey levels."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    rough = ndimage.convolve(tissue.raw[0].astype(float), kernel)
    assert 2 < np.median(np.abs(rough)) / 0.6745 < 10


def membrane_width_nm(pixel_nm: float, pixels: int) -> float:
    """Width at half depth of the mean grey around the boundaries of the labels, nm."""
    tissue = grow((8, pixels, pixels), (40, pixel_nm, pixel_nm), seed=2, damaged=())
    profile = np.zeros(17)
    count = np.zeros(17)
    for raw, labels in zip(tissue.raw, tissue.labels, strict=True):
        nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
        owner = labels[tuple(nearest)]
        edge = np.zeros(owner.shape, bool)
        edge[:, 1:] |= owner[:, 1:] != owner[:, :-1]
        edge[1:] |= owner[1:] != owner[:-1]
        away = np.rint(ndimage.distance_transform_edt(~edge) * pixel_nm / 4).astype(int)
        for step in range(17):
            profile[step] += raw[away == step].sum()
            count[step] += (away == step).sum()
    known = count > 0
    grey, distance = profile[known] / count[known], 4.0 * np.arange(17)[known]
    half = (grey[0] + grey[distance >= 40].mean()) / 2
    return 2 * float(np.interp(half, grey[distance <= 40], distance[distance <= 40]))


def test_membranes_have_a_thickness_in_nm_not_in_pixels() -> None:
    """Two membranes and their cleft: about 30 nm with the blur of the section, whatever the pixel."""
    fine, coarse = membrane_width_nm(4, 192), membrane_width_nm(8, 96)
    assert 20 < fine < 50
    assert abs(coarse - fine) < 0.3 * fine


def test_mitochondria_run_through_sections(anatomy: tuple[Neuropil, Organelles]) -> None:
    neuropil, organelles = anatomy
    sections: dict[int, int] = {}
    for footprints in organelles.mitochondria.values():
        for footprint in footprints:
            if footprint.distance.min() < -20:
                sections[footprint.owner] = sections.get(footprint.owner, 0) + 1
    assert max(sections.values()) >= 5
    assert all(neuropil.processes[c.owner - 1].kind != "glia" for c in organelles.cristae)


def test_microtubules_follow_their_process(anatomy: tuple[Neuropil, Organelles]) -> None:
    neuropil, organelles = anatomy
    rods = organelles.rods
    cosines = []
    for i in np.flatnonzero(rods.radius == 10)[::7]:
        branches = neuropil.processes[rods.owner[i] - 1].branches
        nodes = np.concatenate([np.column_stack([b[:-1, :3], np.diff(b[:, :3], axis=0)]) for b in branches])
        nearest = nodes[np.argmin(np.linalg.norm(nodes[:, :3] - rods.start[i], axis=1)), 3:]
        along = rods.end[i] - rods.start[i]
        cosines.append(abs(nearest @ along) / (np.linalg.norm(nearest) * np.linalg.norm(along)))
    assert np.median(cosines) > 0.9


def test_vesicles_are_small_and_crowd_at_synapses(anatomy: tuple[Neuropil, Organelles]) -> None:
    neuropil, organelles = anatomy
    vesicles = organelles.vesicles
    apart = np.linalg.norm(vesicles.centre[:, None] - organelles.synapses, axis=-1)
    crowd = apart.min(1) < 300
    assert crowd.sum() >= 12 * len(organelles.synapses) >= 12
    assert 34 < 2 * np.median(vesicles.radius[crowd]) < 44
    assert np.array_equal(neuropil.owner_at(vesicles.centre), vesicles.owner)


NO_RODS = Rods(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
NO_VESICLES = Vesicles(np.zeros((0, 3)), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))


@pytest.mark.parametrize(
    ("without", "darker"),
    [
        pytest.param({"mitochondria": {}}, 0.15, id="mitochondria are dark in the mean"),
        pytest.param({"rods": NO_RODS}, 0.15, id="microtubules and reticulum have dark walls"),
        pytest.param({"vesicles": NO_VESICLES}, 0.15, id="vesicles have dark walls"),
        pytest.param({"synapses": np.zeros((0, 3))}, 0.1, id="synapses have a dark density that fades"),
    ],
)
def test_organelles_show(anatomy: tuple[Neuropil, Organelles], without: dict[str, object], darker: float) -> None:
    neuropil, organelles = anatomy
    bare = dataclasses.replace(organelles, **without)  # type: ignore[arg-type]
    stain = draw_stain(neuropil, np.random.default_rng(5))
    shown = []
    for z in range(0, SHAPE[0], 3):
        place = place_of(neuropil.lattice, z, SHAPE[1:], VOXEL)
        full = render(place, neuropil, organelles, stain, np.random.default_rng(z))[1]
        less = render(place, neuropil, bare, stain, np.random.default_rng(z))[1]
        shown.append((full - less)[np.abs(full - less) > 0.02])
    added = np.concatenate(shown)
    assert added.size > 200
    assert added.mean() > darker


def test_glia_is_darker_than_neurons(anatomy: tuple[Neuropil, Organelles]) -> None:
    neuropil, _ = anatomy
    glia = np.array([False] + [p.kind == "glia" for p in neuropil.processes])
    stain = draw_stain(neuropil, np.random.default_rng(5))
    assert glia.any()
    assert stain.cytoplasm[glia].min() > stain.cytoplasm[~glia].max()
    assert {p.kind for p in neuropil.processes} == {"dendrite", "neurite", "axon", "glia"}


def test_sections_move_by_about_two_pixels_at_most() -> None:
    y, x = np.mgrid[:80, :80].astype(np.float32)
    largest = 0.0
    for seed in range(20):
        moved = [lay_down(np.zeros((80, 80), np.int32), f, 4.0, np.random.default_rng(seed))[1] for f in (y, x)]
        away = np.hypot(moved[0] - y[8:-8, 8:-8], moved[1] - x[8:-8, 8:-8])
        assert away.max() - away.min() > 0.01, "bent, not only shifted"
        largest = max(largest, float(away.max()))
    assert 0.5 < largest < 3


@pytest.mark.parametrize("tilt", [0.1, 0.5, 0.9])
def test_sheet_is_the_mean_over_the_slab(tilt: float) -> None:
    """The closed form against a sum over 2001 planes of a 40 nm section."""
    distance = np.linspace(0, 40, 9, dtype=np.float32)
    planes = distance + tilt * np.linspace(-20, 20, 2001)[:, None]
    expected = np.exp(-0.5 * (planes / 3) ** 2).mean(0)
    assert np.allclose(sheet(distance, np.full(9, 20 * tilt, np.float32), 3), expected, atol=2e-3)


def test_tube_distance_is_that_of_the_nearest_ball() -> None:
    lattice = lattice_around((6, 40, 50), VOXEL, 48)
    nodes = np.array([[60.0, 40, 50, 30], [90, 80, 110, 45], [130, 90, 140, 25]])
    box, distance = tube_distance(nodes, lattice)
    points = np.stack(np.meshgrid(*(lattice.axis(a)[s] for a, s in enumerate(box)), indexing="ij"), -1)
    expected = (np.linalg.norm(points[..., None, :] - nodes[:, :3], axis=-1) - nodes[:, 3]).min(-1)
    near = expected < 100
    assert near.sum() > 100
    assert np.allclose(distance[near], expected[near], atol=1e-3)


def test_interpolation_reproduces_a_quadratic() -> None:
    """Keys' cubic with a = -1/2 is exact for polynomials of degree two."""
    lattice = lattice_around((2, 40, 50), VOXEL, 48)
    rows, columns = 4.0 * np.arange(40), 4.0 * np.arange(50)

    def quadratic(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 + 0.02 * y - 0.03 * x + 1e-4 * y * x + 2e-4 * x * x

    coarse = quadratic(lattice.axis(1)[:, None], lattice.axis(2)).astype(np.float32)
    found = Pixels(lattice, rows, columns).of((0, 0), coarse)
    assert found is not None
    assert found[0] == (slice(0, 40), slice(0, 50))
    assert np.allclose(found[1][0], quadratic(rows[:, None], columns), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"shape": (0, 64, 64)}, "shape .* z >= 1", id="no section"),
        pytest.param({"shape": (8, 8, 64)}, "shape .* 16 voxels", id="smaller than a membrane's surroundings"),
        pytest.param({"voxel_size_nm": (40, 4, 5)}, "y equal to x", id="oblong pixels"),
        pytest.param({"voxel_size_nm": (40, 0, 0)}, "positive", id="no size"),
        pytest.param({"seed": -1}, "seed -1 is negative", id="numpy has no such seed"),
        pytest.param({"damaged": (8,)}, "section 8 .* 0 to 7", id="damage outside the volume"),
    ],
)
def test_refuses_what_cannot_be(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        grow(**{"shape": (8, 16, 16), **arguments})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "voxel"),
    [
        pytest.param((1, 16, 16), (40, 4, 4), id="one section"),
        pytest.param((5, 32, 24), (30, 2, 2), id="fine pixels"),
        pytest.param((8, 24, 32), (40, 32, 32), id="pixels wider than the lattice"),
        pytest.param((30, 48, 48), (10, 10, 10), id="isotropic"),
    ],
)
def test_grows_in_other_shapes(shape: tuple[int, int, int], voxel: tuple[float, float, float]) -> None:
    tissue = grow(shape, voxel, seed=3)
    assert tissue.raw.shape == tissue.labels.shape == shape
    assert tissue.raw.std() > 20
    assert len(np.unique(tissue.labels)) > 2
