"""Affinity networks: what the published ones compute, which inputs they take, whose weights they load."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from affinity_goldens import FILE, NARROW, SHAPES, filled, numbers
from emsr import plugins
from emsr.commands.import_weights import import_weights
from emsr.layers.volumetric import middle
from emsr.models import affinity, affinity_geometry, checkpoint, published, published_affinity
from network_goldens import image

TOLERANCE = 2e-5
PARAMETERS = {"superhuman": 1_477_659, "mala": 81_489_387}  # spec D [run]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


# what the published networks compute


def golden(shared: Path) -> Any:
    spec = importlib.util.spec_from_file_location("golden_weights", shared / "golden" / "golden_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(source: Any, kind: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.asarray(array)) for key, array in source.state_dict(kind, 1).items()}


@torch.no_grad()
def test_superhuman_from_its_published_file(shared: Path, tmp_path: Path) -> None:
    source, out = golden(shared), tmp_path / "superhuman.safetensors"
    state = {f"module.{key}": tensor for key, tensor in weights(source, "superhuman").items()}
    torch.save({"model_weights": state, "current_iter": 3}, tmp_path / "superhuman.pt")
    import_weights(tmp_path / "superhuman.pt", stage="affinity", out=out)
    network = checkpoint.load(out, stage="affinity")
    said = network(torch.from_numpy(source.image((1, 1, 18, 64, 64), 51)))
    wanted = np.load(shared / "golden" / "superhuman.npz")["affinities"]
    np.testing.assert_allclose(said[:, :, ::3].numpy(), wanted, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_mala_of_a_published_window(shared: Path) -> None:
    """Of its 53 sections those that the last of the stored ones is made from: each of the 25 is made from 29."""
    source = golden(shared)
    state, _ = published_affinity.convert(weights(source, "mala"), "golden")
    with torch.device("meta"):
        network = affinity.build(affinity.PRESETS["mala"]).eval()
    network.load_state_dict(state, assign=True)
    said = network(torch.from_numpy(source.image((1, 1, 53, 268, 268), 51)[:, :, 24:]))
    wanted = np.load(shared / "golden" / "mala.npz")["affinities"]
    assert wanted.shape == (1, 3, 5, 56, 56)
    np.testing.assert_allclose(said.numpy(), wanted[:, :, 4:], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_parameter_counts(kind: str) -> None:
    with torch.device("meta"):
        network = affinity.build(affinity.PRESETS[kind])
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[kind]


def test_our_own_goldens() -> None:
    """A stranger has these alone."""
    found, wanted = numbers(), dict(np.load(FILE))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=TOLERANCE, err_msg=name)
        assert array.std((0, 2, 3, 4)).min() > 0.02, f"{name} hardly varies"


# which inputs they take


def valid_side(side: int, levels: int) -> int | None:
    """What a naive walk through mala leaves of ``side`` pixels; None if a pooling drops some or nothing is left."""
    for _ in range(levels):
        side -= 4
        if side < 3 or side % 3:
            return None
        side //= 3
    side -= 4
    for _ in range(levels):
        side = 3 * side - 4
    return side if side > 0 else None


def allowed(geometry: affinity_geometry.Geometry, shape: tuple[int, int, int]) -> bool:
    try:
        geometry.check(shape)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_malas_legal_sides_are_those_of_a_walk_through_it(levels: int) -> None:
    geometry = affinity_geometry.mala(levels)
    depth = geometry.least[0]
    for side in range(1, 400):
        left = valid_side(side, levels)
        shape = (depth, side, geometry.least[2])
        assert allowed(geometry, shape) == (left is not None), side
        if left is not None:
            assert geometry.output(shape)[1] == left


def test_geometry_is_the_specs() -> None:
    with torch.device("meta"):
        mala, superhuman = (affinity.build(affinity.PRESETS[kind]).geometry for kind in ("mala", "superhuman"))
    assert (mala.halo, mala.least, mala.step) == ((14, 106, 106), (29, 27 * 2 + 160, 27 * 2 + 160), (1, 27, 27))
    assert mala.output((53, 268, 268)) == (25, 56, 56)
    assert (superhuman.halo, superhuman.least, superhuman.step) == ((0, 0, 0), (1, 16, 16), (1, 16, 16))
    for preset, window in affinity.WINDOWS.items():
        with torch.device("meta"):
            geometry = affinity.build(affinity.PRESETS[preset]).geometry
        (stage,) = affinity.stages(preset, 1)
        geometry.check(window)
        geometry.check((stage.depth, stage.patch, stage.patch))
        assert window[0] == stage.depth


@cache
def without_data(name: str) -> Any:
    with torch.device("meta"):
        return affinity.build(NARROW[name])


@hypothesis.settings(max_examples=12)
@given(st.sampled_from(sorted(NARROW)), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_every_legal_shape_gives_what_geometry_says(name: str, z: int, y: int, x: int) -> None:
    network = without_data(name)
    with torch.device("meta"):
        steps = zip(network.geometry.least, network.geometry.step, (z, y, x), strict=True)
        shape = tuple(least + step * more for least, step, more in steps)
        assert network(torch.empty(2, 1, *shape)).shape == (2, 3, *network.geometry.output(shape))


@pytest.mark.parametrize(("kind", "shape", "message"), [
    ("superhuman", (1, 1, 4, 40, 32), "cannot take 40 voxels along y.* give 32 or 48"),
    ("superhuman", (1, 1, 4, 32, 8), "8 voxels along x are too few for the network: give at least 16"),
    ("superhuman", (1, 3, 4, 32, 32), r"image of shape \(1, 3, 4, 32, 32\) is not \(batch, 1, z, y, x\)"),
    ("superhuman", (1, 4, 32, 32), r"image of shape \(1, 4, 32, 32\) is not"),
    ("mala", (1, 1, 28, 268, 268), "28 voxels along z are too few for the network: give at least 29"),
    ("mala", (1, 1, 29, 187, 268), "187 voxels along y are too few for the network: give at least 214"),
    ("mala", (1, 1, 29, 268, 270), "cannot take 270 voxels along x, where sides are 214 and .* give 268 or 295"),
])  # fmt: skip
def test_other_inputs_are_refused_in_one_line(kind: str, shape: tuple[int, ...], message: str) -> None:
    network = affinity.build(NARROW[kind])
    with pytest.raises(ValueError, match=message) as caught:
        network(torch.zeros(shape))
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_valid_windows_need_no_blending() -> None:
    """Windows one step apart say the same of the voxels that both see: nothing at a window's edge reaches them."""
    network, whole = filled(NARROW["mala"]), image("whole", (1, 1, 31, 214, 268))
    said = network(whole)
    assert said.shape[2:] == (3, 2, 56)
    part = network(whole[:, :, 1:, :, 27:])
    torch.testing.assert_close(part, said[:, :, 1:, :, 27:], rtol=0, atol=1e-6)
    assert (part - said[:, :, 1:, :, : part.shape[-1]]).abs().max() > 1e-3, "other voxels differ"


