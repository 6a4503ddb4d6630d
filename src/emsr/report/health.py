"""Is a stage alive? Each condition with its figure, what was asked of it, and whether it holds.

A collapsed codebook hides well under a residual network, so every condition is shown whether it holds or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from emsr.report.blocks import minus

State = Literal["pass", "warn", "unmeasured", "info"]
Figures = Mapping[str, Any]

USED_SHARE = 0.8  # of the codebook's entries
PERPLEXITY_SHARE = 0.5  # of the number of entries
TOP1_FACTOR = 10  # times the share of the majority class
ENTROPY_GAIN = 1.0  # nat under the unigram entropy
CHANCE = 0.5  # area under the curve
ONE_KIND = {  # by the share of connected affinities: what cannot be told apart
    0.0: "the labels of the validation sections cut all of them, as labels of single sections do along z",
    1.0: "the labels of the validation sections cut none of them",
}
UNKNOWN = "the labels of the validation sections do not know both kinds, as of single sections along z"
MOST_OFFSET = 50.0  # pixels, as ``training.offsets.MOST``
REFERENCE_LOSS = 1.0  # dB under the reference decoded from the true indices


@dataclass(frozen=True)
class Check:
    """One condition of one stage: its figure and what was asked, in words; "info" where nothing is asked."""

    stage: str
    name: str
    figure: str
    asked: str
    state: State


@dataclass(frozen=True)
class _Condition:
    """How a condition is made from a card's health figures; ``needs`` names the figures it takes."""

    name: str
    needs: tuple[str, ...]
    figure: Callable[[Figures], str]
    asked: Callable[[Figures], str]
    holds: Callable[[Figures], bool] | None
    why: Callable[[Figures], str] = lambda h: ""  # that its figures are not there, if the card knows


CONDITIONS: dict[str, tuple[_Condition, ...]] = {
    "codebook": (
        _Condition(
            "entries used",
            ("entries_used", "entries"),
            lambda h: f"{h['entries_used'] * h['entries']:.0f} of {h['entries']:.0f} ({h['entries_used']:.1%})",
            lambda h: f"at least {USED_SHARE:.0%}",
            lambda h: h["entries_used"] >= USED_SHARE,
        ),
        _Condition(
            "perplexity of the entries",
            ("perplexity", "entries"),
            lambda h: f"{h['perplexity']:.1f}",
            lambda h: f"at least {PERPLEXITY_SHARE * h['entries']:g}, half of the entries",
            lambda h: h["perplexity"] >= PERPLEXITY_SHARE * h["entries"],
        ),
        _Condition(
            "reconstruction of hr",
            ("psnr", "ssim"),
            lambda h: f"{h['psnr']:.2f} dB, SSIM {h['ssim']:.3f}",
            lambda h: "",
            None,
        ),
    ),
    "indexer": (
        _Condition(
            "top-1 against the majority class",
            ("top1", "majority_share"),
            lambda h: f"{h['top1']:.1%}, {h['top1'] / h['majority_share']:.1f} times the majority's",
            lambda h: f"at least {TOP1_FACTOR} × {h['majority_share']:.2%}",
            lambda h: h["top1"] >= TOP1_FACTOR * h["majority_share"],
        ),
        _Condition(
            "cross entropy against the unigram entropy",
            ("cross_entropy", "unigram_entropy"),
            lambda h: f"{h['cross_entropy']:.2f} nat, {h['unigram_entropy'] - h['cross_entropy']:.2f} nat under it",
            lambda h: f"at most {h['unigram_entropy']:.2f} − {ENTROPY_GAIN:g} nat",
            lambda h: h["cross_entropy"] <= h["unigram_entropy"] - ENTROPY_GAIN,
        ),
        _Condition(
            "reference decoded from predicted indices",
            ("reference_psnr_predicted", "reference_psnr_true"),
            lambda h: f"{h['reference_psnr_predicted']:.2f} dB",
            lambda h: f"at least {h['reference_psnr_true']:.2f} (true indices) − {REFERENCE_LOSS:g} dB",
            lambda h: h["reference_psnr_predicted"] >= h["reference_psnr_true"] - REFERENCE_LOSS,
        ),
    ),
    "flow": (
        _Condition(
            "endpoint error on synthetic warps",
            ("endpoint_error", "endpoint_error_without_flow"),
            lambda h: f"{h['endpoint_error']:.2f} lr pixels",
            lambda h: f"less than {h['endpoint_error_without_flow']:.2f} without flow",
            lambda h: h["endpoint_error"] < h["endpoint_error_without_flow"],
        ),
    ),
}
CONDITIONS["affinity"] = tuple(
    _Condition(
        f"cut affinities along {axis}",
        (f"auc_{axis}", f"f1_{axis}"),
        lambda h, axis=axis: f"area under the curve {h[f'auc_{axis}']:.3f}, best F1 {h[f'f1_{axis}']:.3f}",  # type: ignore[misc]
        lambda h: f"an area of more than {CHANCE}, which is chance",
        lambda h, axis=axis: h[f"auc_{axis}"] > CHANCE,  # type: ignore[misc]
        lambda h, axis=axis: ONE_KIND.get(h.get(f"connected_{axis}"), UNKNOWN if "loss" in h else ""),  # type: ignore[misc]
    )
    for axis in "zyx"
)
IMAGE = (
    _Condition(
        "PSNR against bicubic, on validation patches",
        ("psnr", "bicubic_psnr"),
        lambda h: f"{h['psnr']:.2f} dB, {h['psnr'] - h['bicubic_psnr']:+.2f} dB",
        lambda h: f"more than {h['bicubic_psnr']:.2f} dB",
        lambda h: h["psnr"] > h["bicubic_psnr"],
    ),
    _Condition(
        "SSIM against bicubic, on validation patches",
        ("ssim", "bicubic_ssim"),
        lambda h: f"{h['ssim']:.3f}, {h['ssim'] - h['bicubic_ssim']:+.3f}",
        lambda h: f"more than {h['bicubic_ssim']:.3f}",
        lambda h: h["ssim"] > h["bicubic_ssim"],
    ),
)
OFFSETS = _Condition(  # of networks with deformable convolutions alone
    "sampling offsets of deformable convolutions",
    ("offset",),
    lambda h: f"{h['offset']:.1f} pixels on average",
    lambda h: f"at most {MOST_OFFSET:g}, above which training has broken: lower learning_rate",
    lambda h: h["offset"] <= MOST_OFFSET,
)
UNTRAINED = ("untrained",)


def checks(stage: str, health: Figures | None) -> list[Check]:
    """Every condition of ``stage`` judged by the ``health`` of its card; what has no figure is "unmeasured"."""
    if stage in UNTRAINED:
        return []
    conditions = (*CONDITIONS.get(stage, IMAGE), *([OFFSETS] if "offset" in (health or {}) else ()))
    return [_judge(stage, condition, health or {}) for condition in conditions]


def _judge(stage: str, condition: _Condition, health: Figures) -> Check:
    numbers = [health.get(name) for name in condition.needs]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        why = condition.why(health)
        return Check(stage, condition.name, f"not measured: {why}" if why else "not measured", "", "unmeasured")
    if condition.holds is None:
        return Check(stage, condition.name, condition.figure(health), condition.asked(health), "info")
    state: State = "pass" if condition.holds(health) else "warn"
    return Check(stage, condition.name, minus(condition.figure(health)), condition.asked(health), state)
