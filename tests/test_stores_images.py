"""Folders of sections: numbers are places, gaps are missing sections, and headers say what does not fit together."""

from __future__ import annotations

import json
import logging
import os
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from emsr.config import parse
from emsr.durable import read_json
from emsr.fingerprints import fingerprint
from emsr.numbering import numbered
from emsr.schema_parts import Source as Stated
from emsr.settings import Settings
from emsr.steps.data import ingest
from emsr.stores import open_source
from emsr.stores.admission import admit
from emsr.stores.zarr import open_array
from image_files import SHAPE, cut, folder, patched, tiff, voxels
from project import ROOT


def ingested(path, out, pattern=None, image="hr") -> dict:
    source = {"path": str(path), "dataset": None, "voxel_size_nm": [40, 4, 4], "pattern": pattern}
    ingest({"image": image, "source": source, "region": None, "shard": [4, 32, 32], "chunk": [2, 16, 16]}, out)
    return read_json(out)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", ["s_{:02}.png", "{}.tif", "a3_{:03}.TIFF", "x{}y.tif"])
def test_sections_are_read_voxel_by_voxel_in_the_order_of_numbers(tmp_path, name, dtype):
    volume = voxels(dtype, (12, 30, 20))
    how = {"compression": "zlib", "rowsperstrip": 8} if name.endswith("tif") else {}
    source = open_source(folder(tmp_path / "f", volume, name, **how))
    assert (source.shape, source.dtype, source.voxel_size_nm) == (volume.shape, volume.dtype, None)
    np.testing.assert_array_equal(source.read((0, 0, 0), volume.shape), volume)
    np.testing.assert_array_equal(source.read((9, 7, 3), (11, 26, 19)), volume[9:11, 7:26, 3:19])


def test_sections_may_be_cut_into_strips_differently(tmp_path):
    for z, rows in enumerate((8, 40, 3, 17, 1)):
        tiff(folder(tmp_path, voxels()[:0]) / f"{z}.tif", voxels()[z], compression="zlib", rowsperstrip=rows)
    np.testing.assert_array_equal(open_source(tmp_path).read((1, 2, 3), (5, 39, 50)), voxels()[1:5, 2:39, 3:])


def test_what_loses_detail_holds_no_labels(tmp_path):
    source = open_source(folder(tmp_path / "labels", name="{}.jpg", quality=95))
    with pytest.raises(ValueError, match="JPEG, which loses detail, so it cannot hold labels: save them without loss"):
        admit(source, "labels", (40.0, 4.0, 4.0))
    admit(source, "hr", (40.0, 4.0, 4.0))


def test_jpeg_is_read_with_a_warning(tmp_path, caplog):
    path = folder(tmp_path / "f", name="{}.jpg", quality=95)
    wanted = np.stack([np.asarray(Image.open(path / f"{z}.jpg")) for z in range(5)])
    np.testing.assert_array_equal(open_source(path).read((0, 0, 0), SHAPE), wanted)
    with caplog.at_level(logging.WARNING):
        ingested(path, tmp_path / "hr.json")
    assert f"{path}: its sections are compressed by JPEG, which loses detail" in caplog.messages


def test_gaps_are_missing_sections_and_the_first_number_is_section_0(tmp_path):
    volume = voxels(shape=(9, 40, 50))
    path = folder(tmp_path / "f", volume, "s_{:02}.png")
    for z in (0, 4, 5):
        (path / f"s_{z:02}.png").unlink()
    card = ingested(path, tmp_path / "hr.json")
    assert card["missing"] == {"3": "missing", "4": "missing"}
    volume[4:6] = 0
    np.testing.assert_array_equal(open_array(tmp_path / card["array"])[...].read().result(), volume[1:])
    assert "3\tmissing" in (tmp_path / "hr.sections.tsv").read_text()


NAMES = [
    (["b9.png", "b10.png", "b08.png"], None, {8: "b08.png", 9: "b9.png", 10: "b10.png"}, "widths differ"),
    (["s2_v3_1.png", "s2_v3_2.png"], None, {1: "s2_v3_1.png", 2: "s2_v3_2.png"}, "one number of three counts"),
    (["7.png", "notes.txt", ".8.png"], None, {7: "7.png"}, "other and hidden files"),
    (["1.JPG", "2.jpeg"], None, {1: "1.JPG", 2: "2.jpeg"}, "one format, two endings"),
    (["r_1.png", "r_2.png", "m_1.png", "all.tif"], "r_{z}.png", {1: "r_1.png", 2: "r_2.png"}, "pattern"),
    (["a_1_2019.tif", "a_2_2020.tif"], "a_{z}_*.tif", {1: "a_1_2019.tif", 2: "a_2_2020.tif"}, "anything behind"),
    (["x7_12.tif", "y8_13.tif"], "*{z}.tif", {12: "x7_12.tif", 13: "y8_13.tif"}, "anything before"),
    (["(1).png"], "({z}).png", {1: "(1).png"}, "what regular expressions mean otherwise"),
]