def test_the_halo_is_no_larger_than_what_an_output_sees() -> None:
    network = filled(NARROW["mala"])
    seen = image("seen", (1, 1, 29, 214, 214)).requires_grad_()
    network.logits(seen)[0, :, 0].sum().backward()
    assert seen.grad is not None
    for axis in (2, 3, 4):
        others = [other for other in range(5) if other != axis]
        assert (seen.grad.abs().amax(others)[[0, -1]] > 0).all(), "the outermost voxels are used"


def test_the_middle_is_cut_evenly() -> None:
    """Margins of F: (skip - x) // 2."""
    skip = torch.arange(9.0).expand(1, 1, 1, 1, 9)
    assert middle(skip, torch.empty(1, 1, 1, 1, 5)).flatten().tolist() == [2, 3, 4, 5, 6]


# building and training


@pytest.mark.parametrize(("changes", "message"), [
    ({"kind": "unet"}, "kind 'unet' of an affinity network is unknown: use superhuman or mala"),
    ({"widths": (8, 8)}, r"widths \(8, 8\) make no superhuman: give at least 3, all positive"),
    ({"kind": "mala", "widths": (8,)}, r"widths \(8,\) make no mala: give at least 2"),
    ({"widths": (8, 0, 8, 8)}, "all positive"),
])  # fmt: skip
def test_options_that_make_no_network(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        affinity.build(replace(affinity.PRESETS["small"], **changes))


def test_it_is_no_super_resolver_and_has_one_stage() -> None:
    file = plugins.file_of("models", "affinity")
    assert plugins.output(file) == "affinity"
    assert plugins.output(plugins.file_of("models", "gpemsr")) == "sr"
    with pytest.raises(ValueError, match="stage 'fusion' is unknown: use affinity"):
        affinity.network("fusion", 1, 1, affinity.PRESETS["small"])


@pytest.mark.parametrize("name", ["superhuman", "mala"])
def test_untrained_networks_neither_vanish_nor_explode(name: str) -> None:
    """Kaiming's initialisation; every weight has a gradient."""
    network = affinity.build(NARROW[name]).train()
    logits = network.logits(image("any", (1, 1, *SHAPES[name])))
    assert 1e-2 < float(logits.detach().std()) < 10
    nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    idle = [key for key, p in network.named_parameters() if p.grad is None or (p.ndim == 5 and not p.grad.any())]
    assert idle == []


# published files


def released(kind: str) -> dict[str, Tensor]:
    """A narrow checkpoint as its authors save it."""
    state = filled(NARROW[kind]).state_dict()
    names = published_affinity.published_names(kind, state)
    return {f"module.{names[name]}": tensor for name, tensor in state.items()}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in published_affinity.KINDS:
        monkeypatch.setitem(affinity.PRESETS, kind, NARROW[kind])


@pytest.mark.parametrize("kind", published_affinity.KINDS)
@pytest.mark.parametrize("scale", [None, 1])
@pytest.mark.usefixtures("narrow")
def test_a_published_file_says_which_network_it_is(kind: str, scale: int | None, tmp_path: Path) -> None:
    torch.save({"model_weights": released(kind)}, tmp_path / "any_name.pt")
    out = tmp_path / "w.safetensors"
    import_weights(tmp_path / "any_name.pt", stage="affinity", scale=scale, out=out)
    card = checkpoint.load_card(out)
    depth, side, _ = affinity.WINDOWS[kind]
    wanted = {"model": "affinity", "preset": kind, "stage": "affinity", "scale": 1, "sections": 1, "depth": depth}
    wanted |= {"window": side}
    assert {key: card[key] for key in wanted} == wanted
    assert card["halo"] == list(filled(NARROW[kind]).geometry.halo)
    assert card["options"] == {**asdict(NARROW[kind]), "widths": list(NARROW[kind].widths)}
    own, loaded = filled(NARROW[kind]).state_dict(), checkpoint.load(out, stage="affinity").state_dict()
    assert loaded.keys() == own.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in own.items())


