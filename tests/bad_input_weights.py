"""Bad inputs 63 to 74: weights of emsr with their card, and checkpoints of others."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from bad_input import Program, Row, Words, write_config
from bad_sources import hdf
from emsr.durable import read_json, write_json
from emsr.models import checkpoint
from sr_project import SrProject, tissue_like, write_weights
from test_security import Evil, sparse

LR = tissue_like((3, 18, 20))
HTML = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 132\n"
Tensors = dict[str, torch.Tensor]
NAME = "w.safetensors"


# weights of emsr, which a config names


def checked(spoil: Callable[[Path], object]) -> Callable[[Path], list[Words | Program]]:
    """`emsr check` of a volume that names weights which are spoilt."""

    def made(folder: Path) -> list[Words | Program]:
        hdf(folder, LR)
        card = write_weights(folder, "gpemsr", 4)
        for file in (card, card.with_suffix(".safetensors")):
            file.rename(folder / f"w{file.suffix}")
        spoil(folder / NAME)
        lr = {"path": "x.h5", "dataset": "volumes/raw"}
        layout = {"shard": [4, 64, 64], "chunk": [2, 32, 32], "overlap": 4}
        how = {"precision": "float32", "device": "cpu", **layout}
        write_config(folder, {"v": {"lr": lr, "weights": {"path": NAME}}}, superresolve=how)
        return [["check", "mine.yaml"]]

    return made


def relabelled(path: Path, **changes: Any) -> None:
    card = path.with_suffix(".json")
    write_json(card, {**read_json(card), **changes})


def rewritten(change: Callable[[Tensors], object]) -> Callable[[Path], None]:
    """Other tensors, and a card with their hash."""

    def spoil(path: Path) -> None:
        state = safetensors.torch.load_file(path)
        change(state)
        safetensors.torch.save_file(state, path)
        relabelled(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    return spoil


def replaced(content: bytes, signed: bool = False) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_bytes(content)
        if signed:
            relabelled(path, sha256=hashlib.sha256(content).hexdigest())

    return spoil


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def one(value: float) -> Callable[[Tensors], None]:
    """One weight is this."""

    def change(state: Tensors) -> None:
        next(iter(state.values())).view(-1)[0] = value

    return change


def options(path: Path, **changes: Any) -> None:
    relabelled(path, options={**read_json(path.with_suffix(".json"))["options"], **changes})


# checkpoints of others, which are imported


def imported(make: Callable[[Path], object]) -> Callable[[Path], list[Words | Program]]:
    def made(folder: Path) -> list[Words | Program]:
        make(folder / "w.pth")
        return [["import-weights", "w.pth", "--stage", "fusion", "--scale", "8", "--out", "out/w.safetensors"]]

    return made


def saved(value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value() if callable(value) else value, path)


def of_bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def whole_archive() -> bytes:
    import io

    stream = io.BytesIO()
    torch.save({"a": torch.zeros(99)}, stream)
    return stream.getvalue()


NOTHING = {"conv_first.weight": torch.full((1,), float("nan"))}


# steps with weights that are not those of the plan


def allocated(folder: Path, scale: int = 4, **card: Any) -> tuple[SrProject, str]:
    project = SrProject(folder, write_weights(folder, "gpemsr", scale))
    project.write_lr(LR)
    if card:
        write_json(project.card, {**read_json(project.card), **card})
    return project, json.dumps({**project.settings, "result": 1})


def to_allocate(lr: dict[str, Any], **card: Any) -> Callable[[Path], list[Words | Program]]:
    def made(folder: Path) -> list[Words | Program]:
        project, stated = allocated(folder, **card)
        write_json(project.lr, {**read_json(project.lr), **lr})
        return [["allocate", stated, "lr.json", project.card.name, "sr/allocate.json"]]

    return made


def exchanged(folder: Path) -> list[Words | Program]:
    """Other weights have the name of those that were allocated for."""
    project, stated = allocated(folder)
    project.allocate()
    other = write_weights(folder, "gpemsr", 4, seed=1)
    for file in (other, other.with_suffix(".safetensors")):
        file.replace(project.card.with_suffix(file.suffix))
    return [["superresolve", stated, "sr/allocate.json", "1-of-1", "sr/jobs/1-of-1.json", "--workers", "1"]]


def only_tensors_exchanged(folder: Path) -> list[Words | Program]:
    project, stated = allocated(folder)
    project.allocate()
    other = write_weights(folder, "gpemsr", 4, seed=1)
    other.with_suffix(".safetensors").replace(project.card.with_suffix(".safetensors"))
    other.unlink()
    return [["superresolve", stated, "sr/allocate.json", "1-of-1", "sr/jobs/1-of-1.json", "--workers", "1"]]


def halved(dtype: torch.dtype) -> Callable[[Path], list[Words | Program]]:
    """Weights that are stored in half the bytes."""

    def made(folder: Path) -> list[Words | Program]:
        project, stated = allocated(folder)
        stored(project.card, dtype)
        mark = "sr/jobs/1-of-1.json"
        return [
            ["allocate", stated, "lr.json", project.card.name, "sr/allocate.json"],
            ["superresolve", stated, "sr/allocate.json", "1-of-1", mark, "--workers", "1"],
            ["stitch", stated, "sr/allocate.json", mark, "sr.json", "--workers", "1"],
        ]

    return made


def stored(card: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in checkpoint.load_state(card).items()}
    checkpoint.save(card.with_suffix(".safetensors"), state, read_json(card))


def as_rounded(dtype: torch.dtype) -> Callable[[Path], None]:
    """sr is that of the same numbers in single precision."""

    def right(folder: Path) -> None:
        (folder / "whole").mkdir()
        whole, _ = allocated(folder / "whole")
        stored(whole.card, dtype)
        stored(whole.card, torch.float32)
        whole.all()
        assert np.array_equal(SrProject(folder, folder).voxels(), whole.voxels())

    return right


READ = r"(?<=weights \().*(?=\): download)"
ROWS = [
    Row(63, "a pickle that runs a command", imported(of_bytes(pickle.dumps(Evil(), 2)))),
    Row(63, "an archive that runs a command", imported(saved({"params": Evil()}))),
    Row(63, "weights of emsr that run a command", checked(replaced(pickle.dumps(Evil()), signed=True)),
        hides=r"(?<=safetensors \().*(?=\):)"),
    Row(64, "a pickle of a dictionary", imported(of_bytes(pickle.dumps({"a": 1}, 2)))),
    Row(64, "a whole module", imported(saved(lambda: torch.nn.Linear(1, 1)))),
    Row(64, "a list", imported(saved([1, 2]))),
    Row(65, "a checkpoint of 0 bytes", imported(of_bytes(b"")), hides=READ),
    Row(65, "a checkpoint cut in half", imported(of_bytes(whole_archive()[:700])), hides=READ),
    Row(65, "a checkpoint that is a page of HTML", imported(of_bytes(HTML))),
    Row(65, "a checkpoint that is a pointer of git-lfs", imported(of_bytes(POINTER))),
    Row(65, "weights of 0 bytes", checked(replaced(b"")), hides=r"(?<=says )\w{12}"),
    Row(65, "weights cut in half", checked(lambda path: path.write_bytes(path.read_bytes()[:2000])),
        hides=r"(?<=sha256 )\w{12}|(?<=says )\w{12}"),
    Row(65, "weights that are a pointer of git-lfs", checked(replaced(POINTER)), hides=r"(?<=says )\w{12}"),
    Row(65, "a card that is a page of HTML", checked(lambda path: path.with_suffix(".json").write_bytes(HTML))),
    Row(66, "weights of another stage", checked(lambda path: relabelled(path, stage="indexer"))),
    Row(66, "weights of what is no stage", checked(lambda path: relabelled(path, stage=7))),
    Row(67, "weights of another scale", to_allocate({"degradation": {"kernel": "area", "scale": 8}})),
    Row(67, "a card of other widths", checked(lambda path: options(path, width=16))),
    Row(67, "three channels", checked(rewritten(lambda state: state.update(
        {"first.weight": state["first.weight"].repeat(1, 3, 1, 1)})))),
    Row(68, "a tensor lacks", checked(rewritten(lambda state: state.pop("fine.bias")))),
    Row(68, "a tensor too many", checked(rewritten(lambda state: state.update({"more": torch.zeros(2)})))),
    Row(68, "a checkpoint of something else", imported(saved({"a": torch.zeros(2)}))),
    Row(69, "NaN in weights", checked(rewritten(one(float("nan"))))),
    Row(69, "infinity in weights", checked(rewritten(one(float("inf"))))),
    Row(69, "NaN in a checkpoint", imported(saved(NOTHING))),
    Row(70, "a flipped bit", checked(flipped), hides=r"(?<=sha256 )\w{12}|(?<=says )\w{12}"),
    Row(71, "a card of a later emsr", to_allocate({}, schema=2)),
    Row(72, "4 TB of one number", imported(saved(lambda: {"a": torch.zeros(1).half().expand(2**40)}))),
    Row(72, "a sparse tensor", imported(saved(lambda: {"a": sparse()}))),
    Row(72, "a card of 16 TB", checked(lambda path: options(path, flow_widths=[2**20, 2**20]))),
    Row(73, "weights in bfloat16", halved(torch.bfloat16), code=0, then=as_rounded(torch.bfloat16)),
    Row(74, "other weights than were planned for", exchanged, may=("sr/jobs.*",),
        hides=r"(?<=sha256 )\w{12}|(?<=not )\w{12}|(?<=sr-)\w{12}"),
    Row(74, "other tensors than were planned for", only_tensors_exchanged, may=("sr/jobs.*",),
        hides=r"(?<=sha256 )\w{12}|(?<=says )\w{12}"),
]  # fmt: skip
