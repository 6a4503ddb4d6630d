"""What users ask of super-resolvers that these do not have, and weights whose card says something else."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

import emsr
import test_check
import tiny_networks
from emsr import plugins
from emsr.commands import check_features
from emsr.commands.check import check_config
from emsr.config import parse
from emsr.durable import read_json, write_json
from emsr.models import checkpoint
from project import ROOT
from sr_project import tissue_like

values = test_check.values  # the fixture
LR = tissue_like((3, 16, 20))
SCALE = 4
CLIPS = {"depth": 5, "depth_overlap": 2}


def weights(folder: Path, name: str, **card: Any) -> Path:
    """Untrained weights of a tiny network with their card, from which what is None is left out."""
    torch.manual_seed(0)
    options, stage = tiny_networks.options(name), list(plugins.load("models", name).NEEDS)[-1]
    stated = {"model": name, "options": asdict(options), "scale": SCALE, "sections": 1, "section_step": 1, "window": 16}
    network = tiny_networks.build(name, SCALE)
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, network.state_dict(), {**stated, "stage": stage})
    changed = {**read_json(path.with_suffix(".json")), **card}
    write_json(path.with_suffix(".json"), {key: value for key, value in changed.items() if value is not None})
    return path


# weights


def used(values: dict[str, Any], path: Path, **volume: Any) -> dict[str, Any]:
    """A config whose only volume is super-resolved with a file of weights."""
    with h5py.File("lr.h5", "w") as file:
        file["raw"] = LR
        file["raw"].attrs["resolution"] = (40.0, 16.0, 16.0)
    lr = {"path": "lr.h5", "dataset": "raw"}
    how = {**values["superresolve"], "overlap": 4, "shard": [4, 64, 64], "chunk": [2, 32, 32], "device": "cpu"}
    made = {"v": {"lr": lr, "weights": {"path": path.name}, **volume}}
    return {**values, "volumes": made, "trainings": {}, "superresolve": how}


@pytest.mark.parametrize(("name", "card"), [("snadn", {}), ("basicvsr", CLIPS), ("iste", {})])
def test_good_weights_pass(values: dict[str, Any], tmp_path: Path, name: str, card: dict[str, Any]) -> None:
    path = weights(tmp_path, name, **card)
    check_config(parse(used(values, path)))
    assert emsr.superresolve(LR, path).shape == (3, 64, 80)


@pytest.mark.parametrize(("name", "card", "message"), [
    ("basicvsr", {**CLIPS, "depth": "5"}, "states clips of depth '5' that share 2 sections, by which no volume can be"),
    ("basicvsr", {"depth_overlap": 2}, "states clips of depth None that share 2"),
    ("basicvsr", {**CLIPS, "depth": 0}, "states clips of depth 0 that share 2"),
    ("basicvsr", {**CLIPS, "depth_overlap": 5}, "clips of depth 5 that share 5"),
    ("basicvsr", {**CLIPS, "depth_overlap": -1}, "clips of depth 5 that share -1"),
    ("basicvsr", {}, "states no depth and depth_overlap, and basicvsr sees clips: restore the card"),
    ("edsr", CLIPS, "states clips .depth_overlap., and edsr sees none: restore the card"),
    ("edsr", {"sections": 2}, "sections 2 have no centre|2 sections 1 apart have no centre"),
    ("edsr", {"window": ...}, "states no window[:;] set superresolve.window"),
    ("edsr", {"scale": 2}, "does not fit the network: unknown ups.1.0.bias"),
    ("edsr", {"model": "rdn"}, "no network of rdn can be built of its card|no network of rdn can be built of .*json"),
    ("edsr", {"protocol": "rescaling"}, "is of protocol rescaling"),
    ("snadn", {"protocol": "rescaling"}, "super-resolution needs lr that is given"),
])  # fmt: skip
def test_weights_that_are_not_what_their_card_says(
    values: dict[str, Any], tmp_path: Path, name: str, card: dict[str, Any], message: str
) -> None:
    path = weights(tmp_path, name, **{key: None if value is ... else value for key, value in card.items()})
    found = sorted(file.name for file in tmp_path.iterdir())
    for ask in (lambda: check_config(parse(used(values, path))), lambda: emsr.superresolve(LR, path)):
        with pytest.raises(ValueError, match=message) as error:
            ask()
        assert "\n" not in str(error.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*found, "lr.h5"])


@pytest.mark.parametrize(("name", "asked", "message"), [
    ("snadn", {"samples": 1}, "samples 1 have no standard deviation: use 2 or more"),
    ("snadn", {"samples": 2.5}, "samples 2.5 have no standard deviation: use 2 or more"),
    ("snadn", {"samples": "2"}, "samples '2' have no standard deviation"),
    ("snadn", {"temperature": -1}, "temperature -1 draws no samples: use a number above 0"),
    ("snadn", {"temperature": "1"}, "temperature '1' draws no samples"),
    ("snadn", {"seed": 1.5}, "seed 1.5 of the samples is no whole number from 0"),
    ("edsr", {}, "a model that gives one image and no samples: use snadn or irn"),
    ("edsr", {"window": 0}, "window 0 is not a multiple of 4, which the network needs: use 4"),
])  # fmt: skip
def test_deviations_that_there_are_not(tmp_path: Path, name: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        emsr.deviation(LR, weights(tmp_path, name), **asked)


def test_numbers_of_samples_may_be_numpys(tmp_path: Path) -> None:
    path = weights(tmp_path, "snadn")
    asked: dict[str, Any] = {"samples": np.int64(2), "temperature": np.float32(1), "seed": np.int64(3)}
    assert np.array_equal(emsr.deviation(LR, path, **asked), emsr.deviation(LR, path, 2, 1.0, 3))


# trainings


def trained(values: dict[str, Any], name: str, options: dict[str, Any], **stages: dict[str, Any]) -> dict[str, Any]:
    model = {"name": name, "preset": "small", "options": options}
    values["trainings"]["t"].update(scale=SCALE, model=model, sections=1, window=32, stages={"image": {}, **stages})
    return values


@pytest.mark.parametrize(("name", "options", "stages", "message"), [
    ("edsr", {}, {"image": {"protocol": "rescaling"}}, r"stage image of edsr knows no protocol \('rescaling'\), which"),
    ("iste", {}, {"image": {"cycle_weight": 0.1}}, "iste knows no cycle_weight .* two directions: remove it"),
    ("srgan", {}, {"image": {"steps": 100}}, "never meets its discriminator: adversarial_from 4000 .* in steps 100"),
    ("srgan", {}, {"image": {"penalty_weight": 1.0}}, "srgan knows no penalty_weight .* stages codebook: remove it"),
    ("liif", {}, {"image": {"image_weight": 5.0}}, "liif knows no image_weight"),
    ("edsr", {}, {"image": {"elastic": 2.0}}, "edsr knows no elastic .* affinities: remove it"),
    ("liif", {}, {"image": {"early_weight": 0.5}}, "liif knows no early_weight .* on the way: remove it"),
    ("edsr", {}, {"image": {"scales": [1, 4]}}, "edsr knows no scales .* trainings at random scales: remove it"),
    ("iste", {}, {"image": {"scales": [1, 40]}}, r"scales \[1, 40\]: scale 40 is not one that model iste has: 1 to 16"),
    ("iste", {"hidden": []}, {}, r"trainings.t: hidden \[\] makes no decoder"),
    ("basicvsr", {"flow": "none"}, {"flow": {}, "image": {"slow": []}}, "stage flow: 400 steps for a network that"),
    ("basicvsr", {"flow_kernel": 4}, {"flow": {}}, "flow_kernel 4 has no centre: use an odd number"),
    ("snadn", {"variant": "B", "pyramid": "haar"}, {}, "pyramid 'haar' is variant A's alone"),
])  # fmt: skip
def test_trainings_that_there_are_not(
    values: dict[str, Any], name: str, options: dict[str, Any], stages: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_config(parse(trained(values, name, options, **stages)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("training", "stage", "model"), [
    ("membranes", "affinity", None),
    ("t", "untrained", {"name": "bicubic", "preset": "small", "options": {}}),
])  # fmt: skip
def test_networks_of_other_kinds_know_no_term_of_super_resolvers(
    training: str, stage: str, model: dict[str, Any] | None
) -> None:
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    of = values["trainings"]["membranes" if model is None else "tissue"]
    of |= {"stages": {stage: {"latent_weight": 0.5}}} | ({} if model is None else {"model": model})
    with pytest.raises(ValueError, match=rf"stage {stage} of \w+ knows no latent_weight \(0.5\)"):
        check_config(parse(values))


@pytest.mark.parametrize("name", plugins.names("models"))
def test_recipes_ask_for_nothing_that_their_stage_does_not_know(name: str) -> None:
    model = plugins.load("models", name)
    for preset in model.PRESETS:
        for stage in [stage for scale in getattr(model, "SCALES", [1]) for stage in model.stages(preset, scale)]:
            asked = SimpleNamespace(model=SimpleNamespace(name=name))
            check_features.check_terms(asked, stage)  # type: ignore[arg-type]
