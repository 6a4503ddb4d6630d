"""Checkpoints of EDSR-PyTorch: their keys, their range of grey levels and their three channels made one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from emsr.models import edsr
from emsr.models.checkpoint import differences

KINDS = ("published", "full")  # presets whose weights were published; res_scale is in no checkpoint, it goes by these
WINDOW = 128  # lr pixels; the networks see 36 and 68 to each side
LEVELS = 255  # largest grey level where no mean shift tells it
_NAMES = (
    (r"^first\.", "head.0."),
    (r"^blocks\.(\d+)\.conv1\.", r"body.\1.body.0."),
    (r"^blocks\.(\d+)\.conv2\.", r"body.\1.body.2."),
    (r"^last\.", "tail.1."),
)


def published_name(name: str, blocks: int) -> str:
    """The key of our tensor ``name`` in EDSR-PyTorch's network of as many ``blocks``."""
    for ours, theirs in (*_NAMES, (r"^join\.", f"body.{blocks}.")):
        name = re.sub(ours, theirs, name)
    # a PixelShuffle follows each convolution and counts
    return re.sub(r"^ups\.(\d+)\.0\.", lambda match: f"tail.0.{2 * int(match[1])}.", name)


def convert(state: Mapping[str, Tensor], scale: int | None, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of EDSR-PyTorch -> the state of our network, and what a card says of it.

    Three channels become one: the network for grey images, which are the same in all three, and the mean of what it
    gives. Raises ValueError, in one line, naming what is missing, misshapen or unknown by its key.
    """
    if scale not in edsr.SCALES:
        scales = ", ".join(map(str, edsr.SCALES))
        raise ValueError(f"scale {scale} is not one of edsr's: say which with --scale, one of {scales}")
    with torch.device("meta"):
        states = {kind: edsr.build(scale, 1, edsr.PRESETS[kind]).state_dict() for kind in KINDS}
    keys = {kind: _names(kind, states[kind]) for kind in KINDS}
    kind = max(KINDS, key=lambda kind: len(state.keys() & set(keys[kind].values())))
    names = keys[kind]
    taken = {name: tensor.float() for name, tensor in state.items()}
    channels = 3 if taken.get("head.0.weight", torch.empty(0)).shape[1:2] == (3,) else 1
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in states[kind].items()}
    if wrong := differences(_coloured(shapes, channels, state), taken):
        raise ValueError(f"{source} is no {kind} EDSR of x{scale}: {wrong}; check --scale or give another file")
    levels = _levels(taken)
    taken, mean = grey(taken, channels, levels)
    if not 0 <= mean <= 1:
        raise ValueError(f"{source} takes a mean of {mean} of the range away: sub_mean is spoilt, download it again")
    options = {**asdict(edsr.PRESETS[kind]), "mean": mean}
    about = {"model": "edsr", "preset": kind, "options": options, "scale": scale, "sections": 1, "section_step": 1}
    about |= {"window": WINDOW, "patch": WINDOW, "channels_made_one": channels, "levels": levels}
    return {name: taken[theirs].contiguous() for name, theirs in names.items()}, about


def _names(kind: str, state: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: published_name(name, edsr.PRESETS[kind].blocks) for name in state}


def _coloured(
    shapes: Mapping[str, tuple[int, ...]], channels: int, state: Mapping[str, Tensor]
) -> dict[str, tuple[int, ...]]:
    """``shapes`` of a network of one channel as those of ``channels``, with the mean shifts that ``state`` has."""
    width = shapes["head.0.bias"][0]
    found = {**shapes, "head.0.weight": (width, channels, 3, 3), "tail.1.weight": (channels, width, 3, 3)}
    found["tail.1.bias"] = (channels,)
    if any(name.startswith(("sub_mean.", "add_mean.")) for name in state):
        for which in ("sub", "add"):
            found |= {f"{which}_mean.weight": (channels, channels, 1, 1), f"{which}_mean.bias": (channels,)}
    return found


def _levels(state: Mapping[str, Tensor]) -> int:
    """The largest grey level: 1 if the mean that is taken away fits into [0, 1], else 255."""
    return 1 if "sub_mean.bias" in state and state["sub_mean.bias"].abs().max() <= 1 else LEVELS


def grey(state: Mapping[str, Tensor], channels: int, levels: int) -> tuple[dict[str, Tensor], float]:
    """The network of one channel in [0, 1] that does as that of ``channels`` in [0, ``levels``], and its mean.

    A network of ReLU is homogeneous: with biases divided by the range it does the same in [0, 1]. Where the means of
    the channels differ, the difference goes into a bias: it is exact but for zeros around the image.
    """
    same = torch.eye(channels)[:, :, None, None]
    gain = state.get("sub_mean.weight", same).sum((1, 2, 3)) * levels
    offset = state.get("sub_mean.bias", torch.zeros(channels))
    share = state.get("add_mean.weight", same).mean((0, 2, 3))
    added = state.get("add_mean.bias", torch.zeros(channels)).mean()
    mean = float((-offset / gain).mean())
    left = state["head.0.weight"].sum((2, 3)) @ (offset + gain * mean)
    made = {name: tensor / levels if name.endswith(".bias") else tensor for name, tensor in state.items()}
    made["head.0.weight"] = torch.einsum("ocyx,c->oyx", state["head.0.weight"], gain / levels)[:, None]
    made["head.0.bias"] = (state["head.0.bias"] + left) / levels
    made["tail.1.weight"] = torch.einsum("coyx,c->oyx", state["tail.1.weight"], share)[None]
    made["tail.1.bias"] = ((share @ state["tail.1.bias"] + added) / levels - mean)[None]
    return made, mean
