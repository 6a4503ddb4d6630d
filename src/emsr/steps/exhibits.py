"""Figures and tables of the report as files of their own, for papers, spreadsheets and Snakemake's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emsr.durable import write_bytes, write_text
from emsr.report import deviation, page, segment_places, segmentation, tables, trainings, volumes, worth
from emsr.report.blocks import Table, tsv
from emsr.report.evidence import RunEvidence, SegmentEvidence
from emsr.report.style import png, words_picture

GAP = 40  # pixels between sections stacked in one picture


def write_exhibits(run: RunEvidence, drawings: Mapping[str, volumes.Drawings], folder: Path) -> None:
    """Write every file that ``steps.score.REPORT_FILES`` names below ``folder``; a picture of words stands for none."""
    for volume in run.volumes:
        place, drawn = folder / "volumes" / volume.name, drawings[volume.name]
        sections = stacked(drawn.sections) if drawn.sections else words_picture("no section to show")
        planes = words_picture("no plane to show") if drawn.planes is None else drawn.planes
        write_bytes(place / "sections.png", png(sections))
        write_bytes(place / "planes.png", png(planes))
        write_text(place / "scores.tsv", tsv(tables.section_table(volume)))
        if volume.segments:
            _write_segments(volume.segments, drawn.segments, place)
        if volume.deviation:
            write_text(place / "deviation.tsv", tsv(deviation.table(volume.deviation)))
            samples = stacked(drawn.samples) if drawn.samples else words_picture("no section to show")
            write_bytes(place / "deviation.png", png(samples))
    for only in run.segmented:
        _write_segments(only.segments, {}, folder / "volumes" / only.name)
    for training in run.trainings:
        place = folder / "trainings" / training.name
        curves = trainings.picture_of_curves(training)
        write_bytes(place / "curves.png", png(words_picture("no curve recorded") if curves is None else curves))
        write_text(place / "health.tsv", tsv(_with_states(trainings.health_table(training))))
    if run.segmented or any(volume.segments for volume in run.volumes):
        drawn_worth = worth.picture(run.volumes)
        write_bytes(
            folder / "worth.png", png(words_picture("no share to show") if drawn_worth is None else drawn_worth)
        )
        write_text(folder / "worth.tsv", tsv(worth.share_list(run.volumes)))
    write_text(folder / "headline.tsv", tsv(page.headline_table(run)))
    write_text(folder / "rules.tsv", tsv(page.rule_table(run)))


def _write_segments(segments: SegmentEvidence, drawn: Mapping[str, Sequence[np.ndarray]], place: Path) -> None:
    """The files about a volume's segmentations."""
    scores = segments.scores
    write_text(place / "segmentation.tsv", tsv(segmentation.score_list(scores)))
    write_text(place / "mistakes.tsv", tsv(segment_places.mistake_list(scores)))
    write_text(place / "membrane.tsv", tsv(segment_places.window_list(scores)))
    for file, kinds in (("mistakes.png", ("splits", "merges")), ("membrane.png", ("invented", "lost"))):
        pictures = [picture for kind in kinds for picture in drawn.get(kind, ())]
        write_bytes(place / file, png(stacked(pictures) if pictures else words_picture("no place to show")))


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other, white between them and beside narrower ones."""
    width = max(picture.shape[1] for picture in pictures)
    gap = np.full((GAP, width, 3), 255, np.uint8)
    wide = [np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in pictures]
    return np.concatenate([part for picture in wide for part in (gap, picture)][1:])


def _with_states(table: Table) -> Table:
    """The marks of rows as a first column."""
    rows = [(state, *row) for state, row in zip(table.states, table.rows, strict=True)]
    return Table(table.caption, ("state", *table.columns), rows)
