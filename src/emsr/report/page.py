"""The report: chapters in their order, and one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from emsr.report import caveats, segmentation, tables, trainings, volumes, worth
from emsr.report.blocks import Block, Chapter, Code, Paragraph, Points, Table, duration, megabytes
from emsr.report.evidence import RunEvidence, VolumeEvidence
from emsr.report.health import checks


def chapters(run: RunEvidence, drawings: Mapping[str, volumes.Drawings]) -> list[Chapter]:
    """The whole report: worth, figures, reservations, volumes, trainings, cost, provenance."""
    return [
        *worth.opening(run.volumes),
        Chapter("Headline figures", _headlines(run)),
        Chapter("Where not to trust it", _reservations(run)),
        *(part for volume in run.volumes for part in _of_volume(volume, drawings[volume.name])),
        *(segmentation.chapter(one.name, one.segments, {}) for one in run.segmented),
        *map(trainings.chapter, run.trainings),
        Chapter("Time and memory", [rule_table(run), *throughput_tables(run)]),
        Chapter("What was run", _provenance(run)),
    ]


def _of_volume(volume: VolumeEvidence, drawings: volumes.Drawings) -> list[Chapter]:
    """The chapter of a volume and, if its segmentations are scored, that of these."""
    found = [volumes.chapter(volume, drawings)]
    if volume.segments:
        found.append(segmentation.chapter(volume.name, volume.segments, drawings.segments))
    return found


def render(run: RunEvidence, drawings: Mapping[str, volumes.Drawings]) -> str:
    """The page as HTML text: every name escaped, style and pictures inside, no scripts.

    ``drawings`` are those of every volume, by name.
    """
    environment = Environment(
        loader=PackageLoader("emsr.report"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(run=run, chapters=chapters(run, drawings))


def _headlines(run: RunEvidence) -> list[Block]:
    blocks: list[Block] = [volumes.headline(volume) for volume in run.volumes]
    if not run.volumes:
        blocks.append(Paragraph("No volume of this configuration names weights, so none was super-resolved.", "note"))
    for one in run.segmented:
        blocks += [Paragraph(f"{one.name}, segmented and not super-resolved", "name"), segmentation.headline(one)]
    if run.trainings:
        blocks.append(Points([words for training in run.trainings if (words := _stages_alive(training))]))
    return blocks


def _stages_alive(training: trainings.TrainingEvidence) -> tuple[str, str] | None:
    """One line that says of a training whether every stage is alive; None where nothing is asked of any."""
    found = [check for stage in training.stages for check in checks(stage.name, stage.card.get("health"))]
    if not found:
        return None
    asked = [check for check in found if check.state in ("pass", "warn")]
    failed = [check for check in asked if check.state == "warn"]
    unknown = sum(check.state == "unmeasured" for check in found)
    words = f"Training {training.name}: {len(asked) - len(failed)} of {len(asked)} conditions of its stages hold"
    words += f", {unknown} not measured" if unknown else ""
    if failed:
        return "warn", words + f". Not: {', '.join(f'{check.stage}: {check.name}' for check in failed)}."
    return ("unmeasured" if unknown else "pass"), words + "."


def _reservations(run: RunEvidence) -> list[Block]:
    blocks: list[Block] = []
    for name, points in [
        *((f"Volume {volume.name}", caveats.of_volume(volume)) for volume in run.volumes),
        *((f"Volume {one.name}", worth.doubts(one.segments)) for one in run.segmented),
        *((f"Training {training.name}", caveats.of_training(training)) for training in run.trainings),
    ]:
        if points:
            blocks += [Paragraph(name, "name"), Points(points)]
    return blocks or [Paragraph("Nothing was super-resolved and nothing trained.", "note")]


def headline_table(run: RunEvidence) -> Table:
    """PSNR, SSIM and consistency of every volume: one row per volume and image."""
    columns = ("volume", *tables.SCORE_COLUMNS)
    rows = [(volume.name, *row) for volume in run.volumes for row in tables.score_table(volume).rows]
    return Table("Scores of all volumes", columns, rows)


def rule_table(run: RunEvidence) -> Table:
    """Time and memory of every rule, the longest first."""
    rules = sorted(run.rules, key=lambda rule: -rule.seconds)
    most = max((rule.seconds for rule in rules), default=0) or 1
    rows = [
        (
            rule.rule,
            rule.runs,
            duration(rule.seconds),
            duration(rule.longest) if rule.runs > 1 else "",
            megabytes(rule.peak_mb),
            "–" if rule.mean_load is None else f"{rule.mean_load / 100:.1f}",
        )
        for rule in rules
    ]
    columns = ("rule", "jobs", "time", "longest job", "peak memory", "cores busy")
    words = "As Snakemake measured them; the report itself is still running"
    return Table(words, columns, rows, bars=[rule.seconds / most for rule in rules])


def throughput_tables(run: RunEvidence) -> list[Block]:
    """How fast the jobs of each volume were and what their workers did; nothing where no job measured itself."""
    found = [(volume.name, volume.throughput) for volume in run.volumes if volume.throughput]
    rows: list[tuple[str | int | float | None, ...]] = [
        (
            name,
            one.jobs,
            ", ".join(one.devices),
            f"{one.voxels / one.seconds:,.0f}",
            f"{one.slowest:,.0f}",
            *(f"{100 * one.shares[part]:.1f} %" for part in ("network", "blend", "stall", "read", "write")),
            megabytes(one.peak_mb),
        )
        for name, one in found
    ]
    columns = (
        *("volume", "jobs", "device", "sr voxels/s of a job", "of the slowest", "in the network", "blending"),
        *("stalled", "of it for voxels", "writing beside", "peak memory"),
    )
    words = "Super-resolution: what the time of the jobs' workers went to, from their last attempts"
    blocks: list[Block] = [Table(words, columns, rows)] if rows else []
    halved = [f"{name}: {one.halved} of {one.jobs}" for name, one in found if one.halved]
    if halved:
        blocks.append(Paragraph(f"Jobs that ran out of memory and went on with fewer windows: {', '.join(halved)}."))
    return blocks


def _provenance(run: RunEvidence) -> list[Block]:
    return [
        Table("Hashes", ("what", "sha256"), run.hashes),
        Table("Versions", ("package", "version"), list(run.versions.items())),
        Code("The resolved configuration", run.config_yaml),
    ]