@pytest.mark.parametrize(("names", "pattern", "wanted", "why"), NAMES, ids=[why for *_, why in NAMES])
def test_numbers_of_names(tmp_path, names, pattern, wanted, why):
    for name in names:
        (tmp_path / name).touch()
    assert list(numbered(tmp_path, pattern).items()) == list(wanted.items())


BAD_NAMES = [
    (["1.png", "01.png"], None, "01.png and 1.png are both number 1", "duplicates"),
    (["r_1.png", "m_1.png"], None, "m_1.png and r_1.png differ in more than a number: state a pattern", "two series"),
    (["1_2019.png", "2_2020.png"], None, "which number of 1_2019.png counts.*state a pattern", "two numbers differ"),
    (["a.png"], None, "no number in the name a.png", "no number"),
    (["1.png", "2.tif"], None, r"mixes formats \(.png, .tif\): state a pattern", "formats mixed"),
    (["1.png", "2.tif"], "{z}.*", "mixes formats", "formats mixed by a pattern"),
    (["1.png"], "s{z}.png", r"no image called 's\{z\}.png' \(for example 1.png\)", "nothing fits"),
    (["a_1_2_3.png"], "*_{z}_*.png", "the number of a_1_2_3.png is 1 or 2.*use fewer", "ambiguous"),
    (["1.png"], "s.png", "does not state the place of the number", "no place"),
    (["1.png"], "{z}/{z}.png", "does not state the place of the number", "two places"),
    (["1.png", "2.png", "900.png"], None, "of the numbers 1 to 900 only 3 have an image", "mostly gaps"),
]


@pytest.mark.parametrize(("names", "pattern", "reason", "why"), BAD_NAMES, ids=[why for *_, why in BAD_NAMES])
def test_names_that_are_no_sections_are_refused_in_one_line(tmp_path, names, pattern, reason, why):
    for name in names:
        Image.fromarray(voxels()[0]).save(tmp_path / name)
    with pytest.raises(ValueError, match=reason) as refusal:
        open_source(tmp_path, pattern=pattern)
    assert "\n" not in str(refusal.value)


def swap(path, z: int, voxels: np.ndarray, **how):
    """One section of a folder, made of other voxels."""
    Image.fromarray(voxels, **how).save(path / f"s_{z:02}.png")
    return path


def with_tiff(path, volume, **how):
    tiff(folder(path, name="{}.tif") / "3.tif", volume, **how)
    return path


def broken(path, make):
    make(path / "s_03.png")
    return path


def resized(file, side: int):
    """A PNG that declares other sides than it has."""
    header = b"IHDR" + struct.pack(">II", side, side) + file.read_bytes()[24:29]
    patched(file, 12, header + struct.pack(">I", zlib.crc32(header)))


