"""The first jobs of every super-resolution go ahead; the others start when what they made passes the gates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable
from emsr.driver.gates import figures
from emsr.plan import settings_sha256
from emsr.shards import parse_job, shards_of_job

if TYPE_CHECKING:
    from emsr.commands.recorded import Recorded
    from emsr.driver.words import Asked
    from emsr.schema_parts import Canary
    from emsr.settings import Settings

GATES = {  # key of the config: what it is, whether more is better
    "consistency_db": ("consistency with lr, dB,", True),
    "seams": ("seams", False),
    "spectrum_db": ("rise of the spectrum, dB,", False),
    "confidence": ("confidence of the codebook over chance", True),
}
AFTER_SR = ("sr.json", "scores.json", "segmentation.json", "segmentations/", "valid.zarr", "sr.zarr")

log = logging.getLogger(__name__)
Make = Callable[[Sequence[str]], None]
Figures = dict[str, Any]


def pass_gates(settings: Settings, asked: Asked, make: Make, check: Callable[[], None]) -> None:
    """Have the first jobs of volumes made and look at them; ValueError, in one line, for the first gate not passed.

    What passed stands in `<volume>/sr/canary.json`, and is not looked at again while weights, lr and limits are those.
    `check` is called in between, to end where a run must.
    """
    limits, volumes = settings.config.canary, list(_volumes(settings, asked.targets))
    if limits is None or not volumes:
        return
    jobs = asked.jobs or settings.config.jobs
    marks = {volume: _marks(settings, volume, _spread(limits.jobs, jobs), jobs) for volume in volumes}
    beside = [] if asked.targets else [path for path in settings.targets if "/trainings/" in path]
    make([*(mark for named in marks.values() for mark in named), *beside])
    for volume in volumes:
        array = _array(settings, volume)
        if not _made(array, marks[volume]):
            marks[volume] = _others(settings, array, limits.jobs, jobs)
    if empty := [mark for named in marks.values() for mark in named if not Path(mark).exists()]:
        make(empty)
    for volume in volumes:
        check()
        _judge(settings, volume, marks[volume], limits)


def _volumes(settings: Settings, targets: Sequence[str]) -> Iterator[str]:
    """The volumes whose sr is made for `targets`: all of them where a rule, the report, or nothing is named."""
    known = [target.removeprefix(f"{settings.root}/") for target in targets]
    whole = not known or any("/" not in target or target.startswith("report") for target in known)
    for volume in settings.superresolved:
        after = tuple(f"{volume}/{name}" for name in AFTER_SR)
        if whole or any(target.startswith(after) for target in known):
            yield volume


def _spread(count: int, jobs: int) -> list[int]:
    """`count` of `jobs` numbers from 1 on, from the middle of as many equal parts."""
    count = min(count, jobs)
    return [(2 * part + 1) * jobs // (2 * count) + 1 for part in range(count)]


def _marks(settings: Settings, volume: str, numbers: Sequence[int], jobs: int) -> list[str]:
    """The marks of jobs; those that the volume was finished with, where it was, however many there are now."""
    if proved := settings.marks(volume):
        _, jobs = parse_job(Path(proved[0]).stem)
        numbers = _spread(len(numbers), jobs)
    return [settings.path(volume, "sr", "jobs", f"{number}-of-{jobs}.json") for number in numbers]


def _array(settings: Settings, volume: str) -> Recorded:
    from emsr.commands.recorded import open_allocation

    return open_allocation(volume, Path(settings.path(volume, "sr", "allocate.json")))


def _made(array: Recorded, marks: Sequence[str]) -> bool:
    """Whether these jobs have a shard that is not left empty."""
    grid, records = array.records.grid, array.records
    named = [shards_of_job(grid, *parse_job(Path(mark).stem), records.within) for mark in marks]
    return any(index not in records.skipped for shards in named for index in shards)


def _others(settings: Settings, array: Recorded, count: int, jobs: int) -> list[str]:
    """Marks of the first jobs that have one, where a mask or a pilot leaves those in the middle empty."""
    full: list[str] = []
    for number in range(1, jobs + 1):
        mark = settings.path(array.volume, "sr", "jobs", f"{number}-of-{jobs}.json")
        if len(full) < count and _made(array, [mark]):
            full.append(mark)
    return full


def _judge(settings: Settings, volume: str, marks: Sequence[str], limits: Canary) -> None:
    array, out = _array(settings, volume), Path(settings.path(volume, "sr", "canary.json"))
    keys = ("array", "weights_sha256", "settings_sha256", "inputs_sha256")
    of = {
        "made_of": settings_sha256({key: array.allocated[key] for key in keys}),
        "limits": limits.model_dump(),
        "jobs": [Path(mark).stem for mark in marks],
    }
    before = _before(out)
    if before.get("passed") and {key: before.get(key) for key in of} == of:
        return
    lr = Path(settings.lr(volume))
    found = apart(figures, volume, array.allocate, lr, [Path(mark) for mark in marks], limits.sections)
    failed = list(_failed(found, limits))
    durable.write_json(out, {"schema": 1, **of, "figures": found, "passed": not failed})
    shown = ", ".join(f"{key} {found[key]}" for key in GATES)
    log.info("canary of %s: %s", volume, shown)
    if failed:
        raise ValueError(
            f"the first jobs of volume {volume} do not pass: {'; '.join(failed)} ({out}): mend lr, weights or config; "
            "or, if this is as it should be, change the limit and run again, or run with --no-canary"
        )


def apart(function: Callable[..., Figures], *given: Any) -> Figures:
    """The function in a process of its own, whose memory is given back."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def _before(out: Path) -> Mapping[str, Any]:
    from emsr.commands.recorded import read

    found = read(out)
    return found if isinstance(found, dict) else {}


def _failed(found: Mapping[str, Any], limits: Canary) -> Iterator[str]:
    for key, (what, more) in GATES.items():
        limit, value = getattr(limits, key), found[key]
        if limit is not None and value is not None and (value < limit if more else value > limit):
            beside = f", bicubic has {found['bicubic_db']}" if key == "consistency_db" else ""
            yield f"{what} is {value}{beside}, canary.{key} is {limit:g} at {'least' if more else 'most'}"
