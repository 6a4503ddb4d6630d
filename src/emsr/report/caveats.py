"""Where not to trust a result: what its own figures say against it, and what nobody measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from emsr.report import registration, worth
from emsr.report.blocks import decibels, numbered
from emsr.report.evidence import TrainingEvidence, VolumeEvidence
from emsr.report.health import checks

SEAM = 1.1  # steepness across borders over that beside them, from which a seam is said to show
SKIPPED = {"pilot": "outside the pilot", "mask": "without tissue in the mask"}
LOW = 3.0  # dB under the median of the volume's sections is "far under"
Point = tuple[str, str]


def of_volume(volume: VolumeEvidence) -> list[Point]:
    """Every reservation about one volume as (state, sentence): worst first, what is unmeasured last."""
    return [
        *cautioned(volume.sr),
        *_absent(volume),
        *_worse_than_bicubic(volume),
        *_far_under(volume),
        *_inconsistent(volume),
        *_seams(volume.seams),
        *registration.doubts(volume),
        *worth.doubts(volume.segments),
        *_unmeasured(volume),
    ]


def of_training(training: TrainingEvidence) -> list[Point]:
    """Every condition of a training's stages that fails or could not be judged."""
    found = [check for stage in training.stages for check in checks(stage.name, stage.card.get("health"))]
    points = [point for stage in training.stages for point in cautioned(stage.card)]
    for check in found:
        asked = f", asked was {check.asked}" if check.asked else ""
        if check.state in ("warn", "unmeasured"):
            points.append((check.state, f"Stage {check.stage}, {check.name}: {check.figure}{asked}."))
    return points


def cautioned(card: Mapping[str, Any]) -> list[Point]:
    """What the card of weights, or of an image that they made, says against its use."""
    said = str(card.get("caution") or "")
    why = "the network was trained to look like tissue and may draw what is not there"
    return [("warn", f"{said[0].upper()}{said[1:]}: {why}.")] if said else []


def not_made(sr: Mapping[str, Any]) -> str:
    """How much of a volume was skipped, in words; empty where nothing was."""
    skipped = sr.get("skipped")
    if not skipped:
        return ""
    reasons = [f"{count} {SKIPPED.get(reason, reason)}" for reason, count in skipped["reasons"].items()]
    share = skipped["voxels"] / math.prod(sr["shape"])
    return f"{share:.1%} of the voxels, in {skipped['shards']} shards ({', '.join(reasons)})"


def _absent(volume: VolumeEvidence) -> list[Point]:
    points: list[Point] = []
    if left := not_made(volume.sr):
        points.append(("warn", f"Not made, so the result is empty there and in no score: {left}."))
    if empty := sorted(map(int, volume.lr.get("missing") or {})):
        points.append(("warn", f"Without data, so the result is empty there: {numbered(empty)}."))
    if untold := [z for z in volume.missing if z not in empty and not _unregistered(volume, z)]:
        points.append(("warn", f"Without hr, so in no score: {numbered(untold)}."))
    if parts := sorted(map(int, volume.lr.get("damaged_parts") or {})):
        points.append(("warn", f"Black or saturated in part, so not to be trusted there: {numbered(parts)} of lr."))
    if untold := sorted(map(int, (volume.hr or {}).get("damaged_parts") or {})):
        points.append(("info", f"Black or saturated in part, so in no figure there: {numbered(untold)} of hr."))
    if volume.damaged:
        words = f"Damaged, so made from own data alone and in no score: {numbered(list(volume.damaged))}."
        points.append(("warn", words))
    return points


def _unregistered(volume: VolumeEvidence, z: int) -> bool:
    """Whether hr of a section was left out by registration, which says so itself."""
    return bool(((volume.hr or {}).get("missing") or {}).get(str(z)) == "unregistered")


def _measured(volume: VolumeEvidence) -> list[Mapping[str, Any]]:
    return [row for row in volume.scores.get("per_section") or () if "sr" in row and "bicubic" in row]


