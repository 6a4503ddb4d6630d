"""What prove_affinities and prove_fragments share: a proof that every shard of an array is there and whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsr import durable, plan
from emsr.geometry import ShardGrid, triple
from emsr.shards import all_marks, shard_name
from emsr.steps import jobs

PROVED = ("array", "shape", "shard", "voxel_size_nm", "translation_nm", "weights_sha256", "image_sha256", "shards")
"""What the card of a proved array says at least, besides its hash."""


def prove(settings: dict, allocate: Path, marks: list[Path], out: Path, workers: int) -> None:
    """Check all shards against their records, then write the card `out` and `proof.json` beside `allocate`."""
    from emsr.inference import proof
    from emsr.inference.records import Records

    marks = all_marks(marks)
    stated = jobs.allocated(allocate, settings)
    named = proof.read_marks(marks, stated, plan.read_grid(stated))
    records = Records(allocate, stated, named.settings_sha256)
    shards = proof.whole(records, named)
    check_shards(records, shards, workers)
    hashes = {shard_name(index): shards.hashes[index] for index in records.grid.indices}
    durable.write_sealed(out, card_of(out, records.array, stated, hashes))
    jobs.write_proof(allocate, settings, marks)


def recorded(image: Path, card: Mapping[str, Any]) -> tuple[ShardGrid, Path | None]:
    """The shards of an image and the folder of their records; None for an image that has none.

    Raises ValueError where one is lacking: somebody has begun to make that shard anew since the image was proved.
    """
    from emsr.stores.card import array_path
    from emsr.stores.shards import shard_boxes
    from emsr.stores.zarr import open_array

    path = array_path(image, dict(card)).resolve()
    folder, boxes = path.with_suffix(".records"), shard_boxes(open_array(path))
    grid = ShardGrid(triple(card["shape"]), next(iter(boxes)).shape)
    if not folder.is_dir():
        return grid, None
    for name in map(shard_name, grid.indices):
        if not (folder / f"{name}.json").is_file():
            raise ValueError(
                f"shard {name} of {path.name} has no record, though {image} vouches for it: run emsr repair on the "
                "results, then snakemake again"
            )
    return grid, folder


def check_shards(records: Any, shards: Any, workers: int) -> None:
    """Raise ValueError for the first shard whose voxels are not those of its record."""
    from emsr.stores.shards import each, read_box
    from emsr.stores.zarr import open_array

    array, grid = open_array(records.array), records.grid

    def same(box: Any) -> bool:
        index = grid.holding(box.start)
        if index in shards.skipped:
            return True
        return bool(hashlib.sha256(read_box(array, box).data).hexdigest() == shards.hashes[index])

    boxes = grid.boxes()
    for box, holds in zip(boxes, each(same, boxes, workers, "checking shards"), strict=True):
        if not holds:
            index = grid.holding(box.start)
            name, path = shard_name(index), records.path(index)
            raise ValueError(
                f"shard {name} of {records.array.name} does not hold the voxels of its record: remove {path} and the "
                "marks beside it, and run again"
            )


def card_of(out: Path, array: Path, stated: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """What is known of a proved array: where it lies, its space, the hash of each shard and one of them all."""
    from emsr.steps.parts import kept

    space = ("shape", "shard", "voxel_size_nm", "translation_nm", "weights_sha256", "settings_sha256")
    image = {key: stated["lr"][key] for key in ("damaged", "missing")} | kept(stated["lr"])
    return {
        "schema": 1,
        "array": jobs.relative(array, out.parent),
        **{key: stated[key] for key in space},
        **image,
        "image_sha256": stated["lr"]["sha256"],
        "shards": dict(hashes),
        "sha256": plan.settings_sha256(dict(hashes)),
    }
