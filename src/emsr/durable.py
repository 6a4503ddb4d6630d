"""Small files that are whole or absent, also after a crash: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path`, durably and in one step; makes the folder. Equal content already there is left alone."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes() == content:
        return
    partial = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
        settle(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def settle(partial: Path, path: Path) -> None:
    """Give a finished, closed file its name, durably."""
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document with sorted keys, so that equal documents are equal bytes; NaN and infinity are refused."""
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text durably and in one step."""
    write_bytes(path, text.encode())


def read_json(path: Path) -> Any:
    """Read a JSON document; FileNotFoundError or ValueError, in one line, where it is absent or not whole."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: run the step that makes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not JSON ({reason}): delete it and run the step that makes it again") from None


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
