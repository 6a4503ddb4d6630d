"""`emsr verify` names what is damaged, and after `emsr repair` the next run makes that again and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from emsr import cli
from emsr.commands.recorded import open_allocation
from emsr.durable import read_json, write_json
from emsr.steps.data import degrade, ingest
from segment_project import Chain, image, weights
from sr_project import SrProject, tissue_like, write_weights

SHAPE = (7, 20, 28)
NAME = "1_0_1"  # a shard of the second job


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with one volume of two jobs, proved; two levels."""
    results = tmp_path_factory.mktemp("results")
    folder = results / "cells"
    folder.mkdir()
    made = SrProject(folder, write_weights(folder, "bicubic", 4))
    made.settings |= {"shard": [4, 64, 64]}
    made.write_lr(tissue_like((7, 72, 80)))
    made.all(2)
    return results


def copy(whole: Path, folder: Path) -> SrProject:
    shutil.copytree(whole, folder, symlinks=True)
    return SrProject(folder / "cells", folder / "cells" / "bicubic_x4_0.json")


def shard(made: SrProject, name: str = NAME, level: int = 0) -> Path:
    return (made.folder / "sr.zarr").resolve().joinpath(str(level), "c", *name.split("_"))


def record(made: SrProject, name: str = NAME) -> Path:
    return (made.folder / "sr.zarr").resolve().with_suffix(".records") / f"{name}.json"


def flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 4
    path.write_bytes(data)


def another_hash(path: Path) -> None:
    write_json(path, read_json(path) | {"sha256": "0" * 64})


def mark_of_another(path: Path) -> None:
    mark = read_json(path)
    write_json(path, mark | {"shards": mark["shards"] | {NAME: "0" * 64}})


def content(folder: Path) -> dict[str, bytes]:
    """All that inputs determine."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith("stats.json"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def verified(results: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines of `emsr verify`, whose exit code agrees with them."""
    capsys.readouterr()
    code = cli.main(["verify", str(results), *words])
    lines = capsys.readouterr().out.splitlines()
    assert code == (not (len(lines) == 1 and lines[0].endswith("are what was made")))
    return lines if code else []


def run_again(made: SrProject) -> list[str]:
    """What a workflow does: jobs whose mark is gone, then the proof; says which shards were computed."""
    computed: list[str] = []
    for job in ("1-of-2", "2-of-2"):
        if not made.mark(job).is_file():
            computed += made.job(job)
    made.stitch(2)
    return computed


def swap(made: SrProject) -> None:
    shutil.copy(shard(made, "0_0_1"), shard(made))


FAULTS: list[tuple[str, Callable[[SrProject], object], str, list[str]]] = [
    ("a deleted shard", lambda made: shard(made).unlink(), "is gone", [NAME]),
    ("a cut shard", lambda made: shard(made).write_bytes(shard(made).read_bytes()[:-99]), "is damaged", [NAME]),
    ("an empty shard", lambda made: shard(made).write_bytes(b""), "is damaged", [NAME]),
    ("a flipped bit", lambda made: flip(shard(made)), "is damaged", [NAME]),
    ("a flipped bit in its index", lambda made: flip(shard(made), -7), "is damaged", [NAME]),
    ("the shard of another place", swap, "holds other voxels", [NAME]),
    ("a deleted record", lambda made: record(made).unlink(), "has no record", [NAME]),
    ("a torn record", lambda made: record(made).write_bytes(record(made).read_bytes()[:50]), "is damaged", [NAME]),
    ("a record that is no object", lambda made: record(made).write_text("[]"), "is damaged", [NAME]),
    ("a record with another hash", lambda made: another_hash(record(made)), "other voxels", [NAME]),
    ("the record of another shard", lambda made: shutil.copy(record(made, "0_0_0"), record(made)), "inputs", [NAME]),
    ("a torn mark", lambda made: made.mark("2-of-2").write_text("{"), "is damaged", []),
    ("a mark of other shards", lambda made: mark_of_another(made.mark("2-of-2")), "is not of the shard", []),
    ("a deleted mark", lambda made: made.mark("2-of-2").unlink(), "is gone", []),
    ("a torn card", lambda made: (made.folder / "sr.json").write_text("{"), "not JSON", []),
    ("a torn proof", lambda made: (made.allocation.parent / "proof.json").write_text("{"), "is damaged", []),
    ("a deleted shard of level 1", lambda made: shard(made, "0_0_0", 1).unlink(), "level 1", []),
    ("a flipped bit in level 1", lambda made: flip(shard(made, "1_1_1", 1)), "level 1", []),
]


