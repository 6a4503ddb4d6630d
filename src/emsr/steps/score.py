"""The rules of score.smk: what super-resolution was worth, and the page that shows it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsr import scales
from emsr.scales import Scale

log = logging.getLogger(__name__)

SCORE_RESULT = 3
REPORT_RESULT = 2
REPORT_FILES = {
    "volumes": ("sections.png", "planes.png", "scores.tsv"),
    "trainings": ("curves.png", "health.tsv"),
    "run": ("headline.tsv", "rules.tsv"),
    "segmented": ("segmentation.tsv", "mistakes.tsv", "mistakes.png", "membrane.tsv", "membrane.png"),
    "worth": ("worth.tsv", "worth.png"),
    "sampled": ("deviation.tsv", "deviation.png"),
}
"""What ``report`` writes beside the page: R/report/volumes/<volume>/…, R/report/trainings/<training>/…, R/report/…

Those of "segmented" are written for volumes whose segmentations are scored, and those of "worth" if there are any;
those of "sampled" for volumes with samples.
"""

FROM_SEGMENTS = ("segmentation", "membrane")
SAMPLE = 64  # sections at most whose consistency is measured where there is no truth
Excluded = dict[int, str]


def score(settings: dict[str, Any], out: Path) -> None:
    """Score the super-resolved test sections of a volume against hr, and its consistency with lr.

    ``settings``: volume (name), scale, test (half-open ranges of sections, or null), lr, sr and hr (paths of image
    cards; hr may be null), segmentation (what ``score_segments`` wrote, or null), lpips (null, or backbone and linear,
    each path and sha256). Writes ``scores.json``: "image" with means over sections of PSNR, SSIM, MS-SSIM, LPIPS and
    the resolution by Fourier ring correlation in nm, of bicubic and sr, or null with the "reason"; "consistency" of
    both, made coarser again, with lr; "per_section"; "settings", what the figures are; "segmentation" and "membrane" as
    ``score_segments`` has them and "segmentation_settings", what those are, or null. Damaged and missing sections are
    left out, damaged parts of others too, and of hr only test sections are read. "caution" is
    there if the card of sr has one.
    """
    from emsr.durable import read_json, write_json
    from emsr.progress import progress
    from emsr.steps.measures import means, prepare
    from emsr.steps.tiles import consistency

    cards, images = _open(settings)
    excluded = _excluded(cards) | _nothing_left(images)
    sections, reason = _sections(settings, cards, excluded)
    how = prepare(images, cards["sr"]["voxel_size_nm"], settings.get("lpips")) if reason is None else None
    truth, lr = {}, {}
    with progress(len(sections), f"score {settings['volume']}", "sections") as bar:
        for z in sections:
            if how:
                truth[z] = how.section(z)
            lr[z] = consistency(images, z)
            bar.update()
    scores = {
        "schema": 1,
        "volume": settings["volume"],
        "image": means(truth, how) if how else None,
        "reason": reason,
        **{key: cards["sr"][key] for key in ("caution",) if key in cards["sr"]},
        "consistency": _consistency_means(lr),
        "per_section": [_row(z, truth.get(z), lr[z]) for z in sections],
        "settings": _stated(settings, cards, (sections, excluded), images) | _metrics(settings, how),
        **dict.fromkeys((*FROM_SEGMENTS, "segmentation_settings")),
    }
    if settings.get("segmentation"):
        found = read_json(Path(settings["segmentation"]))
        scores |= {**{key: found[key] for key in FROM_SEGMENTS}, "segmentation_settings": found["settings"]}
    log.info("%s: %s", settings["volume"], scores["image"] or reason)
    write_json(out, scores)


def _open(settings: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], Any]:
    """Image cards by name, and their arrays; ValueError if they are not of one volume."""
    from emsr.geometry import Grids, triple
    from emsr.inference.allocation import check_protocol
    from emsr.steps import parts, proof
    from emsr.steps.tiles import Images, made_of
    from emsr.stores.card import array_path, covered, read_card
    from emsr.stores.zarr import open_array

    paths = {name: Path(settings[name]) for name in ("lr", "hr", "sr") if settings.get(name)}
    cards = {name: read_card(path) for name, path in paths.items()}
    scale, lr_shape = scales.of(settings["scale"]), triple(list(cards["lr"]["shape"]))
    expected = [lr_shape[0], *scales.fine_plane(lr_shape[1:], scale)]
    if list(cards["sr"]["shape"]) != expected:
        named = scales.name(scale)
        raise ValueError(f"{paths['sr']} is {cards['sr']['shape']}, not {expected} as lr x{named}: run stitch again")
    proof.recorded(paths["sr"], cards["sr"])
    check_protocol(cards["lr"].get("degradation") or {}, paths["lr"])
    if cards["sr"].get("samples"):
        raise ValueError(f"{paths['sr']} says how far samples lie apart and is no image: score sr of no samples")
    if "hr" in cards:
        _check_hr(paths["hr"], cards["hr"]["shape"], lr_shape, scale)
    arrays = {name: open_array(array_path(paths[name], card), cache_bytes=64_000_000) for name, card in cards.items()}
    kernel = str((cards["lr"].get("degradation") or {}).get("kernel", "bicubic"))
    shown, made = covered(cards.get("hr")), made_of(cards["sr"])
    grids = Grids(lr_shape, triple(expected))
    damaged = parts.together([parts.of_card(cards.get("hr", {})), parts.of_card(cards["lr"], grids)])
    return cards, Images(arrays["lr"], arrays["sr"], arrays.get("hr"), scale, kernel, shown, made, damaged)


def _nothing_left(images: Any) -> Excluded:
    """Sections of which nothing that is scored was made, or of whose images damaged parts leave no window of SSIM."""
    from emsr.metrics.image import BORDER
    from emsr.steps.parts import windows_left

    depth = int(images.lr.shape[0]) if images.made else 0
    skipped = {z: "skipped in sr" for z in range(depth) if not images.parts(z, images.covered)}
    damaged = {
        z: "damaged in part, which leaves nothing to score"
        for z, areas in images.damaged.items()
        if not any(windows_left(areas, part, BORDER) for part in images.parts(z, images.covered))
    }
    return damaged | skipped


def _check_hr(path: Path, shape: Sequence[int], lr_shape: Sequence[int], scale: Scale) -> None:
    """hr has as many sections as lr, and in y and x as many voxels, with less than one lr pixel to spare."""
    if shape[0] != lr_shape[0] or not scales.fits(lr_shape[1:], shape[1:], scale):
        expected = [lr_shape[0], *scales.fine_plane(lr_shape[1:], scale)]
        raise ValueError(
            f"{path} is {list(shape)}, not {expected} as lr x{scales.name(scale)}: state images of the same region"
        )


def _excluded(cards: Mapping[str, Mapping[str, Any]]) -> Excluded:
    """Why a section is in no score: damaged or missing in lr or hr, or invalid in sr."""
    found: Excluded = {}
    for name, card in cards.items():
        for state in ("damaged", "missing"):
            for z, why in (card.get(state) or {}).items():
                found.setdefault(int(z), f"{state} in {name}: {why}" if why != state else f"{state} in {name}")
        for z in card.get("invalid") or ():
            found.setdefault(int(z), f"invalid in {name}")
    return dict(sorted(found.items()))


def _sections(
    settings: Mapping[str, Any], cards: Mapping[str, Mapping[str, Any]], excluded: Excluded
) -> tuple[list[int], str | None]:
    """The sections to measure, and why there can be no score against the truth (None if there can)."""
    length = int(cards["lr"]["shape"][0])
    good = [z for z in range(length) if z not in excluded]
    sample = [good[i * len(good) // min(SAMPLE, len(good))] for i in range(min(SAMPLE, len(good)))]
    if "hr" not in cards:
        return sample, "the volume has only low resolution"
    if not settings.get("test"):
        return sample, "no test sections are named, and sections that training saw prove nothing"
    for first, last in settings["test"]:
        if not 0 <= first < last <= length:
            raise ValueError(
                f"test range [{first}, {last}] is not within the {length} sections of {settings['volume']}"
            )
    test = sorted({z for first, last in settings["test"] for z in range(first, last)} - set(excluded))
    return (test, None) if test else (sample, "every test section is damaged, missing or not made")


def _finite(value: float) -> float | None:
    """``value`` for JSON, which knows no infinity."""
    return value if math.isfinite(value) else None


def _consistency_means(lr: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over sections of the decibels of bicubic and sr made coarser again; sections without any error left out."""
    found = {}
    for name in ("bicubic", "sr"):
        values = [value for tally in lr.values() if math.isfinite(value := tally[name].psnr())]
        found[name] = {"psnr": sum(values) / len(values) if values else None, "sections": len(lr)}
    return found


