"""What the jobs of a volume took, from the stats beside their marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsr import durable
from emsr.report.evidence import Throughput

PARTS = ("network", "blend", "read", "write", "stall")


def throughput(folder: Path) -> Throughput | None:
    """Of the jobs that stitching proved the volume by, with `proof.json` in `folder`; None where none measured itself.

    A job that went on after a kill counts with what its last attempt computed.
    """
    proof = folder / "proof.json"
    marks = durable.read_json(proof).get("marks") or [] if proof.is_file() else []
    files = [(folder / mark).with_suffix(".stats.json") for mark in marks]
    found = [stats for stats in map(_read, files) if stats.get("compute_seconds")]
    if not found:
        return None
    busy = sum(stats["compute_seconds"] * stats["workers"] for stats in found)
    shares = {part: sum(stats[f"{part}_seconds"] for stats in found) / busy for part in PARTS}
    return Throughput(
        jobs=len(found),
        voxels=sum(stats["voxels"] for stats in found),
        seconds=sum(stats["compute_seconds"] for stats in found),
        slowest=min(stats["voxels_per_second"] for stats in found),
        shares=shares,
        peak_mb=max(stats["peak_rss_mb"] for stats in found),
        devices=tuple(sorted({stats["device"] for stats in found})),
        halved=sum(stats["in_flight"] < stats["workers"] for stats in found),
    )


def _read(path: Path) -> Mapping[str, Any]:
    """A job's stats; nothing where it did not finish or an earlier version of emsr wrote them."""
    stats: Mapping[str, Any] = durable.read_json(path) if path.is_file() else {}
    return stats if stats.get("state") == "finished" else {}
