"""What the report needs, read from disk: cards, scores, curves, times, and crops of a bounded size."""

from __future__ import annotations

import csv
import importlib.metadata
import math
import platform
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from emsr import durable, plan, plugins, scales
from emsr.report.evidence import (
    RuleCost,
    RunEvidence,
    SegmentedEvidence,
    SegmentEvidence,
    StageEvidence,
    TrainingEvidence,
    VolumeEvidence,
)
from emsr.shards import parse_job
from emsr.steps import crops, deviation, segment_evidence
from emsr.steps.throughput import throughput

PACKAGES = ("emsr", "torch", "numpy", "scipy", "scikit-image", "tensorstore", "dask", "snakemake", "matplotlib")
OF_JOBS = ("superresolve", "affinities", "fragments")
OF_SEGMENTATIONS = (  # the other rules with a benchmark table for each segmentation
    *("allocate_affinities", "prove_affinities", "allocate_fragments", "prove_fragments"),
    *("agglomerate", "choose_threshold", "segment", "discard"),
)
Json = Mapping[str, Any]


def gather(settings: Json, told: Callable[[], object] = lambda: None) -> RunEvidence:
    """Everything the report shows; ``settings`` as ``steps.score.report`` states them.

    ``told`` is called after each volume.
    """
    volumes = []
    for name, paths in settings["volumes"].items():
        volumes.append(volume(name, paths, settings["config"]))
        told()
    only = settings.get("segmented") or {}
    segmented = [segmented_volume(name, paths, settings["config"]) for name, paths in only.items()]
    trainings = [training(name, stages) for name, stages in settings["trainings"].items()]
    return RunEvidence(
        title=settings["title"],
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        config_yaml=yaml.safe_dump(dict(settings["config"]), sort_keys=False, allow_unicode=True, width=110),
        versions=versions(),
        hashes=list(_hashes(settings, [*volumes, *segmented], trainings)),
        volumes=volumes,
        segmented=segmented,
        trainings=trainings,
        rules=rule_costs(Path(settings["benchmarks"]), current(settings)),
    )


def volume(name: str, paths: Json, config: Json) -> VolumeEvidence:
    """One volume: its cards and scores, and crops of its arrays."""
    lr, sr, scores, allocated = (durable.read_json(Path(paths[key])) for key in ("lr", "sr", "scores", "allocate"))
    hr = durable.read_json(Path(paths["hr"])) if paths.get("hr") else None
    weights = durable.read_json(Path(paths["card"]))
    folder = Path(paths["allocate"]).parent
    jobs = job_count(folder)
    opened = crops.open_images(paths, {"lr": lr, "sr": sr, "hr": hr})
    sections = crops.section_views(opened, scores, sr)
    return VolumeEvidence(
        name=name,
        scale=scales.of(paths["scale"]),
        lr=lr,
        sr=sr,
        scores=scores,
        hr=hr,
        weights=weights_words(config, name, weights),
        sections=sections,
        crosses=crops.cross_views(opened, sr, plan.read_plan(allocated), jobs, (lr, hr)),
        seams=seams(sr, folder),
        ranges=ranges(config, name),
        reasons=reasons(Path(paths["lr"])),
        segments=segment_evidence.segments(paths, opened, scores, segment_evidence.networks(config, name)),
        throughput=throughput(folder),
        deviation=deviation.evidence(paths.get("deviation"), opened, scores, sections),
    )


def segmented_volume(name: str, paths: Json, config: Json) -> SegmentedEvidence:
    """A volume that is only segmented: the card of its image, and the scores of its segmentations."""
    scores = durable.read_json(Path(paths["segmentation"]))
    found = SegmentEvidence(scores, segment_evidence.networks(config, name))
    return SegmentedEvidence(name, durable.read_json(Path(paths["hr"])), found)


