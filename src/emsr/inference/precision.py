"""Precisions of a network's call."""

from __future__ import annotations

import torch

REDUCED = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""What autocast computes in; parts that need float32 (cosines, logits, flow, sampling offsets) switch it off."""


def autocast(device: str, precision: str) -> torch.autocast:
    """The context in which a network is called on `device`; ValueError for a precision that there is not."""
    if precision != "float32" and precision not in REDUCED:
        raise ValueError(f"precision {precision!r} is unknown: use float32, {' or '.join(REDUCED)}")
    return torch.autocast(device, REDUCED.get(precision, torch.bfloat16), enabled=precision in REDUCED)