def _row(z: int, truth: Mapping[str, Any] | None, lr: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one section; PSNR is null where there is no error at all."""
    row: dict[str, Any] = {"z": z, "consistency": {name: _finite(tally.psnr()) for name, tally in lr.items()}}
    return row | {name: measured.row() for name, measured in (truth or {}).items()}


def _metrics(settings: Mapping[str, Any], how: Any) -> dict[str, Any]:
    """What the figures against hr are; without hr, what they would have been of single pixels."""
    from emsr.metrics.image import STATED
    from emsr.steps.measures import stated

    return stated(how, settings.get("lpips")) if how else {"metrics": STATED}


def _stated(
    settings: Mapping[str, Any],
    cards: Mapping[str, Mapping[str, Any]],
    chosen: tuple[Sequence[int], Excluded],
    images: Any,
) -> dict[str, Any]:
    """What the figures are: which sections of which images, by what definition."""
    sections, excluded = chosen
    region = [high - low for low, high in images.covered]
    known = bool(cards["lr"].get("degradation"))
    return {
        "scale": settings["scale"],
        "test": settings.get("test"),
        "sections": list(sections),
        "left_out": {str(z): why for z, why in excluded.items()},
        "region_yx": region,
        "damaged_parts": _damaged_parts(sections, images),
        "mean": "over sections; psnr_pooled is the PSNR of the mean squared error over all pixels, and the resolution "
        "that of the mean correlation",
        "bicubic": "lr enlarged by Keys' cubic, a = -0.5, rounded to uint8",
        "consistency": {
            "kernel": images.kernel,
            "known": known,
            "what": "PSNR of the image made coarser again against lr",
        },
        "sha256": {name: card["sha256"] for name, card in cards.items()},
    }


def _damaged_parts(sections: Sequence[int], images: Any) -> dict[str, Any]:
    """What of the measured sections is in no figure because it is damaged: voxels of sr, in all and by section."""
    from emsr.steps.parts import STATED, count

    voxels = {
        z: sum(count(images.damaged[z], part) for part in images.parts(z, images.covered))
        for z in sections
        if z in images.damaged
    }
    found = {str(z): {"voxels": count, "boxes": images.damaged[z]} for z, count in voxels.items() if count}
    return {"what": STATED, "voxels": sum(voxels.values()), "sections": found}


def report(settings: dict[str, Any], out: Path) -> None:
    """Write the report, one self-contained HTML page, and its figures and tables beside it.

    ``settings``: title; config (the resolved configuration, without what cannot change a result); volumes {name:
    {scale, lr, hr (or null), sr, scores, segmentation (or null), allocate, card (of the weights), deviation (how far
    samples lie apart, if there are samples)}}, all paths of JSON files; trainings {name: {stage: path of its card}};
    benchmarks (folder of Snakemake's tables). Labels and segmentations lie beside the file segmentation, as their rules
    leave them. Beside ``out``, in the folder of its name without suffix, are the files that ``REPORT_FILES`` names.
    """
    from emsr.durable import write_text
    from emsr.progress import progress
    from emsr.report.page import render
    from emsr.report.volumes import draw
    from emsr.steps.evidence import gather
    from emsr.steps.exhibits import write_exhibits

    with progress(2 * len(settings["volumes"]) + 2, "report", "parts") as bar:
        run = gather(settings, bar.update)
        drawings = {}
        for volume in run.volumes:
            drawings[volume.name] = draw(volume)
            bar.update()
        write_exhibits(run, drawings, Path(out).with_suffix(""))
        bar.update()
        write_text(out, render(run, drawings))
        bar.update()
    log.info("wrote %s", out)
