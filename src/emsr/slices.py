"""What a step's slice of config holds besides paths: its result number and what a stage of a training depends on."""

from __future__ import annotations

import json
from typing import Any

from emsr import plugins
from emsr.config import Training
from emsr.fingerprints import content_sha256, hashed

RESULTS = {
    "grow": ("steps/data.py", "GROW_RESULT"),
    "ingest": ("steps/data.py", "INGEST_RESULT"),
    "degrade": ("steps/data.py", "DEGRADE_RESULT"),
    "enlarge": ("steps/data.py", "ENLARGE_RESULT"),
    "register": ("steps/registration.py", "REGISTER_RESULT"),
    "register-labels": ("steps/registered_labels.py", "REGISTER_LABELS_RESULT"),
    "train": ("steps/train.py", "TRAIN_RESULT"),
    "allocate": ("steps/superresolve.py", "ALLOCATE_RESULT"),
    "superresolve": ("steps/superresolve.py", "SUPERRESOLVE_RESULT"),
    "stitch": ("steps/superresolve.py", "STITCH_RESULT"),
    "allocate-affinities": ("steps/affinities.py", "ALLOCATE_AFFINITIES_RESULT"),
    "affinities": ("steps/affinities.py", "AFFINITIES_RESULT"),
    "prove-affinities": ("steps/affinities.py", "PROVE_AFFINITIES_RESULT"),
    "allocate-fragments": ("steps/fragments.py", "ALLOCATE_FRAGMENTS_RESULT"),
    "fragments": ("steps/fragments.py", "FRAGMENTS_RESULT"),
    "prove-fragments": ("steps/fragments.py", "PROVE_FRAGMENTS_RESULT"),
    "agglomerate": ("steps/agglomeration.py", "AGGLOMERATE_RESULT"),
    "choose-threshold": ("steps/threshold.py", "CHOOSE_THRESHOLD_RESULT"),
    "segment": ("steps/segment.py", "SEGMENT_RESULT"),
    "score-segments": ("steps/segment_scores.py", "SCORE_SEGMENTS_RESULT"),
    "discard": ("steps/discard.py", "DISCARD_RESULT"),
    "score": ("steps/score.py", "SCORE_RESULT"),
    "report": ("steps/score.py", "REPORT_RESULT"),
}
IMAGES = ("hr", "lr")
UNSTATED = (*IMAGES, "perceptual", "spynet")  # what a stage reads whose model does not say
INPUTS = (*UNSTATED, "labelled")  # what a stage may read besides earlier stages and init_from


def result_number(step: str) -> int:
    """The integer that stands beside the step's function, read without importing it."""
    file, name = RESULTS[step]
    number = plugins.literal(plugins.PACKAGE / file, name)
    if not isinstance(number, int):
        raise ValueError(f"{name} in {file} is {number!r}, which is no integer")
    return number


def text(step: str, values: dict[str, Any]) -> str:
    """``values`` and the result number as canonical JSON: sorted keys, no spaces."""
    return json.dumps({**values, "result": result_number(step)}, sort_keys=True, separators=(",", ":"))


def of_stage(training: Training, stage: str) -> dict[str, Any]:
    """What the weights of ``stage`` depend on, without where the images and the weights of earlier stages lie.

    Earlier stages than the last see single sections and no window, which is for inference. One of them that reads one
    image alone knows no scale, which relates two: its scale is 1, so that trainings of all scales agree on it.
    """
    read = reads(training, stage)
    model = training.model.model_dump(mode="json")
    values: dict[str, Any] = {
        "stage": stage,
        "model": {
            **model,
            "options": stage_options(training, stage),
            "sha256": own_model(training),
            **_result(training),
        },
        "overrides": training.stages[stage],
        "init_from": hashed((training.init_from or {}).get(stage)),
    }
    for key in ("scale", "sections", "section_step", "window", "seed", "threads", "device"):
        values[key] = getattr(training, key)
    values |= _accelerated(training, stage)
    for key in ("perceptual", "spynet"):
        values[key] = hashed(getattr(training, key)) if key in read else None
    if stage != training.last_stage:
        values |= {"sections": 1, "section_step": 1, "window": None}
        values |= {} if set(IMAGES) <= set(read) else {"scale": 1}
    return values


def _result(training: Training) -> dict[str, int]:
    """RESULT of a model file of emsr: raised where its training, and no other model's, gives something else."""
    file = plugins.file_of("models", training.model.name)
    if "." in training.model.name:
        return {}  # its content counts
    number = plugins.literal(file, "RESULT") if plugins.has(file, "RESULT") else 1
    if not isinstance(number, int):
        raise ValueError(f"RESULT in {file.name} is {number!r}, which is no integer")
    return {"result": number} if number > 1 else {}


def _accelerated(training: Training, stage: str) -> dict[str, dict[str, str]]:
    """The accelerators of the layers that ``stage`` trains through, if any: the model's file says which those are."""
    layers = _stated(training.model.name, "ACCELERATED").get(stage, ())
    chosen = training.accelerators.chosen if training.accelerators else {}
    mine = {layer: package for layer, package in chosen.items() if layer in layers}
    return {"accelerators": mine} if mine else {}


def reads(training: Training, stage: str) -> tuple[str, ...]:
    """Those of INPUTS that ``stage`` reads: all but labels, unless READS in the model's file says which."""
    name = training.model.name
    stated = _stated(name, "READS").get(stage, UNSTATED)
    for read in stated:
        if read not in INPUTS:
            raise ValueError(plugins.unknown(f"READS of model {name}: input of stage {stage}", str(read), INPUTS))
    return tuple(stated)


def stage_options(training: Training, stage: str) -> dict[str, Any]:
    """The options that ``stage`` depends on: all, unless the model's file says what their names begin with.

    A beginning that ends in "=" is a whole name.
    """
    begins = _stated(training.model.name, "STAGE_OPTIONS").get(stage)
    options = training.model.options
    if begins is None:
        return dict(options)
    return {name: options[name] for name in options if f"{name}=".startswith(begins)}


def _stated(model: str, name: str) -> dict[str, Any]:
    """Dictionary constant ``name`` of a model's file; empty where it has none."""
    file = plugins.file_of("models", model)
    stated = plugins.literal(file, name) if plugins.has(file, name) else {}
    return stated if isinstance(stated, dict) else {}


def own_model(training: Training) -> str | None:
    """The content of a model file of the user's own; emsr's models change with their result numbers."""
    name = training.model.name
    return content_sha256(plugins.file_of("models", name)) if "." in name else None
