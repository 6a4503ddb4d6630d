"""Losses and scores of training as pure functions: tensors in, a scalar tensor out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5
CHARBONNIER = 1e-6  # keeps the root smooth at no difference (Lai et al. 2017, section 3.2)
AXES = (2, 3, 4)  # z, y, x of (batch, channels, z, y, x)


def wasserstein_generator(fake_logits: Tensor) -> Tensor:
    """-mean D(fake) (spec A.6)."""
    return -fake_logits.mean()


def wasserstein_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """0.5 * (mean D(fake) - mean D(real)), without hinge or clipping (spec A.6)."""
    return 0.5 * (fake_logits.mean() - real_logits.mean())


def logistic_generator(fake_logits: Tensor) -> Tensor:
    """-mean log D(fake), D being the sigmoid of the logits (Goodfellow et al. 2014; SRGAN, eq. 6)."""
    return functional.softplus(-fake_logits).mean()


def logistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-mean log D(real) - mean log (1 - D(fake)) (SRGAN, eq. 2)."""
    return functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()


def gradient_penalty(real: Tensor, real_logits: Tensor) -> Tensor:
    """R1: mean over the batch of the sum of |dD(x)/dx|^2 (Mescheder 2018, eq. 9; spec A.6).

    ``real`` (batch, ...) must require gradients and ``real_logits`` be computed from it.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def contextual_loss(x: Tensor, y: Tensor, bandwidth: float = 0.5, centre: Tensor | None = None) -> Tensor:
    """How badly the features ``x`` are covered by the features ``y``, wherever they lie (spec C.9; Mechrez 2018).

    ``x`` and ``y`` (batch, channels, y, x) with as many positions each. Features are centred by the mean of ``y`` over
    batch and space, or by ``centre`` (1, channels, 1, 1), that of a batch which these are part of; the distance is
    cosine. Memory grows with the square of the number of positions.
    """
    centre = y.mean(dim=(0, 2, 3), keepdim=True) if centre is None else centre
    x_unit = functional.normalize(x - centre, dim=1).flatten(2)  # (b, c, n)
    y_unit = functional.normalize(y - centre, dim=1).flatten(2)  # (b, c, m)
    distance = (1 - x_unit.transpose(1, 2) @ y_unit).clamp(min=0)  # (b, n, m)
    relative = distance / (distance.amin(dim=2, keepdim=True) + EPSILON)
    weight = torch.exp((1 - relative) / bandwidth)
    similarity = weight / (weight.sum(dim=2, keepdim=True) + EPSILON)
    best, where = similarity.max(dim=1)  # (b, m): the x nearest to each y
    share = torch.exp((1 - distance.gather(1, where.unsqueeze(1)).squeeze(1)) / bandwidth)
    return -torch.log((best * share).sum(1) / share.sum(1) + EPSILON).mean()


def endpoint_error(flow: Tensor, truth: Tensor, inside: Tensor, share: Tensor | None = None) -> Tensor:
    """Mean length of the difference of two flows (batch, 2, y, x) where ``inside`` (batch, 1, y, x) is 1, in pixels.

    ``share`` is the sum of ``inside`` over the whole batch divided by the parts that it comes in: the mean over parts
    is then that of the batch.
    """
    length = (flow - truth).square().sum(1, keepdim=True).add(1e-12).sqrt()
    return (length * inside).sum() / (inside.sum().clamp(min=1) if share is None else share)


def image_error(sr: Tensor, hr: Tensor, kind: str) -> Tensor:
    """Mean over all voxels of |d|, "absolute"; d^2, "squared"; or sqrt(d^2 + 1e-6), "charbonnier", with d = sr - hr."""
    difference = sr.float() - hr.float()
    if kind == "squared":
        return difference.square().mean()
    if kind == "charbonnier":
        return (difference.square() + CHARBONNIER).sqrt().mean()
    return difference.abs().mean()


def eight_bits(image: Tensor) -> Tensor:
    """An image in [0, 1] as the whole numbers 0 to 255 that it is written as, in float32."""
    return (image.float().clamp(0, 1) * 255).round()


def entropy(counts: Tensor) -> float:
    """Entropy in nat of a histogram ``counts`` (n,); the perplexity is its exponential."""
    share = counts.double() / counts.sum().clamp(min=1)
    return float(-(share * share.clamp(min=1e-30).log()).sum().item())


def class_balance(target: Tensor, known: Tensor, limit: float) -> Tensor:
    """Weights with which both classes of ``target`` count alike, within each patch and channel on its own.

    ``target`` and ``known`` (batch, channels, z, y, x) are 0 or 1. A class with n_c of the n known voxels weighs
    n / (2 n_c), cut to [1 / limit, limit], so beyond a share of 1 / (2 limit) a rare class weighs no more; limit 0
    weighs all alike. What is not known weighs 0.
    """
    known = known.float()
    if not limit:
        return known
    every = known.sum(AXES, keepdim=True)  # (b, c, 1, 1, 1)
    ones = (known * target).sum(AXES, keepdim=True)
    one, zero = ((every / (2 * count.clamp(min=1))).clamp(1 / limit, limit) for count in (ones, every - ones))
    return known * torch.where(target > 0, one, zero)


def affinity_error(logits: Tensor, target: Tensor, weight: Tensor, kind: str, share: Tensor | None = None) -> Tensor:
    """Weighted mean error of affinities in each patch and channel, then the mean over those that weigh anything.

    ``share`` is their number in the whole batch divided by the parts that it comes in, where these are one of them.
    All (batch, channels, z, y, x); the affinity is the sigmoid of ``logits``, ``target`` is 0 or 1. ``kind`` is
    "cross_entropy", in nat, or "squared". Computed in float32, whatever the precision of ``logits``.
    """
    logits, target = logits.float(), target.float()
    if kind == "squared":
        error = (logits.sigmoid() - target).square()
    else:
        error = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weights = weight.sum(AXES)  # (b, c)
    means = (error * weight).sum(AXES) / weights.clamp(min=EPSILON)
    return means.sum() / ((weights > 0).sum().clamp(min=1) if share is None else share)
