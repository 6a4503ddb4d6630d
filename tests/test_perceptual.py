"""Losses that compare features of sr and hr: VGG19's, or those of a codebook's encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from emsr.commands import check_features
from emsr.layers.features import Vgg19
from emsr.models import checkpoint, gpemsr, wasa
from emsr.models.stage import Stage, overridden
from emsr.steps import networks
from emsr.training.data import Batch
from emsr.training.objectives.image import Image
from network_goldens import TINY, card

STAGE = overridden(wasa.stages("small", 2)[0], {"perceptual_weight": 0.5, "image_weight": 2.0})
OPTIONS = wasa.PRESETS["small"]


def codebook(folder: Path) -> Path:
    """Untrained weights of a tiny codebook."""
    about = card("gpemsr", "codebook", 8, TINY)
    torch.manual_seed(1)
    network = gpemsr.network("codebook", 8, 1, TINY)
    checkpoint.save(folder / "codebook.safetensors", network.state_dict(), about)
    return folder / "codebook.safetensors"


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's, in half its precision."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Vgg19("conv5_4", normalise=True).state_dict().items()}
    state = {name.replace("layers.", "features."): torch.full(shape, 0.01).half() for name, shape in shapes.items()}
    torch.save(state, path := tmp_path_factory.mktemp("vgg") / "vgg19.pth")
    return path


def asked(path: Path | None) -> dict[str, Any]:
    return {"perceptual": path and {"path": str(path), "sha256": ""}}


@torch.no_grad()
def test_features_are_vggs_last_convolution_or_a_codebooks(vgg: Path, tmp_path: Path) -> None:
    image = torch.rand(2, 1, 32, 48)
    made = networks.compared(asked(vgg), "cpu")(image)
    assert made.shape == (2, 512, 2, 3)
    layers = dict(Vgg19("conv5_4", normalise=True).layers.named_children())
    assert max(map(int, layers)) == 34, "torchvision's number of conv5_4"
    assert isinstance(layers["34"], torch.nn.Conv2d)
    coded = networks.compared(asked(path := codebook(tmp_path)), "cpu")(image)
    network: Any = checkpoint.load(path, stage="codebook")
    assert torch.equal(coded, network.encoder.features(image, stride=4))
    assert coded.shape[-2:] == (8, 12)


def test_the_loss_is_the_images_and_the_features(tmp_path: Path) -> None:
    looks = networks.compared(asked(codebook(tmp_path)), "cpu")
    network = wasa.build(2, 1, wasa.Options(8, 1, 4, "full", sa_scale=True, skip="seed"))
    objective = object.__new__(Image)
    context: Any = SimpleNamespace(perceptual=looks, device="cpu")
    objective.context, objective.stage, objective.network = context, STAGE, network
    rng = np.random.default_rng(0)
    lr, hr = (rng.integers(0, 256, shape, np.uint8) for shape in ((2, 1, 1, 8, 8), (2, 1, 16, 16)))
    losses = objective.losses(Batch(lr=lr, hr=hr, places=()), 0)
    sr, truth = network(torch.from_numpy(lr) / 255), torch.from_numpy(hr) / 255
    image, features = (sr - truth).abs().mean(), (looks(sr) - looks(truth)).abs().mean()
    torch.testing.assert_close(losses["loss"], 2 * image + 0.5 * features)
    torch.testing.assert_close(losses["perceptual"], features)
    losses["perceptual"].backward()
    assert all(p.grad is not None for p in network.parameters())


def training(perceptual: Path | None, model: str = "wasa") -> Any:
    return SimpleNamespace(model=SimpleNamespace(name=model), perceptual=perceptual and str(perceptual))


def test_what_cannot_be_compared_is_said_before_anything_runs(vgg: Path, tmp_path: Path) -> None:
    check_features.check(training(vgg), OPTIONS, STAGE)
    check_features.check(training(codebook(tmp_path)), OPTIONS, STAGE)
    with pytest.raises(ValueError, match="stage image: perceptual_weight compares features, and no weights are named"):
        check_features.check(training(None), OPTIONS, STAGE)
    with pytest.raises(ValueError, match="no weights are named"):
        networks.compared(asked(None), "cpu")
    with pytest.raises(ValueError, match="stage image of edsr compares no features: use perceptual_weight 0"):
        check_features.check(training(None, "edsr"), OPTIONS, STAGE)
    stage = replace(STAGE, perceptual_weight=0.0, adversarial_weight=1.0)
    with pytest.raises(ValueError, match="stage image of edsr trains no discriminator: use adversarial_weight 0"):
        check_features.check(training(None, "edsr"), OPTIONS, stage)
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match="holds no VGG19: missing"):
        check_features.check(training(tmp_path / "short.pth"), OPTIONS, STAGE)
    other = card("gpemsr", "flow", 8, TINY)
    checkpoint.save(tmp_path / "flow.safetensors", gpemsr.network("flow", 8, 1, TINY).state_dict(), other)
    with pytest.raises(ValueError, match="holds weights of stage flow, codebook is needed"):
        check_features.check(training(tmp_path / "flow.safetensors"), OPTIONS, STAGE)


def test_no_recipe_compares_unless_it_says_so() -> None:
    assert Stage("image", "image", 1, 1, 8, 1e-3).perceptual_weight == 0
