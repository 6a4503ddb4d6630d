"""What steps and commands hold for each shard: their peak memory with records of many shards whose voxels nobody made.

python benchmarks/shards.py [--shards 10000 40000]

Each step runs in a process of its own on documents as the steps before it write them; records are made up as they are
read, voxels are zeros, and nothing is written for a shard, so what grows is what is held. Two numbers of shards give
bytes a shard and what a million would hold, in a straight line. Writes benchmarks/figures/shards.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from emsr import durable, memory, plan
from emsr.geometry import Box, ShardGrid
from emsr.shards import shard_name

SHARD, SCALE, ACROSS = (1, 16, 16), 8, 50
FIGURES = Path(__file__).parent / "figures" / "shards.json"
JOBS = 200
WEIGHTS, IMAGE, NM = "a" * 64, "b" * 64, [40.0, 4.0, 4.0]
ZEROS = hashlib.sha256(bytes(16 * 16)).hexdigest()
WHO = {"device": "cpu", "torch": "2.0"}


def grid_of(shards: int) -> ShardGrid:
    """At least so many shards, fifty along y and x."""
    depth = -(-shards // ACROSS**2)
    return ShardGrid((depth, ACROSS * SHARD[1], ACROSS * SHARD[2]), SHARD)


def allocated(folder: Path, grid: ShardGrid) -> Path:
    """What `allocate` states of an array of no voxels, and a mark for each job."""
    settings = {"shard": list(SHARD), "chunk": list(SHARD), "overlap": 0, "precision": "float32", "device": "cpu"}
    depth, side = grid.shape[0], grid.shape[1] // SCALE
    stated = {
        "array": "../sr-0.zarr",
        "records": "../sr-0.records",
        "card": "card.json",
        "card_sha256": IMAGE,
        "weights_sha256": WEIGHTS,
        "inputs_sha256": [IMAGE] * depth,
        "lr": {"shape": [depth, side, side], "damaged": {}, "missing": {}, "source": {}, "sha256": IMAGE},
        "shape": list(grid.shape),
        "shard": list(SHARD),
        **{"scale": SCALE, "window": 64, "overlap": 0, "precision": "float32", "device": "cpu"},
        "sections": [[z] for z in range(depth)],
        **{"voxel_size_nm": NM, "translation_nm": [0.0, 0.0, 0.0]},
        "settings": settings,
        "settings_sha256": plan.settings_sha256(settings),
    }
    file = folder / "sr" / "allocate.json"
    durable.write_sealed(file, stated)
    durable.write_json(file.with_name("card.json"), {"section_step": 1})
    names, of = list(map(shard_name, grid.indices)), {key: stated[key] for key in ("array", "weights_sha256")}
    for number in range(JOBS):
        mark = {"schema": 1, "settings_sha256": stated["settings_sha256"], **of, "job": f"{number + 1}-of-{JOBS}"}
        mine = dict.fromkeys(names[number::JOBS], ZEROS)
        durable.write_sealed(file.parent / "jobs" / f"{mark['job']}.json", {**mark, "shards": mine})
        stats = {"schema": 1, "state": "finished", "attempt": 1, "array": "sr-0.zarr", "computed": list(mine)}
        durable.write_json(file.parent / "jobs" / f"{mark['job']}.stats.json", stats)
    return file


def card(folder: Path, grid: ShardGrid) -> Path:
    """What `prove_affinities` states."""
    shards = dict.fromkeys(map(shard_name, grid.indices), ZEROS)
    space = {"shape": list(grid.shape), "shard": list(SHARD), "voxel_size_nm": NM, "translation_nm": [0.0] * 3}
    of = {"weights_sha256": WEIGHTS, "image_sha256": IMAGE, "settings_sha256": IMAGE, "damaged": {}, "missing": {}}
    path = folder / "affinities.json"
    durable.write_sealed(path, {"schema": 1, "array": "a.zarr", **space, **of, "shards": shards, "sha256": IMAGE})
    return path


def fake(grid: ShardGrid) -> None:
    """Records as jobs write them, and voxels of zeros; no shard is written."""
    import numpy as np

    from emsr.inference.records import Records
    from emsr.steps import extent
    from emsr.stores import pyramid, shards

    def record(self: Any, index: Any) -> Any:
        return json.loads(json.dumps({**self._expected(index), "sha256": ZEROS, **WHO}))

    def nothing(*_: object) -> None: ...

    def zeros(_: object, box: Box) -> np.ndarray:
        return np.zeros(box.shape, np.uint8)

    for owner, name, other in (
        (Records, "read", record),
        (Records, "_has_voxels", lambda self, index: True),
        (Records, "path", lambda self, index: Path(__file__)),
        (Records, "file", lambda self, index: Path(__file__)),
        (shards, "read_box", zeros),
        (pyramid, "_make_shard", nothing),
        (extent, "_write_shard", nothing),
    ):
        setattr(owner, name, other)


def array(folder: Path, grid: ShardGrid) -> None:
    """The metadata of the array."""
    from emsr.stores.ome import Layout, level_count
    from emsr.stores.zarr import recreate

    recreate(
        folder / "sr-0.zarr",
        Layout(grid.shape, "uint8", SHARD, SHARD, (40.0, 4.0, 4.0), levels=level_count(grid.shape)),
    )


def stitch(folder: Path, grid: ShardGrid) -> Callable[[], object]:
    from emsr.steps import superresolve

    file = allocated(folder, grid)
    array(folder, grid)
    settings, marks = durable.read_json(file)["settings"], [file.parent / "jobs" / f"1-of-{JOBS}.json"]
    return lambda: superresolve.stitch(settings, file, marks, folder / "sr.json", workers=1)


def prove(folder: Path, grid: ShardGrid) -> Callable[[], object]:
    from emsr.steps import proof

    file = allocated(folder, grid)
    array(folder, grid)
    settings, marks = durable.read_json(file)["settings"], [file.parent / "jobs" / f"1-of-{JOBS}.json"]
    return lambda: proof.prove(settings, file, marks, folder / "affinities.json", 1)


def allocate_fragments(folder: Path, grid: ShardGrid) -> Callable[[], object]:
    from emsr.steps.fragments import allocate_fragments as step

    settings = {"method": "watershed", "block": list(SHARD), "halo": [1, 8, 8], "chunk": list(SHARD), "result": 1}
    of = card(folder, grid)
    return lambda: step(settings, of, folder / "fragments" / "allocate.json")


def fragments(folder: Path, grid: ShardGrid) -> Callable[[], object]:
    """A job of which nothing is left to do: what all of them hold of the shards of others."""
    from emsr.steps import fragments as steps

    allocate_fragments(folder, grid)()
    file = folder / "fragments" / "allocate.json"
    settings = durable.read_json(file)["settings"]
    mark = file.with_name("jobs") / f"1-of-{JOBS}.json"
    return lambda: steps.fragments(settings, file, mark.stem, mark, workers=1)


def allocate_affinities(folder: Path, grid: ShardGrid) -> Callable[[], object]:
    """What it states of the shards of sr that each of its own is made from."""
    from emsr.steps import affinities

    made = plan.Plan(grid.shape, 1, 16, 0, SHARD, tuple((z,) for z in range(grid.shape[0])), 1, 0, (1, 8, 8), 3)
    known = SimpleNamespace(recorded=lambda *_: (grid, folder))
    read = SimpleNamespace(read_json=lambda _: {"sha256": ZEROS})
    affinities.proof, affinities.durable = known, read  # type: ignore[assignment]
    out = folder / "allocate.json"
    return lambda: durable.write_sealed(out, affinities._shard_inputs(made, folder, {}))


def status(folder: Path, grid: ShardGrid) -> Callable[[], object]:
    from emsr.commands import recorded
    from emsr.commands.status import of_array

    file = allocated(folder, grid)
    return lambda: of_array(recorded.open_allocation("v", file), time.time())


def verify(folder: Path, grid: ShardGrid) -> Callable[[], object]:
    from emsr.commands import recorded
    from emsr.commands.faults import of_array

    file = allocated(folder, grid)
    array(folder, grid)
    return lambda: of_array(recorded.open_allocation("v", file), 1)


STEPS = (stitch, prove, allocate_affinities, allocate_fragments, fragments, status, verify)


def peak(step: str, shards: int) -> dict[str, float]:
    """Peak memory (MB) of a step, and its seconds, in a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--shards", str(shards)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(step: str, shards: int) -> dict[str, float]:
    """The step in this process; what made its inputs is in a child that is gone."""
    grid, begin = grid_of(shards), {of.__name__: of for of in STEPS}[step]
    with tempfile.TemporaryDirectory() as folder:
        run = begin(Path(folder), grid)
        fake(grid)
        before, clock = memory.peak_bytes(), time.perf_counter()
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        run()
        spent = time.perf_counter() - clock
    return {
        "peak_mb": round(memory.peak_bytes() / 1e6, 1),
        "before_mb": round(before / 1e6, 1),
        "seconds": round(spent, 1),
    }


