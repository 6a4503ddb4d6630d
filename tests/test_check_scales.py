"""Mistakes in a training at several scales are found before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

import test_check
from emsr.commands.check import check_config
from emsr.config import parse

values = test_check.values  # the fixture


def random_scales(values: dict[str, Any], scale: int = 8, **overrides: Any) -> dict[str, Any]:
    stages = {"image": {"patch": 8, **overrides}}
    model = {"name": "liif", "preset": "small", "options": {}}
    values["trainings"]["t"].update(scale=scale, model=model, stages=stages, sections=1)
    return values


@pytest.mark.parametrize(("overrides", "words"), [
    ({"scales": [4, 1]}, "stage image: scales [4, 1] are not the least and the greatest; use [1, 4]"),
    ({"scales": [0.5, 4]}, "scales is [0.5, 4]; it must be at least 1"),
    ({"scales": [3]}, "scales [3] are not"),
    ({"samples": 0}, "samples is 0; it must be at least 1"),
    ({"anisotropy": 1.5}, "anisotropy is 1.5; it must lie between 0 and 1"),
    ({"scales_drawn": "log"}, "scales_drawn"),
    ({"scales": "1 to 4"}, "scales"),
])  # fmt: skip
def test_a_range_that_there_is_not(values: dict[str, Any], overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011, the words are looked for below
        check_config(parse(random_scales(values, **overrides)))
    assert words in str(error.value)


def test_an_acquired_lr_has_one_scale(values: dict[str, Any]) -> None:
    check_config(parse(random_scales(values)))
    check_config(parse(random_scales(values, scales=[1, 3.7], scales_drawn="logarithmic", anisotropy=0.5)))
    test_check.with_lr((6, 4, 4))(values)
    check_config(parse(random_scales(values, scales=[8, 8])))
    check_config(parse(random_scales(values, scales=[])))
    said = r"trainings.t: lr of volume v was acquired.*: set stages.image.scales to \[8, 8\], or train on volumes"
    with pytest.raises(ValueError, match=said):
        check_config(parse(random_scales(values)))


def test_an_acquired_lr_has_no_heads_of_other_scales(values: dict[str, Any]) -> None:
    def heads(*found: int) -> dict[str, Any]:
        model = {"name": "mdsr", "preset": "small", "options": {"heads": list(found)}}
        values["trainings"]["t"].update(scale=8, model=model, stages={"image": {"patch": 8}}, sections=1)
        return values

    check_config(parse(heads(2, 4)))
    test_check.with_lr((6, 4, 4))(values)
    check_config(parse(heads()))
    check_config(parse(heads(8)))
    said = (
        r"trainings.t: lr of volume v was acquired, not made of hr, so there is none at x2, x4: use option heads \[\]"
    )
    with pytest.raises(ValueError, match=said):
        check_config(parse(heads(8, 4, 2)))
