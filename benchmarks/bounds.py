"""Whether memory, reruns and dry runs stay within their bounds however large a volume is.

python benchmarks/bounds.py all
python benchmarks/bounds.py memory [--shape 16 384 384] [--times 10] [--axis 0 or 1] [--folder FOLDER]
python benchmarks/bounds.py rerun [--shards 10000] [--jobs 4] [--folder FOLDER]
python benchmarks/bounds.py dry-run [--shards 1000000] [--jobs 2000] [--segmented] [--folder FOLDER]

`memory` runs every rule on synthetic tissue, and on `--times` as much, deeper (axis 0) or wider (axis 1), each job
in a process of its own with the shards of config.yaml and one worker, and compares its peak memory (VmHWM) with the
`mem_mb` of its rule. Trainings end after two steps, whose memory is that of all. Without `--networks`, bicubic
interpolation and the model `intensity` make sr and affinities: what networks hold is a window's, whatever the volume.
`rerun` makes a volume of many tiny shards with bicubic interpolation and runs the finished workflow again: seconds, and
files whose time changed. `dry-run` is `snakemake -n` of a volume whose voxels nobody wrote. `all` measures all of this,
writes benchmarks/figures/bounds.json, and fails where a bound is not kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import psutil
import yaml

from emsr.stores.ome import Layout
from emsr.stores.zarr import create, open_array, write_box

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "figures" / "bounds.json"
SNAKEMAKE = (sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--nocolor")
NM = (40.0, 4.0, 4.0)
SCALE = 8
SHORT = {"steps": 2, "validate_every": 1}
CHEAP = {"model": {"name": "intensity", "preset": "smoothed", "options": {}}, "stages": {"untrained": {}}}
Config = dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    """The environment with this interpreter's commands first, and one thread a process."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def base() -> Config:
    """config.yaml."""
    values: Config = yaml.safe_load((ROOT / "config.yaml").read_text())
    return values


# -- memory -----------------------------------------------------------------------------------------------------------


def whole(folder: Path, shape: Sequence[int], networks: bool) -> Config:
    """Every rule: grown tissue that is super-resolved and segmented, and a pair of images of it that is registered."""
    from project import weights

    values, z = base(), 16
    values["keep"] = {"affinities": False, "fragments": False}
    tissue = values["volumes"]["tissue"]
    tissue |= {"tissue": {"shape": list(shape), "voxel_size_nm": list(NM), "seed": 1}, "test": [[13, z]]}
    named = tissue["segmentations"]
    tissue["segmentations"] = {"sr": named["sr"], "bicubic": named["bicubic"]}
    values["trainings"].pop("membranes_of_bicubic")
    for training in values["trainings"].values():
        training["stages"] = dict.fromkeys(training["stages"], SHORT)
        training["data"] = [{**training["data"][0], "train": [[0, 8]], "validation": [[9, 11]]}]
    card = weights(folder, "bicubic", SCALE, 64)
    if not networks:
        tissue["weights"] = {"path": str(card.with_suffix(".safetensors"))}
        values["trainings"]["cheap"] = {**values["trainings"]["membranes"], **CHEAP}
        tissue["segmentations"] = {name: {**one, "weights": "cheap"} for name, one in tissue["segmentations"].items()}
    values["volumes"]["pair"] = {
        **{image: {"path": str(folder / f"{image}.h5"), "dataset": "raw", "voxel_size_nm": None} for image in PAIR},
        "registration": {"limit_nm": 10, "kernel": "area"},
        "weights": {"path": str(card.with_suffix(".safetensors"))},
        "test": [[13, z]],
    }
    pair(folder, shape)
    return values


PAIR = ("hr", "lr", "labels")
ASKED = re.compile(r"rule (\w+):\n(?:    .*\n)*?    resources: .*?mem_mb=(\d+)")


