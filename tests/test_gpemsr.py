"""What gpemsr promises beyond the contract of models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from emsr.models import gpemsr
from network_goldens import TINY, any_numbers


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


def image(sections: int, side: int = 16) -> Tensor:
    return torch.rand(1, sections, 1, side, side)


@pytest.mark.parametrize(("change", "why"), [
    ({"reference": False}, "the twin without prior"),
    ({"latent_stride": 8}, "finer codes"),
    ({"latent_stride": 8, "attention": False}, "without attention on the finer grid"),
    ({"mask_features": "vgg"}, "VGG compares"),
    ({"flow_scale": 4, "flow_channels": 3}, "flow as published"),
    ({"flow": "correlation"}, "flow from correlation volumes"),
    ({"codebook_learning": "gradient", "normalise_latents": False}, "codebook as published"),
    ({"prior_blocks": 0}, "a lighter prior"),
])  # fmt: skip
def test_every_trainable_parameter_has_a_gradient(change: dict[str, Any], why: str) -> None:
    """None is dead, and what is frozen has none."""
    model = gpemsr.build(8, 3, replace(TINY, **change))
    any_numbers(model).train()
    model(image(3)).square().sum().backward()
    trained = set(map(id, model.trainable_parameters()))
    for name, parameter in model.named_parameters():
        moved = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert moved == (id(parameter) in trained), (name, why)
    frozen = [id(parameter) for part in model.frozen() for parameter in part.parameters()]
    assert trained.isdisjoint(frozen)


@torch.no_grad()
def test_neighbours_matter_and_their_order_too() -> None:
    model, lr = any_numbers(gpemsr.build(4, 3, TINY)), image(3)
    changed = lr.clone()
    changed[:, 0] = torch.rand_like(changed[:, 0])
    assert not torch.allclose(model(lr), model(changed))
    assert not torch.allclose(model(lr), model(lr.flip(1)))


@torch.no_grad()
def test_the_prior_matters() -> None:
    model, lr = any_numbers(gpemsr.build(8, 1, TINY)), image(1)
    before = model(lr)
    assert model.reference is not None
    model.reference.decoder.last.weight.data.mul_(-1)
    model.reference.decoder.blocks[0].body[0].weight.data.mul_(-1)
    assert not torch.allclose(before, model(lr))


@torch.no_grad()
def test_kept_references_change_nothing() -> None:
    model, lr = any_numbers(gpemsr.build(8, 3, TINY)), torch.rand(2, 3, 1, 16, 16)
    kept = model.references(lr.flatten(0, 1))
    torch.testing.assert_close(model(lr, kept), torch.cat([model(one[None]) for one in lr]), atol=1e-5, rtol=0)
    model.train()
    torch.testing.assert_close(model(lr), model(lr, kept), atol=1e-6, rtol=0)


@torch.no_grad()
def test_references_of_true_indices() -> None:
    """``decode`` takes any index map; that of the network's own gives the same as ``references``."""
    model, lr = any_numbers(gpemsr.build(8, 1, TINY)), image(1)[:, 0]
    assert model.reference is not None
    said = model.references(lr)
    again = model.reference.decode(lr, said.logits, said.logits.argmax(-1))
    assert torch.equal(said.image, again.image)
    assert [tuple(one.shape[-2:]) for one in said.features] == [(64, 64), (32, 32), (16, 16)]


@pytest.mark.parametrize(("side", "why"), [
    (4, "fewer positions than entries: each goes through the first convolution"),
    (8, "more positions than entries: each entry does, once"),
])  # fmt: skip
@torch.no_grad()
def test_entries_are_decoded_as_the_latents_that_they_are(side: int, why: str) -> None:
    codes = any_numbers(gpemsr.network("codebook", 8, 3, TINY))
    indices = torch.randint(0, TINY.entries, (2, side, side))
    features, decoded = codes.decoder.of_indices(indices, codes.codebook.entries)
    wanted, wanted_image = codes.decoder(codes.codebook.lookup(indices))
    for one, other in zip([*features, decoded], [*wanted, wanted_image], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6, msg=why)
    assert features[0].std() > 0


