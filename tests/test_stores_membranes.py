"""Labels from membranes: the objects of single sections are what scikit-image finds, whatever is read of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label
from skimage.morphology import remove_small_objects
from skimage.segmentation import expand_labels

from emsr.durable import read_json
from emsr.steps.data import ingest
from emsr.stores import membranes, open_source, open_stated, probe
from emsr.stores.admission import admit
from emsr.stores.membranes import LEAST_PIXELS, labelled, objects
from emsr.stores.zarr import open_array
from image_files import folder, tiff
from image_files import voxels as noise

SIZE = (40.0, 4.0, 4.0)
HAND = """
..........#............
..........#............
..........##...........
..........#.#..........
..........###..........
..........#............
######################.
..........#...........#
..........#............
"""


def drawn(text: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in text.split()])


def lines(shape: tuple[int, int, int] = (5, 60, 70), seed: int = 0) -> np.ndarray:
    """Sections of membranes, uint8: borders of random cells three to five pixels wide, with holes and crumbs."""
    rng = np.random.default_rng(seed)
    sections = []
    for _ in range(shape[0]):
        seeds = np.zeros(shape[1:], int)
        seeds[tuple(rng.integers(0, side, 14) for side in shape[1:])] = np.arange(1, 15)
        cells = expand_labels(seeds, 1000)
        wide = expand_labels((np.gradient(cells.astype(float))[0] != 0) | (np.gradient(cells.astype(float))[1] != 0), 1)
        sections.append(np.where((wide > 0) ^ (rng.random(shape[1:]) < 0.01), rng.integers(128, 256, shape[1:]), 90))
    return np.stack(sections).astype(np.uint8)


def expected(section: np.ndarray, level: int) -> np.ndarray:
    pieces = label(section < level, connectivity=1)
    pieces = remove_small_objects(pieces, max_size=LEAST_PIXELS - 1)
    return np.asarray(expand_labels(pieces, np.inf))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two labellings cut a section alike, whatever the ids; 0 is no id here."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(one)) == len(np.unique(other))


# -- one section -------------------------------------------------------------------------------------------------------


def test_a_section_by_hand() -> None:
    """Three cells and a hole of one pixel in a membrane, which is no cell; the lines become borders in their middle."""
    found = objects(drawn(HAND))
    assert sorted(np.unique(found)) == [1, 2, 3, 4]
    assert (found[0, 0], found[0, -1], found[-1, 0], found[-1, -1]) == (1, 2, 3, 4), "in raster order"
    assert set(found[:, 0].tolist()[:6]) == {1}
    assert set(found[7:, 0].tolist()) == {3}
    assert found[3, 11] == found[3, 10 + 2] == 2, "the hole at (3, 11) is no object and falls to a neighbour"
    assert not (found == 0).any(), "nothing is left between"


def test_objects_touch_in_the_middle_of_a_wide_membrane() -> None:
    wall = np.zeros((9, 21), bool)
    wall[:, 8:13] = True
    found = objects(wall)
    assert (found[:, :10] == 1).all()
    assert (found[:, 11:] == 2).all()
    assert len(np.unique(found[:, 10])) == 1, "the middle is as near to both, and one of them takes all of it"


def test_cells_that_meet_at_a_corner_are_two() -> None:
    wall = np.ones((20, 20), bool)
    wall[2:10, 2:10] = wall[10:18, 10:18] = False
    assert len(np.unique(objects(wall))) == 2


@pytest.mark.parametrize(
    ("membrane", "count", "why"),
    [
        (np.ones((20, 20), bool), 0, "all is membrane: there is nothing to grow"),
        (np.zeros((20, 20), bool), 0, "nobody drew a membrane: this is no cell of a whole section"),
        (np.eye(20, dtype=bool), 2, "a diagonal line keeps apart"),
        (np.arange(400).reshape(20, 20) % 3 > 0, 0, "crumbs only"),
        (np.arange(400).reshape(20, 20) == 7, 1, "one object around a speck of membrane"),
    ],
    ids=["membrane", "empty", "diagonal", "crumbs", "speck"],
)
def test_sections_with_little_in_them(membrane: np.ndarray, count: int, why: str) -> None:
    found = objects(membrane)
    assert found.max() == count, why
    assert len(np.unique(found)) == max(count, 1), "objects fill a section that has any"


@pytest.mark.parametrize("seed", range(6))
def test_objects_equal_those_of_scikit_image(seed: int) -> None:
    for section in lines(seed=seed):
        found, wanted = objects(section >= 128), expected(section, 128)
        assert found.max() > 5
        assert same(found, wanted)
        first = np.unique(found, return_index=True)
        assert first[0].tolist() == list(range(1, found.max() + 1))


def test_every_pixel_has_one_of_the_nearest_objects() -> None:
    """By brute force: no other object lies nearer; which of equals is free, and the same every time."""
    section = lines((1, 30, 34))[0] >= 128
    found = objects(section)
    pieces = remove_small_objects(label(~section, connectivity=1), max_size=LEAST_PIXELS - 1)
    for y, x in np.argwhere(pieces == 0):
        squares = (np.argwhere(pieces > 0) - (y, x)) ** 2
        owners = pieces[pieces > 0][squares.sum(1) == squares.sum(1).min()]
        assert any(found[pieces == owner][0] == found[y, x] for owner in owners)
    np.testing.assert_array_equal(found, objects(section))


# -- a source ----------------------------------------------------------------------------------------------------------


def stated(path: Path, **more: object) -> dict[str, object]:
    return {"path": str(path), "dataset": None, "voxel_size_nm": list(SIZE), "membranes": 128, **more}


def test_the_source_is_read_in_boxes_and_ids_are_those_of_no_other_section(tmp_path: Path) -> None:
    image = lines()
    source = open_stated(stated(folder(tmp_path, image)))
    whole = source.read((0, 0, 0), image.shape)
    assert (source.dtype, whole.dtype, source.shape) == (np.uint64, np.uint64, image.shape)
    ids = [set(np.unique(section).tolist()) for section in whole]
    assert sum(map(len, ids)) == len(set().union(*ids)), "no id in two sections"
    assert all(same(section, expected(drawing, 128)) for section, drawing in zip(whole, image, strict=True))
    rng = np.random.default_rng(0)
    for _ in range(10):
        start = [int(rng.integers(0, side)) for side in image.shape]
        stop = [int(rng.integers(low + 1, side + 1)) for low, side in zip(start, image.shape, strict=True)]
        box = tuple(slice(*pair) for pair in zip(start, stop, strict=True))
        np.testing.assert_array_equal(source.read(start, stop), whole[box])


def test_the_level_decides(tmp_path: Path) -> None:
    image = lines()
    image[2] = np.where(image[2] >= 128, 100, image[2])
    path = folder(tmp_path, image)
    assert not open_stated(stated(path)).read((2, 0, 0), (3, 60, 70)).any(), "nothing is drawn there from 128 on"
    assert open_stated(stated(path, membranes=100)).read((2, 0, 0), (3, 60, 70)).all()


def test_a_section_is_labelled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    found = membranes.objects

    def counting(membrane: np.ndarray) -> np.ndarray:
        done.append(1)
        return found(membrane)

    monkeypatch.setattr(membranes, "objects", counting)
    source = open_stated(stated(folder(tmp_path, lines())))
    probe(source, admit(source, "labels", SIZE).box)
    assert not done, "what a check opens is not labelled"
    for corner in range(0, 60, 20):
        source.read((0, corner, 0), (5, corner + 20, 70))
    assert len(done) == 5


# -- ingest ------------------------------------------------------------------------------------------------------------


def ingested(path: Path, out: Path, **changes: object) -> tuple[dict, np.ndarray]:
    settings = {"image": "labels", "source": stated(path), "region": None, "shard": [4, 32, 32], "chunk": [2, 16, 16]}
    workers = int(changes.pop("workers", 1))  # type: ignore[call-overload]
    ingest(settings | changes, out, workers=workers)
    card = read_json(out)
    return card, open_array(out.with_suffix(".zarr")).read().result()


def test_no_bookkeeping_changes_an_id(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", lines())
    card, wanted = ingested(path, tmp_path / "a.json")
    assert card["source"]["membranes"] == {"level": 128, "least_pixels": LEAST_PIXELS}
    assert card["missing"] == {}
    for name, how in {"b": {"shard": [2, 16, 64], "workers": 3}, "c": {"shard": [16, 64, 128]}}.items():
        other, voxels = ingested(path, tmp_path / f"{name}.json", **how)
        np.testing.assert_array_equal(voxels, wanted)
        assert other["sha256"] == card["sha256"]
    _, cut = ingested(path, tmp_path / "d.json", region=[[1, 4], [7, 50], [3, 61]])
    np.testing.assert_array_equal(cut, wanted[1:4, 7:50, 3:61])


def test_sections_without_labels_are_listed_with_the_reason(tmp_path: Path) -> None:
    """A gap in the numbers, a section that nobody drew, and one that is all membrane: nothing is learned of them."""
    image = lines((6, 60, 70))
    image[2], image[4] = 0, 255
    path = folder(tmp_path / "m", image)
    (path / "s_01.png").unlink()
    card, found = ingested(path, tmp_path / "labels.json")
    assert card["missing"] == {"1": "missing", "2": "unlabelled", "4": "unlabelled"}
    assert [bool(section.any()) for section in found] == [True, False, False, True, False, True]
    assert "no membrane is drawn there, or nothing but membrane" in (tmp_path / "labels.sections.tsv").read_text()
    cut, _ = ingested(path, tmp_path / "cut.json", region=[[2, 6], [0, 60], [0, 70]])
    assert cut["missing"] == {"0": "unlabelled", "2": "unlabelled"}


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_what_is_no_image_of_membranes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = open_source(folder(tmp_path / "wide", noise("uint16")))
    with pytest.raises(ValueError, match="is uint16, membranes are uint8: convert it, or leave membranes out") as error:
        labelled(wide, 128)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(membranes, "MOST_PIXELS", 1999)
    with pytest.raises(
        ValueError, match=r"sections of 40 x 50 pixels, .* whole sections of at most 1999: cut hr"
    ) as error:
        open_stated(stated(folder(tmp_path / "large")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [lambda p: folder(p), lambda p: tiff(p.with_suffix(".tif"))], ids=["folder", "tiff"])
def test_grey_levels_are_no_ids_unless_membranes_are_stated(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / "m")
    with pytest.raises(ValueError, match="is uint8, grey levels and not ids: state membranes: 128 if") as error:
        admit(open_source(path), "labels", SIZE)
    assert "\n" not in str(error.value)
    assert admit(open_stated(stated(path)), "labels", SIZE).voxel_size_nm == SIZE


def test_real_membranes_equal_scikit_image(shared: Path) -> None:
    source = open_stated(stated(shared / "data/vnc_sstem/membranes"))
    image = open_source(shared / "data/vnc_sstem/membranes")
    for z in (0, 19):
        drawing = image.read((z, 0, 0), (z + 1, 1024, 1024))[0]
        found = source.read((z, 0, 0), (z + 1, 1024, 1024))[0]
        assert same(found, expected(drawing, 128))
        assert 240 < len(np.unique(found)) < 290
