"""What every format offers to its readers: a volume z, y, x, read box by box, and what its file says about space."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

if TYPE_CHECKING:
    from emsr.stores.versions import Versions

Number = TypeVar("Number", int, float)
Triple = tuple[Number, Number, Number]

UNITS_NM = {
    "angstrom": 0.1,
    "Å": 0.1,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "nm": 1.0,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "um": 1e3,
    "µm": 1e3,  # the micro sign
    "μm": 1e3,  # the Greek letter
    "micron": 1e3,
    "microns": 1e3,
    "millimeter": 1e6,
    "millimetre": 1e6,
    "mm": 1e6,
    "cm": 1e7,
    "inch": 2.54e7,
    "meter": 1e9,
    "metre": 1e9,
}


@dataclass(frozen=True)
class Source:
    """A volume on the user's disk, opened for reading.

    `read(start, stop)` gives the voxels of a half-open box as a native-endian C-order array. `stored(z)` says whether
    anything was ever written for section z; it may be slow. `voxel_size_nm` and `translation_nm` (centre of the first
    voxel) are None where the file does not state them; `corner_nm` is the corner of a file that states a place without
    a voxel size. `close` lets go of the file. `spec` is a tensorstore spec that reads the same voxels, axes z, y, x, in
    place; None where there is none. `caution` is what a user should know about the voxels, which makes no good labels.
    `made_from` is the source that voxels are computed from while they are read.
    `depth` is how many sections are stored, and so unpacked, together.
    `stored_bytes(enough)` counts the bytes that hold voxels, and may stop counting at `enough`; None where a file that
    declares more voxels than it holds is refused by its format. `versions` says which versions of objects of a server
    were read; None where sizes and time stamps of files do.
    """

    path: str
    dataset: str
    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    voxel_size_nm: Triple[float] | None
    translation_nm: Triple[float] | None
    read: Callable[[Sequence[int], Sequence[int]], np.ndarray]
    stored: Callable[[int], bool]
    close: Callable[[], None]
    corner_nm: Triple[float] | None = None
    spec: dict[str, Any] | None = None
    caution: str | None = None
    made_from: Source | None = None
    depth: int = 1
    stored_bytes: Callable[[int], int] | None = None
    versions: Versions | None = None


def nanometres(unit: str, where: str) -> float:
    """Length of a unit in nm; ValueError for one that is not known."""
    if unit not in UNITS_NM:
        known = ", ".join(sorted(UNITS_NM))
        raise ValueError(f"{where}: unit {unit!r} is unknown, so lengths cannot be read: use one of {known}")
    return UNITS_NM[unit]


def triple(values: Iterable[float], what: str, where: str, positive: bool = False) -> Triple[float]:
    """Three finite numbers; ValueError names what they should have been."""
    numbers = [float(value) for value in values]
    good = len(numbers) == 3 and all(math.isfinite(n) and (n > 0 or not positive) for n in numbers)
    if not good:
        kind = "three positive numbers" if positive else "three finite numbers"
        raise ValueError(f"{where}: {what} {numbers} is not {kind} (z, y, x): mend the file's metadata")
    return numbers[0], numbers[1], numbers[2]


def single_precision(length: float) -> float:
    """A length that was stored with about seven digits, without the digits that storing it made up."""
    return float(f"{length:.7g}")


def refuse_dataset(path: Path, dataset: str | None) -> None:
    """ValueError where a dataset is stated inside what has none."""
    if dataset is not None:
        raise ValueError(f"{path} has no datasets inside, so {dataset!r} means nothing: write dataset: null")


@contextmanager
def refusing(place: str) -> Iterator[None]:
    """Whatever goes wrong with the source at `place` becomes ValueError or OSError of one line that names it.

    Files of others make libraries raise anything; refusals that name the place already are left as they are.
    """
    try:
        yield
    except OSError as error:
        raise _refusal(OSError if error.errno else type(error), place, error) from error
    except Exception as error:
        raise _refusal(ValueError, place, error) from error


def _refusal(kind: type[Exception], place: str, error: Exception) -> Exception:
    """An exception of `kind` in one line: place, reason and mend."""
    if isinstance(error, OSError) and error.errno:
        file = str(error.filename or place)
        where = file if place in file else f"{place}: {file}"
        denied = error.errno in (errno.EACCES, errno.EPERM)
        mend = "mend its permissions, or copy it again" if denied else "copy it again"
        return kind(f"{where} cannot be read ({error.strerror}): {mend}")
    text, place = one_line(error, 10**4), one_line(ValueError(place), 10**4)
    if isinstance(error, OSError) or (isinstance(error, ValueError) and place in text):
        return kind(text)
    if isinstance(error, MemoryError):
        return kind(f"{place} needs more memory than there is ({one_line(error)}): write it in smaller pieces")
    name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return kind(f"{place} cannot be understood ({name}{one_line(error)}): mend its metadata, or copy it again")


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading; OSError or ValueError, in one line, where that is not allowed or it is empty."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise OSError(f"{path} cannot be opened ({error.strerror}): mend its permissions, or copy it again") from None
    if os.fstat(stream.fileno()).st_size == 0:
        stream.close()
        raise ValueError(f"{path} is empty (0 bytes): copy it again")
    return stream


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file, which say its format; errors as `open_file`."""
    with open_file(path) as stream:
        return stream.read(count)


def one_line(error: BaseException, limit: int = 200) -> str:
    """An exception's text without line breaks and what terminals obey, cut to `limit` characters."""
    text = "".join(one if one.isprintable() else "?" for one in " ".join(str(error).split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."
