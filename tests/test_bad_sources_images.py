"""Bad input of TIFF, folders of images and MRC; see test_bad_sources.py for what is where and which cases cannot be.

In a folder of TIFF, PNG or JPEG a section that is not there is a missing section (test_stores_images.py). TIFF says
nothing of a strip or tile without bytes, so that is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from bad_sources import COLOURS, FLOATS, IMAGES, SIGNED, SIZE, VOLUME, WIDE, Row, check_row, ids, spoilt, torn
from emsr.stores import open_source
from image_files import cut, folder, mrc, pages, patched, tiff

SIZED = {"axes": "ZYX"} | {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
SIZED |= {"PhysicalSizeZ": 40, "PhysicalSizeY": 4, "PhysicalSizeX": 4}
OME = {"ome": True, "metadata": {"axes": "ZYX"}}
TILES = {"tile": (16, 16), "compression": "zlib"}
NEVER = r"piece 1 of section 2 was never written \(0 bytes\), and TIFF does not say what is there: write it again"
DECLARED = r"declares \[5, 40, 50\] uint16.*, which \d+ bytes cannot hold: copy it again"


def stack(**how: Any) -> Callable[[Path], Path]:
    return lambda p: tiff(p / "x.tif", **how)


def of(voxels: np.ndarray, **how: Any) -> Callable[[Path], Path]:
    """A TIFF of other voxels."""
    return lambda p: tiff(p / "x.tif", voxels, **how)


def tags(path: Path, page: int, values: dict[str, tuple[int, int]]) -> Path:
    """A TIFF one of whose pages has other values: of each tag a value and its place among the tag's values."""
    with tifffile.TiffFile(path) as file:
        found = (file.pages[page].aspage() if page else file.pages[0]).tags
        places = [(found[name].valueoffset, found[name].dtype, where, value) for name, (where, value) in values.items()]
    for offset, kind, where, value in places:
        layout = {3: "<H", 4: "<I", 16: "<Q"}[int(kind)]
        patched(path, offset + where * struct.calcsize(layout), struct.pack(layout, value))
    return path


def sparse(kind: str, **how: Any) -> Callable[[Path], Path]:
    """Piece 1 of section 2 has no bytes, as GDAL writes what is empty."""
    values = {f"{kind}Offsets": (1, 0), f"{kind}ByteCounts": (1, 0)}
    return lambda p: tags(pages(p / "x.tif", VOLUME, **how), 2, values)


def short(page: int, **how: Any) -> Callable[[Path], Path]:
    """A strip of fewer bytes than its voxels take, in a file that is long enough for all of them."""
    return lambda p: tags(pages(p / "x.tif", VOLUME, rowsperstrip=8, **how), page, {"StripByteCounts": (1, 100)})


def declaring(side: int, **how: Any) -> Callable[[Path], Path]:
    """A page of 40 x 50 that says it has other sides."""
    sides = {"ImageWidth": (0, side), "ImageLength": (0, side), "RowsPerStrip": (0, side)}
    sides = {name: sides[name] for name in sides if "tile" not in how or name != "RowsPerStrip"}
    return lambda p: tags(tiff(p / "x.tif", VOLUME[0], metadata=None, **how), 0, sides)


def ome_sections(number: bytes) -> Callable[[Path], Path]:
    """OME-XML that names another number of sections than there are pages."""
    said = b'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    said += b'DimensionOrder="XYZCT" Type="uint8" SizeX="50" SizeY="40" SizeZ="%s" SizeC="1" SizeT="1"><TiffData/>'
    return lambda p: pages(p / "x.tif", VOLUME, description=said % number + b"</Pixels></Image></OME>")


def png(side: int, packed: bytes) -> bytes:
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    whole = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def images(name: str = "{}.png", **how: Any) -> Callable[[Path], Path]:
    return lambda p: folder(p / "f", name=name, **how)