def _worse_than_bicubic(volume: VolumeEvidence) -> list[Point]:
    points: list[Point] = []
    for measure, name in (("psnr", "PSNR"), ("ssim", "SSIM")):
        worse = [row["z"] for row in _measured(volume) if _less(row["sr"].get(measure), row["bicubic"].get(measure))]
        if worse:
            points.append(("warn", f"In {numbered(worse)} bicubic has the better {name}."))
    return points


def _less(one: float | None, other: float | None) -> bool:
    """Whether ``one`` is under ``other``; None stands for an infinite PSNR."""
    return (math.inf if one is None else one) < (math.inf if other is None else other)


def _far_under(volume: VolumeEvidence) -> list[Point]:
    """Sections whose score or consistency lies more than ``LOW`` dB under the volume's median."""
    points: list[Point] = []
    rows = volume.scores.get("per_section") or ()
    for key, what in ((("sr", "psnr"), "PSNR"), (("consistency", "sr"), "consistency with lr")):
        values = {row["z"]: value for row in rows if (value := (row.get(key[0]) or {}).get(key[1])) is not None}
        if not values:
            continue
        middle = median(values.values())
        low = [z for z, value in values.items() if value < middle - LOW]
        if low:
            words = f"In {numbered(low)} {what} is more than {LOW:g} dB under the median of {decibels(middle)} dB."
            points.append(("warn", words))
    return points


def _inconsistent(volume: VolumeEvidence) -> list[Point]:
    """Whether sr, made coarser again, departs from lr much more than bicubic does: then it adds what was not seen."""
    found = volume.scores.get("consistency") or {}
    before, after = ((found.get(name) or {}).get("psnr") for name in ("bicubic", "sr"))
    if before is None or after is None or after >= before - LOW:
        return []
    words = f"Made coarser again it departs from lr: {decibels(after)} dB, bicubic {decibels(before)} dB."
    return [("warn", words)]


def _seams(seams: Mapping[str, Mapping[str, float | None]]) -> list[Point]:
    """Borders across which the volume is steeper than beside them."""
    return [
        ("warn", f"Borders of {kind}s along {axis} show: {value:.2f} times as steep as beside them.")
        for kind, scores in seams.items()
        for axis, value in scores.items()
        if value is not None and value > SEAM
    ]


def _unmeasured(volume: VolumeEvidence) -> list[Point]:
    points: list[Point] = []
    if volume.scores.get("image") is None:
        reason = volume.scores.get("reason") or "there is no hr"
        points.append(("unmeasured", f"No score against the truth: {reason}."))
    else:
        scored = len(_measured(volume))
        words = f"Scores come from {scored} of {volume.length} sections, those held out from training and selection."
        points.append(("info", words))
    if volume.segments is None:
        anatomy = "What the result is worth for the anatomy was not measured: nothing has been segmented."
        points.append(("unmeasured", anatomy))
    return points


def verdict(volume: VolumeEvidence) -> tuple[str, str]:
    """One sentence about a volume and its state."""
    image = volume.scores.get("image")
    if not image:
        return "unmeasured", "No truth to score against; see what can be said without."
    rows = _measured(volume)
    better = sum(_beats(row) for row in rows)
    words = f"Better than bicubic in PSNR and SSIM on {better} of {len(rows)} held-out sections."
    if warned := cautioned(volume.sr):
        return warned[0][0], f"{words} {warned[0][1]}"
    return ("pass" if better == len(rows) else "warn"), words


def _beats(row: Mapping[str, Any]) -> bool:
    return all(_less(row["bicubic"].get(measure), row["sr"].get(measure)) for measure in ("psnr", "ssim"))


def worst(points: Sequence[Point]) -> str:
    """The gravest state among ``points``."""
    return next((state for state in ("warn", "unmeasured", "info") if any(p[0] == state for p in points)), "pass")
