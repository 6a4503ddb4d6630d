"""Files of every format, exports of emsr among them, cut at many lengths or spoilt: one line, or exactly the voxels.

Never a traceback, never zeros in place of what is lost. Lengths and places are fixed, so that a failure comes back.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bad_sources import FORMATS, refused, settings
from emsr.steps.data import ingest
from emsr.stores.zarr import open_array

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json", "info")
SECONDS = 20  # a hundred times what one example takes
STRANGE = [None, -1, 0, 2**70, 1.5, "x", "\n\x1b[2J", [], {}, [[0, 0, 0]], [-1, -1, -1], [2**31] * 3]
IN_JSON = [form for form in FORMATS if any(name in form for name in ("OME-Zarr", "zarr", "N5", "precomputed"))]
HEADERS = [form for form in FORMATS if any(name in form for name in ("TIFF", "MRC", "PNG", "JPEG")) and "," not in form]


def outcome(path: Path, stated: dict[str, Any], out: Path) -> np.ndarray | None:
    """The voxels that ingest made, or None after a refusal of one line."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    try:
        ingest(settings(path, **stated), out / "hr.json")
    except Exception:
        shutil.rmtree(out, ignore_errors=True)
        refused(path, stated, out)
        return None
    finally:
        assert time.monotonic() - began < SECONDS
    voxels: np.ndarray = open_array(out / "hr.zarr")[...].read().result()
    return voxels


def files(path: Path) -> list[Path]:
    """A volume's file, or metadata and the first and last file of voxels that are no coarser level."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and "1" not in file.relative_to(path).parts[:1])
    voxels = [file for file in found if file.name not in METADATA]
    return [*(file for file in found if file.name in METADATA), voxels[0], voxels[-1]]


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_was_cut(tmp_path, capfd, form):
    path, stated = FORMATS[form].make(tmp_path), FORMATS[form].stated
    truth = outcome(path, stated, tmp_path / "ingested")
    assert truth is not None
    held = 0
    for file in files(path):
        whole = file.read_bytes()
        for length in sorted({0, 1, 12, len(whole) // 2, len(whole) - 1}):
            file.write_bytes(whole[:length])
            voxels = outcome(path, stated, tmp_path / "ingested")
            held += voxels is not None
            assert voxels is None or np.array_equal(voxels, truth), f"{file} cut at {length} of {len(whole)}"
        file.write_bytes(whole)
    assert held <= 3, "only ends without meaning: a line break, what no tag names"
    assert capfd.readouterr().out == ""


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON document stand."""
    yield at
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))


def replaced(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    changed = inner = copy.deepcopy(document)
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed


@pytest.mark.parametrize("form", IN_JSON)
def test_metadata_of_strange_values(tmp_path, capfd, form):
    """Voxels may differ where metadata mean something else then, for example another shape."""
    path, stated = FORMATS[form].make(tmp_path), FORMATS[form].stated
    random = np.random.default_rng(len(form))
    for file in files(path):
        if file.name not in METADATA:
            continue
        text = file.read_text()
        document = json.loads(text)
        every = [(at, value) for at in places(document) for value in STRANGE]
        for number in random.choice(len(every), min(16, len(every)), replace=False):
            file.write_text(json.dumps(replaced(document, *every[number])))
            outcome(path, stated, tmp_path / "ingested")
        file.write_text(text)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("form", HEADERS)
def test_headers_with_other_bytes(tmp_path, capfd, form):
    """No header proves its own bytes, so other voxels may be read, but nothing else happens."""
    path, stated = FORMATS[form].make(tmp_path), FORMATS[form].stated
    random, file = np.random.default_rng(len(form)), files(path)[-1]
    whole = file.read_bytes()
    for number in range(24):
        ends = [(0, min(300, len(whole))), (max(0, len(whole) - 800), len(whole))]
        at, bytes_ = int(random.integers(*ends[number % 2])), random.integers(0, 256, 2, np.uint8).tobytes()
        file.write_bytes(whole[:at] + bytes_ + whole[at + 2 :])
        outcome(path, stated, tmp_path / "ingested")
    assert capfd.readouterr().out == ""
