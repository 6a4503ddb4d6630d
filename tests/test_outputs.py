"""Outputs of this and every earlier version are read: golden/outputs-VERSION, which tests/golden_outputs.py makes."""

from __future__ import annotations

import re
import shutil
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from emsr.commands.export import export
from emsr.commands.status import status
from emsr.commands.verify import verify
from emsr.durable import read_json
from emsr.models import checkpoint
from emsr.shards import proved
from emsr.slices import result_number
from emsr.steps import affinities, fragments
from emsr.steps.score import score
from emsr.stores import open_source
from emsr.stores.card import array_path, read_card
from emsr.stores.zarr import open_array
from golden_outputs import GOLDEN, chain, score_settings, volume

VERSIONS = sorted(path.name for path in GOLDEN.glob("outputs-*"))


@pytest.fixture(params=VERSIONS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what a version wrote."""
    return shutil.copytree(GOLDEN / request.param, tmp_path / "copy", symlinks=True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the stats, which say what a run took."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if ".stats." not in file.name}


def same_numbers(folder: Path, *steps: str) -> bool:
    """Whether these steps still make what they made; if not, they are right to make it anew."""
    numbers = read_json(folder / "made.json")["results"]
    return all(numbers[step] == result_number(step) for step in steps)


def test_this_version_has_goldens() -> None:
    assert f"outputs-{version('emsr')}" in VERSIONS
    files = [file for file in (GOLDEN / f"outputs-{version('emsr')}").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files if not file.is_symlink()) < 500_000
    places = re.compile(rb"/(work|home|root|tmp|usr)/")
    assert not [file for file in files if places.search(file.read_bytes())], "no path of the machine that made them"


def test_status_and_verify_find_it_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status(folder / "results")
    told = capsys.readouterr().out
    for array in ("cells sr", "cells sr affinities", "cells sr fragments"):
        assert re.search(rf"^{array}: ([0-9]+) of \1 shards done \(100.0 %\), proved whole$", told, re.MULTILINE), told
    verify(folder / "results")
    assert "arrays and cards of" in capsys.readouterr().out


def test_a_finished_run_makes_nothing_again(folder: Path) -> None:
    steps = ("allocate", "superresolve", "stitch", "affinities", "fragments", "agglomerate", "segment")
    if not same_numbers(folder, *steps):
        pytest.skip("its results are made anew, since result numbers were raised")
    before, made, segmented = content(folder), volume(folder), chain(folder)
    proof = made.allocation.with_name("proof.json")
    assert proved(proof, read_json(proof)["settings"]) == [str(made.mark(f"{n}-of-2")) for n in (1, 2)]
    made.allocate()
    assert [made.job(f"{n}-of-2") for n in (1, 2)] == [[], []], "no shard is computed"
    made.stitch(2)
    for stage, step in (("affinities", affinities.affinities), ("fragments", fragments.fragments)):
        for n in (1, 2):
            mark = segmented.folder / stage / "jobs" / f"{n}-of-2.json"
            step(getattr(segmented, stage), mark.parents[1] / "allocate.json", mark.stem, mark, workers=1)
            assert read_json(mark.with_suffix(".stats.json"))["computed"] == []
    with chdir(folder):
        chain(Path()).merge()
    assert content(folder) == before, "the same bytes"


def test_segments_scores_and_weights_are_read(folder: Path) -> None:
    results = folder / "results" / "cells"
    for name in ("bicubic_x4_0", "affinity"):
        checkpoint.load(folder / "weights" / f"{name}.safetensors")
    with chdir(folder):
        score({**score_settings(), "result": result_number("score")}, results / "again.json")
    again, scores = (read_json(results / f"{name}.json") for name in ("again", "scores"))
    if same_numbers(folder, "score"):
        for image in ("bicubic", "sr"):
            assert again["image"][image]["psnr"] == pytest.approx(scores["image"][image]["psnr"], rel=1e-3)
    assert scores["per_section"]


@pytest.mark.parametrize("card", ["sr.json", "segmentations/sr/segments.json"])
def test_it_is_exported(folder: Path, tmp_path: Path, card: str) -> None:
    path = folder / "results" / "cells" / card
    stated = read_card(path)
    export(path, tmp_path / "out.n5", format="n5")
    voxels = open_array(array_path(path, stated)).read().result()
    np.testing.assert_array_equal(open_source(tmp_path / "out.n5", "s0").read((0, 0, 0), voxels.shape), voxels)
