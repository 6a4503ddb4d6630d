"""States of trainings under way, on disk: each is whole or it is not there, whenever the process is killed.

A folder holds the last state of each of the two trainings that were last under way there, told apart by identity (the
hash of everything that determines a training): a run with other settings by mistake costs nothing but its own time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from emsr.durable import SCHEMA, SchemaError, read_json, sync_folder, write_sealed

log = logging.getLogger(__name__)

State = dict[str, Any]
Entry = dict[str, Any]
INDEX = "latest.json"
KEPT = 2  # trainings


def save(folder: Path, state: State, identity: str) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts; with ``step``) durably, then forget what is older.

    That is the state of the same training before it, and those of all but one other training. Only the training called
    ``identity`` ever resumes from this.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{state['step']:08d}-{identity[:16]}.pt"
    partial = folder / (name + ".partial")
    with partial.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    entry = {"file": name, "sha256": _digest(partial), "identity": identity, "step": state["step"]}
    os.replace(partial, folder / name)
    sync_folder(folder)
    _keep(folder, [entry, *others(folder, identity)][:KEPT])


def load(folder: Path, identity: str) -> State | None:
    """The last whole state of the training called ``identity``; None if there is none, or a damaged one."""
    own = next((entry for entry in _entries(folder) if entry["identity"] == identity), None)
    if own is None:
        return None
    try:
        whole = _digest(folder / own["file"]) == own["sha256"]
    except FileNotFoundError:
        whole = False
    if not whole:
        log.warning("%s is gone or damaged: the training starts over", folder / own["file"])
        return None
    state: State = torch.load(folder / own["file"], map_location="cpu", weights_only=True)
    return state


def others(folder: Path, identity: str) -> list[Entry]:
    """What is kept of trainings not called ``identity``, newest first: file, sha256, identity and step of each."""
    return [entry for entry in _entries(folder) if entry["identity"] != identity]


def forget(folder: Path, identity: str) -> None:
    """Remove the state of the training called ``identity``, which has ended; with the last state goes the folder."""
    if left := others(folder, identity):
        _keep(folder, left)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _entries(folder: Path) -> list[Entry]:
    """What the index names, newest first; nothing where there is no index, or none of this form."""
    try:
        entries: list[Entry] = read_json(folder / INDEX)["states"]
    except SchemaError:
        raise
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s: trainings that are not finished start over", error)
        return []
    return entries


def _keep(folder: Path, entries: list[Entry]) -> None:
    """Let the index name ``entries``, in one step, then remove every other state."""
    write_sealed(folder / INDEX, {"schema": SCHEMA, "states": entries})
    named = {entry["file"] for entry in entries}
    for old in folder.glob("step-*"):
        if old.name not in named:
            old.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