@pytest.mark.parametrize(("reason", "spoil", "said", "again"), FAULTS, ids=[row[0] for row in FAULTS])
def test_a_fault_is_named_and_mended(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    reason: str,
    spoil: Callable[[SrProject], object],
    said: str,
    again: list[str],
) -> None:
    made = copy(whole, tmp_path / "results")
    before, settings = content(tmp_path / "results"), read_json(made.allocation)["settings"]
    spoil(made)
    spoilt = content(tmp_path / "results")
    lines = verified(tmp_path / "results", capsys)
    assert any(said in line for line in lines), lines
    assert all(f"shard {NAME}" in line for line in lines) or not again, "no other shard is blamed"
    assert content(tmp_path / "results") == spoilt, "verify writes nothing"
    assert cli.main(["repair", str(tmp_path / "results")]) == 0
    assert "run snakemake or emsr run as before" in capsys.readouterr().out
    made.settings = settings
    assert run_again(made) == again
    assert verified(tmp_path / "results", capsys) == []
    assert content(tmp_path / "results") == before


def test_many_faults_at_once(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = copy(whole, tmp_path / "results")
    before = content(tmp_path / "results")
    flip(shard(made, "0_0_0"))
    shard(made, "0_2_3").unlink()
    record(made, "1_4_4").unlink()
    flip(shard(made, "1_0_0", 1))
    made.mark("1-of-2").write_text("{")
    lines = verified(tmp_path / "results", capsys, "--workers", "2")
    assert [name for name in ("0_0_0", "0_2_3", "1_4_4", "1-of-2") if any(name in line for line in lines)] == [
        "0_0_0", "0_2_3", "1_4_4", "1-of-2"
    ]  # fmt: skip
    assert cli.main(["repair", str(tmp_path / "results"), "--workers", "2"]) == 0
    made.settings = read_json(made.allocation)["settings"]
    assert run_again(made) == ["0_0_0", "0_2_3", "1_4_4"]
    assert content(tmp_path / "results") == before
    capsys.readouterr()
    assert cli.main(["repair", str(tmp_path / "results"), "--volume", "cells"]) == 0
    assert capsys.readouterr().out == f"nothing to repair in {tmp_path / 'results'}\n"


def test_what_is_not_made_yet_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "cells"
    folder.mkdir(parents=True)
    made = SrProject(folder, write_weights(tmp_path, "bicubic", 4))
    made.write_lr(tissue_like(SHAPE))
    made.allocate()
    assert verified(tmp_path / "results", capsys) == []
    computed = made.job("1-of-2")
    assert verified(tmp_path / "results", capsys) == []
    record(made_array(made), computed[0]).unlink()
    assert "has no record" in verified(tmp_path / "results", capsys)[0], "its mark names it"
    made.mark("1-of-2").unlink()
    assert verified(tmp_path / "results", capsys) == [], "a job that did not end makes it"
    shard(made_array(made), computed[1]).unlink()
    assert "is gone" in verified(tmp_path / "results", capsys)[0], "its record says that it was made"


def made_array(made: SrProject) -> SrProject:
    """With the link that stitch makes."""
    link = made.folder / "sr.zarr"
    if not link.is_symlink():
        link.symlink_to(Path(read_json(made.allocation)["array"]).name)
    return made


def test_skipped_shards_are_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "cells"
    folder.mkdir(parents=True)
    made = SrProject(folder, write_weights(tmp_path, "bicubic", 4))
    made.settings["pilot"] = [[0, 4], [0, 16], [0, 16]]
    made.write_lr(tissue_like(SHAPE))
    made.all(1)
    before = content(folder)
    assert verified(tmp_path / "results", capsys) == []
    shutil.copy(shard(made, "0_0_0"), shard(made, "1_0_0"))
    assert any("shard 1_0_0" in line and "skipped" in line for line in verified(tmp_path / "results", capsys))
    assert cli.main(["repair", str(tmp_path / "results")]) == 0
    assert made.job("1-of-1") == []
    made.stitch(1)
    assert content(folder) == before


def test_a_torn_allocation_is_named_and_made_again(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = copy(whole, tmp_path / "results")
    stated = read_json(made.allocation)
    write_json(made.allocation, stated | {"settings": stated["settings"] | {"overlap": 5}})
    assert "does not hold the settings of its hash" in verified(tmp_path / "results", capsys)[0]
    assert cli.main(["repair", str(tmp_path / "results")]) == 0
    assert not made.allocation.exists()
    assert record(made).is_file(), "no shard is made again for it"


def test_one_damaged_mark_does_not_spoil_all_records(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = copy(whole, tmp_path / "results")
    write_json(made.mark("1-of-2"), read_json(made.mark("1-of-2")) | {"settings_sha256": "0" * 64})
    lines = verified(tmp_path / "results", capsys)
    assert [line for line in lines if "shard" in line] == []
    assert any("is of another array, weights or settings" in line for line in lines)


def test_segmentations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "cells"
    chain = Chain(folder / "segmentations" / "hr", jobs=2)
    card, weight = image(folder, tissue_like((3, 34, 34))), weights(tmp_path)
    chain.all(card, weight)
    assert verified(tmp_path / "results", capsys) == []
    before = content(folder)
    for stage in ("affinities", "fragments"):
        array = open_allocation("cells", chain.folder / stage / "allocate.json")
        flip(array.records.file((0, 1, 0)))
    flip(next((chain.folder / "segments.zarr").glob("0/c/0/0/0")))
    lines = verified(tmp_path / "results", capsys)
    assert len(lines) == 3
    for line, label in zip(lines, ("hr affinities: shard 0_1_0", "hr fragments: shard 0_1_0", "segments"), strict=True):
        assert label in line
    assert cli.main(["repair", str(tmp_path / "results")]) == 0
    assert not (chain.folder / "segments.json").exists()
    chain.all(card, weight)
    assert content(folder) == before
    stated = read_json(chain.folder / "affinities.json")
    write_json(chain.folder / "affinities.json", stated | {"shards": stated["shards"] | {"0_0_0": "0" * 64}})
    assert "its hash is not of its shards" in verified(tmp_path / "results", capsys)[0]


# -- images -----------------------------------------------------------------------------------------------------------

RAW = np.random.default_rng(0).integers(0, 256, (6, 150, 300)).astype(np.uint8)


def ingested(folder: Path, **source: bool) -> Callable[[], None]:
    """Makes hr and lr_x2 of a volume; called again, makes what has no card."""
    path = folder / "x.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=RAW).attrs["resolution"] = (40.0, 4.0, 4.0)
    stated = {"path": str(path), "dataset": "raw", "voxel_size_nm": None, **source}
    laid = {"shard": [4, 64, 64], "chunk": [2, 32, 32]}
    settings = {"image": "hr", "source": stated, "region": None, **laid, "result": 1}
    hr, lr = folder / "results/cells/hr.json", folder / "results/cells/lr_x2.json"

    def make() -> None:
        if not hr.is_file():
            ingest(settings, hr)
        if not lr.is_file():
            degrade({"scale": 2, "degradation": {"kernel": "area"}, **laid}, hr, lr)

    make()
    return make


def other_voxels(folder: Path) -> None:
    shutil.copy(folder / "hr.zarr/0/c/0/0/0", folder / "hr.zarr/0/c/0/1/0")


IMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("a flipped bit", lambda folder: flip(folder / "hr.zarr/0/c/1/0/1"), "hr: shard 1_0_1"),
    ("a deleted shard", lambda folder: (folder / "lr_x2.zarr/0/c/0/1/0").unlink(), "lr_x2: shard 0_1_0"),
    ("a cut shard", lambda folder: (folder / "hr.zarr/0/c/0/0/0").write_bytes(b"123"), "hr: shard 0_0_0"),
    ("the shard of another place", other_voxels, "hr: section 0"),
    ("a deleted shard of a level", lambda folder: (folder / "hr.zarr/1/c/0/0/0").unlink(), "hr: level 1"),
    ("a torn card", lambda folder: (folder / "hr.json").write_text("{"), "hr.json"),
    ("a flipped hash", lambda folder: another_hash(folder / "hr.json"), "hr.json"),
    ("torn metadata", lambda folder: (folder / "hr.zarr/0/zarr.json").write_text("{"), "hr"),
]


@pytest.mark.parametrize(("reason", "spoil", "said"), IMAGES, ids=[row[0] for row in IMAGES])
def test_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str, spoil: Callable[[Path], object], said: str
) -> None:
    make, results = ingested(tmp_path), tmp_path / "results"
    assert verified(results, capsys) == []
    before = content(results)
    spoil(results / "cells")
    lines = verified(results, capsys)
    assert said in lines[0]
    assert cli.main(["repair", str(results)]) == 0
    make()
    assert content(results) == before


def test_a_source_in_place_is_not_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from chunked import n5

    path, results = n5(tmp_path / "x.n5"), tmp_path / "results"
    stated = {"path": str(path), "dataset": None, "voxel_size_nm": [40, 4, 4], "link": True}
    laid = {"shard": [4, 16, 16], "chunk": [4, 16, 16]}
    ingest({"image": "hr", "source": stated, "region": None, **laid, "result": 1}, results / "cells/hr.json")
    assert verified(results, capsys) == []
    (path / "1/0/0").write_bytes((path / "0/0/0").read_bytes())
    assert "holds other voxels than the card says" in verified(results, capsys)[0]
    assert cli.main(["repair", str(results)]) == 1
    assert "mend the sources" in capsys.readouterr().err
    assert (results / "cells/hr.json").is_file()
