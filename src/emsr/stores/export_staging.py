"""Where an export lies until it is whole: a folder beside it that one process holds; a stopped export goes on there."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emsr.durable import SchemaError, read_json, sync_folder, write_json
from emsr.stores.source import one_line

LOCK, BEGUN, WHOLE, OLD = "lock", "export.json", "whole", "replaced"
UNFINISHED = ("*.__lock", ".*.partial")
FULL = ("No space left", "Disk quota exceeded", "File too large")
FAILURES = (OSError, ValueError, KeyboardInterrupt)

log = logging.getLogger(__name__)


@contextmanager
def staged(
    out: Path,
    create: Callable[[Path], None],
    what: Mapping[str, Any] | None,
    *,
    need: int = 0,
    ours: Callable[[Path], bool] | None = None,
) -> Iterator[tuple[Path, bool]]:
    """Where to write, after `create` of it, and whether a stopped export may have left voxels there.

    It becomes `out` at the end. `what` tells one export from another: a stopped one of the same goes on; of another
    one, or with None, it starts over, and nothing is left of one that fails. `need` are bytes that must be free. Where
    `ours` holds of what stands at `out`, it is replaced. OSError or ValueError, in one line, for all that goes wrong,
    FileExistsError where `out` stands or another process is writing it.
    """
    check_free(out, ours)
    folder = out.with_name(f".{out.name}.partial")
    stated = json.loads(json.dumps(what)) if what else None
    with _held(folder, out):
        check_free(out, ours)
        begun = stated is not None and _stated(folder / BEGUN) == stated
        if begun:
            _drop_unfinished(folder / WHOLE)
        else:
            _clear(folder)
            _check_room(folder, need)
        try:
            if stated is not None:
                write_json(folder / BEGUN, stated)
            (folder / WHOLE).mkdir(exist_ok=True)
            path = folder / WHOLE / out.name
            create(path)
            yield path, begun
            check_free(out, ours)
            _settle(path, out, folder)
        except BaseException as error:
            if stated is None:
                _clear(folder)
            if isinstance(error, FAILURES):
                raise _told(error, out, folder if stated else None) from error
            raise
        _clear(folder)


def check_free(out: Path, ours: Callable[[Path], bool] | None = None) -> None:
    """FileExistsError where anything stands at `out`, but for what `ours` says may be replaced.

    ValueError for an address, which a path has made of one slash.
    """
    if out.parts and out.parts[0].endswith(":"):
        raise ValueError(f"{out} is an address: write to a path on disk, and copy it from there")
    if not os.path.lexists(out):
        return
    if ours is None:
        raise FileExistsError(f"{out} exists: remove it, write elsewhere, or add --overwrite to replace an export")
    if out.is_symlink() or not ours(out):
        raise FileExistsError(f"{out} is no export of this format, and nothing else is overwritten: write elsewhere")


@contextmanager
def _held(folder: Path, out: Path) -> Iterator[None]:
    """Make the folder and hold its lock, which ends with the process; an empty folder is removed afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / LOCK).open("ab")
    except OSError as error:
        raise OSError(f"{out.parent} cannot be written to ({one_line(error)}): write elsewhere") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(stream.fileno()), (folder / LOCK).stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError as error:
            log.warning("%s has no locks (%s): start no second export of %s", folder.parent, one_line(error), out.name)
            held = True
        if not held:
            raise FileExistsError(f"{out} is being written by another emsr: wait for it, or write elsewhere")
        try:
            yield
        finally:
            with suppress(OSError):
                if [entry.name for entry in folder.iterdir()] == [LOCK]:
                    (folder / LOCK).unlink()
                    folder.rmdir()


def _stated(file: Path) -> Any:
    """What an earlier export said of itself; None where nothing can be read."""
    try:
        return read_json(file)
    except SchemaError:
        raise
    except (OSError, ValueError):
        return None


def _clear(folder: Path) -> None:
    """Remove everything but the lock."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            entry.unlink()


def _drop_unfinished(folder: Path) -> None:
    """Remove files that a killed process was writing, which tensorstore and emsr.durable rename at the end."""
    for name in UNFINISHED:
        for file in list(folder.rglob(name)):
            file.unlink()


def _check_room(folder: Path, need: int) -> None:
    """OSError where the disk has not as many bytes left as are known to be needed."""
    free = shutil.disk_usage(folder).free
    if free < need:
        sizes = f"{need / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free there"
        raise OSError(f"{folder.parent} is too full, the voxels take {sizes}: free space, or write elsewhere")


def _settle(path: Path, out: Path, folder: Path) -> None:
    """Give what is whole its name; of a folder that stood there a killed process may leave the old one in `folder`."""
    if out.is_dir():
        os.rename(out, folder / OLD)
    os.replace(path, out)
    sync_folder(out.parent)


def _told(error: BaseException, out: Path, kept: Path | None) -> Exception:
    """The exception that says, in one line, why `out` is not there, and what to do."""
    reason = "stopped" if isinstance(error, KeyboardInterrupt) else one_line(error)
    if any(words in str(error) for words in FULL):
        reason = f"{out.parent} is full, or a quota is reached: free space there"
    then = f"; the same command goes on from {kept}, else remove that" if kept else ""
    kind = ValueError if isinstance(error, ValueError) else OSError
    return kind(f"{out} is not written: {reason}{then}")
