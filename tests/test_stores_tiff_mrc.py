"""TIFF and MRC as sources: voxels and places as their own libraries wrote them; what is no volume is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile

from emsr.stores import open_source
from emsr.stores.admission import admit
from image_files import SHAPE, cut, mrc, pages, patched, tiff, voxels

BOXES = [((0, 0, 0), SHAPE), ((1, 3, 7), (4, 39, 41)), ((4, 17, 33), (5, 18, 34))]
NM = {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 4.6, "PhysicalSizeY": 4.6}


def check_boxes(source, volume) -> None:
    assert (source.shape, source.dtype) == (volume.shape, volume.dtype)
    for start, stop in BOXES:
        box = source.read(start, stop)
        np.testing.assert_array_equal(box, volume[tuple(map(slice, start, stop))])
        assert box.flags.c_contiguous
        assert box.dtype.isnative


TIFFS = [
    ({}, "contiguous pages"),
    ({"compression": "zlib", "rowsperstrip": 8}, "strips"),
    ({"compression": "lzw", "predictor": True}, "LZW with predictor"),
    ({"compression": "zstd", "tile": (16, 32)}, "tiles"),
    ({"tile": (16, 16), "bigtiff": True}, "BigTIFF in tiles"),
    ({"byteorder": ">"}, "big endian"),
    ({"byteorder": ">", "compression": "zlib"}, "big endian, compressed"),
    ({"imagej": True, "metadata": {"axes": "ZYX"}}, "ImageJ"),
    ({"ome": True, "metadata": {"axes": "ZYX"}}, "OME"),
]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("how", "why"), TIFFS, ids=[why for _, why in TIFFS])
def test_a_tiff_is_read_voxel_by_voxel(tmp_path, how, why, dtype):
    volume = voxels(dtype)
    check_boxes(open_source(tiff(tmp_path / "x.tif", volume, **how)), volume)


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"bigtiff": True, "rowsperstrip": 7}])
def test_pages_without_metadata_and_a_name_that_says_nothing(tmp_path, how):
    check_boxes(open_source(pages(tmp_path / "stack", voxels(), **how)), voxels())


def test_pieces_that_are_too_large_for_memory_are_kept_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr("emsr.stores.pieces.LARGE_BYTES", 100)
    check_boxes(open_source(tiff(tmp_path / "x.tif", compression="zlib")), voxels())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match="let TMPDIR name a folder with room"):
        open_source(tmp_path / "x.tif").read((0, 0, 0), (1, 1, 1))


def test_a_piece_is_unpacked_once_for_all_boxes_and_threads(tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from emsr.stores import tiff as module

    asked: list[int] = []
    real = module._decoded
    monkeypatch.setattr(module, "_decoded", lambda *given: (asked.append(given[-1]), real(*given))[1])
    source = open_source(tiff(tmp_path / "x.tif", compression="zlib", rowsperstrip=20))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda x: source.read((0, 0, x), (5, 40, x + 1)), range(50)))
    assert len(asked) == 5 * 2


SIZES = [
    ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeZ": 0.05, **NM}}, (50, 4.6, 4.6), "OME, two units"),
    ({"ome": True, "metadata": {"axes": "ZYX", **NM}}, None, "OME without z"),
    (
        {"imagej": True, "resolution": (1 / 4.6, 1 / 4.6), "metadata": {"axes": "ZYX", "spacing": 50.0, "unit": "nm"}},
        (50, 4.6, 4.6),
        "ImageJ in nm",
    ),
    (
        {
            "imagej": True,
            "resolution": (250.0, 125.0),
            "metadata": {"axes": "ZYX", "spacing": 0.04, "unit": "\\u00B5m"},
        },
        (40, 8, 4),
        "ImageJ in µm, escaped; x and y differ",
    ),
    (
        {"imagej": True, "resolution": (1, 1), "metadata": {"axes": "ZYX", "spacing": 1.0, "unit": "pixel"}},
        None,
        "ImageJ in pixels",
    ),
    ({"imagej": True, "resolution": (1, 1), "metadata": {"axes": "ZYX", "unit": "nm"}}, None, "ImageJ without spacing"),
    ({"resolution": (72, 72), "resolutionunit": "INCH"}, None, "dots per inch say nothing"),
]


@pytest.mark.parametrize(("how", "size", "why"), SIZES, ids=[why for *_, why in SIZES])
def test_voxel_sizes_of_tiff(tmp_path, how, size, why):
    assert open_source(tiff(tmp_path / "x.tif", **how)).voxel_size_nm == size


def ghost(path):
    """OME-XML that names three sections more than there are."""
    tiff(path, ome=True, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes().replace(b'SizeZ="5"', b'SizeZ="8"'))
    return path


def declared(path, side: int, **how):
    """A small file whose width and height are said to be `side`."""
    tiff(path, voxels()[0], metadata=None, **how)
    with tifffile.TiffFile(path) as file:
        offsets = [file.pages.first.tags[name].valueoffset for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    for offset in offsets:
        patched(path, offset, struct.pack("<I", side))
    return path


BAD_TIFF = [
    (lambda p: p.touch() or p, "is empty .0 bytes", "empty"),
    (lambda p: p.write_bytes(b"II*\0junk") and p, "cannot be opened as TIFF|is cut", "junk"),
    (lambda p: cut(tiff(p), 0.6), "is cut", "truncated, contiguous"),
    (lambda p: cut(pages(p, voxels(), compression="zlib"), 0.6), "is cut", "truncated, page by page"),
    (lambda p: cut(tiff(p, compression="zlib"), 0.6), "is cut", "truncated, compressed"),
    (lambda p: cut(tiff(p, imagej=True), 0.6), "is cut", "truncated, ImageJ"),
    (ghost, "is cut", "OME names more sections than there are"),
    (lambda p: declared(p, 2**23), r"is cut.*8388608, 8388608", "64 TiB declared"),
    (
        lambda p: declared(p, 2**23, compression="zlib"),
        "declares .* bytes of voxels but stores",
        "the same, compressed",
    ),
    (lambda p: pages(p, [voxels()[0], voxels()[1][:39]]), r"2 images of different kinds", "sizes differ"),
    (lambda p: pages(p, [voxels()[0], voxels("uint16")[1]]), r"2 images of different kinds", "types differ"),
    (lambda p: tiff(p, np.zeros((5, 40, 50, 3), "u1"), photometric="rgb"), r"S \(colours\).*keep one grey", "RGB"),
    (lambda p: tiff(p, imagej=True, metadata={"axes": "TYX"}), r"T \(times\).*save times that are sections", "times"),
    (lambda p: tiff(p, ome=True, metadata={"axes": "CYX"}), r"C \(channels\)", "channels"),
    (lambda p: tiff(p, voxels().reshape(5, 2, 20, 50)), r"axes Q, Q, Y, X", "four axes"),
    (lambda p: tiff(p, photometric="miniswhite"), "stored as MINISWHITE", "inverted"),
    (lambda p: tiff(p, colormap=np.zeros((3, 256), "u2"), photometric="palette"), "stored as PALETTE", "colour table"),
    (
        lambda p: tiff(p, imagej=True, resolution=(1, 1), metadata={"axes": "ZYX", "spacing": 1.0, "unit": "furlong"}),
        "unit 'furlong' is unknown",
        "unit",
    ),
]


@pytest.mark.parametrize(("make", "reason", "why"), BAD_TIFF, ids=[why for *_, why in BAD_TIFF])
def test_a_tiff_that_is_no_volume_is_refused_in_one_line(tmp_path, caplog, make, reason, why):
    path = make(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=reason) as refusal:
        open_source(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert not caplog.records, "the refusal is the only line"


def test_a_damaged_strip_is_an_error_with_its_place(tmp_path):
    path = tiff(tmp_path / "x.tif", compression="zlib")
    with tifffile.TiffFile(path) as file:
        (offset,) = file.pages[3].dataoffsets
    patched(path, offset + 20, bytes(64))
    source = open_source(path)
    np.testing.assert_array_equal(source.read((0, 0, 0), (3, 40, 50)), voxels()[:3])
    with pytest.raises(ValueError, match="piece 0 of section 3 cannot be read"):
        source.read((2, 0, 0), (5, 1, 1))


@pytest.mark.parametrize("name", ["x.tif", "x.mrc"])
def test_a_file_that_may_not_be_read_is_one_line(tmp_path, monkeypatch, name):
    path = (tiff if name == "x.tif" else mrc)(tmp_path / name)

    def denied(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.open", denied)  # the superuser may read everything
    with pytest.raises(OSError, match=rf"{name} cannot be opened \(Permission denied\): mend its permissions"):
        open_source(path)


@pytest.mark.parametrize("name", ["x.tif", "x.mrc"])
def test_what_a_format_does_not_know_is_refused(tmp_path, name):
    path = (tiff if name == "x.tif" else mrc)(tmp_path / name)
    with pytest.raises(ValueError, match="write dataset: null"):
        open_source(path, "volumes/raw")
    with pytest.raises(ValueError, match="pattern means nothing"):
        open_source(path, pattern="{z}.tif")


def test_jpeg_inside_tiff_is_a_caution_and_one_page_is_no_volume(tmp_path):
    assert "JPEG" in str(open_source(tiff(tmp_path / "x.tif", compression="jpeg")).caution)
    with pytest.raises(ValueError, match="is one section, not a volume"):
        admit(open_source(tiff(tmp_path / "y.tif", voxels()[0])), "hr")


# MRC

IMOD = struct.pack("<i", 1146047817)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_mrc_is_read_voxel_by_voxel(tmp_path, dtype, order):
    volume = voxels("uint16").astype(dtype)
    check_boxes(open_source(mrc(tmp_path / "x.mrc", volume.astype(np.dtype(dtype).newbyteorder(order)))), volume)


@pytest.mark.parametrize(
    ("flags", "grey"), [(None, "shifted"), (1, "shifted"), (0, "as it is")], ids=["MRC2014", "IMOD signed", "IMOD"]
)
def test_bytes_of_mrc_are_signed_as_the_header_says(tmp_path, flags, grey):
    signed = voxels().view(np.int8)
    path = mrc(tmp_path / "x.mrc", signed)
    if flags is not None:
        patched(path, 152, IMOD + struct.pack("<i", flags))
    source = open_source(path)
    check_boxes(source, voxels() if grey == "as it is" else (signed.astype(int) + 128).astype(np.uint8))
    assert (source.caution is None) == (grey == "as it is")


PLACES = [
    ({}, b"", None, (0, 0, 0), "nothing stated"),
    ({"voxel_size": 1}, b"", None, (0, 0, 0), "one angstrom is what is written by default"),
    ({"voxel_size": (46, 46, 475)}, b"", (47.5, 4.6, 4.6), (0, 0, 0), "angstrom"),
    ({"voxel_size": 40, "origin": (80.0, 0.0, 400.0)}, b"", (4, 4, 4), (40, 0, 8), "origin"),
    ({"voxel_size": 40, "nzstart": 3}, b"", (4, 4, 4), (12, 0, 0), "first grid point"),
    ({"voxel_size": 40, "origin": (80.0, 0, 0)}, IMOD + bytes(4), (4, 4, 4), (0, 0, -8), "IMOD's origin"),
    ({"voxel_size": 40, "origin": (80.0, 0, 0)}, IMOD + b"\4\0\0\0", (4, 4, 4), (0, 0, 8), "IMOD's origin, turned"),
]


@pytest.mark.parametrize(("header", "stamp", "size", "corner", "why"), PLACES, ids=[why for *_, why in PLACES])
def test_place_and_voxel_size_of_mrc(tmp_path, header, stamp, size, corner, why):
    source = open_source(patched(mrc(tmp_path / "x.mrc", **header), 152, stamp))
    assert (source.voxel_size_nm, source.corner_nm) == (size, corner)
    admitted = admit(open_source(mrc(tmp_path / "y.mrc", voxels().view("i1"), **header)), "hr", size or (9, 9, 9))
    assert admitted.voxel_size_nm == (size or (9, 9, 9))


BAD_MRC = [
    (lambda p: p.touch() or p, "is empty .0 bytes", "empty"),
    (lambda p: p.write_bytes(b"junk") and p, "cannot be opened as MRC", "junk"),
    (lambda p: cut(mrc(p), 0.7), r"declares \[5, 40, 50\] uint16, which .* bytes cannot hold", "truncated"),
    (lambda p: patched(mrc(p), 0, struct.pack("<3i", *[2**22] * 3)), "bytes cannot hold", "2^66 voxels declared"),
    (lambda p: patched(mrc(p), 0, struct.pack("<i", -50)), "cannot be opened|cannot hold", "negative side"),
    (lambda p: mrc(p, ispg=401, mz=1), r"holds several volumes \(space group 401\)", "volume stack"),
    (lambda p: mrc(p, mapc=3, maps=1), r"are axes \[3, 2, 1\]", "axes exchanged"),
    (lambda p: mrc(p, mode=16), "cannot be opened as MRC.*mode", "RGB"),
    (
        lambda p: patched(mrc(p, voxel_size=40), 48, struct.pack("<f", -9)),
        "not three positive numbers",
        "negative size",
    ),
]


@pytest.mark.parametrize(("make", "reason", "why"), BAD_MRC, ids=[why for *_, why in BAD_MRC])
def test_an_mrc_that_is_no_volume_is_refused_in_one_line(tmp_path, make, reason, why):
    path = make(tmp_path / "x.mrc")
    with pytest.raises(ValueError, match=reason) as refusal:
        open_source(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
