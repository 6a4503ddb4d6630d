"""Neuroglancer precomputed, on disk or behind file, gs, s3, https and http, through cloud-volume.

On disk tensorstore, which is quicker, reads what it can: what is encoded without loss and not compressed as whole
files (`.gz`). A chunk that is missing inside the bounds is an error. cloud-volume makes a request that fails seven
times, with growing pauses, and a body shorter than announced is such a failure; a server that is silent for `SILENCE_S`
is another.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from emsr import places
from emsr.stores.buckets import address_of
from emsr.stores.foreign import check_chunk, read_foreign
from emsr.stores.pieces import CACHE_BYTES, chunkwise
from emsr.stores.source import Source, one_line, triple

OPTIONS = ("mip",)
DATA_TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32")
SILENCE_S = 30
EXACT = ("raw", "compressed_segmentation", "png")  # encodings of which all decoders make the same voxels
SECRETS = re.compile(r"\?[^\s'\"]*|(?<=//)[^\s/@]+@")  # queries and logins in what libraries say of an address


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
    info = _checked(_parsed(_info(address, where), where), mip, where)
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
        low, high = ([a + b for a, b in zip(reversed(side), offset, strict=True)] for side in (start, stop))
        try:
            voxels = np.asarray(self._volume().image.download(Bbox(low, high), self.mip))
        except EmptyVolumeException as error:
            raise ValueError(
                f"{where}: chunk {one_line(error)} is missing inside the bounds, or may not be read: "
                "complete the copy, or state a region without it"
            ) from None
        except Exception as error:
            raise ValueError(f"{where} cannot be read ({_said(error)}): try again, or copy the volume again") from None
        return np.ascontiguousarray(voxels[..., 0].T)

    def _volume(self) -> Any:
        """The CloudVolume of this thread; it asks for nothing, as the info is known."""
        from cloudvolume import CloudVolume

        if not hasattr(self.own, "volume"):
            self.own.volume = CloudVolume(
                self.address, mip=self.mip, info=self.info, provenance={}, progress=False, lru_bytes=CACHE_BYTES
            )
        return self.own.volume


def _info(address: str, where: str) -> bytes:
    """The info file of a volume."""
    _library()
    from cloudfiles import CloudFiles

    try:
        found = CloudFiles(address.removeprefix(places.PREFIX), progress=False).get("info")
    except Exception as error:
        raise ValueError(f"{where}: its info cannot be read ({_said(error)}): correct the address") from None
    if found is None:
        raise FileNotFoundError(f"{where} has no info, or it may not be read: correct the address")
    return bytes(found)


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    """An info as JSON."""
    try:
        info = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: its info is not JSON ({one_line(error)}): copy it again") from None
    if not isinstance(info, dict) or not isinstance(info.get("scales"), list) or not info["scales"]:
        raise ValueError(f"{where}: its info lists no scales, so it is no volume: name the folder of the image")
    if info.get("redirect"):
        raise ValueError(f"{where}: its info redirects elsewhere: name that place instead")
    return info


def _checked(info: dict[str, Any], mip: int, where: str) -> dict[str, Any]:
    """An info with the one scale that is read made whole, and nothing that is not of the voxels (meshes, skeletons).

    ValueError for whatever it declares that cannot be.
    """
    from cloudvolume.chunks import SUPPORTED_ENCODINGS, check_installed

    if mip >= len(info["scales"]):
        raise ValueError(f"{where} has no mip {mip}: it has 0 to {len(info['scales']) - 1}")
    if (channels := info.get("num_channels", 1)) != 1:
        rgb = " (RGB?)" if channels == 3 else ""
        raise ValueError(f"{where} has {channels} channels{rgb}: keep one channel")
    if info.get("data_type") not in DATA_TYPES:
        raise ValueError(f"{where}: data_type {info.get('data_type')!r} is unknown: use one of {', '.join(DATA_TYPES)}")
    scale = {"voxel_offset": [0, 0, 0], **info["scales"][mip]}
    chunks = scale.get("chunk_sizes") or [None]
    for what, numbers, least in (
        ("size", scale.get("size"), 1),
        ("chunk size", chunks[0], 1),
        ("voxel_offset", scale["voxel_offset"], -math.inf),
    ):
        if not _whole(numbers, least):
            raise ValueError(f"{where}: {what} {numbers} of mip {mip} is not three whole numbers from {least} on")
    if scale.get("encoding") not in SUPPORTED_ENCODINGS:
        known = ", ".join(SUPPORTED_ENCODINGS)
        raise ValueError(f"{where}: encoding {scale.get('encoding')!r} is unknown: use one of {known}")
    try:
        check_installed(scale["encoding"])
    except ImportError as error:
        raise ValueError(f"{where}: {one_line(error)}") from None
    key, resolution = scale.get("key"), scale.get("resolution")
    if not isinstance(key, str) or key.startswith("/") or ".." in key or not isinstance(resolution, list):
        raise ValueError(f"{where}: mip {mip} states no key below the folder, or no resolution: mend its info")
    check_chunk(chunks[0], np.dtype(info["data_type"]), where)
    scales = [*info["scales"][:mip], scale, *info["scales"][mip + 1 :]]
    return {"num_channels": 1, "type": info.get("type", "image"), "data_type": info["data_type"], "scales": scales}


def _whole(numbers: Any, least: float) -> bool:
    """Whether these are three integers of at least `least`."""
    return isinstance(numbers, list) and len(numbers) == 3 and all(type(n) is int and n >= least for n in numbers)


def _spec(folder: Path, mip: int, scale: dict[str, Any]) -> dict[str, Any]:
    """The tensorstore spec of a scale on disk, axes z, y, x from 0 on; a missing chunk is an error there too."""
    offset, size = scale["voxel_offset"], scale["size"]
    outputs = [{"input_dimension": 2 - axis, "offset": offset[axis]} for axis in range(3)]
    shape = list(reversed(size))
    transform = {"input_inclusive_min": [0, 0, 0], "input_exclusive_max": shape, "output": [*outputs, {"offset": 0}]}
    return {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"},
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
    """What a library said, without queries and logins."""
    return SECRETS.sub("", f"{type(error).__name__}: {one_line(error)}")


@cache
def _library() -> None:
    """Make cloud-files give up servers that say nothing: by itself it waits for them for ever."""
    from cloudfiles.interfaces import HttpInterface

    HttpInterface.adaptor.send = partial(_send, HttpInterface.adaptor.send)


def _send(send: Any, request: Any, **how: Any) -> Any:
    """Send a request that fails after `SILENCE_S` of silence."""
    return send(request, **{**how, "timeout": SILENCE_S})
