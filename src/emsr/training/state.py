"""The state of a training under way, on disk: it is whole or it is not there, whenever the process is killed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from emsr.durable import read_json, sync_folder, write_json

State = dict[str, Any]
LATEST = "latest.json"


def save(folder: Path, state: State, identity: str) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts; with ``step``) durably, then forget the one before it.

    ``identity`` is the hash of everything that determines the training; another one never resumes from this.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{state['step']:08d}.pt"
    partial = folder / (name + ".partial")
    with partial.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    digest = _digest(partial)
    os.replace(partial, folder / name)
    sync_folder(folder)
    write_json(folder / LATEST, {"file": name, "sha256": digest, "identity": identity, "step": state["step"]})
    for old in folder.glob("step-*"):
        if old.name != name:
            old.unlink()


def load(folder: Path, identity: str) -> State | None:
    """The last whole state of the training called ``identity``; None if there is none, another's or a damaged one."""
    try:
        latest = read_json(folder / LATEST)
        path = folder / latest["file"]
        if latest["identity"] != identity or _digest(path) != latest["sha256"]:
            return None
    except (FileNotFoundError, ValueError, KeyError):
        return None
    state: State = torch.load(path, map_location="cpu", weights_only=True)
    return state


def forget(folder: Path) -> None:
    """Remove the state, when the training has ended or was another's."""
    shutil.rmtree(folder, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
