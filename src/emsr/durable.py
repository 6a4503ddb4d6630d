"""Small files that are whole or absent, also after a crash: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PARTIAL = re.compile(r"\..+\.(?:(?P<host>[A-Za-z0-9_-]+)-(?P<pid>[0-9]+)-)?[0-9a-f]{32}\.partial")
ABANDONED_SECONDS = 3600.0
TRIALS = 3
SEAL = "seal"
REMOVED = "removed.json"  # says of the documents beside it that do not exist that they are not kept
SCHEMA = 1
"""The schema of documents whose form never changed. One whose form does has a number of its own from then on."""


class SchemaError(ValueError):
    """A document of a form that this emsr does not know: it is neither read nor written over."""


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path`, durably and in one step; makes the folder. Equal content already there is left alone."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes() == content:
        return
    for trial in range(TRIALS):
        partial = path.with_name(f".{path.name[:100]}.{_host()}-{os.getpid()}-{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as stream:
                stream.write(content)
            settle(partial, path)
            return
        except FileNotFoundError:
            if trial == TRIALS - 1 or not path.parent.is_dir():
                raise  # else another process took it for abandoned
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def sweep(folder: Path) -> int:
    """Remove the temporary files of `write_bytes` in `folder` whose processes are dead; says how many.

    A process of this machine is asked; of another one, or where nobody can be asked, a file of an hour counts as
    abandoned, and whoever still writes it begins again: a sweep loses nothing.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return 0
    found = [match for match in map(PARTIAL.fullmatch, names) if match]
    return sum(_swept(Path(folder, match[0]), match["host"], int(match["pid"] or 0)) for match in found)


def _swept(partial: Path, host: str | None, pid: int) -> bool:
    try:
        if time.time() - partial.stat().st_mtime < ABANDONED_SECONDS and (host != _host() or _lives(pid)):
            return False
        partial.unlink()
    except OSError:  # it has its name by now, or may not be touched
        return False
    return True


def _host() -> str:
    """This machine, as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9-]", "_", socket.gethostname())[:40] or "_"


def _lives(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


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


def write_sealed(path: Path, document: Mapping[str, Any]) -> None:
    """As `write_json`, with a hash of the document in it, by which `read_json` finds any change that was not meant.

    An equal document without a seal, as earlier versions wrote it, is left alone too, so that nothing reruns for it.
    """
    plain = json.loads(json.dumps(document, allow_nan=False))
    with suppress(OSError, ValueError):
        if json.loads(Path(path).read_text(encoding="utf-8")) == plain:
            return
    write_json(path, {**plain, SEAL: _seal(plain)})


def _seal(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text durably and in one step."""
    write_bytes(path, text.encode())


def read_json(path: Path, newest: int = SCHEMA) -> Any:
    """Read a JSON document, without its seal; FileNotFoundError or ValueError, in one line, where it is absent, not
    whole, or not what was sealed. Without a seal, as in documents of others, whole is enough.

    SchemaError where it states a schema that is none of 1 to `newest`, those that the reader knows.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if Path(path).with_name(REMOVED).is_file():
            raise FileNotFoundError(
                f"{path} was removed when all made of it was proved (keep in the config): run snakemake, which makes "
                "again what is needed"
            ) from None
        raise FileNotFoundError(f"{path} does not exist: run the step that makes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not JSON ({reason}): delete it and run the step that makes it again") from None
    check_schema(path, document, newest)
    if isinstance(document, dict) and SEAL in document and document.pop(SEAL) != _seal(document):
        raise ValueError(
            f"{path} is damaged, its {SEAL} is not of its content: delete it and run the step that makes it again; or, "
            f"if you edited it, remove its {SEAL}"
        )
    return document


def check_schema(path: Path, document: Any, newest: int = SCHEMA) -> None:
    """Raise SchemaError, in one line, for a document that states a schema which is none of 1 to `newest`."""
    stated = document.get("schema", SCHEMA) if isinstance(document, dict) else SCHEMA
    if type(stated) is not int or not 1 <= stated <= newest:
        raise SchemaError(
            f"{path} has schema {json.dumps(stated)}, this emsr reads 1 to {newest}: use the emsr that wrote it, or "
            "delete it and run the step that makes it again"
        )


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object that has these keys; as `read_json`, and ValueError where it is something else."""
    found = read_json(path)
    if not isinstance(found, dict) or (lacking := [key for key in keys if key not in found]):
        reason = f"lacks {', '.join(lacking)}" if isinstance(found, dict) else "is no JSON object"
        raise ValueError(f"{path} {reason}: delete it and run the step that makes it again")
    return found


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
