"""Losses against their formulas, and the contextual loss against the golden of the published code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from emsr.training import losses


def test_contextual_loss_equals_the_golden(shared: Path) -> None:
    golden = np.load(shared / "golden" / "contextual.npz")
    value = losses.contextual_loss(torch.from_numpy(golden["x"]), torch.from_numpy(golden["y"]))
    assert value.item() == pytest.approx(float(golden["loss"]), abs=2e-5)


def naive_contextual(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """The formula of spec C.9 with loops over positions."""
    mean = y.mean(axis=(0, 2, 3))
    total = 0.0
    for b in range(len(x)):
        a = [v - mean for v in x[b].reshape(x.shape[1], -1).T]
        c = [v - mean for v in y[b].reshape(y.shape[1], -1).T]
        d = np.array([[max(0.0, 1 - p @ q / np.linalg.norm(p) / np.linalg.norm(q)) for q in c] for p in a])
        w = np.exp((1 - d / (d.min(axis=1, keepdims=True) + 1e-5)) / bandwidth)
        s = w / (w.sum(axis=1, keepdims=True) + 1e-5)
        share = np.exp((1 - d[s.argmax(axis=0), np.arange(d.shape[1])]) / bandwidth)
        total += -math.log((s.max(axis=0) * share).sum() / share.sum() + 1e-5)
    return total / len(x)


def test_contextual_loss_equals_loops() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((2, 2, 6, 4, 5))
    value = losses.contextual_loss(torch.from_numpy(x), torch.from_numpy(y))
    assert value.item() == pytest.approx(naive_contextual(x, y, 0.5), rel=1e-9)


def naive_features(image: torch.Tensor, weights: list[torch.Tensor]) -> np.ndarray:
    """relu3_4 on the way of grey images through all 16 convolutions of VGG19, as torchvision lays it out."""
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x, kept = (image.repeat(1, 3, 1, 1) - mean) / std, image
    for number, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, padding=1))
        kept = x if number == 7 else kept
        x = torch.nn.functional.max_pool2d(x, 2) if number in (1, 3, 7, 11, 15) else x
    return kept.numpy()


def test_one_look_at_sr_cut_at_the_layer_gives_the_loss_of_many() -> None:
    """Against the published way: a copy of sr for each reference, each through the whole of VGG19."""
    from types import SimpleNamespace

    from emsr.layers.features import Vgg19
    from emsr.training.objectives.fusion import Fusion

    torch.manual_seed(0)
    look, sr, references = Vgg19("relu3_4", normalise=True), torch.rand(2, 1, 32, 32), torch.rand(6, 1, 32, 32)
    late = [(512, 256)] + 7 * [(512, 512)]
    rest = [each for shape in late for each in (torch.randn(*shape, 3, 3) / 48, torch.zeros(shape[0]))]
    weights = [*(parameter.detach() for parameter in look.parameters()), *rest]
    copies = sr.repeat_interleave(3, dim=0)
    naive = naive_contextual(naive_features(copies, weights), naive_features(references, weights), 0.5)
    passed: list[int] = []
    objective = Fusion.__new__(Fusion)
    objective.context = SimpleNamespace(perceptual=lambda image: passed.append(len(image)) or look(image))  # type: ignore
    wanted = objective.wanted(SimpleNamespace(image=references))  # type: ignore[arg-type]
    assert objective.contextual(sr, wanted, None).item() == pytest.approx(naive, abs=1e-5)
    assert passed == [6, 2], "sr goes through once"


def test_adversarial_losses_and_penalty_of_a_linear_critic() -> None:
    real, weight = torch.rand(4, 1, 3, 3, requires_grad=True), torch.randn(1, 1, 3, 3)
    logits = (real * weight).flatten(1).sum(1)
    assert losses.gradient_penalty(real, logits).item() == pytest.approx(weight.square().sum().item(), rel=1e-6)
    fake = torch.tensor([1.0, 3.0])
    assert losses.wasserstein_generator(fake).item() == -2.0
    assert losses.wasserstein_discriminator(torch.tensor([4.0]), fake).item() == -1.0


def test_endpoint_error_counts_only_inside() -> None:
    flow, truth = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    truth[0, :, 0, 0] = torch.tensor([3.0, 4.0])
    truth[0, :, 1, 1] = 1000.0
    inside = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert losses.endpoint_error(flow, truth, inside).item() == pytest.approx(2.5)


def test_entropy_of_a_uniform_histogram() -> None:
    assert losses.entropy(torch.full((64,), 3)) == pytest.approx(math.log(64))
    assert losses.entropy(torch.tensor([5, 0, 0])) == 0.0
