"""Affinities and fragments are removed once all made of them is proved, and not before; readers say where they went."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from emsr.commands.repair import repair
from emsr.commands.verify import verify
from emsr.durable import read_json, write_json
from emsr.steps import agglomeration, fragments
from emsr.steps.discard import discard
from emsr.stores.zarr import open_array, write_box
from segment_project import Chain, image, weights
from sr_project import tissue_like

SETTINGS = {"stages": ["affinities", "fragments"], "scores": None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    chain = Chain(results / "v" / "segmentations" / "hr", jobs=2, shard=(3, 32, 32))
    (results / "v").mkdir(exist_ok=True)
    chain.all(image(results / "v", tissue_like((3, 40, 40))), weights(results))
    return results


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The folder of a finished segmentation."""
    shutil.copytree(finished, tmp_path / "results", symlinks=True)
    return tmp_path / "results" / "v" / "segmentations" / "hr"


def removed(folder: Path, **settings: object) -> None:
    discard({**SETTINGS, **settings}, folder / "segments.json", folder / "removed.json", workers=1)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_only_what_proves_and_what_is_made_of_it_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, segments = names(folder), read_json(folder / "segments.json")
    removed(folder)
    gone = before - names(folder)
    assert {"affinities.json", "fragments.json", "agglomeration.json"} <= gone
    assert all(name.startswith(("affinities", "fragments", "agglomeration")) for name in gone)
    assert {name for name in names(folder) if "/" in name and not name.startswith("segments.zarr")} == {
        "affinities/proof.json", "fragments/proof.json"
    }  # fmt: skip
    stated = {"schema": 1, "removed": ["affinities", "fragments"], "segments_sha256": segments["sha256"]}
    assert read_json(folder / "removed.json") == stated
    verify(folder.parents[2])
    assert "are what was made" in capsys.readouterr().out
    removed(folder)
    assert read_json(folder / "removed.json") == stated, "the same when run again"


def test_one_of_both(folder: Path) -> None:
    removed(folder, stages=["affinities"])
    assert (folder / "fragments.json").is_file()
    assert list(folder.glob("fragments/fragments-*.zarr"))
    assert not (folder / "affinities.json").exists()
    verify(folder.parents[2])


def spoil_voxels(folder: Path) -> None:
    array = open_array(folder / "segments.zarr", write=True)
    write_box(array, (0, 0, 0), np.full((3, 32, 32), 7, np.uint64))


def spoil_agglomeration(folder: Path) -> None:
    write_json(folder / "agglomeration.json", {**read_json(folder / "agglomeration.json"), "sha256": "0" * 64})


def spoil_fragments(folder: Path) -> None:
    write_json(folder / "fragments.json", {**read_json(folder / "fragments.json"), "sha256": "0" * 64})


UNPROVED = [
    (spoil_voxels, "segments.zarr does not hold the voxels of its card"),
    (spoil_agglomeration, "segments.json is not made of .*agglomeration.json"),
    (spoil_fragments, "agglomeration.json is not made of .*fragments.json"),
    (lambda folder: (folder / "segments.json").unlink(), "segments.json does not exist"),
]


@pytest.mark.parametrize(("spoil", "why"), UNPROVED, ids=[row[1] for row in UNPROVED])
def test_nothing_is_removed_that_something_unproved_is_made_of(folder: Path, spoil, why: str) -> None:
    spoil(folder)
    before = names(folder)
    with pytest.raises((ValueError, OSError), match=why):
        removed(folder)
    assert names(folder) == before


def test_scores_must_be_of_these_segments(folder: Path) -> None:
    scores = folder / "scores.json"
    write_json(scores, {"schema": 1, "settings": {"sha256": {"hr": "0" * 64}}})
    with pytest.raises(ValueError, match="scores other segments than"):
        removed(folder, scores=str(scores))
    assert (folder / "affinities.json").is_file()
    write_json(scores, {"schema": 1, "settings": {"sha256": {"hr": read_json(folder / "segments.json")["sha256"]}}})
    removed(folder, scores=str(scores))
    assert not (folder / "affinities.json").exists()


def test_a_removal_that_was_killed_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            removed(folder)
    assert not (folder / "affinities.json").exists(), "no card without its array"
    assert not (folder / "removed.json").exists()
    removed(folder)
    assert names(folder) >= {"removed.json"}
    assert not list(folder.glob("*/*.zarr")) + list(folder.glob("*/*.records"))


def test_damaged_fragments_are_mended_from_affinities_made_again(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    removed(folder, stages=["affinities"])
    spoilt, record = (
        next(folder.glob("fragments/*.zarr/0/c/0/1/0")),
        next(folder.glob("fragments/*.records/0_1_0.json")),
    )
    whole, others = (
        spoilt.read_bytes(),
        {path: path.stat().st_ino for path in record.parent.glob("*") if path != record},
    )
    spoilt.write_bytes(whole[: len(whole) // 2])
    repair(folder.parents[2])
    why = r"fragments: shard 0_1_0: its file .* is damaged .*; .*/affinities.json, of which it is made, is gone and is"
    assert re.search(f"{why} made again too", capsys.readouterr().out)
    assert not (folder / "fragments" / "allocate.json").exists(), "so that a run asks for affinities"
    assert not (folder / "fragments.json").exists()
    chain = Chain(folder, shard=(3, 32, 32))
    chain.all(folder.parents[1] / "hr.json", folder.parents[2] / "affinity.json")
    assert spoilt.read_bytes() == whole
    assert {path: path.stat().st_ino for path in others} == others, "no other shard is cut again"
    before = finished / folder.relative_to(folder.parents[2])
    for name in ("affinities.json", "fragments.json", "fragments/allocate.json", "agglomeration.json", "segments.json"):
        assert (folder / name).read_bytes() == (before / name).read_bytes()


def test_readers_say_where_it_went(folder: Path) -> None:
    removed(folder, stages=["affinities"])
    settings = {"method": "exact", "until": 0.9, "affinities": str(folder / "affinities.json")}
    with pytest.raises(FileNotFoundError, match=r"affinities.json was removed when all made of it was proved \(keep"):
        agglomeration.agglomerate(settings, folder / "fragments.json", folder / "agglomeration.json", workers=1)
    mark = folder / "fragments" / "jobs" / "1-of-2.json"
    sorted(folder.glob("fragments/*.records/*.json"))[0].unlink()
    chain = Chain(folder)
    with pytest.raises(FileNotFoundError, match=r"was removed .*/fragments/allocate.json before, so that it is needed"):
        fragments.fragments(chain.fragments, folder / "fragments" / "allocate.json", mark.stem, mark, workers=1)
