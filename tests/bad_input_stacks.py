"""Bad inputs 25 to 43: sections in files of their own, shapes, voxel sizes, labels, and places that are no volume."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bad_input import Program, Row, Words, source
from bad_input_volumes import BRACKETS, MADE, ingested, same
from bad_sources import RAW, SIZE, VOLUME, bare, hdf, own, precomputed, settings, spoilt, torn
from emsr import degradation
from emsr.durable import read_json
from emsr.stores import fill
from image_files import SHAPE, cut, folder, tiff
from segment_scored import Scored
from sr_project import SrProject, tissue_like, write_weights
from test_bad_sources_denied import ordinary_user
from test_bad_sources_images import COLOURS, bomb

IDS = np.kron(np.arange(1, 6, dtype=np.uint64).reshape(5, 1, 1), np.ones((1, 40, 50), np.uint64))
LABELS = {"dataset": "volumes/labels"}


def sections(name: str, damage: Callable[[Path], object] = lambda path: None, **how: Any) -> Callable[[Path], Path]:
    """A folder of sections, one of which is spoilt."""

    def made(place: Path) -> Path:
        path = folder(place / "f", name=name, **how)
        damage(path)
        return path

    return made


def other(name: str, voxels: np.ndarray) -> Callable[[Path], object]:
    """Another image in the place of a section."""

    def damage(path: Path) -> None:
        folder(path.parent / "other", voxels[None], name="{}" + Path(name).suffix)
        shutil.move(path.parent / "other" / f"0{Path(name).suffix}", path / name)
        shutil.rmtree(path.parent / "other")

    return damage


def gap(path: Path) -> None:
    (path / "s_02.png").unlink()


def without_third(place: Path) -> None:
    expected = VOLUME.copy()
    expected[2] = 0
    same(expected, missing={"2": "missing"})(place)


def dark(z: int | None, value: int) -> np.ndarray:
    """A volume of which one section, or all, has one grey level."""
    voxels = tissue_like(SHAPE)
    voxels[slice(z, None if z is None else z + 1)] = value
    return voxels


def labelled(labels: np.ndarray, **how: Any) -> Callable[[Path], Path]:
    """hr and labels in one file."""

    def made(place: Path) -> Path:
        path = hdf(place)
        with h5py.File(path, "r+") as file:
            file.create_dataset("volumes/labels", data=labels, **how).attrs["resolution"] = (40.0, 4.0, 4.0)
        return path

    return made


def twelve(place: Path) -> Path:
    """Twelve sections, whose names sort otherwise than their numbers."""
    return folder(place / "f", several(), name="{}.png")


def several() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (12, 9, 7)).astype(np.uint8)


# what steps do with good volumes of odd sizes


def chain(place: Path, voxels: np.ndarray, model: str = "bicubic") -> SrProject:
    """A coarse volume and weights."""
    project = SrProject(place, write_weights(place, model, 4))
    project.write_lr(voxels)
    return project


def superresolved(voxels: np.ndarray) -> Callable[[Path], list[Words | Program]]:
    """`emsr allocate`, `superresolve` and `stitch`, as the rules call them."""

    def made(place: Path) -> list[Words | Program]:
        project = chain(place, voxels)
        stated, mark = json.dumps({**project.settings, "result": 1}), "sr/jobs/1-of-1.json"
        return [
            ["allocate", stated, "lr.json", project.card.name, "sr/allocate.json"],
            ["superresolve", stated, "sr/allocate.json", "1-of-1", mark, "--workers", "1"],
            ["stitch", stated, "sr/allocate.json", mark, "sr.json", "--workers", "1"],
        ]

    return made


def as_mirrored(voxels: np.ndarray) -> Callable[[Path], None]:
    """sr is what interpolation gives of sections that numpy mirrors up to the window, to one grey level."""

    def right(place: Path) -> None:
        far = [(0, 16 - side) for side in voxels.shape[1:]]
        high, wide = (4 * side for side in voxels.shape[1:])
        made = np.stack([degradation.upsample(np.pad(section, far, mode="reflect"), 4) for section in voxels])
        assert np.abs(SrProject(place, place).voxels() - made[:, :high, :wide].astype(int)).max() <= 1

    return right


def degraded(place: Path) -> list[Words | Program]:
    how = {"scale": 4, "degradation": {"kernel": "area"}, "shard": [4, 32, 32], "chunk": [2, 16, 16], "result": 1}
    path = hdf(place, odd())
    return [
        ["ingest", json.dumps(settings(path, **RAW)), "out/hr.json"],
        ["degrade", json.dumps(how), "out/hr.json", "out/lr.json"],
    ]


def odd() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (5, 43, 50)).astype(np.uint8)


def cropped(place: Path) -> None:
    expected = odd()[:, :40, :48].reshape(5, 10, 4, 12, 4).mean((2, 4))
    assert np.abs(ingested(place, "lr") - expected).max() <= 0.5
    assert read_json(place / "out/lr.json")["hr_shape"] == [5, 40, 48]


def unlabelled(place: Path) -> list[Words | Program]:
    """Test sections of which nothing is labelled."""
    scored = Scored(place)
    scored.write_all()
    scored.labels(np.zeros_like(scored.truth))
    return [["score-segments", json.dumps(scored.settings | {"result": 2}), "out.json", "--workers", "1"]]


def unscored(place: Path) -> None:
    """No figure, and a reason; not the zeros of a perfect segmentation."""
    for figures in read_json(place / "out.json")["segmentation"].values():
        assert [figures[name] for name in ("voi", "voi_split", "voi_merge", "arand")] == [None] * 4
        assert "nothing can be scored" in figures["remarks"][0]


# places


def unreadable(place: Path) -> Path:
    """A volume that another user keeps for himself, in a folder that everybody may enter."""
    lab = Path(tempfile.mkdtemp(prefix="emsr-"))
    lab.chmod(0o755)
    path = hdf(lab)
    path.chmod(0)
    return path


def fifo(place: Path) -> Path:
    os.mkfifo(place / "x.tif")
    return place / "x.tif"


def listening(place: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(place):
        one.bind("x.h5")
    return place / "x.h5"


def into_itself(place: Path) -> list[Words | Program]:
    """The array of a source as the array of the result."""
    path = own(place)
    return [["ingest", json.dumps(settings(path)), "own/hr.json"]]


def around_it(place: Path) -> list[Words | Program]:
    path = bare(place, 3)
    (place / "hr.zarr").mkdir()
    shutil.move(path, place / "hr.zarr" / "x.zarr")
    return [["ingest", json.dumps(settings("hr.zarr/x.zarr", **SIZE)), "hr.json"]]


@contextlib.contextmanager
def growing() -> Iterator[None]:
    """Somebody writes to the source while it is read."""
    write = fill.keep_or_write

    def meanwhile(*given: Any) -> Any:
        with Path("x.h5").open("ab") as stream:
            stream.write(b"more")
        return write(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fill, "keep_or_write", meanwhile)
        yield


TIFFS, PNGS = sections("{}.tif"), sections("{}.png")
WIDE_IDS = IDS * np.uint64(2**40)
ROWS = [
    source(25, "a section that lacks in the numbers: an empty section, named as missing", sections("s_{:02}.png", gap),
           SIZE, code=0, only=("ingest",), then=without_third),
    source(25, "a section that is a link to nothing", sections("s_{:02}.png",
           lambda p: ((p / "s_02.png").unlink(), (p / "s_02.png").symlink_to("gone"))), SIZE),
    source(26, "a black section", lambda p: hdf(p, dark(2, 0)), RAW, code=0, only=("ingest",),
           then=same(dark(2, 0), damaged={"2": "black"})),
    source(27, "a white volume", lambda p: hdf(p, dark(None, 255)), RAW, code=0, only=("ingest",),
           then=same(dark(None, 255))),
    source(27, "a grey volume", lambda p: hdf(p, dark(None, 9)), RAW, code=0, only=("ingest",),
           then=same(dark(None, 9))),
    source(27, "a grey volume, its range by percentiles", lambda p: hdf(p, dark(None, 9)),
           RAW | {"intensity": {"percentiles": [0.5, 99.5]}}, only=("ingest",)),
    source(28, "sections of different sizes", sections("{}.png", other("3.png", VOLUME[0, :39])), SIZE),
    source(29, "sections of different types", sections("{}.tif", other("3.tif", VOLUME[0].astype("u2"))), SIZE),
    source(30, "a PNG cut in half", lambda p: torn(PNGS(p), "0.png", 900), SIZE, hides=BRACKETS),
    source(30, "a PNG cut in half, further in", lambda p: torn(PNGS(p), "2.png", 900), SIZE, only=("ingest",),
           hides=BRACKETS, may=MADE),
    source(30, "a spoilt TIFF", lambda p: spoilt(TIFFS(p), "3.tif", lambda b: b"II" + b[9:]), SIZE, hides=BRACKETS),
    source(30, "a TIFF cut in half", lambda p: cut(tiff(p / "x.tif"), 0.5), SIZE),
    source(30, "a section of several pages", lambda p: tiff(TIFFS(p) / "3.tif", VOLUME).parent, SIZE),
    source(30, "a section of RGB", sections("{}.png", other("3.png", COLOURS[0])), SIZE),
    source(30, "PNG of 60000 x 60000 in 3 MB", bomb(60000), SIZE),
    source(31, "2.png before 10.png", twelve, SIZE, code=0, only=("ingest",), then=same(several())),
    source(32, "a volume smaller than a chunk", lambda p: hdf(p, VOLUME[:1, :3, :2]), RAW, code=0, only=("ingest",),
           then=same(VOLUME[:1, :3, :2])),
    Row(33, "a volume smaller than the window is mirrored", superresolved(tissue_like((1, 5, 7))), code=0,
        then=as_mirrored(tissue_like((1, 5, 7)))),
    Row(34, "sides that neither scale nor chunks divide", degraded, code=0, then=cropped),
    source(35, "no voxel size", lambda p: hdf(p, resolution=None), RAW),
    source(35, "a voxel size of 0", lambda p: hdf(p, resolution=(40.0, 0.0, 4.0)), RAW),
    source(35, "a voxel size below 0", lambda p: hdf(p, resolution=(40.0, 4.0, -4.0)), RAW),
    source(35, "a voxel size that is no number", lambda p: hdf(p, resolution=(40.0, np.nan, 4.0)), RAW),
    source(35, "another voxel size than the config's", hdf, RAW | {"voxel_size_nm": [40.0, 5.0, 5.0]}),
    source(36, "axes reversed", hdf, RAW | {"voxel_size_nm": [4.0, 4.0, 40.0]}),
    source(37, "labels of another shape", labelled(IDS[:, :39]), LABELS, image="labels"),
    source(38, "labels below 0", labelled(IDS.astype(np.int64) - 3), LABELS, image="labels"),
    source(38, "labels that are float", labelled(IDS.astype("f4")), LABELS, image="labels"),
    source(38, "more ids than 32 bits hold", labelled(WIDE_IDS), LABELS, image="labels", code=0, only=("ingest",),
           then=same(WIDE_IDS, "labels")),
    Row(39, "test sections without a label", unlabelled, code=0, then=unscored),
    source(40, "a volume that does not begin at 0", precomputed, {}, code=0, only=("ingest",),
           then=same(VOLUME, translation_nm=[300.0, 32.5, 22.0])),
    source(40, "a region partly outside", hdf, RAW | {"region": [[0, 5], [0, 40], [0, 51]]}),
    source(41, "a folder without a volume", lambda p: (p / "x").mkdir() or p / "x", SIZE),
    source(41, "a folder in place of HDF5", lambda p: (p / "x.h5").mkdir() or p / "x.h5", RAW),
    source(41, "a FIFO", fifo, SIZE, only=("ingest",)),
    source(41, "a socket", listening, SIZE, only=("ingest",)),
    source(41, "a device", lambda p: Path("/dev/zero"), SIZE, only=("ingest",)),
    source(41, "what may not be read", unreadable, RAW, only=("ingest",), around=ordinary_user, hides=r"\S*/emsr-\w+"),
    Row(42, "the result in place of the source", into_itself),
    Row(42, "the source inside the result", around_it),
    source(43, "a source that grows while it is read", hdf, RAW, only=("ingest",), around=growing,
           may=(*MADE, "x.h5")),
]  # fmt: skip
