"""Figures and tables of the report as files of their own, for papers, spreadsheets and Snakemake's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emsr.durable import write_bytes, write_text
from emsr.report import page, tables, trainings, volumes
from emsr.report.blocks import Table, tsv
from emsr.report.evidence import RunEvidence
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
    for training in run.trainings:
        place = folder / "trainings" / training.name
        curves = trainings.picture_of_curves(training)
        write_bytes(place / "curves.png", png(words_picture("no curve recorded") if curves is None else curves))
        write_text(place / "health.tsv", tsv(_with_states(trainings.health_table(training))))
    write_text(folder / "headline.tsv", tsv(page.headline_table(run)))
    write_text(folder / "rules.tsv", tsv(page.rule_table(run)))


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of one width below each other, white between them."""
    gap = np.full((GAP, *pictures[0].shape[1:]), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:])


def _with_states(table: Table) -> Table:
    """The marks of rows as a first column."""
    rows = [(state, *row) for state, row in zip(table.states, table.rows, strict=True)]
    return Table(table.caption, ("state", *table.columns), rows)
