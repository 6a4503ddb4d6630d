"""What `emsr run` takes for success: every shard of what was asked for, and of what that is made of, has a record."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from emsr.driver import finish
from emsr.durable import read_json, write_sealed
from segment_project import Chain, image, weights
from sr_project import tissue_like

ALL = ["segments.json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    (results / "v").mkdir()
    chain = Chain(results / "v" / "segmentations" / "hr", jobs=2)
    chain.all(image(results / "v", tissue_like((3, 34, 34))), weights(results))
    return results


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The folder of a finished segmentation."""
    shutil.copytree(finished, tmp_path / "results", symlinks=True)
    return tmp_path / "results" / "v" / "segmentations" / "hr"


def check(folder: Path, *targets: str) -> None:
    """Of targets of a run; without any, of all of it, which has segments for targets."""
    settings = SimpleNamespace(root=str(folder.parents[2]), targets=[str(folder / name) for name in ALL])
    finish.check(settings, [str(folder / name) for name in targets])  # type: ignore[arg-type]


def of_job(folder: Path, stage: str, job: str) -> Path:
    """The record of a shard of a job."""
    name = next(iter(read_json(folder / stage / "jobs" / f"{job}.json")["shards"]))
    return next(folder.glob(f"{stage}/*.records/{name}.json"))


@pytest.mark.parametrize("stage", ["affinities", "fragments"])
@pytest.mark.parametrize(
    "targets", [(), ("segments.json",), ("agglomeration.json",), ("{stage}.json",), ("{stage}/jobs/2-of-2.json",)]
)
def test_a_record_that_lacks_is_no_success(folder: Path, stage: str, targets: Sequence[str]) -> None:
    named = [target.format(stage=stage) for target in targets]
    check(folder, *named)
    of_job(folder, stage, "2-of-2").unlink()
    with pytest.raises(ValueError, match=r"snakemake ended well, but 1 of \d shards of .*: run again") as raised:
        check(folder, *named)
    assert stage in str(raised.value)


def test_shards_of_other_jobs_are_not_asked_for(folder: Path) -> None:
    of_job(folder, "fragments", "1-of-2").unlink()
    check(folder, "fragments/jobs/2-of-2.json")


def test_a_mark_must_name_what_is_recorded(folder: Path) -> None:
    mark = folder / "affinities" / "jobs" / "1-of-2.json"
    stated = read_json(mark)
    for spoilt, why in (
        (
            {"shards": stated["shards"] | {"9_9_9": "0" * 64}},
            "1 of 3 shards of .*1-of-2.json have no record that holds",
        ),
        ({"shards": dict.fromkeys(stated["shards"], "0" * 64)}, "2 of 2 shards of .*1-of-2.json have no record"),
        ({"weights_sha256": "0" * 64}, "1-of-2.json is of other settings or weights"),
    ):
        write_sealed(mark, stated | spoilt)
        with pytest.raises(ValueError, match=why):
            check(folder, "affinities/jobs/1-of-2.json")


def test_what_was_removed_is_not_asked_for(folder: Path) -> None:
    shutil.rmtree(folder / "affinities")
    (folder / "affinities.json").unlink()
    check(folder)
    with pytest.raises(ValueError, match=r"affinities.json is not there"):
        check(folder, "affinities.json")