BAD_SECTIONS = [
    (lambda p: swap(p, 3, voxels()[0, :39]), r"s_03.png is \[39, 50\] uint8, other sections are \[40, 50\]", "sizes"),
    (lambda p: swap(p, 3, voxels("uint16")[0]), r"s_03.png is \[40, 50\] uint16, other sections", "types"),
    (lambda p: swap(p, 3, np.zeros((40, 50, 3), "u1")), "s_03.png is of mode RGB.*convert it to grey", "RGB"),
    (lambda p: swap(p, 3, np.zeros((40, 50), bool)), "s_03.png is of mode 1", "one bit"),
    (lambda p: broken(p, lambda f: Image.fromarray(voxels()[0]).convert("P").save(f)), "mode P", "colour table"),
    (lambda p: broken(p, lambda f: Image.fromarray(voxels()[0] // 16).save(f, bits=4)), "mode", "four bits"),
    (lambda p: broken(p, lambda f: f.write_bytes(b"")), "s_03.png is empty", "empty"),
    (lambda p: broken(p, lambda f: f.write_bytes(b"junk")), "s_03.png cannot be read as PNG", "junk"),
    (lambda p: broken(p, lambda f: (f.unlink(), f.mkdir())), "s_03.png is not a file", "a folder"),
    (lambda p: broken(p, lambda f: (f.unlink(), f.symlink_to("no"))), "or a link to nothing", "a link to nothing"),
    (lambda p: broken(p, lambda f: resized(f, 2**23)), "s_03.png declares 70368744177664 bytes", "64 TiB declared"),
    (lambda p: with_tiff(p / "t", voxels()[0, :39]) and p / "t", r"3.tif is \[39, 50\]", "sizes of TIFF"),
    (lambda p: with_tiff(p / "t", voxels()[:2]) and p / "t", "3.tif holds 2 pages", "pages"),
    (
        lambda p: with_tiff(p / "t", np.zeros((40, 50, 3), "u1"), photometric="rgb") and p / "t",
        r"3.tif has axes Y, X, S \(colours\)",
        "RGB TIFF",
    ),
    (lambda p: p / "s_03.png", "is one section, not a volume: name the folder", "one file"),
]


@pytest.mark.parametrize(("make", "reason", "why"), BAD_SECTIONS, ids=[why for *_, why in BAD_SECTIONS])
def test_sections_that_make_no_volume_are_refused_in_one_line_without_reading_voxels(
    tmp_path, monkeypatch, make, reason, why
):
    path = make(folder(tmp_path))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("voxels were read"))
    with pytest.raises(ValueError, match=reason) as refusal:
        open_source(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["{}.png", "{}.jpg", "{}.tif"])
def test_a_section_that_is_cut_is_an_error_with_its_name_and_spares_the_others(tmp_path, name):
    path = folder(tmp_path, name=name, **({"compression": "zlib"} if name == "{}.tif" else {}))
    source = open_source(path)
    cut(path / name.format(3), 0.5)
    assert source.read((0, 0, 0), (3, 40, 50)).std() > 9
    with pytest.raises(ValueError, match=rf"{name.format(3)} (cannot be read|is cut)") as refusal:
        source.read((3, 0, 0), (4, 1, 1))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["{}.png", "{}.tif"])
@pytest.mark.parametrize("other", [voxels()[0, :20], voxels("uint16")[0]], ids=["size", "type"])
def test_a_section_that_changes_between_check_and_reading_is_refused(tmp_path, name, other):
    source = open_source(folder(tmp_path, name=name))
    (tifffile.imwrite(tmp_path / "3.tif", other) if "tif" in name else Image.fromarray(other).save(tmp_path / "3.png"))
    with pytest.raises(ValueError, match=r"3.(tif|png) is .* other sections are \[40, 50\] uint8"):
        source.read((2, 0, 0), (5, 1, 1))


def test_a_section_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    path = folder(tmp_path)

    def denied(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.open", denied)  # the superuser may read everything
    with pytest.raises(OSError, match=r"s_00.png cannot be opened \(Permission denied\): mend its permissions"):
        open_source(path)


def test_sections_larger_than_what_pillow_takes_for_an_attack(tmp_path):
    folder(tmp_path, voxels(shape=(1, 200, 200)))
    resized(tmp_path / "s_00.png", 15000)
    assert open_source(tmp_path).shape == (1, 15000, 15000)


CHANGES = [
    (lambda p: (p / "s_02.png").write_bytes(b"x"), "size"),
    (lambda p: os.utime(p / "s_02.png", (1, 1)), "time stamp"),
    (lambda p: (p / "s_02.png").unlink(), "removed"),
    (lambda p: (p / "s_09.png").touch(), "added"),
    (lambda p: (p / "s_02.png").rename(p / "s_07.png"), "renamed"),
    (lambda p: (p / "s_09.png").symlink_to("nothing"), "a link to nothing"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES, ids=[why for _, why in CHANGES])
def test_a_changed_folder_has_another_fingerprint(tmp_path, change, why):
    before = fingerprint(folder(tmp_path))
    assert fingerprint(tmp_path) == before
    change(tmp_path)
    assert fingerprint(tmp_path) != before


def test_a_changed_section_makes_ingest_run_again(tmp_path):
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    hr = {"path": str(folder(tmp_path)), "pattern": "s_{z}.png"}
    values["volumes"]["f"] = {"hr": hr, "labels": hr, "degradation": {"kernel": "area"}}
    settings = Settings(parse(values))
    before = settings.ingest("f", "hr")
    assert json.loads(settings.ingest("f", "labels"))["hr"]["pattern"] == "s_{z}.png"
    swap(tmp_path, 3, voxels()[0])
    assert settings.ingest("f", "hr") != before


def test_a_fingerprint_takes_no_time(tmp_path):
    for z in range(2000):
        (tmp_path / f"{z}.png").touch()
    start = time.process_time()
    fingerprint(tmp_path)
    assert time.process_time() - start < 1, "five times what a slow machine needs"


def test_the_place_of_a_folder_names_its_first_section(tmp_path):
    folder(tmp_path, name="r_{}.png")
    place = Stated(path=str(tmp_path)).place
    assert place == Stated(path=f"{tmp_path}/.", pattern="r_{z}.png").place, "one volume, however it is spelt"
    folder(tmp_path, name="m_{}.png")
    assert Stated(path=str(tmp_path), pattern="m_{z}.png").place != place, "two volumes in one folder"
    with pytest.raises(ValueError, match="does not state the place of the number"):
        Stated(path=str(tmp_path), pattern="m.png")


def test_real_sections_and_membranes(shared, tmp_path):
    path = shared / "data/vnc_sstem"
    wanted = np.stack([tifffile.imread(path / f"sections/{z:02}.tif") for z in range(20)])
    source = open_source(path / "sections", pattern="{z}.tif")
    np.testing.assert_array_equal(source.read((0, 0, 0), (20, 1024, 1024)), wanted)
    membranes = open_source(path / "membranes")
    assert membranes.shape == source.shape
    with Image.open(path / "membranes/07.png") as image:
        np.testing.assert_array_equal(membranes.read((7, 0, 0), (8, 1024, 1024))[0], np.asarray(image))
