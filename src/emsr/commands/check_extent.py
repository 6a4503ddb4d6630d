"""What `emsr check` asks of a pilot and a mask: that they lie in the volume, and that what is scored is made."""

from __future__ import annotations

from emsr import scales
from emsr.config import Config, Source, Volume
from emsr.geometry import Box, Triple, triple
from emsr.inference.extent import Placed, mask_grid, pilot_box
from emsr.scales import Scale


def check_extent(where: str, volume: Volume, config: Config, shape: Triple) -> None:
    """Raise ValueError, in one line, for a pilot or a mask that does not fit; `shape` is that of hr, else of lr."""
    if volume.pilot is None and volume.mask is None:
        return
    scale = config.scale(next(name for name, part in config.volumes.items() if part is volume))
    lr = shape
    if volume.has_hr:
        lr = (shape[0], *scales.coarse_plane(shape[1:], scale))
    try:
        if volume.pilot:
            _check_scored(volume, config, pilot_box(volume.pilot, lr))
        if volume.mask:
            real = None if scales.whole(scale) else lr
            mask_grid(volume.mask.path, _mask(volume.mask), _sr(volume, lr, scale), real)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_scored(volume: Volume, config: Config, pilot: Box) -> None:
    """Segmentations of sr are scored on test sections, and their thresholds chosen on validation: some must be made."""
    of_sr = [part for part in (volume.segmentations or {}).values() if part.image == "sr"]
    if not of_sr or not volume.has_labels:
        return
    name, deep = next(name for name, part in config.volumes.items() if part is volume), config.superresolve.shard[0]
    first, last = pilot.start[0] // deep * deep, -(-pilot.stop[0] // deep) * deep
    named = [("test", list(volume.test or ()))]
    named += [
        (f"validation of {training}", config.validation_of(training, name)) for training in config.segmented_by(name)
    ]
    chosen = volume.test or any(part.threshold is None for part in of_sr)
    for what, ranges in named if chosen else ():
        if ranges and not any(low < last and first < high for low, high in ranges):
            raise ValueError(
                f"pilot {[*map(list, volume.pilot or ())]} makes sections [{first}, {last}] and none of {what} "
                f"{[*map(list, ranges)]}, so segmentations of sr cannot be scored: move the pilot, or leave them out"
            )


def _mask(source: Source) -> Placed:
    return _placed(source, "mask", None, None)


def _sr(volume: Volume, lr: Triple, scale: Scale) -> Placed:
    """The sr volume, which lies where lr does and, where that is made from hr, on the grid of hr."""
    shape = (lr[0], *scales.fine_plane(lr[1:], scale))
    if volume.tissue:
        size = volume.tissue.voxel_size_nm
        return Placed(shape, size, [side / 2 for side in size])
    image = "lr" if volume.lr else "hr"
    source = volume.lr or volume.hr
    assert source is not None
    mapping = volume.mapping(image)
    seen = _placed(source, image, volume.region, mapping.model_dump() if mapping else None)
    if image == "hr":
        return Placed(shape, seen.voxel_size_nm, seen.translation_nm)
    z, y, x = seen.voxel_size_nm
    size = (z, y * lr[1] / shape[1], x * lr[2] / shape[2])
    return Placed(shape, size, [corner + side / 2 for corner, side in zip(seen.corner_nm, size, strict=True)])


def _placed(source: Source, image: str, region: object, mapping: object) -> Placed:
    """A source in space, after the checks that ingest makes."""
    from emsr.stores import open_stated
    from emsr.stores.admission import admit

    opened = open_stated(source.model_dump())
    try:
        used = admit(opened, image, source.voxel_size_nm, region, mapping)  # type: ignore[arg-type]
    finally:
        opened.close()
    return Placed(triple(list(used.box.shape)), used.voxel_size_nm, used.translation_nm)