def section(found: Mapping[str, Any]) -> str:
    """What docs/reliability.md says of the figures."""
    lines = ["| step or command | bytes a shard | a million shards, MB |", "|---|---|---|"]
    return (
        "\n".join(
            [
                *lines,
                *(
                    f"| `{step.__name__}` | {one['bytes_a_shard']} | {one['million_mb']} |"
                    for step in STEPS
                    if (one := found[step.__name__])
                ),
            ]
        )
        + "\n"
    )


def measured(sizes: list[int]) -> dict[str, Any]:
    """Each step at each number of shards, what it holds a shard, and what a million would come to."""
    found = {}
    for step in STEPS:
        least, most = (peak(step.__name__, size)["peak_mb"] for size in sizes)
        few, many = (len(grid_of(size).boxes()) for size in sizes)
        each = (most - least) / (many - few)
        found[step.__name__] = {
            **{f"{count}": mb for count, mb in ((few, least), (many, most))},
            "bytes_a_shard": round(each * 1e6),
            "million_mb": round(most + each * (1_000_000 - many)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--step", choices=[step.__name__ for step in STEPS])
    words = parser.parse_args()
    if words.step:
        sys.stdout.write(json.dumps(one(words.step, words.shards[0])) + "\n")
    else:
        FIGURES.write_text(json.dumps(measured(words.shards), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
