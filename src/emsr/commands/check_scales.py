"""What `emsr check` asks of a training at several scales: a true range, and volumes with an lr at all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from emsr import plugins
from emsr.config import Training, Volume

if TYPE_CHECKING:
    from emsr.models.stage import Stage


def check_range(where: str, model: str, stage: Stage) -> None:
    """Raise ValueError, in one line, unless a batch can be drawn as `stage` says, at scales that `model` has."""
    if stage.scales and not (len(stage.scales) == 2 and stage.scales[0] <= stage.scales[1]):
        raise ValueError(f"{where}: scales {list(stage.scales)} are not the least and the greatest; use [1, 4]")
    for scale in stage.scales:
        try:
            plugins.check_scale(model, scale)
        except ValueError as error:
            raise ValueError(f"{where}: scales {list(stage.scales)}: {error}") from None


def check_acquired(name: str, training: Training, volumes: Mapping[str, Volume]) -> None:
    """Raise ValueError, in one line, for a volume whose lr was acquired in a training that needs it at other scales."""
    from emsr.models.stage import overridden, own_scale

    model = plugins.load("models", training.model.name)
    acquired = [data.volume for data in training.data if volumes[data.volume].lr]
    recipe = {stage.name: stage for stage in model.stages(training.model.preset, training.scale)}
    for stage, overrides in training.stages.items():
        if acquired and stage in recipe and "use" not in overrides:
            what = overridden(recipe[stage], overrides)
            if what.objective == "heads":
                from emsr.training.objectives.heads import acquired as said

                options = overridden(model.PRESETS[training.model.preset], training.model.options)
                if others := sorted({*options.heads} - {training.scale}):
                    raise ValueError(f"trainings.{name}: {said(acquired[0], others)}")
            if what.objective == "scales" and not own_scale(what, training.scale):
                raise ValueError(
                    f"trainings.{name}: lr of volume {acquired[0]} was acquired, so there is none at other scales than "
                    f"its own: set stages.{stage}.scales to [{training.scale}, {training.scale}], or train on volumes "
                    "that state degradation"
                )
