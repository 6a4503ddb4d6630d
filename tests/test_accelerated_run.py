"""Accelerators of a config: refused where they are not there, part of the settings, named by what they computed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from emsr.commands.check import stop_unless_fit
from emsr.config import parse
from emsr.durable import read_json
from emsr.layers.deform import sample_taps
from emsr.report.volumes import _made_by
from emsr.settings import Settings
from sr_project import SrProject, tissue_like, write_weights

ROOT = Path(__file__).parents[1]
MMCV = {"deform": "mmcv"}


@pytest.fixture
def mmcv(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for mmcv, since it must be built: the same convolution, with a bias of its own to tell them apart."""

    def convolve(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *_: int) -> Tensor:
        columns = sample_taps(x, offset, mask).flatten(1, 2)
        return F.conv2d(columns, weight.reshape(len(weight), -1, 1, 1), bias + 0.1)

    module = ModuleType("mmcv.ops")
    module.modulated_deform_conv2d = convolve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmcv", ModuleType("mmcv"))
    monkeypatch.setitem(sys.modules, "mmcv.ops", module)


def project(folder: Path, **settings: Any) -> SrProject:
    folder.mkdir()
    made = SrProject(folder, write_weights(folder, "gpemsr", 4))
    made.settings |= settings
    made.write_lr(tissue_like((3, 16, 16)))
    return made


def test_what_an_accelerator_computed_is_named_and_kept_apart(tmp_path: Path, mmcv: None) -> None:
    plain, fast = project(tmp_path / "plain"), project(tmp_path / "fast", accelerators=MMCV)
    cards = [made.all() for made in (plain, fast)]
    assert (plain.voxels() != fast.voxels()).any(), "the stand-in computed"
    names = [(made.folder / "sr.zarr").readlink().name for made in (plain, fast)]
    assert names[0] != names[1], "a setting"
    (record,) = [read_json(file) for file in fast.folder.glob("sr-*.records/*.json")]
    assert record["accelerators"] == fast.stats("1-of-1")["accelerators"]
    assert record["accelerators"]["deform"].startswith("mmcv ")
    assert cards[1]["accelerators"] == [f"deform by {record['accelerators']['deform']}"]
    assert cards[1]["accelerators"][0] in _made_by(cards[1])
    (without,) = [read_json(file) for file in plain.folder.glob("sr-*.records/*.json")]
    assert "accelerators" not in {*without, *plain.stats("1-of-1"), *cards[0]}


def values(where: str, chosen: Any) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    part = made["superresolve"] if where == "superresolve" else made["trainings"][where]
    part["accelerators"] = chosen
    return made


@pytest.mark.parametrize("chosen", [None, {}, {"deform": "pytorch"}, {"deform": None, "correlation": "pytorch"}])
def test_pytorch_is_the_default_and_in_no_slice(chosen: Any) -> None:
    """So that results of before the key stay."""
    for where in ("superresolve", "tissue"):
        settings = Settings(parse(values(where, chosen)))
        slices = [settings.allocate("tissue"), *(settings.train("tissue", stage) for stage in ("flow", "fusion"))]
        assert not any("accelerators" in each for each in slices)
    absent = values("superresolve", None)
    del absent["superresolve"]["accelerators"], absent["trainings"]["tissue"]["accelerators"]
    assert Settings(parse(absent)).allocate("tissue") == Settings(parse(values("tissue", None))).allocate("tissue")


def test_a_choice_reaches_the_stages_that_have_the_layer() -> None:
    chosen = {**MMCV, "correlation": "spatial_correlation_sampler"}
    settings = Settings(parse(values("tissue", chosen)))
    found = {s: json.loads(settings.train("tissue", s)) for s in ("flow", "codebook", "indexer", "fusion")}
    assert {stage: part.get("accelerators") for stage, part in found.items()} == {
        **{"codebook": None, "indexer": None, "fusion": chosen},
        "flow": {"correlation": "spatial_correlation_sampler"},
    }
    assert json.loads(Settings(parse(values("superresolve", MMCV))).stitch("tissue"))["accelerators"] == MMCV


@pytest.mark.parametrize(("where", "chosen", "message"), [
    ("superresolve", {"deform": "mmvc"}, "accelerators.deform is 'mmvc': Input should be 'pytorch', 'mmcv'"),
    ("superresolve", {"warp": "mmcv"}, "key 'superresolve.accelerators.warp' is unknown"),
    ("membranes", MMCV, "trainings.membranes accelerators.deform: model affinity has no such layer; leave it out"),
])  # fmt: skip
def test_what_no_config_may_say_is_one_line(where: str, chosen: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        parse(values(where, chosen))
    assert message in str(caught.value)


@pytest.mark.parametrize(("where", "said"), [("superresolve", "superresolve: "), ("tissue", "trainings.tissue: ")])
def test_a_package_that_is_not_there_ends_the_workflow_before_anything_is_written(
    where: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.ops", raising=False)
    with pytest.raises(SystemExit) as caught:
        stop_unless_fit(parse(values(where, {"deform": "torchvision"})))
    line = str(caught.value)
    assert line.startswith(f"emsr: error: {said}accelerators.deform: torchvision cannot be imported (")
    assert line.endswith("docs/how-to.md, Accelerators), or leave accelerators.deform out")
    assert "\n" not in line


def test_training_goes_through_the_accelerator(mmcv: None) -> None:
    """Its gradients too: the network is the one that the objective is given."""
    from emsr.layers.accelerators import accelerate
    from emsr.models import gpemsr
    from network_goldens import TINY, any_numbers

    torch.manual_seed(0)
    model = any_numbers(gpemsr.build(4, 3, TINY)).train()
    lr = torch.rand(1, 3, 1, 16, 16)
    before = model(lr)
    assert accelerate(model, MMCV)["deform"].startswith("mmcv")
    model(lr).sum().backward()
    assert not torch.equal(before, model(lr))
    grads = [p.grad for name, p in model.named_parameters() if name.startswith("alignment")]
    assert all(grad is not None for grad in grads)
