"""Sources of a volume: each is fit to be ingested, and hr, lr and labels are images of one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from emsr.config import Layout, Source, Volume
from emsr.scales import Scale, coarse_plane, fits, pair

if TYPE_CHECKING:
    from emsr.stores.admission import Admitted
    from emsr.stores.source import Source as Opened

STRETCH = 0.1  # relative difference of scale and ratio of voxel sizes that registration takes
ROUNDING = 0.01  # relative difference of voxel sizes of hr and lr that counts as rounding


def check_sources(name: str, volume: Volume, scales: Mapping[Scale, str], layout: Layout) -> tuple[int, int, int]:
    """The shape (z, y, x) of a volume's images inside its region; every source of it is fit to be ingested.

    `scales` are those that the volume is used at, and what uses it so; `layout` is that of its arrays.
    """
    from emsr.stores.admission import check_same_shape

    admitted = {image: admitted_source(source, image, volume, layout) for image, source in _sources(volume)}
    if volume.hr and volume.labels:
        with_labels, with_hr = (_opened(source) for source in (volume.labels, volume.hr))
        check_same_shape(with_labels, with_hr)
        _check_same_voxels(f"volumes.{name}", admitted["hr"], admitted["labels"])
    if volume.hr and volume.lr:
        check = _check_registered if volume.registration else _check_pair
        _check_depth(f"volumes.{name}", admitted["hr"], admitted["lr"])
        check(f"volumes.{name}", admitted["hr"], admitted["lr"], scales)
    shape = volume.tissue.shape if volume.tissue else admitted["hr" if volume.hr else "lr"].box.shape
    for scale, user in scales.items():
        if volume.has_hr and 0 in coarse_plane(shape[1:], scale):
            raise ValueError(
                f"volumes.{name}: hr {list(shape)} is smaller than scale {scale} of {user}; use a larger one"
            )
    return shape


def _check_same_voxels(where: str, hr: Admitted, labels: Admitted) -> None:
    """Labels lie voxel by voxel on hr."""
    size, of_hr = labels.voxel_size_nm, hr.voxel_size_nm
    if any(abs(a - b) > ROUNDING * b for a, b in zip(size, of_hr, strict=True)):
        raise ValueError(
            f"{where}: voxel size {list(size)} nm of labels is not {list(of_hr)} nm of hr; correct the wrong one"
        )


def _check_depth(where: str, hr: Admitted, lr: Admitted) -> None:
    """hr and lr have as many sections."""
    depth, lr_depth = hr.box.shape[0], lr.box.shape[0]
    if depth != lr_depth:
        raise ValueError(
            f"{where}: hr has {depth} sections, lr {lr_depth}; cut one so that both show the same sections"
        )


def _check_registered(where: str, hr: Admitted, lr: Admitted, scales: Mapping[Scale, str]) -> None:
    """hr can be brought onto lr: square voxels about a scale apart, and sections that are large enough."""
    from emsr.registration import LEAST_SIDE

    for image, admitted in (("hr", hr), ("lr", lr)):
        _, y, x = admitted.voxel_size_nm
        if abs(y - x) > ROUNDING * x:
            raise ValueError(
                f"{where}: voxels of {image} are {y:g} x {x:g} nm in y and x; registration needs square ones"
            )
    if abs(hr.voxel_size_nm[0] - lr.voxel_size_nm[0]) > ROUNDING * lr.voxel_size_nm[0]:
        raise ValueError(
            f"{where}: sections of hr are {hr.voxel_size_nm[0]:g} nm thick, those of lr {lr.voxel_size_nm[0]:g}; "
            "state images of the same sections"
        )
    for scale, user in scales.items():
        if not isinstance(scale, int):
            continue  # the config refuses it
        ratio = lr.voxel_size_nm[2] / (scale * hr.voxel_size_nm[2])
        if abs(ratio - 1) > STRETCH:
            raise ValueError(
                f"{where}: voxels of lr ({lr.voxel_size_nm[2]:g} nm) are not about {scale} of hr "
                f"({hr.voxel_size_nm[2]:g} nm), the scale of {user}; correct voxel_size_nm or use another scale"
            )
        sides = [side // unit for image, unit in ((hr, scale), (lr, 1)) for side in image.box.shape[1:]]
        if min(sides) < LEAST_SIDE:
            raise ValueError(
                f"{where}: hr {list(hr.box.shape)} or lr {list(lr.box.shape)} is too small to be registered at scale "
                f"{scale} of {user}; {LEAST_SIDE} lr pixels along y and x are the least"
            )


def _check_pair(where: str, hr: Admitted, lr: Admitted, scales: Mapping[Scale, str]) -> None:
    """hr and lr are images of the same place: sides and voxels are a scale apart."""
    fine, coarse = hr.box.shape[1:], lr.box.shape[1:]
    for scale, user in scales.items():
        if not fits(coarse, fine, scale):
            raise ValueError(
                f"{where}: hr {list(hr.box.shape)} is not lr {list(lr.box.shape)} times scale {scale} of {user} "
                "in y and x; cut one so that both show the same place, or use another scale"
            )
        (z, *sides), size = hr.voxel_size_nm, lr.voxel_size_nm
        wanted = (z, *(by * side for by, side in zip(pair(scale), sides, strict=True)))
        rounding = ROUNDING if isinstance(scale, int) else ROUNDING + 0.5 / min(fine)
        if any(abs(a - b) > rounding * b for a, b in zip(wanted, size, strict=True)):
            raise ValueError(
                f"{where}: voxel size {list(size)} nm of lr is not {list(hr.voxel_size_nm)} nm of hr times scale "
                f"{scale} of {user} in y and x; correct the one that is wrong"
            )


def _sources(volume: Volume) -> Iterator[tuple[str, Source]]:
    for image in ("hr", "lr", "labels"):
        source = getattr(volume, image)
        if source is not None:
            yield image, source


def _opened(source: Source) -> Opened:
    """The source, opened and closed again: what it says about itself."""
    from emsr.stores import open_stated

    opened = open_stated(source.model_dump())
    opened.close()
    return opened


def admitted_source(source: Source, image: str, volume: Volume, layout: Layout) -> Admitted:
    """What is used of a source, and where it lies."""
    from emsr.stores import open_stated, probe
    from emsr.stores.admission import admit, check_declared
    from emsr.stores.link import check_link

    opened = open_stated(source.model_dump())
    try:
        mapping = None if image == "labels" else volume.mapping(image)
        stated = mapping.model_dump() if mapping else None
        admitted = admit(opened, image, source.voxel_size_nm, volume.region, stated)
        if source.link:
            check_link(opened, image, volume.region)
        probe(opened, admitted.box)
        check_declared(opened, image, admitted.box, layout.shard, layout.chunk)
        return admitted
    finally:
        opened.close()