def with_section(name: str, section: np.ndarray, mode: str | None = None) -> Callable[[Path], Path]:
    """A folder with one section of other voxels."""

    def made(p: Path) -> Path:
        path = folder(p / "f", name=f"{{}}{Path(name).suffix}")
        image = Image.fromarray(section)
        (image.convert(mode) if mode else image).save(path / name)
        return path

    return made


def jpeg_sides(content: bytes) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", 65500, 65500) + content[at + 4 :]


def bomb(side: int) -> Callable[[Path], Path]:
    """A PNG of which a thousandth is stored, as deflate may."""
    return lambda p: spoilt(folder(p / "f", name="{}.png"), "0.png", lambda _: png(side, bytes(side * side // 1030)))


SECTIONS = "other sections are [40, 50] uint8: all need the same size and type".replace("[", r"\[").replace("]", r"\]")
TIFF: list[Row] = [
    ("TIFF", "truncated", lambda p: cut(tiff(p / "x.tif"), 0.6), SIZE, "is cut, .*: copy it again"),
    ("BigTIFF", "truncated", lambda p: cut(tiff(p / "x.tif", bigtiff=True), 0.6), SIZE, "is cut, .*: copy it again"),
    ("tiled TIFF", "truncated", lambda p: cut(tiff(p / "x.tif", **TILES), 0.6), SIZE, "is cut, .*: copy it again"),
    ("OME-TIFF", "truncated", lambda p: cut(tiff(p / "x.tif", **OME), 0.6), SIZE, "is cut, .*: copy it again"),
    ("OME-TIFF", "its XML truncated", lambda p: cut(tiff(p / "x.tif", **OME), 0.97), SIZE, "is cut, .*: copy it again"),
    ("TIFF", "empty", lambda p: cut(tiff(p / "x.tif"), 0), SIZE, r"is empty \(0 bytes\): copy it again"),
    ("TIFF", "two axes", of(VOLUME[0]), SIZE, "is one section, not a volume: stack sections"),
    ("TIFF", "four axes", of(VOLUME.reshape(5, 2, 20, 50)), SIZE, "has axes Q, Q, Y, X of .*: keep one grey channel"),
    ("ImageJ TIFF", "times", stack(imagej=True, metadata={"axes": "TYX"}), SIZE, r"T \(times\).*: keep .*save times"),
    ("OME-TIFF", "channels", stack(ome=True, metadata={"axes": "CYX"}), SIZE, r"C \(channels\).*: keep one grey"),
    ("OME-TIFF", "axes reversed", stack(ome=True, metadata=SIZED), {"voxel_size_nm": [4, 4, 40]},
     r"\(reversed axes\?\): correct the one that is wrong"),
    ("TIFF", "RGB", of(COLOURS, photometric="rgb"), SIZE, r"S \(colours\) of .*: keep one grey channel"),
    ("tiled TIFF", "RGB", of(COLOURS, photometric="rgb", tile=(16, 16)), SIZE, r"S \(colours\) of .*: keep one grey"),
    ("TIFF", "float", of(FLOATS), SIZE, f"is float32, {IMAGES}"),
    ("BigTIFF", "float", of(FLOATS, bigtiff=True), SIZE, f"is float32, {IMAGES}"),
    ("TIFF", "signed", of(SIGNED), SIZE, f"is int8, {IMAGES}"),
    ("tiled TIFF", "signed", of(SIGNED, **TILES), SIZE, f"is int8, {IMAGES}"),
    ("TIFF", "complex", of(VOLUME.astype("c8")), SIZE, f"is complex64, {IMAGES}"),
    ("TIFF", "one bit", of(VOLUME > 9), SIZE, f"is bool, {IMAGES}"),
    ("TIFF", "sections of two sizes", lambda p: pages(p / "x.tif", [VOLUME[0], VOLUME[1, :39]]), SIZE,
     r"holds 2 images of different kinds \(\[40, 50\] and \[39, 50\]\): keep one stack a file"),
    ("TIFF", "sections of two types", lambda p: pages(p / "x.tif", [VOLUME[0], FLOATS[1]]), SIZE, "of different kinds"),
    ("TIFF", "a strip without bytes", sparse("Strip", rowsperstrip=8), SIZE, NEVER),
    ("TIFF", "a packed strip without bytes", sparse("Strip", rowsperstrip=8, compression="zlib"), SIZE, NEVER),
    ("tiled TIFF", "a tile without bytes", sparse("Tile", **TILES), SIZE, NEVER),
    ("TIFF", "a short strip of the first page", short(0), SIZE, "is cut, .* not hold all of section 0 .*: copy"),
    ("TIFF", "a short strip of another page", short(2), SIZE, "is cut, .* not hold all of section 2 .*: copy"),
    ("TIFF", "2^31 x 2^31", declaring(2**31), SIZE, r"is cut, .*\[2147483648, 2147483648\]: copy it again"),
    ("TIFF", "2^31 x 2^31, packed", declaring(2**31, compression="zlib"), SIZE, r"declares 46\d+ bytes .*: copy"),
    ("BigTIFF", "2^31 x 2^31", declaring(2**31, compression="zlib", bigtiff=True), SIZE, r"46\d+ bytes .*: copy"),
    ("tiled TIFF", "2^31 x 2^31", declaring(2**31, **TILES), SIZE, "lists 12 pieces .* needs 18014398509481984: save"),
    *(("OME-TIFF", f"{number.decode()} sections", ome_sections(number), SIZE, reason) for number, reason in (
      (b"7", "is cut, pages that it names are not in it: copy it again"),
      (b"0", "its OME-XML does not describe its 5 pages: save the stack again"),
      (b"2147483647", "its OME-XML declares 2147483647 planes, 5 are there: save it again"))),
]  # fmt: skip
FOLDERS: list[Row] = [
    *((f"folder of {kind}", case, damage, SIZE, reason) for kind, name in (("TIFF", ".tif"), ("PNG", ".png"),
      ("JPEG", ".jpg")) for case, damage, reason in (
      ("truncated", lambda p, name=name: torn(images(f"{{}}{name}")(p), f"0{name}", 900), rf"0{name} .*: copy it"),
      ("a torn header", lambda p, name=name: torn(images(f"{{}}{name}")(p), f"3{name}", 30), rf"3{name} .*: copy it"),
      ("empty", lambda p, name=name: torn(images(f"{{}}{name}")(p), f"3{name}", 0), rf"3{name} is empty .*: copy"),
      ("sizes", with_section(f"3{name}", VOLUME[0, :39]), rf"3{name} is \[39, 50\] uint8, {SECTIONS}, pad or"),
      ("RGB", with_section(f"3{name}", COLOURS[0]), rf"3{name} (has axes Y, X, S|is of mode RGB).*: (keep|convert)"))),
    ("folder of PNG", "types", with_section("3.png", VOLUME[0].astype("u2")), SIZE, f"3.png .* uint16, {SECTIONS}"),
    ("folder of TIFF", "types", with_section("3.tif", VOLUME[0].astype("u2")), SIZE, f"3.tif .* uint16, {SECTIONS}"),
    ("folder of TIFF", "float", images("{}.tif", volume=FLOATS), SIZE, f"is float32, {IMAGES}"),
    ("folder of TIFF", "pages", lambda p: tiff(folder(p / "f", name="{}.tif") / "3.tif", VOLUME).parent, SIZE,
     "3.tif holds 5 pages: keep one section a file"),
    ("folder of PNG", "one bit", with_section("3.png", VOLUME[0], "1"), SIZE, r"mode 1 \(1\), not grey .*: convert it"),
    ("folder of PNG", "no image", lambda p: (p / "f").mkdir() or p / "f", SIZE, "is of no format .*: convert it"),
    ("folder of PNG", "60000 x 60000 in 3 MB", bomb(60000), SIZE, "3600000000 bytes .* than 2 GiB .*: save it"),
    ("folder of PNG", "2^23 x 2^23 in 1 kB", lambda p: spoilt(images()(p), "0.png", lambda _: png(2**23, b"")), SIZE,
     "declares 70368744177664 bytes of voxels but stores .*: copy or write it again"),
    ("folder of JPEG", "65500 x 65500 in 2 kB", lambda p: spoilt(images("{}.jpg")(p), "0.jpg", jpeg_sides), SIZE,
     "declares 4290250000 bytes of voxels but stores .*: copy or write it again"),
]  # fmt: skip
MRC: list[Row] = [
    ("MRC", "truncated", lambda p: cut(mrc(p / "x.mrc"), 0.7), SIZE | WIDE, DECLARED),
    ("MRC", "a torn header", lambda p: cut(mrc(p / "x.mrc"), 0.03), SIZE | WIDE, "opened as MRC .*: copy it again"),
    ("MRC", "empty", lambda p: cut(mrc(p / "x.mrc"), 0), SIZE | WIDE, r"is empty \(0 bytes\): copy it again"),
    ("MRC", "axes exchanged", lambda p: mrc(p / "x.mrc", mapc=3, maps=1), SIZE | WIDE, r"are axes \[3, 2, 1\].*: rew"),
    ("MRC", "axes reversed", lambda p: mrc(p / "x.mrc", voxel_size=(40, 40, 400)), {"voxel_size_nm": [4, 4, 40]} | WIDE,
     r"\(reversed axes\?\): correct the one that is wrong"),
    ("MRC", "several volumes", lambda p: mrc(p / "x.mrc", ispg=401, mz=1), SIZE | WIDE, "several volumes .*: save"),
    ("MRC", "RGB", lambda p: mrc(p / "x.mrc", mode=16), SIZE | WIDE, "opened as MRC .*mode.*: copy it"),
    ("MRC", "float", lambda p: mrc(p / "x.mrc", FLOATS), SIZE, f"is float32, {IMAGES}"),
    ("MRC", "complex", lambda p: mrc(p / "x.mrc", VOLUME.astype("c8")), SIZE, f"is complex64, {IMAGES}"),
    ("MRC", "signed", lambda p: mrc(p / "x.mrc", VOLUME.astype("i2")), SIZE, f"is int16, {IMAGES}"),
    ("MRC", "2^90 voxels", lambda p: patched(mrc(p / "x.mrc"), 0, struct.pack("<3i", *[2**30] * 3)), SIZE | WIDE,
     "declares .*1073741824, 1073741824.*, which 21024 bytes cannot hold: copy it again"),
    ("MRC", "an axis below 0", lambda p: patched(mrc(p / "x.mrc"), 0, struct.pack("<2i", -50, -40)), SIZE | WIDE,
     "declares .* bytes cannot hold: copy it again"),
    *(("MRC", f"an extended header of {length} bytes", lambda p, length=length: patched(mrc(p / "x.mrc"), 92,
       struct.pack("<i", length)), SIZE | WIDE, DECLARED) for length in (2**30, -(2**30), 8)),
]  # fmt: skip
ROWS = TIFF + FOLDERS + MRC


@pytest.mark.parametrize("row", ROWS, ids=ids(ROWS))
def test_a_bad_source_is_one_line_before_anything_is_written(tmp_path, capfd, row):
    check_row(row, tmp_path, capfd)


def test_strips_of_a_later_page_lie_where_that_page_says(tmp_path):
    path = pages(tmp_path / "x.tif", VOLUME, rowsperstrip=8)
    with tifffile.TiffFile(path) as file:
        first, second = file.pages[3].dataoffsets[:2]
    tags(tags(path, 3, {"StripOffsets": (0, second)}), 3, {"StripOffsets": (1, first)})
    expected = VOLUME.copy()
    expected[3, :8], expected[3, 8:16] = VOLUME[3, 8:16], VOLUME[3, :8]
    np.testing.assert_array_equal(tifffile.imread(path), expected, "what its own library reads")
    np.testing.assert_array_equal(open_source(path).read((0, 0, 0), VOLUME.shape), expected)
