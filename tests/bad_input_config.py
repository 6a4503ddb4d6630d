"""Bad inputs 44 to 62: configs, and what stands in them: keys, numbers, YAML, paths, names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bad_input import Program, Row, Words, source, write_config
from bad_input_volumes import BRACKETS, same
from bad_sources import RAW, SIZE, VOLUME, hdf
from emsr.commands.check import read_configs
from emsr.config import Config, parse
from emsr.config_files import read
from project import ROOT
from test_security_config import BOMB, DEEP, MAPPINGS

GOOD = "jobs: 3\n"
TRAINING = "trainings: {tissue: {%s}}"


def overlay(number: int, what: str, text: str | bytes, **how: Any) -> Row:
    """A row of a file that is laid over the committed config."""

    def made(folder: Path) -> list[Words | Program]:
        (folder / "config.yaml").write_text((ROOT / "config.yaml").read_text())
        (folder / "mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return [["check", "config.yaml", "mine.yaml"]]

    return Row(number, what, made, **how)


def config(folder: Path) -> Config:
    return read_configs([folder / "config.yaml", folder / "mine.yaml"])


def read_as(**values: Any) -> Callable[[Path], None]:
    """That an overlay is read as these values."""

    def right(folder: Path) -> None:
        found = config(folder)
        assert {key: getattr(found, key) for key in values} == values

    return right


# paths


def at(place: str, make: Callable[[Path], object] = hdf) -> Callable[[Path], list[Words | Program]]:
    """A config whose only volume is at a path, as it is written there."""

    def made(folder: Path) -> list[Words | Program]:
        make(folder)
        write_config(folder, {"v": {"hr": {"path": place, **RAW}, "degradation": {"kernel": "area"}}})
        return [["check", "mine.yaml"]]

    return made


def found_at(folder: Path) -> None:
    volume = parse(read(folder / "mine.yaml")).volumes["v"]
    assert volume.hr
    assert volume.hr.path == str(folder / "x.h5"), "what ingest is told, wherever it runs"


@contextlib.contextmanager
def home() -> Iterator[None]:
    """The working folder is the home of the user, and what DATA names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", os.getcwd())
        patch.setenv("DATA", os.getcwd())
        yield


STRANGE = "-a b;touch PWNED; $(touch PWNED) `touch PWNED` 'q\" {} \n\t%s ü é 猫.h5"


def strange(folder: Path) -> Path:
    return hdf(folder).rename(folder / STRANGE)


def strange_dataset(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "x.h5", "w") as file:
        file[STRANGE] = VOLUME
    return folder / "x.h5"


def unharmed(folder: Path) -> None:
    same(VOLUME)(folder)
    assert not list(folder.rglob("PWNED*"))


def named(name: str) -> str:
    tissue = "tissue: {shape: [4, 64, 64], voxel_size_nm: [40, 4, 4], seed: 1}"
    return f"volumes: {{{name}: {{{tissue}, degradation: {{kernel: area}}}}}}"


def circle(folder: Path) -> Path:
    (folder / "x.h5").symlink_to("x.h5")
    return folder / "x.h5"


def into_circle(folder: Path) -> Path:
    (folder / "out").symlink_to("out")
    return hdf(folder)


def elsewhere(folder: Path) -> Path:
    (folder / "large").mkdir()
    (folder / "out").symlink_to("large")
    return hdf(folder)


def outside(folder: Path) -> None:
    same(VOLUME)(folder)
    assert (folder / "out").is_symlink()
    assert (folder / "large" / "hr.zarr").is_dir()


