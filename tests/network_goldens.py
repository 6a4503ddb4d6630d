"""Our own golden numbers: what the networks give for weights drawn from a seed.

``python tests/network_goldens.py`` makes them. They were made while the published goldens held
(test_golden_published.py), so equal numbers prove the same to those who have not got them.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emsr.models import gpemsr, vqgan
from emsr.models.gpemsr import PRESETS, Options

FILE = Path(__file__).parent / "golden" / "networks.npz"
# the published network with fewer channels: every branch of it, and none of small's
NARROW = replace(
    PRESETS["published"],
    channels=(32, 32, 32, 64, 64),
    latent=32,
    entries=64,
    tail_blocks=1,
    discriminator_channels=(8, 16, 16, 32),
    indexer_channels=(32, 32, 32, 64, 64),
    width=16,
    front_blocks=1,
    back_blocks=2,
    deformable_groups=2,
    flow_features=4,
    flow_levels=3,
    flow_widths=(8, 8),
)
# small with fewer channels and blocks, for tests that build it often
TINY = replace(
    PRESETS["small"],
    channels=(8, 8, 16, 16, 16),
    latent=16,
    entries=32,
    tail_blocks=1,
    indexer_channels=(8, 8, 8, 16, 16),
    width=8,
    front_blocks=1,
    back_blocks=1,
    deformable_groups=2,
    flow_features=4,
    flow_levels=2,
    flow_widths=(8,),
)
# name: (options, scale, sections, lr y, lr x)
NETWORKS: dict[str, tuple[Options, int, int, int, int]] = {
    "narrow_x4": (NARROW, 4, 3, 16, 8),
    "narrow_x8": (NARROW, 8, 5, 8, 12),
    "narrow_x16": (NARROW, 16, 3, 8, 4),
    "small_x4": (PRESETS["small"], 4, 3, 16, 8),
    "small_x8": (PRESETS["small"], 8, 3, 8, 12),
    "small_x16": (PRESETS["small"], 16, 1, 4, 8),
    "no_reference_x8": (replace(PRESETS["small"], reference=False), 8, 3, 8, 8),
}
STEP = 7  # only every seventh pixel of an image is kept


def draw(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal float64 numbers that depend on name and seed alone."""
    return np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), seed])).standard_normal(shape)


def fill(module: nn.Module) -> nn.Module:
    """Give every tensor of ``module`` numbers that depend on its name, of the size that a trained one would have."""
    state = {name: torch.from_numpy(_tensor(name, tuple(old.shape))) for name, old in module.state_dict().items()}
    for name, old in module.state_dict().items():
        if old.dtype is not torch.float32 or name.endswith(("mean", "std")):
            state[name] = old
    module.load_state_dict(state)
    return module.eval()


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = draw(name, shape)
    if name.endswith("bias"):
        values *= 0.05
    elif name.endswith("entries"):
        values *= 0.5
    elif len(shape) == 1:  # the scale of a normalisation
        values = 1 + 0.1 * values
    else:
        gain = 0.3 if ".offsets." in name else 1.4 if "indexer" in name or "classify" in name else 1.0
        values *= gain / np.sqrt(np.prod(shape[1:]))
    return values.astype(np.float32)


def any_numbers(module: nn.Module) -> Any:
    """``module`` with random weights, for layers that start at zero would hide what passes through them."""
    for parameter in module.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return module.eval()


def card(name: str, stage: str, scale: int, options: Any) -> dict[str, Any]:
    """The least card of weights of model ``name``, as it comes back from a file."""
    stated = json.loads(json.dumps(asdict(options)))
    return {"model": name, "stage": stage, "scale": scale, "sections": 3, "options": stated}


def image(name: str, shape: tuple[int, ...]) -> Tensor:
    """A smooth test image in [0, 1] with noise, last axes y and x."""
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    wave = 0.5 + 0.25 * np.sin(0.7 * x + draw(name, (*shape[:-2], 1, 1))) * np.cos(0.45 * y)
    return torch.from_numpy(np.clip(wave + 0.08 * draw(name, shape, 1), 0, 1).astype(np.float32))


@torch.no_grad()
def numbers(name: str) -> dict[str, np.ndarray]:
    """What network ``name`` of NETWORKS gives."""
    options, scale, sections, y, x = NETWORKS[name]
    model = fill(gpemsr.build(scale, sections, options))
    lr = image(name, (1, sections, 1, y, x))
    found = {"sr": model(lr)[..., ::STEP, ::STEP], "flow": model.displacement(lr[:, 0], lr[:, sections // 2])}
    found["flow"] = found["flow"][..., ::STEP, ::STEP]
    if options.reference:
        said = model.references(lr[:, 0])
        best = said.logits.topk(2, dim=-1).values
        found |= {"indices": said.logits.argmax(-1), "gap": (best[..., 0] - best[..., 1]).min()}
        found |= {"reference": said.image[..., ::STEP, ::STEP], "similarity": said.similarity}
    return {key: value.numpy() for key, value in found.items()}


@torch.no_grad()
def codebook_numbers(options: Options) -> dict[str, np.ndarray]:
    """What the codebook network and the discriminator of ``options`` give."""
    made = fill(vqgan.build(options))(image("hr", (1, 1, 64, 48)), commitment=0.25)
    logits = fill(vqgan.Discriminator(options.discriminator_channels))(image("critic", (1, 1, 96, 80)))
    found = {"latents": made.latents, "indices": made.indices, "loss": made.loss, "logits": logits}
    found["reconstruction"] = made.image[..., ::STEP, ::STEP]
    return {key: value.numpy() for key, value in found.items()}


def every() -> dict[str, np.ndarray]:
    """All numbers, keys ``network/array``."""
    parts = {name: numbers(name) for name in NETWORKS}
    parts |= {"narrow_codebook": codebook_numbers(NARROW), "small_codebook": codebook_numbers(PRESETS["small"])}
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **every())  # type: ignore[arg-type]
