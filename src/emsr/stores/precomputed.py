"""Neuroglancer precomputed, on disk or behind file, gs, s3, https and http, through cloud-volume.

On disk tensorstore, which is quicker, reads what it can: what is encoded without loss and not compressed as whole
files (`.gz`). A chunk that is missing inside the bounds is an error. cloud-volume makes a request that fails seven
times, with growing pauses, and a body shorter than announced is such a failure; a server that is silent for `SILENCE_S`
is another.
"""

from __future__ import annotations

import hashlib
import re
import threading
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from emsr import places
from emsr.stores.buckets import address_of
from emsr.stores.foreign import read_foreign
from emsr.stores.pieces import CACHE_BYTES, MOST_BYTES, chunkwise
from emsr.stores.precomputed_info import check_reach, checked, parsed
from emsr.stores.source import Source, one_line, triple
from emsr.stores.versions import Versions, answered, watch

OPTIONS = ("mip",)
SILENCE_S = 30
EXACT = ("raw", "compressed_segmentation", "png")  # encodings of which all decoders make the same voxels
SECRETS = re.compile(r"\?[^\s'\"]*|(?<=//)[^\s/@]+@")  # queries and logins in what libraries say of an address
GZIP_LEAST, GZIP_MOST = 18, 1032  # bytes of header and trailer; how much tighter than its voxels gzip packs
CHUNKS = {"download_chunk": 6, "_decode_helper": 2}  # functions of cloud-volume, and which argument names the chunk


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of precomputed."""
    return (path / "info").is_file()


def open_source(place: Path | str, dataset: str | None, mip: int = 0) -> Source:
    """Open one scale of a volume, a folder or an address, for reading.

    Nothing but its info is read. Raises ValueError or FileNotFoundError, in one line, for what cannot be a volume.
    """
    if dataset is not None:
        raise ValueError(f"{place}: precomputed has no datasets: leave dataset out, and state the scale as mip")
    where, address = str(place), address_of(place)
    info = checked(parsed(_info(address, where), where), mip, where)
    scale = info["scales"][mip]
    size = triple(reversed(scale["resolution"]), "resolution", where, positive=True)
    corner = [float(one) for one in reversed(scale["voxel_offset"])]
    first = ((corner[0] + 0.5) * size[0], (corner[1] + 0.5) * size[1], (corner[2] + 0.5) * size[2])
    spec = _spec(place, mip, scale) if isinstance(place, Path) else None
    shape, chunk = (tuple(reversed(sides)) for sides in (scale["size"], scale["chunk_sizes"][0]))
    dtype, reader = np.dtype(info["data_type"]), _Reader(where, address, info, mip, _on_disk(spec, scale["encoding"]))
    return Source(
        path=where,
        dataset=str(scale["key"]),
        format="precomputed",
        shape=shape,
        dtype=dtype,
        voxel_size_nm=size,
        translation_nm=first,
        read=chunkwise(reader.read, shape, chunk, dtype),
        stored=lambda z: True,
        close=lambda: None,
        spec=spec,
        depth=chunk[0],
        versions=Versions(address.removeprefix(places.PREFIX)) if isinstance(place, str) else None,
    )


def fingerprint(address: str) -> str:
    """What says that a volume behind an address is another one than before: the sha256 of its info."""
    return hashlib.sha256(_info(address_of(address), address)).hexdigest()


class _Reader:
    """Reads boxes: from `array` until it fails, then each thread by a CloudVolume of its own, which says what is wrong.

    Its cache of chunks, which it keeps compressed, is not made to be shared.
    """

    def __init__(self, place: str, address: str, info: dict[str, Any], mip: int, array: ts.TensorStore | None) -> None:
        self.place, self.address, self.info, self.mip, self.array = place, address, info, mip, array
        self.own = threading.local()

    def read(self, start: Any, stop: Any) -> np.ndarray:
        """Voxels of a half-open box z, y, x, C order; ValueError, in one line, where not all can be had."""
        if (array := self.array) is not None:
            try:
                return read_foreign(self.place, array, start, stop)
            except ValueError:
                self.array = None
        _library()
        from cloudvolume.exceptions import EmptyVolumeException
        from cloudvolume.lib import Bbox

        where = f"{self.place}: voxels {tuple(start)} to {tuple(stop)} of mip {self.mip}"
        offset = self.info["scales"][self.mip]["voxel_offset"]
        check_reach(self.info["scales"][self.mip], self.place)
        low, high = ([a + b for a, b in zip(reversed(side), offset, strict=True)] for side in (start, stop))
        try:
            voxels = np.asarray(self._volume().image.download(Bbox(low, high), self.mip))
        except EmptyVolumeException as error:
            raise ValueError(
                f"{where}: chunk {one_line(error)} is missing inside the bounds, empty, or may not be read: "
                "complete the copy, or state a region without it"
            ) from None
        except Exception as error:
            mend = "mend its permissions, or copy" if isinstance(error, PermissionError) else "try again, or copy"
            raise ValueError(f"{where} cannot be read ({_said(error)}): {mend} the volume again") from None
        return np.ascontiguousarray(voxels[..., 0].T)

    def _volume(self) -> Any:
        """The CloudVolume of this thread; it asks for nothing, as the info is known."""
        from cloudvolume import CloudVolume

        if not hasattr(self.own, "volume"):
            self.own.volume = CloudVolume(
                self.address,
                **{"mip": self.mip, "info": self.info, "provenance": {}, "progress": False, "lru_bytes": CACHE_BYTES},
                cache_locking=False,  # there is no cache on disk, and a home without it need not be writable
            )
        return self.own.volume


def _info(address: str, where: str) -> bytes:
    """The info file of a volume."""
    _library()
    from cloudfiles import CloudFiles

    try:
        found = CloudFiles(address.removeprefix(places.PREFIX), progress=False).get("info")
    except Exception as error:
        mend = "mend its permissions" if isinstance(error, PermissionError) else "correct the address"
        raise ValueError(f"{where}: its info cannot be read ({_said(error)}): {mend}") from None
    if found is None:
        raise FileNotFoundError(f"{where} has no info, or it may not be read: correct the address")
    return bytes(found)


def _spec(folder: Path, mip: int, scale: dict[str, Any]) -> dict[str, Any]:
    """The tensorstore spec of a scale on disk, axes z, y, x from 0 on; a missing chunk is an error there too."""
    offset, size = scale["voxel_offset"], scale["size"]
    outputs = [{"input_dimension": 2 - axis, "offset": offset[axis]} for axis in range(3)]
    shape = list(reversed(size))
    transform = {"input_inclusive_min": [0, 0, 0], "input_exclusive_max": shape, "output": [*outputs, {"offset": 0}]}
    return {
        "driver": "neuroglancer_precomputed",
        "kvstore": places.kvstore(folder),
        "scale_index": mip,
        "fill_missing_data_reads": False,
        "transform": transform,
    }


def _on_disk(spec: dict[str, Any] | None, encoding: str) -> ts.TensorStore | None:
    """A scale on disk as tensorstore opens it; None where it does not, or might decode other voxels."""
    if spec is None or encoding not in EXACT:
        return None
    context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    try:
        return ts.open(spec, open=True, read=True, context=context).result()
    except ValueError:
        return None


def _said(error: BaseException) -> str:
    """What a library said, without queries and logins, and of which chunk."""
    return SECRETS.sub("", ", ".join([f"{type(error).__name__}: {one_line(error)}", *getattr(error, "__notes__", ())]))


@cache
def _library() -> None:
    """Make the libraries behave: by themselves they wait for ever, allocate anything, and print what they raise."""
    from cloudfiles import compression
    from cloudfiles.interfaces import HttpInterface
    from cloudvolume.datasource.precomputed.image import rx

    HttpInterface.adaptor.send = partial(_send, HttpInterface.adaptor.send)
    watch()
    compression.gunzip = partial(_gunzip, compression.gunzip)
    for module in (compression, rx):
        module.print = _nothing
    for name, at in CHUNKS.items():
        setattr(rx, name, partial(_noting, getattr(rx, name), at))


def _gunzip(gunzip: Any, content: bytes) -> bytes:
    """What gzip packed. Its last bytes say how much that is, and libraries allocate it; those of a cut file lie."""
    declared = int.from_bytes(content[-4:], "little")
    if len(content) < GZIP_LEAST or declared > min(GZIP_MOST * len(content), MOST_BYTES):
        raise ValueError(f"{len(content)} bytes of gzip cannot hold {declared}")
    unpacked: bytes = gunzip(content)
    return unpacked


def _nothing(*_: Any) -> None:
    """In place of print."""


def _noting(function: Any, at: int, *given: Any, **how: Any) -> Any:
    """What a function of cloud-volume gives, whose argument number `at` is a chunk: an exception notes which."""
    try:
        return function(*given, **how)
    except Exception as error:
        if not hasattr(error, "__notes__"):
            error.add_note(f"chunk {given[at]}")
        raise


def _send(send: Any, request: Any, **how: Any) -> Any:
    """Send a request, maybe one that a server redirects to, that fails after `SILENCE_S` of silence."""
    if places.is_inward(request.url):
        raise ValueError("it redirects to this machine's own network, which gives out credentials")
    answer = send(request, **{**how, "timeout": SILENCE_S})
    answered(answer.headers)
    return answer