def seams(sr: Json, folder: Path) -> dict[str, Any]:
    """Seam scores that stitching wrote: of windows and shards on the card of sr, of jobs beside the marks."""
    stats = folder / "stitch.stats.json"
    jobs = durable.read_json(stats).get("job_seams") if stats.is_file() else None
    return {**(sr.get("seams") or {}), **({"job": jobs} if jobs else {})}


def job_count(folder: Path) -> int:
    """How many jobs made the volume, from the marks that stitching proved it by; 1 where there is no proof."""
    proof = folder / "proof.json"
    marks = durable.read_json(proof).get("marks") or [] if proof.is_file() else []
    return max((parse_job(Path(mark).stem)[1] for mark in marks), default=1)


def weights_words(config: Json, name: str, card: Json) -> str:
    """Which weights super-resolved a volume: the training or file, the model, and the hash."""
    weights = (config.get("volumes") or {}).get(name, {}).get("weights")
    origin = weights.get("path") if isinstance(weights, Mapping) else f"training {weights}"
    model = " ".join(str(card[key]) for key in ("model", "preset") if isinstance(card.get(key), str))
    window = f"window {card['window']}, " if card.get("window") else ""
    return f"{origin}: {model}, {window}sha256 {str(card.get('sha256', 'unknown'))[:16]}"


def ranges(config: Json, name: str) -> dict[str, list[list[int]]]:
    """Sections of a volume by use, as the config states them: every training that reads it, and its test sections."""
    found: dict[str, list[list[int]]] = {"training": [], "validation": [], "test": []}
    for part in (config.get("trainings") or {}).values():
        for data in part.get("data") or ():
            if data["volume"] == name:
                found["training"] += [list(span) for span in data["train"]]
                found["validation"] += [list(span) for span in data["validation"]]
    found["test"] = [list(span) for span in (config.get("volumes") or {}).get(name, {}).get("test") or ()]
    return found


def reasons(card: Path) -> dict[int, str]:
    """Why sections are damaged, in full, from the table beside an image card, if there is one."""
    table = card.with_suffix(".sections.tsv")
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {int(row["z"]): f"{row['state']}: {row['reason']}" for row in rows}


def training(name: str, stages: Mapping[str, str]) -> TrainingEvidence:
    """The stages of a training in their order: cards, and curves and stats beside them where they are."""
    found = [_stage(stage, Path(path)) for stage, path in stages.items()]
    return TrainingEvidence(name, sorted(found, key=_order))


def _order(stage: StageEvidence) -> int:
    """Where a stage comes among those of its model, which settings, sorted by name, do not say."""
    try:
        needs = plugins.literal(plugins.file_of("models", str(stage.card.get("model"))), "NEEDS")
    except ValueError:
        return 0
    order = list(needs) if isinstance(needs, dict) else []
    return order.index(stage.name) if stage.name in order else len(order)


def _stage(name: str, card: Path) -> StageEvidence:
    curves, stats = (_beside(card, suffix) for suffix in (".curve.json", ".stats.json"))
    return StageEvidence(name, durable.read_json(card), curves, stats)


def _beside(card: Path, suffix: str) -> dict[str, Any]:
    path = card.with_suffix(suffix)
    found: dict[str, Any] = durable.read_json(path) if path.is_file() else {}
    return found


