"""Neuroglancer precomputed, on disk or behind file, gs, s3, https and http, through cloud-volume.

A chunk that is missing inside the bounds is an error. cloud-volume makes a request that fails seven times, with growing
pauses, and a body shorter than announced is such a failure; a server that is silent for `SILENCE_S` is another.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import threading
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from emsr import places
from emsr.stores.foreign import check_chunk
from emsr.stores.source import Source, one_line, triple

OPTIONS = ("mip",)
DATA_TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32")
SILENCE_S = 30
CACHE_BYTES = 2**27  # compressed chunks that each thread keeps, because reads of shards share them
SECRETS = re.compile(r"\?[^\s'\"]*|(?<=//)[^\s/@]+@")  # queries and logins in what libraries say of an address
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of precomputed."""
    return (path / "info").is_file()


def open_source(place: Path | str, dataset: str | None, mip: int = 0) -> Source:
    """Open one scale of a volume, a folder or an address, for reading.

    Nothing but its info is read. Raises ValueError or FileNotFoundError, in one line, for what cannot be a volume.
    """
    if dataset is not None:
        raise ValueError(f"{place}: precomputed has no datasets: leave dataset out, and state the scale as mip")
    where, address = str(place), _address(place)
    info = _checked(_parsed(_info(address, where), where), mip, where)
    scale = info["scales"][mip]
    size = triple(reversed(scale["resolution"]), "resolution", where, positive=True)
    corner = [float(one) for one in reversed(scale["voxel_offset"])]
    first = ((corner[0] + 0.5) * size[0], (corner[1] + 0.5) * size[1], (corner[2] + 0.5) * size[2])
    return Source(
        path=where,
        dataset=str(scale["key"]),
        format="precomputed",
        shape=tuple(reversed(scale["size"])),
        dtype=np.dtype(info["data_type"]),
        voxel_size_nm=size,
        translation_nm=first,
        read=_Reader(where, address, info, mip).read,
        stored=lambda z: True,
        close=lambda: None,
        spec=_spec(place, mip, scale) if isinstance(place, Path) else None,
    )


def fingerprint(address: str) -> str:
    """What says that a volume behind an address is another one than before: the sha256 of its info."""
    return hashlib.sha256(_info(_address(address), address)).hexdigest()


class _Reader:
    """Reads boxes, each thread by a CloudVolume of its own: its cache of chunks is not made to be shared."""

    def __init__(self, place: str, address: str, info: dict[str, Any], mip: int) -> None:
        self.place, self.address, self.info, self.mip = place, address, info, mip
        self.own = threading.local()

    def read(self, start: Any, stop: Any) -> np.ndarray:
        """Voxels of a half-open box z, y, x, C order; ValueError, in one line, where not all can be had."""
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


def _address(place: Path | str) -> str:
    """What cloud-volume is given: gs and s3 as https, which asks for no account, unless it knows credentials."""
    if isinstance(place, Path):
        return f"{places.PREFIX}file://{place.absolute()}"
    scheme, _, rest = place.removeprefix(places.PREFIX).rstrip("/").partition("://")
    bucket = rest.partition("/")[0]
    if scheme == "gs" and not _google_credentials(bucket):
        return f"{places.PREFIX}https://storage.googleapis.com/{rest}"
    if scheme == "s3" and not _aws_credentials(bucket):
        endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "https://s3.amazonaws.com")
        return f"{places.PREFIX}{endpoint.rstrip('/')}/{rest}"
    return f"{places.PREFIX}{scheme}://{rest}"


def _google_credentials(bucket: str) -> bool:
    """Whether cloud-volume's files or the environment name credentials of Google."""
    from cloudfiles.secrets import secretpath

    files = [secretpath(f"{bucket}-google-secret.json"), secretpath("google-secret.json")]
    return "GOOGLE_APPLICATION_CREDENTIALS" in os.environ or any(map(os.path.exists, files))


def _aws_credentials(bucket: str) -> bool:
    """Whether cloud-volume's files or the environment name credentials of an S3 service."""
    from cloudfiles.secrets import aws_credentials

    try:
        return bool(aws_credentials(bucket).get("AWS_ACCESS_KEY_ID"))
    except KeyError as error:
        raise ValueError(
            f"{error.args[0]} is not set: cloud-volume wants it beside AWS_ACCESS_KEY_ID, so export it, maybe empty"
        ) from None


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
