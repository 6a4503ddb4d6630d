"""What the rules of data.smk share: how arrays lie on disk, and what is judged and stated once voxels are there."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emsr.damage import SectionStatistics
    from emsr.geometry import Box
    from emsr.stores.journal import Journal
    from emsr.stores.ome import Layout
    from emsr.stores.sections import Bands
    from emsr.stores.versions import Versions

log = logging.getLogger(__name__)

ABSENT = {  # why a section stays empty
    "missing": "nothing was ever stored for it",
    "unlabelled": "no membrane is drawn there, or nothing but membrane",
    "damaged": "hr or lr is damaged there, so it was not registered",
    "unregistered": "hr does not agree with lr; see the table of registration",
}


def layout(settings: dict[str, Any], image: dict[str, Any]) -> Layout:
    """How an array lies on disk; `image` has the keys shape, dtype, voxel_size_nm, translation_nm of a card."""
    from emsr.geometry import triple
    from emsr.stores.ome import Layout, bounded_shard, level_count

    chunk = triple(settings["chunk"])
    return Layout(
        shape=triple(image["shape"]),
        dtype=image["dtype"],
        shard=bounded_shard(triple(settings["shard"]), chunk, image["dtype"]),
        chunk=chunk,
        voxel_size_nm=image["voxel_size_nm"],
        translation_nm=image["translation_nm"],
        levels=level_count(image["shape"]),
    )


def unfinished(out: Path, of: Mapping[str, Any], versions: Versions | None = None) -> Journal:
    """The journal of the array beside the card `out`, made `of` what is named; the log says what a killed run left.

    `versions` are of the volume that is read, if it lies behind a server.
    """
    from emsr.stores.journal import Journal

    journal = Journal(out, of, versions)
    if journal.changed:
        log.warning(
            "%s: %s changed since a run that did not finish, so its %s shards do not count: starting over",
            *(out.stem, " and ".join(journal.changed), journal.left),
        )
    elif journal.done:
        log.info("%s: going on after a run that did not finish: it made %s shards", out.stem, len(journal.done))
    return journal


def finish(
    out: Path,
    laid: Layout,
    card: dict[str, Any],
    workers: int,
    levels: int = 1,
    absent: Callable[[int], str | None] | None = None,
) -> None:
    """Further levels than the first `levels`, hashes, judgement of the sections, table and, last of all, the card.

    `card` names the array, without levels, where it is not the one beside the card. `absent` says of a section that is
    the same everywhere why there is nothing in it, if that is so; those are listed besides what the card has missing.
    """
    from emsr.damage import Finding, Part, find, find_parts, parts_table, table
    from emsr.durable import write_text
    from emsr.stores.card import write_card
    from emsr.stores.pyramid import pyramid
    from emsr.stores.sections import visit

    path = out.with_name(card.get("array", out.with_suffix(".zarr").name))
    if "array" not in card:
        pyramid(path, workers, levels=levels)
    judged = laid.dtype == "uint8"
    seen = [one for slab in visit(path, partial(_examine, judged), workers, "examine sections") for one in slab]
    statistics = [found for *_, found in seen if found is not None]
    if absent:
        reasons = {str(z): absent(z) for z, (_, even, _) in enumerate(seen) if even}
        card = {**card, "missing": card["missing"] | {z: reason for z, reason in reasons.items() if reason}}
    missing = {int(z) for z in card["missing"]}
    findings = find(statistics, missing) if judged else {}
    if "damaged" in card:
        findings = {int(z): findings.get(int(z), Finding(state, "as in hr")) for z, state in card["damaged"].items()}
    listed = findings | {int(z): Finding(why, ABSENT.get(why, why)) for z, why in card["missing"].items()}
    for z, finding in listed.items():
        log.warning("%s: section %s is %s: %s", out.stem, z, finding.state, finding.reason)
    write_text(out.with_suffix(".sections.tsv"), table(listed))
    parts = find_parts(statistics, laid.shape[1:], listed) if judged else {}
    if "damaged_parts" in card:
        parts = {
            int(z): [Part("as in hr", tuple(y), tuple(x)) for y, x in of] for z, of in card["damaged_parts"].items()
        }
    for z in parts:
        log.warning("%s: section %s is damaged in part: see %s.damaged.tsv", out.stem, z, out.stem)
    if judged:
        write_text(out.with_suffix(".damaged.tsv"), parts_table(parts))
    whole = {
        "array": path.name,
        "shape": list(laid.shape),
        "dtype": laid.dtype,
        "voxel_size_nm": list(laid.voxel_size_nm),
        "translation_nm": list(laid.translation_nm),
        "section_sha256": [sha256 for sha256, *_ in seen],
    }
    damaged = {str(z): finding.state for z, finding in findings.items()}
    boxes = {str(z): [[list(part.y), list(part.x)] for part in of] for z, of in parts.items()}
    write_card(out, {**card, **whole, "damaged": damaged} | ({"damaged_parts": boxes} if boxes else {}))


def _examine(judged: bool, slab: Box, bands: Bands) -> list[tuple[str, bool, SectionStatistics | None]]:
    """Of each section of a slab: hash, whether it is the same everywhere, and, for images, statistics."""
    import numpy as np

    from emsr.damage import SectionAccumulator
    from emsr.stores.sections import SectionHashes

    depth, height, width = slab.shape
    hashes, accumulator = SectionHashes(depth), SectionAccumulator(depth, (height, width)) if judged else None
    lowest, highest = [], []
    for first_row, band in bands:
        lowest.append(band.min(axis=(1, 2)))
        highest.append(band.max(axis=(1, 2)))
        hashes.add(band)
        if accumulator:
            accumulator.add(first_row, band)
    even = (np.min(lowest, axis=0) == np.max(highest, axis=0)).tolist()
    statistics = accumulator.result() if accumulator else [None] * depth
    return list(zip(hashes.result(), even, statistics, strict=True))