def versions() -> dict[str, str]:
    """Versions of emsr, Python and the packages whose code decides results, and the machine's kind."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed" if package != "emsr" else "not installed as a package"
    return {**found, "Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}


def _hashes(
    settings: Json, volumes: list[VolumeEvidence | SegmentedEvidence], trainings: list[TrainingEvidence]
) -> Iterator[tuple[str, str]]:
    """(what, sha256) of the configuration, of every stage's weights and of every image's voxels."""
    yield "configuration", plan.settings_sha256(settings["config"])
    for part in trainings:
        for stage in part.stages:
            yield f"weights of {part.name}, stage {stage.name}", str(stage.card.get("sha256", "–"))
    for item in volumes:
        yield from _hashes_of_images(item)
        if item.segments:
            scored = item.segments.scores
            for image, sha256 in scored["settings"]["sha256"].items():
                yield f"{'labels' if image == 'labels' else 'segments'} of {item.name}, {image}", str(sha256)
            for name, row in scored["segmentation"].items():
                yield f"weights of the segmentation of {item.name}, {name}", str(row["weights_sha256"])


def _hashes_of_images(item: VolumeEvidence | SegmentedEvidence) -> Iterator[tuple[str, str]]:
    sr = item.sr if isinstance(item, VolumeEvidence) else {}
    lr = item.lr if isinstance(item, VolumeEvidence) else {}
    spread = item.deviation.card if isinstance(item, VolumeEvidence) and item.deviation else None
    for image, card in (("lr", lr), ("hr", item.hr), ("sr", sr), ("deviation of samples", spread)):
        if card:
            yield f"voxels of {item.name}, {image}", str(card["sha256"])
    for key, what in (("settings_sha256", "settings"), ("weights_sha256", "weights")):
        if sr.get(key):
            yield f"{what} of {item.name}, sr", str(sr[key])


def current(settings: Json) -> Callable[[Path], bool]:
    """Whether a benchmark table is of a volume, segmentation or training of this config; of jobs, those proved."""
    config, results = settings["config"], Path(settings["benchmarks"]).parent
    volumes = config.get("volumes") or {}
    named = {*volumes, *(config.get("trainings") or {})}
    segmented = {(name, one) for name, part in volumes.items() for one in part.get("segmentations") or ()}
    folders: dict[tuple[str, ...], Path] = {
        ("superresolve", name): Path(paths["allocate"]).parent for name, paths in settings["volumes"].items()
    }
    folders |= {
        ("superresolve/deviation", name): Path(paths["deviation"]).with_suffix("")
        for name, paths in settings["volumes"].items()
        if paths.get("deviation")
    }
    for name, one in segmented:
        folders |= {(rule, name, one): results / name / "segmentations" / one / rule for rule in OF_JOBS[1:]}
    jobs = {of: job_count(folder) for of, folder in folders.items()}

    def wanted(path: Path) -> bool:
        rule, names = path.parent.relative_to(settings["benchmarks"]).as_posix(), tuple(path.stem.split("."))
        if rule.split("/")[0] in OF_JOBS:
            return names[-1].endswith(f"-of-{jobs.get((rule, *names[:-1]))}")
        return names in segmented if rule in OF_SEGMENTATIONS else names[0] in named

    return wanted


def rule_costs(folder: Path, wanted: Callable[[Path], bool] = lambda path: True) -> list[RuleCost]:
    """Time and memory of every rule from Snakemake's benchmark tables, one file a job below a folder per rule."""
    jobs: dict[str, list[dict[str, float | None]]] = {}
    for path in filter(wanted, sorted(folder.rglob("*.tsv"))):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [
                {key: _number(value) for key, value in row.items()} for row in csv.DictReader(stream, delimiter="\t")
            ]
        jobs.setdefault(rule, []).extend(row for row in rows if row.get("s") is not None)
    return [_cost(rule, rows) for rule, rows in jobs.items() if rows]


def _cost(rule: str, rows: list[dict[str, float | None]]) -> RuleCost:
    seconds = [row["s"] or 0.0 for row in rows]
    memory = [row["max_rss"] for row in rows if row.get("max_rss") is not None]
    loads = [(load, row["s"] or 0.0) for row in rows if (load := row.get("mean_load")) is not None]
    weight = sum(time for _, time in loads)
    load = sum(value * time for value, time in loads) / weight if weight else None
    return RuleCost(rule, len(rows), sum(seconds), max(seconds), max(memory, default=None), load)  # type: ignore[type-var]


def _number(text: str | None) -> float | None:
    """A figure of a benchmark table; None for "NA", "-" and words."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
