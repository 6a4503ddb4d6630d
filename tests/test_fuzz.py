"""Whatever became of a file, reading it ends with the right data or with ValueError or OSError of one line, and soon.

Within 1 GiB more than before. What is found by a long run becomes a row of the table of bad inputs, or of tests of what
was at fault.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bad_sources import FORMATS, RAW, VOLUME, hdf, little_memory, settings
from emsr import config_files
from emsr.config import Config, parse
from emsr.durable import read_json, write_json
from emsr.models import checkpoint
from emsr.steps.data import ingest
from emsr.steps.sources import admitted
from emsr.stores.journal import Journal
from emsr.stores.zarr import open_array
from fuzzing import examples, other, spoilt, strange
from project import ROOT
from sr_project import SrProject, tissue_like, write_weights
from test_bad_sources_cut import files

SECONDS = 20  # of CPU, a hundred times what an example takes
MOST = (6, 64, 64)


def ends(function: Callable[[], Any]) -> Any:
    """What a function gives, or None after a refusal; anything else that it raises is a fault."""
    began, refusal = time.process_time(), "what it gave"
    try:
        with little_memory():
            return function()
    except (ValueError, OSError) as error:
        refusal = str(error)
    finally:
        assert time.process_time() - began < SECONDS
        assert refusal
        assert refusal.isprintable()
    return None


# sources


@functools.cache
def made(form: str) -> tuple[Path, dict[Path, bytes]]:
    """A good volume, and the files of it that are spoilt, as they were."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{os.getpid()}-", dir=os.environ["FUZZ_FOLDER"]))
    path = FORMATS[form].make(folder)
    return path, {file: file.read_bytes() for file in files(path)}


def read(path: Path, stated: dict[str, Any]) -> np.ndarray:
    """What ingest would read of a source, or of a vast one the first corner."""
    opened, used = admitted(settings(path, **stated), path.parent / "none.json")
    try:
        low = used.box.start
        high = [min(end, first + most) for first, end, most in zip(low, used.box.stop, MOST, strict=True)]
        voxels = opened.read(low, high)
        assert voxels.shape == tuple(b - a for a, b in zip(low, high, strict=True))
        assert voxels.dtype == opened.dtype.newbyteorder("=")
        opened.stored(low[0])
    finally:
        opened.close()
    return voxels


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUZZ_FOLDER", str(tmp_path_factory.mktemp("fuzz")))
        yield


@pytest.mark.parametrize("form", FORMATS)
def test_sources(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    path, kept = made(form)
    stated = FORMATS[form].stated
    truth = ends(lambda: read(path, stated))
    assert truth is not None

    @examples(5)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(sorted(kept)))
        file.write_bytes(data.draw(other(kept[file])))
        try:
            found = ends(lambda: read(path, stated))
        finally:
            file.write_bytes(kept[file])
        if form == "an array of emsr" and file.name != "zarr.json":
            assert found is None or np.array_equal(found, truth), "its voxels have checksums"

    holds()
    assert capfd.readouterr().out == ""


# configs


@functools.cache
def config_values() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "config.yaml").read_text()))


def read_config(content: bytes) -> Config | None:
    file = Path(os.environ["FUZZ_FOLDER"], "config.yaml")
    file.write_bytes(content)
    found: Config | None = ends(lambda: parse(config_files.read(file)))
    return found


@examples(30)
@given(spoilt(yaml.safe_dump(config_values(), sort_keys=False).encode()))
def test_configs_of_other_bytes(content: bytes) -> None:
    read_config(content)


@examples(40)
@given(strange(config_values()))
def test_configs_of_strange_values(values: Any) -> None:
    read_config(yaml.safe_dump(values).encode())


# weights


@functools.cache
def weights() -> tuple[Path, bytes, dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(dir=os.environ["FUZZ_FOLDER"]))
    card = write_weights(folder, "gpemsr", 4)
    path = card.with_suffix(".safetensors")
    return path, path.read_bytes(), read_json(card)


def load(content: bytes, card: Any) -> torch.nn.Module | None:
    path, *_ = weights()
    path.write_bytes(content)
    write_json(path.with_suffix(".json"), card)
    found: torch.nn.Module | None = ends(lambda: checkpoint.load(path))
    return found


@examples(8)
@given(st.data())
def test_weights_of_other_bytes_that_are_signed(data: st.DataObject) -> None:
    _, content, card = weights()
    content = data.draw(spoilt(content))
    found = load(content, {**card, "sha256": hashlib.sha256(content).hexdigest()})
    assert found is None or all(torch.isfinite(tensor).all() for tensor in found.state_dict().values())


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@examples(12)
@given(st.data())
def test_cards_of_strange_values(data: st.DataObject) -> None:
    _, content, card = weights()
    load(content, data.draw(strange(card)))


# what a killed run left


@examples(6)
@given(st.data())
def test_journals(data: st.DataObject) -> None:
    """Whatever stands there, the array is right in the end."""
    folder = Path(tempfile.mkdtemp(dir=os.environ["FUZZ_FOLDER"]))
    try:
        stated = settings(hdf(folder), **RAW)
        ingest(stated, folder / "hr.json")
        journal = Journal(folder / "hr.json", {"x": 1})
        with journal.open():
            pass
        lines = journal.file.read_bytes() + b"[0,0,0]\n[4,0,0]\n"
        journal.file.write_bytes(data.draw(spoilt(lines)))
        (folder / "hr.zarr/0/c/0/0/0").unlink()
        ingest(stated, folder / "hr.json")
        assert np.array_equal(open_array(folder / "hr.zarr")[...].read().result(), VOLUME)
    finally:
        shutil.rmtree(folder)


# what jobs leave and read


@functools.cache
def finished() -> tuple[Path, np.ndarray]:
    """A super-resolved volume with all its documents, and its voxels."""
    folder = Path(tempfile.mkdtemp(dir=os.environ["FUZZ_FOLDER"]))
    project = SrProject(folder, write_weights(folder, "bicubic", 4))
    project.write_lr(tissue_like((3, 18, 20)))
    project.all()
    return folder, project.voxels()


@examples(12)
@given(st.data())
def test_documents_and_shards_of_jobs(data: st.DataObject) -> None:
    """A job and stitch that go on after something happened to one file make the same voxels, or say what is wrong."""
    good, truth = finished()
    folder = Path(tempfile.mkdtemp(dir=os.environ["FUZZ_FOLDER"]))
    shutil.copytree(good, folder, symlinks=True, dirs_exist_ok=True)
    try:
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        named = data.draw(st.sampled_from([name for name in names if not name.startswith("sr.zarr")]))
        file = folder / named
        file.write_bytes(data.draw(spoilt(file.read_bytes(), most=1)))
        project = SrProject(folder, folder / "bicubic_x4_0.json")
        if ends(lambda: (project.job("1-of-1"), project.stitch(1))) is not None:
            assert np.array_equal(project.voxels(), truth), named
    finally:
        shutil.rmtree(folder)
