"""Names of the published affinity networks (superhuman.pt, MALA.pt) and what their weights are (spec D, F)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from emsr.models import affinity
from emsr.models.checkpoint import differences

KINDS = ("superhuman", "mala")  # presets whose weights were published
SCALE = affinity.SCALES[0]
_SUPERHUMAN = (
    (r"^first\.", "embed_in.0."),
    (r"^downs\.(\d+)\.", r"conv\1."),
    (r"^bottom\.", "center."),
    (r"^ups\.(\d+)\.project\.", r"up\1.1."),
    (r"^ups\.(\d+)\.norm\.", r"cat\1.0."),
    (r"^smooth\.", "embed_out.0."),
    (r"^last\.", "out_put.0."),
    (r"\.enter\.", ".block1."),
    (r"\.body\.", ".block2."),
    (r"\.norm\.", ".block3."),
)


def published_names(kind: str, names: Iterable[str]) -> dict[str, str]:
    """Our tensor names of network ``kind``, in the order of its state, and their published keys."""
    return _superhuman_names(names) if kind == "superhuman" else _mala_names(names)


def _superhuman_names(names: Iterable[str]) -> dict[str, str]:
    """Blocks on the way up are numbered on after those on the way down."""
    found = {name: name for name in names}
    levels = len({match[0] for name in found if (match := re.match(r"downs\.\d+\.", name))})
    for name in found:
        theirs = re.sub(r"^ups\.(\d+)\.block\.", lambda match: f"conv{levels + int(match[1])}.", name)
        for ours, replacement in _SUPERHUMAN:
            theirs = re.sub(ours, replacement, theirs)
        found[name] = theirs
    return found


def _mala_names(names: Iterable[str]) -> dict[str, str]:
    """Convolutions are numbered in forward order, upsamplings by themselves."""
    found, counts, layers = {}, {"conv": 0, "dconv": 0}, dict[str, str]()
    for name in names:
        layer, _, tensor = name.rpartition(".")
        if layer not in layers:
            sort = "dconv" if layer.endswith(".lift") else "conv"
            counts[sort] += 1
            layers[layer] = f"{sort}{counts[sort]}"
        found[name] = f"{layers[layer]}.{tensor}"
    return found


def check_scale(scale: int | None) -> None:
    """Raise ValueError for a scale other than none at all or 1."""
    if scale not in (None, SCALE):
        raise ValueError(f"scale {scale} means nothing to stage affinity, whose networks keep the grid: leave it out")


def convert(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Published tensors -> the state of our network, which is recognised by its keys, and what a card says of it.

    Raises ValueError, in one line, naming what is missing, misshapen or unknown by its published key.
    """
    with torch.device("meta"):
        networks = {kind: affinity.build(affinity.PRESETS[kind]) for kind in KINDS}
    keys = {kind: published_names(kind, network.state_dict()) for kind, network in networks.items()}
    kind = max(KINDS, key=lambda kind: len(state.keys() & set(keys[kind].values())))
    names = keys[kind]
    if not state.keys() & set(names.values()):
        held = ", ".join(list(state)[:2]) or "nothing"
        raise ValueError(f"{source} holds no published affinity network ({held}): give superhuman.pt or MALA.pt")
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in networks[kind].state_dict().items()}
    taken = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if wrong := differences(shapes, taken):
        raise ValueError(f"{source} is no published {kind}: {wrong}; give another file")
    halo = list(networks[kind].geometry.halo)
    return {name: taken[theirs].contiguous() for name, theirs in names.items()}, {**_about(kind), "halo": halo}


def _about(kind: str) -> dict[str, Any]:
    """What a card says; ``depth`` and ``window`` are z and y, x of one call, halo included."""
    depth, side, _ = affinity.WINDOWS[kind]
    about = {"model": "affinity", "preset": kind, "options": asdict(affinity.PRESETS[kind]), "scale": SCALE}
    return {**about, "sections": 1, "section_step": 1, "depth": depth, "window": side, "patch": side}
