"""Pyramids, couplings and the networks made of them: what went down comes up again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.invertible import Coupling, Dense, Transform
from emsr.layers.pyramids import Haar, Laplacian
from emsr.models import irn, snadn
from network_goldens import any_numbers

IRN = irn.Options(blocks=2, layers=2, growth=6, max_h=0)
SNADN = replace(snadn.PRESETS["small"], blocks=2, growth=4, max_h=0, width=8)
OPTIONS: dict[str, tuple[Any, Any]] = {
    "irn": (irn, IRN),
    "irn, few coupled": (irn, replace(IRN, max_h=5)),
    "snadn": (snadn, SNADN),
    "snadn, attention in hr": (snadn, replace(SNADN, nlsa_position="hr")),
    "snadn, few coupled": (snadn, replace(SNADN, max_h=7)),
    "snadn, haar": (snadn, replace(SNADN, pyramid="haar")),
    "snadn, no attention": (snadn, replace(SNADN, attention=False)),
}
PAIRS = [("irn", 8), *((name, 4) for name in OPTIONS), ("snadn", 2)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(13)


def built(name: str, scale: int) -> Any:
    module, options = OPTIONS[name]
    return any_numbers(module.build(scale, 1, options))


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


# pyramids


@pytest.mark.parametrize("kind", [Haar, Laplacian])
@pytest.mark.parametrize("channels", [1, 3, 4])
@torch.no_grad()
def test_pyramids_come_back(kind: Any, channels: int) -> None:
    level, x = kind(channels), torch.rand(2, channels, 10, 14)
    for parameter in level.parameters():
        parameter.normal_()
    made = level(x)
    assert made.shape == (2, level.channels, 5, 7)
    assert difference(level.inverse(made), x) < 1e-6 * (1 + float(made.abs().max()))


@pytest.mark.parametrize("kind", [Haar, Laplacian])
@torch.no_grad()
def test_pyramids_begin_as_means(kind: Any) -> None:
    x = torch.rand(1, 3, 6, 8)
    torch.testing.assert_close(kind(3)(x)[:, :3], F.avg_pool2d(x, 2), atol=1e-6, rtol=0)


@torch.no_grad()
def test_haar_is_the_wavelet() -> None:
    """What differs along one axis alone is in the channel of that axis."""
    x = torch.zeros(1, 1, 2, 2)
    x[..., 0] = 1
    assert Haar(1)(x).flatten().tolist() == [0.5, 0.5, 0, 0]
    assert Haar(1)(x.mT).flatten().tolist() == [0.5, 0, 0.5, 0]
    assert Haar(1)(torch.eye(2)[None, None]).flatten().tolist() == [0.5, 0, 0, 0.5]


# couplings


def weighed(module: nn.Module, deviation: float = 0.02) -> Any:
    for parameter in module.parameters():
        parameter.data.normal_(0, deviation)
    return module


@pytest.mark.parametrize(("low", "high"), [(1, 4), (1, 15), (64, 64)])
@torch.no_grad()
def test_eight_couplings_come_back(low: int, high: int) -> None:
    module = partial(Dense, growth=8, layers=2, dilations=(1, 2), kernel=3 if low == 1 else 1)
    block, x = weighed(Transform(low, high, 8, module)), torch.randn(1, low + high + 2, 8, 8)
    made = block(x)
    assert difference(made, x) > 1e-3
    assert torch.equal(made[:, -2:], x[:, -2:]), "what is not coupled passes"
    assert difference(block.inverse(made), x) < 1e-5
    block, x = block.double(), x.double()
    assert difference(block.inverse(block(x)), x) < 1e-10
    with torch.autocast("cpu", torch.bfloat16):
        assert difference(block.float().inverse(block(x.float())), x) < 1e-5


def test_couplings_begin_as_nothing() -> None:
    x = torch.randn(1, 5, 6, 6)
    assert torch.equal(Transform(1, 4, 3, partial(Dense, growth=4, layers=2))(x), x)


def test_log_determinant_is_the_jacobians() -> None:
    block = weighed(Coupling(1, 3, partial(Dense, growth=3, layers=1, dilations=(1, 2))), 0.3).double()
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda flat: block(flat.view_as(x)).flatten(), x.flatten())
    found = torch.linalg.slogdet(jacobian).logabsdet
    assert abs(float(found)) > 0.1
    torch.testing.assert_close(block.log_determinant(x)[0], found, atol=1e-10, rtol=0)


@torch.no_grad()
def test_dense_module_is_its_formula() -> None:
    dense, x = any_numbers(Dense(3, 2, growth=4, layers=2, dilations=(1, 2), kernel=1)), torch.randn(1, 3, 9, 9)
    branches = []
    for dilation, (one, two) in zip((1, 2), dense.branches, strict=True):
        a = F.leaky_relu(F.conv2d(x, one.weight, one.bias, padding=dilation, dilation=dilation), 0.2)
        b = F.conv2d(torch.cat([x, a], 1), two.weight, two.bias, padding=dilation, dilation=dilation)
        branches += [a, F.leaky_relu(b, 0.2)]
    expected = F.conv2d(torch.cat([x, *branches], 1), dense.fuse.weight, dense.fuse.bias)
    torch.testing.assert_close(dense(x), expected, atol=1e-6, rtol=0)


# networks


@pytest.mark.parametrize(("name", "scale"), PAIRS)
@torch.no_grad()
def test_networks_come_back(name: str, scale: int) -> None:
    network, hr = built(name, scale), torch.rand(2, 1, 24, 32)
    lr, latents = network.down(hr)
    assert lr.shape == (2, 1, 24 // scale, 32 // scale)
    assert [tuple(part.shape[1:]) for part in latents] == network.latent_shapes(24 // scale, 32 // scale)
    assert difference(network.up(lr, latents), hr) < 1e-5
    assert difference(network.up(lr), hr) > 1e-2, "latents matter"


@torch.no_grad()
def test_odd_sizes_are_reflected_and_cut() -> None:
    network, hr = built("snadn", 4), torch.rand(1, 1, 21, 26)
    lr, latents = network.down(hr)
    assert lr.shape == (1, 1, 6, 7)
    assert difference(network.up(lr, latents, size=(21, 26)), hr) < 1e-5
    assert torch.equal(lr, network.down(F.pad(hr, (0, 2, 0, 3), mode="reflect"))[0])


def test_they_come_back_after_training_and_both_ways_share_parameters() -> None:
    network, hr = built("snadn", 2).train(), torch.rand(2, 1, 12, 12)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(50):
        optimiser.zero_grad()
        lr, latents = network.down(hr)
        loss = (network.up(F.avg_pool2d(hr, 2)) - hr).abs().mean() + latents[0].square().mean() + lr.square().mean()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        lr, latents = network.down(hr)
        assert difference(network.up(lr, latents), hr) < 1e-5
    optimiser.zero_grad()
    network.up(lr).sum().backward()
    coupling = network.levels[0].transform.blocks[0]
    assert all(bool(parameter.grad.any()) for parameter in coupling.phi.parameters())


@torch.no_grad()
def test_lr_begins_as_the_mean_of_boxes() -> None:
    hr = torch.rand(1, 1, 16, 24)
    for module, options in ((irn, irn.PRESETS["small"]), (snadn, replace(SNADN, pyramid="haar"))):
        lr, (latents,) = module.build(4, 1, options).down(hr)
        torch.testing.assert_close(lr, F.avg_pool2d(hr, 4), atol=1e-6, rtol=0)
        details = Haar(4)(Haar(1)(hr))[:, 1:]
        assert torch.equal(latents, 32 * details), "a latent of 1 is 1/32 of the range of grey"


@torch.no_grad()
def test_latents_zero_are_one_image_and_drawn_ones_are_many() -> None:
    network, lr = built("snadn", 4), torch.rand(1, 1, 6, 7)
    assert torch.equal(network.up(lr), network.up(lr))
    (shape,) = network.latent_shapes(6, 7)
    samples = torch.stack([network.up(lr, [torch.randn(1, *shape)]) for _ in range(4)])
    assert (samples.std(0) > 0).all()


# size


def count(module: Any, scale: int, options: Any, channels: int = 1) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in module.build(scale, 1, options, channels).parameters())


@pytest.mark.parametrize(("scale", "grey", "colour"), [
    (2, 1_441_472, 1_667_952), (4, 3_217_504, 4_355_136), (8, 6_331_776, 11_119_248),
])  # fmt: skip
def test_irn_has_the_published_parameters(scale: int, grey: int, colour: int) -> None:
    assert [count(irn, scale, irn.PRESETS["published"], channels) for channels in (1, 3)] == [grey, colour]


@pytest.mark.parametrize(("scale", "haar", "colour", "laplacian"), [
    (2, 777_920, 1_004_400, 805_810), (4, 1_890_400, 3_028_032, 2_169_440), (8, 4_341_120, 9_128_592, 6_326_490),
])  # fmt: skip
def test_snadn_has_the_counted_parameters(scale: int, haar: int, colour: int, laplacian: int) -> None:
    plain = replace(snadn.PRESETS["published"], attention=False)
    of_haar = replace(plain, pyramid="haar")
    assert [count(snadn, scale, of_haar, channels) for channels in (1, 3)] == [haar, colour]
    assert count(snadn, scale, plain) == laplacian
    published = {2: 1.0e6, 4: 3.2e6}
    assert scale not in published or abs(colour / published[scale] - 1) < 0.06


def test_the_wide_variant_has_the_counted_parameters() -> None:
    wide = snadn.PRESETS["wide"]
    assert [count(snadn, 2, wide), count(snadn, 2, wide, 3), count(snadn, 4, wide)] == [994_981, 1_003_055, 2_059_653]


# the wide variant


@torch.no_grad()
def test_both_ways_of_the_wide_variant() -> None:
    options = replace(SNADN, variant="B", width=8)
    for scale in (2, 4):
        network, hr = any_numbers(snadn.build(scale, 1, options)), torch.rand(1, 1, 24, 20)
        lr, latents = network.down(hr)
        assert lr.shape == (1, 1, 24 // scale, 20 // scale)
        assert [tuple(part.shape[1:]) for part in latents] == network.latent_shapes(24 // scale, 20 // scale)
        sr = network.up(lr, latents)
        assert sr.shape == hr.shape
        assert difference(sr, network.up(lr)) > 1e-4


@torch.no_grad()
def test_how_far_irn_sees() -> None:
    published = irn.PRESETS["published"]
    assert [irn.build(scale, 1, replace(published, growth=1)).halo for scale in (2, 4)] == [80, 120]
    plain = replace(snadn.PRESETS["published"], growth=1, attention=False)
    assert snadn.build(2, 1, plain).halo == 145
    assert snadn.build(2, 1, replace(plain, attention=True)).halo is None


@pytest.mark.parametrize(("module", "scale", "change", "message"), [
    (irn, 3, {}, "scale 3 is not one of irn's: use one of 2, 4, 8, 16"),
    (irn, 4, {"growth": 0}, "growth 0 makes no irn: use 1 or more"),
    (irn, 4, {"max_h": -1}, "max_h -1 makes no irn"),
    (snadn, 5, {}, "scale 5 is not one of snadn's"),
    (snadn, 4, {"variant": "C"}, "variant 'C' is unknown: use A or B"),
    (snadn, 4, {"pyramid": "steerable"}, "pyramid 'steerable' is unknown: use haar or laplacian"),
    (snadn, 4, {"nlsa_position": "both"}, "nlsa_position 'both' is unknown: use lr or hr"),
    (snadn, 4, {"width": 6}, "sparse attention of width 6"),
    (snadn, 4, {"variant": "B", "pyramid": "haar"}, "pyramid 'haar' is variant A's alone: leave it 'laplacian'"),
    (snadn, 4, {"variant": "B", "nlsa_position": "hr"}, "nlsa_position 'hr' is variant A's alone"),
])  # fmt: skip
def test_what_they_cannot_be(module: Any, scale: int, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.build(scale, 1, replace(module.PRESETS["small"], **change))