def without(key: str) -> Any:
    return lambda state: {name: tensor for name, tensor in state.items() if name != f"module.{key}"}


def with_(key: str, *shape: int) -> Any:
    return lambda state: state | {f"module.{key}": torch.zeros(*shape)}


@pytest.mark.parametrize(("kind", "spoil", "scale", "message"), [
    ("mala", without("dconv2.weight"), None, r"no published mala: missing dconv2\.weight; give another file"),
    ("superhuman", without("embed_in.0.weight"), None, r"no published superhuman: missing embed_in\.0\.weight"),
    ("superhuman", with_("out_put.0.bias", 2), None, r"misshapen out_put\.0\.bias is \(2,\) and not \(3,\)"),
    ("mala", with_("conv19.weight", 1), None, r"no published mala: unknown conv19\.weight"),
    ("mala", lambda state: {"weight": torch.zeros(1)}, None, r"holds no published affinity network \(weight\)"),
    ("mala", dict, 8, "scale 8 means nothing to stage affinity, whose networks keep the grid: leave it out"),
])  # fmt: skip
@pytest.mark.usefixtures("narrow")
def test_wrong_files(kind: str, spoil: Any, scale: int | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    torch.save({"model_weights": spoil(released(kind))}, file)
    with pytest.raises(ValueError, match=message) as caught:
        import_weights(file, stage="affinity", scale=scale, out=tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [file], "nothing is written"


@pytest.mark.usefixtures("narrow")
def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    state = {key: t.half() if t.is_floating_point() else t for key, t in released("superhuman").items()}
    torch.save({"model_weights": state}, tmp_path / "w.pt")
    taken, _ = published.import_weights(tmp_path / "w.pt", "affinity", None)
    assert {t.dtype for name, t in taken.items() if not name.endswith("num_batches_tracked")} == {torch.float32}


@pytest.mark.parametrize("kind", published_affinity.KINDS)
def test_published_names_are_distinct_and_look_published(kind: str) -> None:
    with torch.device("meta"):
        names = published_affinity.published_names(kind, affinity.build(affinity.PRESETS[kind]).state_dict())
    assert len(set(names.values())) == len(names) == {"superhuman": 196, "mala": 39}[kind]
    patterns = {"superhuman": r"(embed_in|embed_out|out_put|conv\d|center|up\d|cat\d)\.", "mala": r"d?conv\d+\.\w+$"}
    assert all(re.match(patterns[kind], theirs) for theirs in names.values())
