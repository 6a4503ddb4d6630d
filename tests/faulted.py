"""Steps on volumes of a few shards, each as a function of a folder, for tests that let its n-th operation fail.

A step comes with what must stand before it, and runs as Snakemake runs it: its output, if there is one, is removed.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from emsr import durable
from emsr.durable import read_json
from emsr.models import checkpoint
from emsr.steps import affinities, agglomeration, data, fragments, segment
from emsr.stores import fill
from emsr.training import state
from segment_project import Chain, image, weights
from sr_project import SrProject, tissue_like, write_weights

RAW = np.random.default_rng(0).integers(0, 256, (3, 60, 100)).astype(np.uint8)
LAID = {"shard": [4, 64, 64], "chunk": [2, 32, 32]}
JOB = "1-of-1"


def project(folder: Path) -> SrProject:
    return SrProject(folder, folder / "bicubic_x4_0.json")


def coarse(folder: Path) -> None:
    made = SrProject(folder, write_weights(folder, "bicubic", 4))
    made.write_lr(tissue_like((4, 16, 28)))


def chain(folder: Path) -> Chain:
    return Chain(folder, jobs=1, shard=(3, 32, 32))


def fine(folder: Path) -> None:
    image(folder, tissue_like((3, 32, 34)))
    weights(folder)


def source(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("raw", data=RAW).attrs["resolution"] = (40.0, 4.0, 4.0)


def allocate(folder: Path) -> None:
    project(folder).allocate()


def superresolve(folder: Path) -> list[str]:
    return project(folder).job(JOB)


def stitch(folder: Path) -> None:
    project(folder).stitch(1)


def ingest(folder: Path) -> list[str]:
    """Which shards were copied from the source."""
    made: list[str] = []
    shard = fill._shard

    def counted(array: Any, make: Any, journal: Any, box: Any) -> np.ndarray:
        return shard(array, lambda box: made.append("_".join(map(str, box.start))) or make(box), journal, box)

    fill._shard = counted
    stated = {"path": str(folder / "x.h5"), "dataset": "raw", "voxel_size_nm": None}
    try:
        data.ingest({"image": "hr", "source": stated, "region": None, **LAID, "result": 1}, folder / "v/hr.json")
    finally:
        fill._shard = shard
    return made


def degrade(folder: Path) -> None:
    settings = {"scale": 2, "degradation": {"kernel": "area"}, "shard": [4, 32, 32], "chunk": [2, 16, 16]}
    data.degrade(settings, folder / "v/hr.json", folder / "v/lr.json")


def allocate_affinities(folder: Path) -> None:
    own = chain(folder)
    affinities.allocate_affinities(
        own.affinities, folder / "hr.json", folder / "affinity.json", folder / "affinities/allocate.json"
    )


def predict(folder: Path) -> list[str]:
    allocated, mark = folder / "affinities/allocate.json", folder / f"affinities/jobs/{JOB}.json"
    affinities.affinities(chain(folder).affinities, allocated, JOB, mark, workers=1)
    return list(read_json(mark.with_suffix(".stats.json"))["computed"])


def prove_affinities(folder: Path) -> None:
    allocated, mark = folder / "affinities/allocate.json", folder / f"affinities/jobs/{JOB}.json"
    affinities.prove_affinities(chain(folder).affinities, allocated, [mark], folder / "affinities.json", workers=1)


def allocate_fragments(folder: Path) -> None:
    fragments.allocate_fragments(
        chain(folder).fragments, folder / "affinities.json", folder / "fragments/allocate.json"
    )


def cut(folder: Path) -> list[str]:
    allocated, mark = folder / "fragments/allocate.json", folder / f"fragments/jobs/{JOB}.json"
    fragments.fragments(chain(folder).fragments, allocated, JOB, mark, workers=1)
    return list(read_json(mark.with_suffix(".stats.json"))["computed"])


def prove_fragments(folder: Path) -> None:
    allocated, mark = folder / "fragments/allocate.json", folder / f"fragments/jobs/{JOB}.json"
    fragments.prove_fragments(chain(folder).fragments, allocated, [mark], folder / "fragments.json", workers=1)


def agglomerate(folder: Path) -> None:
    settings = {"method": "exact", "until": 0.9, "affinities": str(folder / "affinities.json")}
    agglomeration.agglomerate(settings, folder / "fragments.json", folder / "agglomeration.json", workers=1)


def threshold(folder: Path) -> None:
    chain(folder).choose({"threshold": 0.5})


def label(folder: Path) -> None:
    merged, chosen = folder / "agglomeration.json", folder / "threshold.json"
    segment.segment({"chunk": [3, 16, 16]}, merged, chosen, folder / "segments.json", workers=1)


def save_weights(folder: Path) -> None:
    card = {"model": "bicubic", "options": {}, "scale": 4, "sections": 1, "stage": "untrained"}
    checkpoint.save(folder / "w.safetensors", {"a": torch.arange(10.0)}, card)


def save_state(folder: Path) -> None:
    """The third state of a training, of which two were saved before."""
    state.save(folder / "s.checkpoint", {"step": 3, "weights": torch.full((10,), 3.0)}, "this")


def two_states(folder: Path) -> None:
    for step in (1, 2):
        state.save(folder / "s.checkpoint", {"step": step, "weights": torch.full((10,), float(step))}, "this")


@dataclass(frozen=True)
class Step:
    """One step: what it does, what it leaves (from the folder on), and the steps before it."""

    run: Callable[[Path], Any]
    out: str
    before: tuple[Callable[[Path], Any], ...]

    @property
    def name(self) -> str:
        return f"faulted:{self.run.__name__}"

    def prepare(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for earlier in self.before:
            earlier(folder)


SR = (coarse, allocate, superresolve, stitch)
SEGMENTED = (fine, allocate_affinities, predict, prove_affinities, allocate_fragments, cut, prove_fragments)
SEGMENTED += (agglomerate, threshold, label)  # type: ignore[assignment]


def _in(steps: tuple[Callable[[Path], Any], ...], run: Callable[[Path], Any], out: str) -> Step:
    return Step(run, out, steps[: steps.index(run)])


STEPS = {
    step.run.__name__: step
    for step in (
        _in((source, ingest, degrade), ingest, "v/hr.json"),
        _in((source, ingest, degrade), degrade, "v/lr.json"),
        _in(SR, allocate, "sr/allocate.json"),
        _in(SR, superresolve, f"sr/jobs/{JOB}.json"),
        _in(SR, stitch, "sr.json"),
        _in(SEGMENTED, allocate_affinities, "affinities/allocate.json"),
        _in(SEGMENTED, predict, f"affinities/jobs/{JOB}.json"),
        _in(SEGMENTED, prove_affinities, "affinities.json"),
        _in(SEGMENTED, allocate_fragments, "fragments/allocate.json"),
        _in(SEGMENTED, cut, f"fragments/jobs/{JOB}.json"),
        _in(SEGMENTED, prove_fragments, "fragments.json"),
        _in(SEGMENTED, agglomerate, "agglomeration.json"),
        _in(SEGMENTED, threshold, "threshold.json"),
        _in(SEGMENTED, label, "segments.json"),
        Step(save_weights, "w.json", ()),
        Step(save_state, "s.checkpoint/none", (two_states,)),
    )
}


RECORDED = {"superresolve": ".", "predict": "affinities", "cut": "fragments"}
"""Where the records of steps lie that say which shards they computed."""


def again(folder: Path, name: str) -> Any:
    """Run a step as Snakemake and `emsr` run it again: without its output, and swept afterwards."""
    step = STEPS[name]
    (folder / step.out).unlink(missing_ok=True)
    found = step.run(folder)
    durable.sweep((folder / step.out).parent)
    return found


def within(folder: Path, name: str, size: int) -> Any:
    """`again` where no file may become larger than `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return again(folder, name)


def unprivileged(folder: Path, name: str) -> Any:
    """`again` as somebody who may read the folder and not write there."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    if not os.getuid():
        for parent in folder.parents:  # those of the test, which are its owner's alone
            if not parent.stat().st_mode & 1:
                parent.chmod(0o755)
        os.seteuid(65534)
    step = STEPS[name]
    return step.run(folder)


def content(folder: Path) -> dict[str, bytes]:
    """All that inputs determine; links too."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith("stats.json"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def recorded(folder: Path, name: str) -> set[str]:
    """Shards of the array of a step that have a record and a file."""
    found = set()
    for record in (folder / RECORDED[name]).glob("*.records/*.json"):
        array, index = record.parent.with_suffix(".zarr"), record.stem.split("_")
        if any(array.joinpath("0", "c", *more, *index).is_file() for more in ((), ("0",))):
            found.add(record.stem)
    return found


def copied(template: Path, folder: Path) -> Path:
    """A copy to spoil."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
    return folder