@torch.no_grad()
def test_half_precision_leaves_indices_likeness_and_flow_in_float32() -> None:
    model, lr = any_numbers(gpemsr.build(8, 3, TINY)), image(3)
    with torch.autocast("cpu", torch.bfloat16):
        said = model.references(lr[:, 0])
        flow = model.displacement(lr[:, 0], lr[:, 1])
        sr = model(lr)
    assert (said.logits.dtype, said.similarity.dtype, flow.dtype) == (torch.float32,) * 3
    torch.testing.assert_close(sr.float(), model(lr), atol=0.1, rtol=0)


def test_adopts_earlier_stages() -> None:
    model = gpemsr.build(8, 3, TINY)
    states = {stage: any_numbers(gpemsr.network(stage, 8, 3, TINY)).state_dict() for stage in gpemsr.NEEDS["fusion"]}
    for stage, state in states.items():
        model.adopt(stage, state)
    own, reference = model.state_dict(), model.reference
    assert reference is not None
    assert torch.equal(own["reference.codebook.entries"], states["codebook"]["codebook.entries"])
    assert torch.equal(own["reference.look.0.weight"], states["codebook"]["encoder.first.0.weight"])
    assert torch.equal(own["reference.decoder.last.weight"], states["codebook"]["decoder.last.weight"])
    assert torch.equal(own["reference.indexer.classify.bias"], states["indexer"]["classify.bias"])
    assert torch.equal(own["flow.levels.0.0.weight"], states["flow"]["levels.0.0.weight"])


def test_adopting_weights_of_other_options_names_what_differs() -> None:
    model = gpemsr.build(8, 3, TINY)
    other = gpemsr.network("codebook", 8, 3, replace(TINY, entries=16)).state_dict()
    with pytest.raises(ValueError, match=r"stage codebook, entries .* entries is \(16, 16\) and not \(32, 16\)"):
        model.adopt("codebook", other)


@torch.no_grad()
def test_encoder_features_of_each_stride() -> None:
    encoder = gpemsr.network("codebook", 8, 3, TINY).encoder
    hr = torch.rand(1, 1, 32, 32)
    for stride, channels in ((1, 8), (2, 8), (4, 16), (16, 16)):
        assert encoder.features(hr, stride).shape == (1, channels, 32 // stride, 32 // stride)
    with pytest.raises(ValueError, match="no features of stride 32"):
        encoder.features(hr, 32)


@torch.no_grad()
def test_latents_of_unit_size() -> None:
    latents = gpemsr.network("codebook", 8, 3, TINY).encoder(torch.rand(1, 1, 32, 32))
    torch.testing.assert_close(latents.square().mean(1), torch.ones(1, 2, 2), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("scale", "sections", "change", "message"), [
    (2, 3, {}, "scale 2 is not one of gpemsr's: use one of 4, 8, 16"),
    (8, 4, {}, "sections 4 have no centre"),
    (16, 3, {"latent_stride": 8}, "latent_stride 8 is finer than scale 16"),
    (8, 3, {"latent_stride": 12}, "latent_stride 12 is no power of two|latent_stride 12 is finer"),
    (8, 3, {"channels": (8, 8)}, r"channels \(8, 8\) are too few for latent_stride 16: give 5"),
    (4, 3, {"indexer_channels": (8, 8)}, "give 1 transitions: 2 needed"),
    (8, 3, {"mask_features": "both"}, "mask_features 'both' is unknown: use vgg or encoder"),
    (8, 3, {"deformable_groups": 3}, "deformable_groups 3 do not divide width 8"),
    (8, 3, {"norm_groups": 4}, "set one of them, the other 0"),
])  # fmt: skip
def test_illegal_networks(scale: int, sections: int, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        gpemsr.build(scale, sections, replace(TINY, **change))
    assert "\n" not in str(caught.value)


def test_illegal_windows() -> None:
    with pytest.raises(ValueError, match="lr window 18 x 16 is not a multiple of 4"):
        gpemsr.build(8, 1, TINY)(torch.rand(1, 1, 1, 18, 16))
    with pytest.raises(ValueError, match="reference is False"):
        gpemsr.build(8, 1, replace(TINY, reference=False)).references(torch.rand(1, 1, 16, 16))