def target(folder: Path) -> list[Words | Program]:
    (folder / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    words = ["--snakefile", str(ROOT / "Snakefile"), "--cores", "1", "--nocolor", "results/tissu/sr.json"]
    return [Program(["snakemake", *words], keeps=r"No rule to produce \S+")]


ROWS = [
    overlay(44, "a key with a typo", "superresolve: {overlop: 3}"),
    overlay(44, "a key that there is not", "chunck_size: 64"),
    overlay(44, "a key with a typo, deep", TRAINING % "data: [{volume: tissue, trainn: [[0, 3]], validation: []}]"),
    overlay(45, "a key twice", "jobs: 1\nworkers: 2\njobs: 2\n"),
    overlay(46, "a number in quotes", 'jobs: "64"'),
    overlay(46, "a fraction for a count", "jobs: 64.0"),
    overlay(46, "true for a count", "workers: true"),
    overlay(46, "nothing for a count", "jobs: null"),
    overlay(46, "a length in quotes", named("v").replace("[40, 4, 4]", '[40, "4", 4]')),
    overlay(46, "true for a length", named("v").replace("[40, 4, 4]", "[40, true, 4]")),
    overlay(46, "text for yes or no", 'segment: {scores: {in_plane: "no"}}'),
    overlay(47, "0 jobs", "jobs: 0"),
    overlay(47, "workers below 0", "workers: -2"),
    overlay(47, "chunks of nothing", "ingest: {chunk: [0, 128, 128]}"),
    overlay(47, "an overlap below 0", "superresolve: {overlap: -1}"),
    overlay(47, "a batch of nothing", TRAINING % "stages: {fusion: {batch: 0}}"),
    overlay(48, "a scale of 1", TRAINING % "scale: 1"),
    overlay(48, "a fraction for a scale", TRAINING % "scale: 2.5"),
    overlay(48, "no number for a scale", TRAINING % "scale: .nan"),
    overlay(48, "three numbers for a scale", TRAINING % "scale: [2, 3, 4]"),
    overlay(49, "an overlap as large as the window", "superresolve: {overlap: 64}"),
    overlay(50, "chunks that do not divide the shard", "superresolve: {chunk: [16, 100, 128]}"),
    overlay(50, "blocks that do not divide the shard", "segment: {fragments: {block: [1, 500, 512]}}"),
    overlay(51, "no, which is false", "results: no"),
    overlay(51, "010, which is 8", "jobs: 010"),
    overlay(51, "4:30, which is 270", "workers: 4:30"),
    overlay(51, "1e3, which is text", "jobs: 1e3"),
    overlay(51, "no number for a length", named("v").replace("[40, 4, 4]", "[40, .nan, 4]")),
    overlay(51, "no number for a threshold", "segment: {agglomeration: {until: .nan}}"),
    overlay(52, "aliases of aliases of lists", BOMB),
    overlay(52, "aliases of aliases of mappings", MAPPINGS),
    overlay(52, "a hundred thousand levels", DEEP),
    overlay(53, "a tag of Python", "results: !!python/object/apply:os.system ['touch PWNED']", hides=BRACKETS),
    overlay(53, "a program for Snakemake", "__use_yte__: true\n'?open(\"PWNED\", \"w\")': 2"),
    overlay(54, "a list", "- a"),
    overlay(54, "no YAML", "a: [", hides=BRACKETS),
    overlay(54, "binary", b"\x89HDF\r\n\x1a\n\x00", hides=BRACKETS),
    overlay(54, "tabs", "superresolve:\n\toverlap: 3", hides=BRACKETS),
    overlay(54, "UTF-16", GOOD.encode("utf-16"), hides=BRACKETS),
    overlay(54, "BOM and CRLF", b"\xef\xbb\xbfjobs: 1\r\nworkers: 2\r\n", code=0, then=read_as(jobs=1, workers=2)),
    overlay(54, "nothing", "", code=0, then=read_as(jobs=2)),
    overlay(55, "10 MB", "a: 1\n" * 2**21),
    Row(56, "~ in a path", at("~/x.h5"), code=0, around=home, then=found_at),
    Row(56, "a variable in a path", at("${DATA}/x.h5"), code=0, around=home, then=found_at),
    Row(56, "a variable that is not set", at("$NOWHERE_AT_ALL/x.h5")),
    Row(56, "a path relative to another folder", at("data/x.h5")),
    source(57, "a path of everything", strange, RAW, code=0, only=("ingest",), then=unharmed),
    source(57, "a dataset of everything", strange_dataset, {"dataset": STRANGE.replace("/", "")} | SIZE, code=0,
           only=("ingest",), then=unharmed),
    source(57, "a path of everything that holds nothing", lambda p: (p / STRANGE).touch() or p / STRANGE, RAW),
    overlay(58, "a volume called ../x", named("../x")),
    overlay(58, "a volume called /x", named("/x")),
    overlay(58, "a volume with a wildcard", named("'{x}'")),
    overlay(58, "a volume with NUL", named('"x\\0"')),
    overlay(58, "a volume of 300 letters", named("x" * 300)),
    Row(58, "a path with a wildcard", at("{x}/x.h5")),
    Row(58, "a path with NUL", at("x\0.h5")),
    Row(58, "a path of 300 letters", at("x" * 300 + ".h5"), hides=r"x{300}"),
    source(59, "a link to itself", circle, RAW, only=("ingest",)),
    source(59, "results in a link to itself", into_circle, RAW, only=("ingest",)),
    source(59, "results in a link to another disk", elsewhere, RAW, code=0, only=("ingest",), then=outside),
    overlay(60, "a stage that there is not", TRAINING % "stages: {codebok: {}}"),
    Row(60, "a verb that there is not", lambda folder: [["superresolv", "x"]], code=2),
    Row(60, "a file that no rule makes", target, may=(r"\.snakemake.*",)),
    overlay(61, "a threshold below 0", "segment: {agglomeration: {thresholds: [-0.1]}}"),
    overlay(61, "a threshold above 1", "segment: {agglomeration: {until: 1.5}}"),
    overlay(61, "a segmentation's threshold above 1",
            "volumes: {tissue: {segmentations: {hr: {image: hr, weights: membranes, threshold: 1.01}}}}"),
    overlay(62, "two volumes of one name", "volumes:\n  a: {tissue: null}\n  a: {tissue: null}\n"),
    overlay(62, "two volumes that differ in case", named("Tissue")),
]  # fmt: skip
