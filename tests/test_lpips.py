"""LPIPS from files of others: features against plain convolutions, the published formats, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from emsr.commands.check import check_config
from emsr.config import parse
from emsr.layers.lpips import BACKBONES, Backbone
from emsr.metrics.perceptual import lpips_distance
from emsr.models.published_lpips import load
from emsr.settings import Settings
from emsr.steps.measures import features
from published_lpips import LAYERS, TAPS, State, saved, states

ROOT = Path(__file__).parents[1]


def plain(name: str, images: tuple[np.ndarray, np.ndarray]) -> float:
    """The distance as the paper and version 0.1 have it, by functions of torch alone."""
    backbone, linear = states(name)
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    both = torch.stack([torch.from_numpy(one.astype(np.float32)) for one in images])[:, None]
    x = ((both / 127.5 - 1).repeat(1, 3, 1, 1) - shift) / scale
    total = 0.0
    for number, *_, stride, padding, pool in LAYERS[name]:
        x = F.max_pool2d(x, pool, 2) if pool else x
        weight, bias = (backbone[f"features.{number}.{part}"] for part in ("weight", "bias"))
        x = F.relu(F.conv2d(x, weight, bias, stride, padding))
        if number in TAPS[name]:
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            squares = (unit[:1] - unit[1:]).square()
            total += F.conv2d(squares, linear[f"lin{TAPS[name].index(number)}.model.1.weight"]).mean().item()
    return total


@pytest.mark.parametrize(("name", "suffix"), [("alex", ".pth"), ("alex", ".safetensors"), ("vgg16", ".pth")])
def test_equal_to_plain_convolutions(tmp_path: Path, name: str, suffix: str) -> None:
    images = tuple(np.random.default_rng(seed).integers(0, 256, (70, 64)).astype(np.uint8) for seed in range(2))
    lpips = load(*saved(tmp_path, name, suffix))
    assert lpips.backbone.name == name
    maps = [features(lpips, one) for one in images]
    found = lpips_distance(*maps, lpips.weights)
    assert found > 0.1
    assert found == pytest.approx(plain(name, images), rel=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BACKBONES)
def test_the_least_side_is_the_least(name: str) -> None:
    backbone, least = Backbone(name), BACKBONES[name].least
    maps = backbone(torch.rand(1, 1, least, least))
    assert [one.shape[1] for one in maps] == list(BACKBONES[name].channels)
    assert min(maps[-1].shape[2:]) == 1
    with pytest.raises(RuntimeError, match="too small"):
        backbone(torch.rand(1, 1, least - 1, least))


def narrower(backbone: State, linear: State) -> None:
    linear["lin2.model.1.weight"] = linear["lin2.model.1.weight"][:, :7]


REFUSED: list[tuple[Callable[[State, State], Any], str, str]] = [
    (
        lambda backbone, linear: backbone.pop("features.8.bias"),
        "backbone.pth holds no alex: missing features.8.bias",
        "cut",
    ),
    (
        lambda backbone, linear: backbone.pop("features.0.weight"),
        "holds no alex or vgg16 as torchvision",
        "another network",
    ),
    (
        lambda backbone, linear: linear.pop("lin4.model.1.weight"),
        "linear.pth holds no LPIPS weights for alex: missing lin4",
        "cut",
    ),
    (narrower, r"misshapen lin2.model.1.weight is \(1, 7, 1, 1\) and not \(1, 384, 1, 1\)", "of another backbone"),
    (lambda backbone, linear: linear["lin0.model.1.weight"].neg_(), "weights below 0 or no numbers", "not trained so"),
    (lambda backbone, linear: linear["lin0.model.1.weight"].fill_(np.nan), "holds NaN or infinity", "nothing"),
]


@pytest.mark.parametrize(("change", "words", "reason"), REFUSED)
def test_files_that_do_not_fit(tmp_path: Path, change: Callable[[State, State], Any], words: str, reason: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        load(*saved(tmp_path, "alex", change=change))
    assert "\n" not in str(error.value), reason


@pytest.mark.parametrize("file", ["text.pth", "text.safetensors"])
def test_no_file_of_weights_is_one_line(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("no weights at all")
    with pytest.raises(ValueError, match=f"{file} (cannot be read as PyTorch weights|is not safetensors)") as error:
        load(tmp_path / file, tmp_path / file)
    assert "\n" not in str(error.value)


def config(folder: Path, **names: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    return values | {"score": {"lpips": {part: str(folder / name) for part, name in names.items()}}}


def test_a_config_names_both_files_and_check_opens_them(tmp_path: Path) -> None:
    saved(tmp_path, "alex")
    check_config(parse(config(tmp_path, backbone="backbone.pth", linear="linear.pth")))
    swapped = parse(config(tmp_path, backbone="linear.pth", linear="backbone.pth"))
    with pytest.raises(ValueError, match=r"score.lpips: .*linear.pth holds no alex or vgg16"):
        check_config(swapped)
    with pytest.raises(ValueError, match=r"score.lpips.* linear: .*/other.pth does not exist; paths are relative"):
        parse(config(tmp_path, backbone="backbone.pth", linear="other.pth"))
    with pytest.raises(ValueError, match=r"score.lpips.linear is missing"):
        parse(config(tmp_path, backbone="backbone.pth"))


def test_another_file_under_the_same_name_changes_the_slice_of_score(tmp_path: Path) -> None:
    paths = saved(tmp_path, "alex")
    slices = []
    for content in (b"one", b"two"):
        paths[1].write_bytes(content)
        slices.append(
            json.loads(Settings(parse(config(tmp_path, backbone=paths[0].name, linear=paths[1].name))).score("tissue"))
        )
    assert slices[0]["lpips"]["backbone"] == slices[1]["lpips"]["backbone"]
    assert slices[0]["lpips"]["linear"]["sha256"] != slices[1]["lpips"]["linear"]["sha256"]
