"""The chapter of one training: whether every stage is alive, how it learned, what it took."""

from __future__ import annotations

from typing import Any

import numpy as np

from emsr.report.blocks import Block, Chapter, Image, Table, decibels, duration, megabytes
from emsr.report.charts import curve_chart
from emsr.report.evidence import StageEvidence, TrainingEvidence
from emsr.report.health import checks
from emsr.report.style import pixels, styled, svg


def chapter(training: TrainingEvidence) -> Chapter:
    """Everything about ``training``."""
    blocks: list[Block] = [health_table(training), stage_table(training)]
    with styled():
        chart = curve_chart(training.stages)
        if chart is not None:
            words = (
                "Training and validation curves of every stage; the green line is the checkpoint that validation kept."
            )
            blocks.append(Image(svg(chart), "image/svg+xml", words))
    return Chapter(f"Training {training.name}", blocks, fresh=True)


def picture_of_curves(training: TrainingEvidence) -> np.ndarray | None:
    """The curves as a picture, None if none were recorded."""
    with styled():
        chart = curve_chart(training.stages)
        return None if chart is None else pixels(chart)


def health_table(training: TrainingEvidence) -> Table:
    """Every condition of every stage: passed, failed or not measured."""
    found = [check for stage in training.stages for check in checks(stage.name, stage.card.get("health"))]
    rows = [(check.stage, check.name, check.figure, check.asked or "–") for check in found]
    columns = ("stage", "condition", "found", "asked")
    return Table("Is every stage alive?", columns, rows, [check.state for check in found])


def stage_table(training: TrainingEvidence) -> Table:
    """What each stage is and what it took."""
    columns = ("stage", "model", "step kept", "validation score", "time", "peak memory", "sha256")
    return Table("Stages", columns, [_stage_row(stage) for stage in training.stages])


def _stage_row(stage: StageEvidence) -> tuple[str, ...]:
    card, stats = stage.card, stage.stats
    scores: dict[str, Any] = card.get("scores") or {}
    model = " ".join(str(card[key]) for key in ("model", "preset") if card.get(key))
    steps = ((card.get("training") or {}).get("recipe") or {}).get("steps")
    peak = stats.get("peak_memory_bytes")
    return (
        stage.name,
        model,
        f"{scores.get('step', '–')}" + (f" of {steps}" if steps else ""),
        decibels(scores.get("score")),
        duration(stats.get("seconds")),
        megabytes(None if peak is None else peak / 1e6),
        str(card.get("sha256", "–"))[:16],
    )
