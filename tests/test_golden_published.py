"""The networks compute what the published ones compute, to 2e-5 and indices exactly (../shared/golden)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emsr.layers.features import Vgg19
from emsr.models import gpemsr, indexer, published, vqgan
from network_goldens import FILE, every

TOLERANCE = 2e-5
PUBLISHED = gpemsr.PRESETS["published"]


@pytest.fixture(scope="module")
def golden(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_weights", shared / "golden" / "golden_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def arrays(shared: Path) -> Callable[[str], dict[str, np.ndarray]]:
    return lambda name: dict(np.load(shared / "golden" / f"{name}.npz"))


def tensors(golden: ModuleType, name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.asarray(array)) for key, array in golden.state_dict(name, 1).items()}


def check(found: Any, wanted: np.ndarray) -> None:
    """Equal to 2e-5, or exactly where the golden holds whole numbers."""
    array = found.detach().numpy()
    if np.issubdtype(wanted.dtype, np.integer):
        np.testing.assert_array_equal(array.reshape(wanted.shape), wanted)
    else:
        np.testing.assert_allclose(array, wanted.reshape(array.shape), rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def state_x16(golden: ModuleType) -> dict[str, Tensor]:
    return tensors(golden, "stage3_x16")


def published_network(scale: int, state: dict[str, Tensor]) -> gpemsr.Gpemsr:
    with torch.device("meta"):
        model = gpemsr.build(scale, 5, PUBLISHED).eval()
    model.load_state_dict(published.convert(state, "fusion", scale, "golden"), assign=True)
    return model


@torch.no_grad()
def test_x8_with_every_intermediate(golden: ModuleType, arrays: Any) -> None:
    model, wanted = published_network(8, tensors(golden, "stage3_x8")), arrays("gpemsr_x8")
    lr = torch.from_numpy(golden.image((1, 5, 1, 16, 16), 11))
    check(lr, wanted["lr"])
    said = [model.references(lr[:, i]) for i in range(5)]
    check(torch.cat([one.logits.argmax(-1) for one in said]), wanted["indices"])
    check(torch.cat([one.image for one in said]), wanted["reference"])
    assert model.prior is not None
    check(torch.cat([model.prior.mask.logits(one.similarity) for one in said]), wanted["mask_logits"])
    check(model.front(torch.nn.functional.leaky_relu(model.first(lr[0]), 0.1)), wanted["features"])
    states = [model.section(lr[:, i]) for i in range(5)]
    check(torch.cat([state[1] for state in states]), wanted["prior_fused"])
    check(model.displacement(lr[:, 0], lr[:, 2]), wanted["flow_0"])
    aligned = [model.align(state, states[2]) for state in states]
    check(aligned[0], wanted["aligned_0"])
    fused = model.attention(aligned)
    check(fused, wanted["fused"])
    check(model.back(fused), wanted["trunk"])
    check(model.reconstruct(fused, lr[:, 2]), wanted["sr"])
    check(model(lr), wanted["sr"])


@torch.no_grad()
def test_x16_at_a_size_that_flow_resizes(golden: ModuleType, arrays: Any, state_x16: dict[str, Tensor]) -> None:
    model = published_network(16, state_x16)
    wanted, lr = arrays("gpemsr_x16"), torch.from_numpy(golden.image((1, 5, 1, 16, 12), 12))
    check(torch.cat([model.references(lr[:, i]).logits.argmax(-1) for i in range(5)]), wanted["indices"])
    check(model.displacement(lr[:, 0], lr[:, 2]), wanted["flow_0"])
    check(model(lr), wanted["sr"])


@torch.no_grad()
def test_codebook_network_and_discriminator(golden: ModuleType, arrays: Any) -> None:
    model, wanted = vqgan.build(PUBLISHED).eval(), arrays("vqgan")
    model.load_state_dict(published.convert(tensors(golden, "stage1_generator"), "codebook", 8, "golden"))
    made = model(torch.from_numpy(golden.image((1, 1, 64, 64), 13)), commitment=1.0)
    check(made.latents, wanted["latent"])
    check(made.indices, wanted["indices"])
    check(made.loss, wanted["codebook_loss"])
    check(made.image, wanted["reconstruction"])
    critic = vqgan.Discriminator(PUBLISHED.discriminator_channels)
    state = tensors(golden, "stage1_discriminator")
    critic.load_state_dict({key.replace("model.", "layers."): tensor for key, tensor in state.items()})
    check(critic(torch.from_numpy(golden.image((1, 1, 96, 96), 14))), wanted["disc_logits"])


@pytest.mark.parametrize(("layer", "normalise", "name"), [
    ("relu1_2", False, "relu1_2"),  # of the similarity mask, first convolution summed to one channel
    ("relu3_4", True, "relu3_4_normalised"),  # of the contextual loss
])  # fmt: skip
@torch.no_grad()
def test_vgg(
    golden: ModuleType,
    arrays: Any,
    state_x16: dict[str, Tensor],
    tmp_path: Path,
    layer: Any,
    normalise: bool,
    name: str,
) -> None:
    given = {key: tensor for key, tensor in state_x16.items() if key.startswith("vgg.")}
    torch.save(given, tmp_path / "vgg.pth")
    model = Vgg19(layer, normalise)
    model.load_state_dict(published.vgg_state(tmp_path / "vgg.pth", layer, normalise))
    check(model(torch.from_numpy(golden.image((1, 1, 32, 32), 61))), arrays("vgg")[name])


@pytest.mark.parametrize(("name", "stage", "scale"), [
    ("stage1_generator", "codebook", 4),  # one codebook serves every scale
    ("stage2_x8_indexer", "indexer", 8),
    ("stage2_x16_indexer", "indexer", 16),
])  # fmt: skip
def test_published_files_of_earlier_stages_fit(golden: ModuleType, name: str, stage: str, scale: int) -> None:
    given = tensors(golden, name)
    state = published.convert(given, stage, scale, "golden")
    network = gpemsr.network(stage, scale, 5, PUBLISHED)
    network.load_state_dict(state)
    assert sum(t.numel() for t in state.values()) == sum(t.numel() for t in given.values())


def count(module: torch.nn.Module, *, buffers: bool = False) -> int:
    held = module.state_dict().values() if buffers else module.parameters()
    return sum(tensor.numel() for tensor in held)


def test_parameter_counts() -> None:
    """Of spec A, B, C and D, [run]."""
    with torch.device("meta"):
        codes = vqgan.build(PUBLISHED)
        models = {scale: gpemsr.build(scale, 5, PUBLISHED) for scale in (8, 16)}
        indexers = {scale: indexer.build(scale, PUBLISHED) for scale in (8, 16)}
        critic = vqgan.Discriminator(PUBLISHED.discriminator_channels)
    assert count(codes.encoder) == 18_691_136
    assert count(codes.codebook) == 524_288
    assert count(codes.decoder) == 23_338_177
    assert count(codes) == 42_553_601
    assert count(critic) == 2_761_793
    assert {scale: count(model) for scale, model in indexers.items()} == {8: 20_034_176, 16: 22_527_616}
    assert count(models[8].flow) == 1_440_300
    assert count(models[8].alignment) == 1_452_928
    assert count(models[8].attention) == 369_724
    trained = {scale: sum(p.numel() for p in model.trainable_parameters()) for scale, model in models.items()}
    assert trained == {8: 5_458_622 - 885_184, 16: 5_610_430}  # x8 has no dead layers here
    assert {scale: round(count(model, buffers=True) / 1e6, 2) for scale, model in models.items()} == {
        8: 49.95,
        16: 53.48,
    }


def test_our_own_goldens() -> None:
    """Made while everything above held; a stranger has these alone."""
    with np.load(FILE) as file:
        wanted = dict(file)
    found = every()
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        if name.endswith("/indices"):
            np.testing.assert_array_equal(found[name], array, err_msg=name)
        else:
            np.testing.assert_allclose(found[name], array, rtol=0, atol=TOLERANCE, err_msg=name)
    gaps = [float(array) for name, array in wanted.items() if name.endswith("/gap")]
    assert min(gaps) > 1e-3, "indices can only be equal everywhere where the two best logits differ"
