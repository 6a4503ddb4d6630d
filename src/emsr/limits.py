"""Types and limits of the values that a config gives a network's options and a stage's recipe."""

from __future__ import annotations

from typing import Any

from emsr import plugins

MOST = 1e18  # neither infinity nor NaN passes
AT_LEAST_0, AT_LEAST_1, SHARE = (0, MOST), (1, MOST), (0, 1)
OF_THE_MODEL = ("name", "objective")  # fields of a recipe that say what a stage is
STAGE = {  # least and largest value of each number, or of each number of a list, in models/stage.py
    **dict.fromkeys(("steps", "learning_rate", "warmup", "minimum_rate", "clip"), AT_LEAST_0),
    **dict.fromkeys(("batch", "accumulate", "periods", "penalty_every"), AT_LEAST_1),
    **dict.fromkeys(("restarts", "halvings", "validate_every", "checkpoint_every"), AT_LEAST_0),
    **dict.fromkeys(("image_weight", "contextual_weight", "codebook_weight", "commitment"), AT_LEAST_0),
    **dict.fromkeys(("adversarial_weight", "adversarial_from", "penalty_weight"), AT_LEAST_0),
    **dict.fromkeys(("kmeans_vectors", "restart_after", "displacement"), AT_LEAST_0),
    **dict.fromkeys(("weight_ema", "unquantised", "entries_decay", "restart_until", "contrast"), SHARE),
    **dict.fromkeys(("depth", "depth_overlap", "slow_from"), AT_LEAST_0),
    **dict.fromkeys(("border", "balance_limit", "elastic", "shift", "poor", "missing", "blur"), AT_LEAST_0),
    **dict.fromkeys(("rotation_share", "elastic_share", "shift_share", "intensity_share", "poor_share"), SHARE),
    **dict.fromkeys(("missing_share", "section_intensity", "brightness", "gamma", "faint"), SHARE),
    **dict.fromkeys(("weight_decay", "clip_change", "slow_factor"), AT_LEAST_0),
    **dict.fromkeys(("halving", "early_weight", "early_until"), SHARE),
    "elastic_spacing": (1, MOST),
    "patch": (4, MOST),
    "betas": (0, 0.999999),
    "rotation": (0, 180),
}


def check_fields(what: str, values: dict[str, Any], known: dict[str, str]) -> None:
    """Every key of ``values`` is known and its value of the annotated type; ValueError if not."""
    for key, value in values.items():
        if key not in known:
            raise ValueError(plugins.unknown(what, key, known))
        if not plugins.fits(value, known[key]):
            raise ValueError(f"{what} {key} is {value!r}, which is no {known[key]}")


def check_stage(stage: str, values: dict[str, Any]) -> None:
    """What the config puts into the recipe of ``stage`` is known, of its type, and a number that makes sense."""
    for key in OF_THE_MODEL:
        if key in values:
            raise ValueError(f"stage {stage}: key {key!r} says what the stage is, which only its model may; remove it")
    known = plugins.fields(plugins.PACKAGE / "models" / "stage.py", "Stage")
    check_fields(f"stage {stage}: key", values, known)
    for key in values.keys() & STAGE.keys():
        _check_number(f"stage {stage}: key {key}", values[key], *STAGE[key])
    if len(values.get("betas", (0, 0))) != 2:
        raise ValueError(f"stage {stage}: key betas is {values['betas']!r}; write two numbers, as [0.9, 0.99]")


def _check_number(what: str, value: Any, least: float, most: float) -> None:
    for number in value if isinstance(value, list | tuple) else [value]:
        if not least <= number <= most:
            wanted = f"be at least {least}" if most == MOST else f"lie between {least} and {most}"
            raise ValueError(f"{what} is {value!r}; it must {wanted}")
