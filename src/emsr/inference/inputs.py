"""What each shard of affinities is made from, by the shards of the image: known where the image was made in shards.

Hashes of whole sections change when any part of a section is made; hashes of the shards that windows really read change
with these alone, so what a pilot computed stands when the rest of the volume is made.
"""

from __future__ import annotations

from collections.abc import Mapping

from emsr.geometry import Box, ShardGrid, Triple, triple
from emsr.inference.volumetric import mirrored
from emsr.plan import Plan, settings_sha256
from emsr.shards import shard_name


def by_shard(plan: Plan, image: ShardGrid, sha256: Mapping[str, str]) -> dict[str, str]:
    """For each shard of a plan the hash of the image's shards that its windows read, halos included, by name.

    `image` are the shards of the image and `sha256` the hashes of their voxels, by name.
    """
    found = {}
    for index in plan.grid.indices:
        positions = [mirrored(low, high, length) for (low, high), length in _read(plan, plan.grid.box(index))]
        named = [plan.table[z] for z in positions[0]]
        sections = sorted({z for one in named for z in one or ()})
        layers = sorted({z // image.shard[0] for z in sections})
        spans = [(int(along.min()), int(along.max()) + 1) for along in positions[1:]]
        touched = [
            [shard_name(one), sha256[shard_name(one)]] for layer in layers for one in _plane(image, layer, spans)
        ]
        found[shard_name(index)] = settings_sha256([named, touched])
    return found


def _read(plan: Plan, box: Box) -> list[tuple[tuple[int, int], int]]:
    """Along each axis what the windows of a box read, mirrored where it lies beyond the volume, and its length."""
    corners = plan.columns(box)
    starts = [plan.depths(box.start[0], box.stop[0]), [y for y, _ in corners], [x for _, x in corners]]
    sides = (plan.depth, plan.window, plan.window)
    spans = [
        (min(first) - halo, max(first) + side + halo)
        for first, side, halo in zip(starts, sides, plan.halo, strict=True)
    ]
    return list(zip(spans, plan.lr_shape, strict=True))


def _plane(grid: ShardGrid, layer: int, spans: list[tuple[int, int]]) -> list[Triple]:
    """The shards of a layer that a range of rows and columns of voxels touches."""
    low = [layer, *(first // edge for (first, _), edge in zip(spans, grid.shard[1:], strict=True))]
    high = [layer + 1, *(-(-last // edge) for (_, last), edge in zip(spans, grid.shard[1:], strict=True))]
    return list(Box(triple(low), triple(high)).indices())
