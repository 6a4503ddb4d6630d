"""Files of weights made by others declare no more than they hold: archives that unpack to more, tensors of nothing."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def check_archive(path: Path) -> None:
    """ValueError, in one line, for an archive whose parts are packed or overlap, so that reading it takes any memory.

    torch.save stores tensors as they are. What is no archive is left to torch.load.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return
    declared, stored = sum(part.file_size for part in parts), Path(path).stat().st_size
    if declared > stored or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError(f"{path} of {stored} bytes unpacks to {declared}, which torch.save never makes: get another")


def check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """ValueError, in one line, for a tensor that is not stored number by number, and so may stand for any size."""
    for name, tensor in state.items():
        dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{path}: tensor {name!a} of shape {tuple(tensor.shape)} is not stored number by number: "
                "save it with contiguous()"
            )
