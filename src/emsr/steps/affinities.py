"""Affinities of segment.smk: an array made empty, predicted job by job, and proved whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable
from emsr.shards import shard_name
from emsr.steps import jobs, proof

if TYPE_CHECKING:
    from emsr.plan import Plan

ALLOCATE_AFFINITIES_RESULT = 1
AFFINITIES_RESULT = 1
PROVE_AFFINITIES_RESULT = 1


def allocate_affinities(settings: dict, image: Path, card: Path, out: Path) -> None:
    """Make the empty array of affinities of an image and say, in a small JSON, what each of its shards is made from.

    `settings`: depth and window (voxels that the network sees at a time, halo included; null: the card's), overlap and
    depth_overlap (voxels that windows share; without effect where the network has a halo), shard, chunk, precision,
    device. `image` is an image card, `card` that of the weights. Of an image that was made in part, shards without any
    voxel that was made are skipped. Raises ValueError, before anything is written, for weights and settings that do not
    fit.
    """
    from emsr.inference import affinities as settle
    from emsr.inference import extent
    from emsr.models import checkpoint
    from emsr.stores.card import array_path, read_card

    seen, weights = read_card(image), checkpoint.load_card(card)
    settle.check_weights(weights, card, seen, image)
    made = settle.make_plan(settings, weights, seen, checkpoint.network(weights).geometry)
    checkpoint.load_state(card, weights)
    name, folder = settle.array_name(settings, weights, made), out.parent
    document = settle.document(settings, weights, seen, made) | extent.of_image(made.grid, seen)
    document |= _shard_inputs(made, image, seen)
    document["lr"]["array"] = jobs.relative(array_path(image, seen), folder)
    document |= {"array": f"{name}.zarr", "records": f"{name}.records", "card": jobs.relative(card, folder)}
    jobs.make_array(folder / f"{name}.zarr", document, settings, "uint8")
    durable.write_sealed(out, document)


def _shard_inputs(made: Plan, image: Path, card: dict[str, Any]) -> dict[str, Any]:
    """What each shard is made from, by the records of the image's shards; nothing for an image without records."""
    from emsr.inference.inputs import by_shard

    grid, records = proof.recorded(image, card)
    if not records:
        return {}
    names = map(shard_name, grid.indices)
    hashes = {name: str(durable.read_json(records / f"{name}.json")["sha256"]) for name in names}
    return {"shard_inputs_sha256": by_shard(made, grid, hashes)}


def affinities(settings: dict, allocate: Path, job: str, out: Path, *, workers: int) -> None:
    """Predict the affinities of the shards of one job ("2-of-5") that have no record that holds, and write its mark.

    Affinities are uint8 (3, z, y, x), 255 is 1: the edges from a voxel to its lower neighbour along z, y and x.
    """
    jobs.run_job(settings, allocate, job, out, workers=workers)


def prove_affinities(settings: dict, allocate: Path, marks: list[Path], out: Path, *, workers: int) -> None:
    """Prove that every shard of affinities is there, whole, and of one kind; `out` says where they lie and their hash.

    Reads all voxels once, a shard a worker at a time. `proof.json` beside `allocate` says which marks this was made
    from; a single mark of several stands for all of them.
    """
    proof.prove(settings, allocate, marks, out, workers)