def pair(folder: Path, shape: Sequence[int]) -> None:
    """hr, lr of the same place, and labels, section by section."""
    from project import grey

    coarse = (shape[0], shape[1] // SCALE, shape[2] // SCALE)
    kinds = {"hr": (shape, "u1", 1), "lr": (coarse, "u1", SCALE), "labels": (shape, "u8", 1)}
    for image, (sides, dtype, factor) in kinds.items():
        with h5py.File(folder / f"{image}.h5", "w") as file:
            raw = file.create_dataset("raw", tuple(sides), dtype, chunks=(1, min(128, sides[1]), min(128, sides[2])))
            raw.attrs["resolution"] = (NM[0], NM[1] * factor, NM[2] * factor)
            for z in range(shape[0]):
                fine = grey((1, shape[1], shape[2]), seed=z // 8)[0]
                if image == "labels":
                    raw[z] = fine // 64 + 1
                elif image == "lr":
                    cut = fine[: coarse[1] * SCALE, : coarse[2] * SCALE].astype(float)
                    raw[z] = cut.reshape(coarse[1], SCALE, coarse[2], SCALE).mean((1, 3)).round()
                else:
                    raw[z] = fine


def peaks(folder: Path, shape: Sequence[int], networks: bool) -> dict[str, dict[str, float]]:
    """Peak memory of each rule, and its mem_mb, both in 10^6 bytes, over all its jobs."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(whole(folder, shape, networks)))
    left = folder / "peaks"
    left.mkdir()
    path = f"{ROOT / 'benchmarks/peaks'}:{os.environ.get('PYTHONPATH', '')}"
    with (folder / "snakemake.log").open("w") as log:
        watching = environment(EMSR_PEAKS=str(left), PYTHONPATH=path)
        subprocess.run([*SNAKEMAKE, "--cores", "1"], cwd=folder, check=True, stdout=log, stderr=log, env=watching)
    asked = dict(ASKED.findall((folder / "snakemake.log").read_text()))
    found: dict[str, dict[str, float]] = {}
    for file in left.glob("*.json"):
        one = json.loads(file.read_text())
        rule = one["verb"].replace("-", "_")
        peak = max(one["peak_mb"], found.get(rule, {}).get("peak_mb", 0.0))
        found[rule] = {"peak_mb": peak, "mem_mb": float(asked[rule])}
    return found


def memory(folder: Path, shape: Sequence[int], times: int, axis: int, networks: bool) -> dict[str, Any]:
    """Each rule at both sizes: its mem_mb, and the peaks of its jobs, MB."""
    side = math.sqrt(times) if axis else 1
    large = [shape[0] * (1 if axis else times), *(round(length * side / 32) * 32 for length in shape[1:])]
    small, more = (peaks(folder / name, one, networks) for name, one in (("small", shape), ("large", large)))
    rules = {
        rule: {"mem_mb": of["mem_mb"], "small_mb": of["peak_mb"], "large_mb": more[rule]["peak_mb"]}
        for rule, of in sorted(small.items())
    }
    return {"small": list(shape), "large": large, "networks": networks, "rules": rules}


# -- many shards ------------------------------------------------------------------------------------------------------


def coarse(
    folder: Path, shape: Sequence[int], shard: Sequence[int], jobs: int, *, voxels: bool, segmented: bool
) -> Config:
    """A volume that has only lr, with or without voxels, used where it lies; bicubic interpolation makes it finer."""
    from project import grey, weights

    values = base()
    laid = Layout((shape[0], shape[1], shape[2]), "uint8", (16, 512, 512), (8, 128, 128), (40.0, 32.0, 32.0))
    create(folder / "source", laid)
    if voxels:
        write_box(open_array(folder / "source", write=True), (0, 0, 0), grey((shape[0], shape[1], shape[2])))
    given = weights(folder, "bicubic", SCALE, 64)
    volume: Config = {
        "lr": {"path": str(folder / "source"), "dataset": None, "voxel_size_nm": None, "link": True},
        "weights": {"path": str(given.with_suffix(".safetensors"))},
    }
    if segmented:
        affinity = {"path": str(affinities(folder).with_suffix(".safetensors"))}
        volume["segmentations"] = {"sr": {"image": "sr", "weights": affinity, "threshold": 0.5}}
    chunk = [min(pair) for pair in zip(shard, (16, 128, 128), strict=True)]
    values["superresolve"] |= {"shard": list(shard), "chunk": chunk}
    return {**values, "jobs": jobs, "volumes": {"v": volume}, "trainings": {}}


def affinities(folder: Path) -> Path:
    """The card of random weights of the affinity network."""
    from emsr.models import affinity, checkpoint

    options = affinity.PRESETS["small"]
    card = {"model": "affinity", "options": asdict(options), "scale": 1, "sections": 1, "section_step": 1}
    state = affinity.build(options).state_dict()
    checkpoint.save(folder / "affinity.safetensors", state, {**card, "stage": "affinity", "window": 160, "depth": 18})
    return folder / "affinity.json"


def rerun(folder: Path, shards: int, jobs: int) -> dict[str, Any]:
    """Seconds of a workflow that has nothing to do and of `emsr status`, and files that either touched."""
    folder.mkdir(parents=True, exist_ok=True)
    side = math.isqrt(shards // 25)
    shape, shard = (25, 2 * side, 2 * side), (1, 16, 16)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(coarse(folder, shape, shard, jobs, voxels=True, segmented=False))
    )
    with (folder / "snakemake.log").open("w") as log:
        command = [*SNAKEMAKE, "--cores", "all"]
        subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=log, env=environment())
    before = stamps(folder / "results")
    again, told = watched([*SNAKEMAKE, "--cores", "all"], folder)
    status, said = watched([sys.executable, "-m", "emsr.cli", "status", "results"], folder)
    after = stamps(folder / "results")
    touched = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    nothing, whole = "Nothing to be done" in told, f"{25 * side**2:,} of {25 * side**2:,} shards done" in said
    made = {"shards": 25 * side**2, "jobs": jobs, "files": len(before), "nothing_done": nothing, "proved": whole}
    return {**made, "rerun": again, "status": status, "touched": touched}


def stamps(folder: Path) -> dict[str, int]:
    """The time stamp of every file below a folder."""
    return {str(file): file.lstat().st_mtime_ns for file in folder.rglob("*")}


def dry_run(folder: Path, shards: int, jobs: int, segmented: bool) -> dict[str, Any]:
    """`snakemake -n` of a volume of at least so many shards of config.yaml, whose voxels nobody wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    side = math.ceil(math.cbrt(shards))
    shape, shard = (16 * side, 512 // SCALE * side, 512 // SCALE * side), (16, 512, 512)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(coarse(folder, shape, shard, jobs, voxels=False, segmented=segmented))
    )
    took, told = watched([*SNAKEMAKE, "--cores", "2", "-n", "--quiet", "rules"], folder)
    total = re.search(r"^total +([0-9]+)$", told, re.MULTILINE)
    return {"shards": side**3, "jobs": jobs, "segmented": segmented, "rules": int(total[1]) if total else 0, **took}


def watched(command: Sequence[str], folder: Path) -> tuple[dict[str, float], str]:
    """Seconds on the clock and of processors, peak memory (MB) of a command and all that it starts; what it says."""
    clock, peak = time.perf_counter(), 0.0
    with (folder / "watched.log").open("w") as log:
        process = psutil.Popen(list(command), cwd=folder, stdout=log, stderr=log, env=environment())
        spent = 0.0
        while process.poll() is None:
            with suppress(psutil.Error):
                tree = [process, *process.children(recursive=True)]
                peak = max(peak, sum(one.memory_info().rss for one in tree) / 10**6)
                spent = max(spent, sum(process.cpu_times()[:4]))
            time.sleep(0.01)
    said = (folder / "watched.log").read_text()
    if process.returncode:
        raise SystemExit(said)
    took = {"seconds": round(time.perf_counter() - clock, 2), "cpu_seconds": round(spent, 2), "peak_mb": round(peak)}
    return took, said


# -- bounds and the page ----------------------------------------------------------------------------------------------

RERUN_SECONDS, DRY_RUN_SECONDS, DRY_RUN_MB = 15, 10, 1000


def everything(folder: Path) -> dict[str, Any]:
    """All figures."""
    shape = (16, 384, 384)
    axes = {"wide": 1, "deep": 0}
    return {
        "memory": {name: memory(folder / name, shape, 10, axis, False) for name, axis in axes.items()},
        "rerun": rerun(folder / "rerun", 10_000, 4),
        "dry_run": [dry_run(folder / f"dry{int(one)}", 1_000_000, 2000, one) for one in (False, True)],
    }


def broken(found: Mapping[str, Any]) -> list[str]:
    """Which bounds the figures do not keep. Time is that of processors: how busy a machine was says nothing of emsr.

    That of dry runs is for `jobs` of one array: a segmentation has as many again for each of its two.
    """
    over = [
        f"{rule} holds {peak} MB of {of['mem_mb']} ({name})"
        for name, sizes in found["memory"].items()
        for rule, of in sizes["rules"].items()
        if (peak := max(of["small_mb"], of["large_mb"])) > of["mem_mb"]
    ]
    again = found["rerun"]
    if again["rerun"]["cpu_seconds"] > RERUN_SECONDS or again["touched"] or not again["nothing_done"]:
        over.append(f"a finished run of {again['shards']} shards reruns: {again}")
    slow = (
        one
        for one in found["dry_run"]
        if one["peak_mb"] > DRY_RUN_MB or (not one["segmented"] and one["cpu_seconds"] > DRY_RUN_SECONDS)
    )
    return over + [f"a dry run takes too much: {one}" for one in slow]


def section(found: Mapping[str, Any]) -> str:
    """What docs/reliability.md says of the figures."""
    wide, deep = found["memory"]["wide"], found["memory"]["deep"]
    sizes = [" x ".join(map(str, shape)) for shape in (wide["small"], wide["large"], deep["large"])]
    lines = [f"| rule | `mem_mb` | {' | '.join(sizes)} |", "|---|---|---|---|---|"]
    for rule, of in sorted(wide["rules"].items()):
        more = deep["rules"].get(rule, {}).get("large_mb")
        cells = [f"{of['mem_mb']:.0f}", f"{of['small_mb']:.0f}", f"{of['large_mb']:.0f}", f"{more:.0f}" if more else ""]
        lines.append(f"| `{rule}` | {' | '.join(cells)} |")
    again = found["rerun"]
    lines += [
        "",
        f"- A finished run of {again['shards']:,} shards ({again['files']:,} files) says that there is nothing to do "
        f"after {again['rerun']['seconds']:.1f} s, `emsr status` takes {again['status']['seconds']:.1f} s, and "
        f"{len(again['touched'])} files have another time stamp.",
    ]
    for one in found["dry_run"]:
        what = "super-resolved and segmented" if one["segmented"] else "super-resolved"
        lines.append(
            f"- `snakemake -n` of {one['shards']:,} shards in {one['jobs']:,} jobs, {what} ({one['rules']:,} jobs of "
            f"all rules): {one['seconds']:.1f} s, {one['peak_mb']} MB."
        )
    return "\n".join(lines) + "\n"


# -- program ----------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", "memory", "rerun", "dry-run"))
    parser.add_argument("--shape", type=int, nargs=3, default=(16, 384, 384))
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--axis", type=int, choices=(0, 1), default=1)
    parser.add_argument("--shards", type=int)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--segmented", action="store_true")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = words.folder or Path(temporary)
        if words.what == "all":
            found = everything(folder)
            FIGURES.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
            if wrong := broken(found):
                raise SystemExit("\n".join(wrong))
        elif words.what == "memory":
            found = memory(folder, words.shape, words.times, words.axis, words.networks)
        elif words.what == "rerun":
            found = rerun(folder, words.shards or 10_000, words.jobs or 4)
        else:
            found = dry_run(folder, words.shards or 1_000_000, words.jobs or 2000, words.segmented)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
