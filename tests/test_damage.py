"""Damaged sections are found, good ones are not called damaged, volumes without a say are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from emsr.damage import Part, SectionAccumulator, find, find_parts, parts_table, statistics, table


def grown(depth: int, side: int = 160, seed: int = 0, persistence: float = 0.8) -> np.ndarray:
    """Uint8 texture (depth, side, side) whose neighbouring sections share `persistence` of their pattern, and noise."""
    generator = np.random.default_rng(seed)
    pattern, sections = generator.normal(size=(side, side)), []
    for _ in range(depth):
        fresh = generator.normal(size=(side, side))
        pattern = persistence * pattern + np.sqrt(1 - persistence**2) * fresh
        smooth = gaussian_filter(pattern, 3)
        sections.append(128 + 30 * smooth / smooth.std() + generator.normal(0, 25, (side, side)))
    return np.clip(np.rint(sections), 0, 255).astype(np.uint8)


def noise(section: np.ndarray) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, section.shape, dtype=np.uint8)


DAMAGE = [
    ("black", lambda s: np.zeros_like(s), "no light at all"),
    ("black", lambda s: s % 3, "dark noise is black too"),
    ("saturated", lambda s: np.full_like(s, 255), "overexposed"),
    ("constant", lambda s: np.full_like(s, 128), "filled in by somebody"),
    ("unlike", noise, "replaced by noise"),
    ("unlike", lambda s: s[::-1, ::-1], "an image of another place"),
    ("unlike", lambda s: np.roll(s, 80, axis=1), "shifted far away"),
    ("unlike", lambda s: 255 - s, "inverted"),
]


@pytest.mark.parametrize(("state", "spoil", "why"), DAMAGE, ids=[why for *_, why in DAMAGE])
@pytest.mark.parametrize("z", [0, 1, 6, 11], ids=["first", "second", "middle", "last"])
def test_one_damaged_section_is_found_and_no_other(state, spoil, why, z):
    volume = grown(12)
    volume[z] = spoil(volume[z])
    assert {place: finding.state for place, finding in find(statistics(volume)).items()} == {z: state}


HARMLESS = [
    (lambda s: np.clip(s * 0.5 + 10, 0, 255), "half the contrast"),
    (lambda s: np.clip(s * 1.5 - 40, 0, 255), "more contrast, some of it clipped"),
    (lambda s: np.roll(s, (4, -5), axis=(0, 1)), "drift of five pixels"),
    (lambda s: np.clip(s + np.random.default_rng(1).normal(0, 40, s.shape), 0, 255), "twice the noise"),
    (lambda s: np.where(np.arange(s.shape[1]) < 60, 0, s), "a third of it outside the tissue"),
    (lambda s: s * np.linspace(0.4, 1, s.shape[1]), "uneven light"),
]


@pytest.mark.parametrize(("change", "why"), HARMLESS, ids=[why for _, why in HARMLESS])
@pytest.mark.parametrize("z", [0, 6])
def test_contrast_drift_and_noise_are_no_damage(change, why, z):
    volume = grown(12)
    volume[z] = change(volume[z].astype(float)).astype(np.uint8)
    assert find(statistics(volume)) == {}


def test_several_damages_do_not_hide_one_another():
    volume = grown(14)
    volume[3], volume[4], volume[5], volume[13] = 0, noise(volume[4]), 255, volume[2][::-1]
    states = {z: finding.state for z, finding in find(statistics(volume)).items()}
    assert states == {3: "black", 4: "unlike", 5: "saturated", 13: "unlike"}


QUIET = [
    (np.zeros((6, 32, 32), np.uint8), "a black volume has no better habit"),
    (np.full((6, 32, 32), 255, np.uint8), "a white volume"),
    (np.full((6, 32, 32), 77, np.uint8), "a constant volume"),
    (
        np.random.default_rng(0).integers(0, 256, (12, 96, 96), dtype=np.uint8),
        "pure noise says nothing about a section",
    ),
    (grown(1), "one section has no neighbour"),
    (grown(2), "of two, none can be blamed"),
    (grown(3), "three"),
    (grown(4), "four"),
    (grown(5, side=9), "sections of nine pixels"),
    (grown(8, persistence=0.45), "neighbours that hardly correlate"),
]


@pytest.mark.parametrize(("volume", "why"), QUIET, ids=[why for _, why in QUIET])
def test_volumes_without_damage(volume, why):
    assert find(statistics(volume)) == {}


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_short_volumes_still_show_a_black_and_an_alien_section(depth):
    volume = grown(depth)
    volume[1] = 0
    assert list(find(statistics(volume))) == [1]
    volume = grown(depth, persistence=0.95)
    volume[1] = noise(volume[1])
    assert list(find(statistics(volume))) == [1]


def test_a_missing_section_is_neither_judged_nor_compared_with():
    volume = grown(8)
    volume[4] = 0
    assert find(statistics(volume), missing={4}) == {}


def test_bands_in_any_order_give_the_statistics_of_whole_sections():
    volume = grown(3, side=150)
    accumulator = SectionAccumulator(3, (150, 150))
    for first in (64, 0, 128):
        accumulator.add(first, volume[:, first : first + 64])
    for ours, whole in zip(accumulator.result(), statistics(volume), strict=True):
        assert (ours.black, ours.saturated, ours.lowest, ours.highest) == (
            whole.black,
            whole.saturated,
            whole.lowest,
            whole.highest,
        )
        np.testing.assert_array_equal(ours.pattern, whole.pattern)


def test_what_is_kept_of_a_section_is_small():
    volume = np.zeros((1, 300, 4000), np.uint8)
    assert statistics(volume)[0].pattern.nbytes <= 64 * 64 * 2


def test_table_is_sorted_and_has_a_header_even_when_empty():
    volume = grown(12)
    volume[10], volume[2] = 0, 255
    lines = table(find(statistics(volume))).splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["z", "state"], ["2", "saturated"], ["10", "black"]]
    assert table({}) == "z\tstate\treason\n"


def vnc(shared: Path) -> np.ndarray:
    from skimage.io import imread

    return np.stack([imread(file) for file in sorted((shared / "data/vnc_sstem/sections").glob("*.tif"))])


def test_real_serial_sections_are_not_damaged(shared):
    volume = vnc(shared)
    seen = statistics(volume)
    assert (find(seen), find_parts(seen, volume.shape[1:])) == ({}, {})
    assert find(statistics(volume[:, 300:556, 300:556])) == {}, "a small crop of them"
    volume[7] = volume[2][::-1, ::-1]
    assert list(find(statistics(volume))) == [7], "but a section of another place is"


SIDE = 160  # blocks of 3 voxels
PARTS = [
    ({4: (slice(60, 90), slice(30, 75), 0)}, {4: [Part("black", (60, 90), (30, 75))]}, "a charged spot"),
    ({4: (slice(60, 90), slice(30, 75), 255)}, {4: [Part("saturated", (60, 90), (30, 75))]}, "overexposed"),
    ({4: (slice(60, 90), slice(130, 160), 1)}, {4: [Part("black", (60, 90), (132, 160))]}, "at an edge, whole blocks"),
    ({4: (slice(60, 69), slice(30, 75), 0)}, {}, "thinner than four blocks"),
    (dict.fromkeys(range(8), (slice(0, 160), slice(0, 40), 0)), {}, "padding, in most sections"),
    ({4: (slice(0, 160), slice(0, 160), 0)}, {}, "the whole section, which is listed as such"),
    ({}, {}, "nothing"),
]


@pytest.mark.parametrize(("spoilt", "expected", "why"), PARTS, ids=[why for *_, why in PARTS])
def test_damaged_parts_of_sections(spoilt, expected, why):
    volume = np.clip(grown(8, SIDE), 20, 230)
    for z, (rows, columns, grey) in spoilt.items():
        volume[z, rows, columns] = grey
    seen = statistics(volume)
    assert find_parts(seen, (SIDE, SIDE), find(seen)) == expected


def test_the_table_of_parts():
    parts = {4: [Part("black", (60, 90), (30, 75))]}
    assert parts_table(parts) == "z\ty0\ty1\tx0\tx1\tstate\n4\t60\t90\t30\t75\tblack\n"
