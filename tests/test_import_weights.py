"""Published checkpoints are read by their own keys; what is wrong with one is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emsr.commands.import_weights import import_weights
from emsr.models import checkpoint, gpemsr, published
from network_goldens import NARROW, fill, image

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published preset with few channels, so that a checkpoint is small."""
    monkeypatch.setitem(gpemsr.PRESETS, "published", NARROW)


def released(stage: str, scale: int) -> State:
    """A checkpoint as its authors save it: their keys, and in stage 3 what inference never uses."""
    network = fill(gpemsr.network(stage, scale, published.SECTIONS, NARROW))
    state = {published.published_name(stage, name): tensor for name, tensor in network.state_dict().items()}
    if stage == "fusion":
        grey = state["vgg.slice1.0.weight"]
        state["vgg.slice1.0.weight"] = grey * torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1)
        for k in (1, 2):
            state[f"ThreeDA.conv3D_{k}.weight"] = state[f"ThreeDA.conv3D_{k}.weight"].unsqueeze(4)
        state |= {"vgg.slice2.5.weight": torch.zeros(1), "refmodel.encoder.input_layer.0.weight": torch.zeros(1)}
        if scale == 8:
            state |= {"reffea_L4_conv1.weight": torch.zeros(1), "fusion_fea_block4.0.conv1.bias": torch.zeros(1)}
    return state


@pytest.mark.parametrize(("stage", "scale"), [
    ("codebook", 4),  # serves every scale
    ("codebook", 8),
    ("indexer", 8),
    ("indexer", 16),
    ("fusion", 8),
    ("fusion", 16),
])  # fmt: skip
@torch.no_grad()
def test_imported_weights_compute_the_same(stage: str, scale: int, tmp_path: Path) -> None:
    torch.save(released(stage, scale), tmp_path / "stage.pth")
    out = tmp_path / "weights.safetensors"
    import_weights(tmp_path / "stage.pth", stage=stage, scale=scale, out=out)
    loaded = checkpoint.load(out, stage=stage, scale=scale)
    own = fill(gpemsr.network(stage, scale, published.SECTIONS, NARROW)).state_dict()
    assert loaded.state_dict().keys() == own.keys()
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, own[name], msg=name)
    if stage == "fusion":  # needs no further file: VGG and SpyNet are in it
        assert loaded(image("lr", (1, 5, 1, 8, 8))).shape == (1, 1, 8 * scale, 8 * scale)


def test_the_card_says_where_weights_come_from(tmp_path: Path) -> None:
    torch.save(released("indexer", 16), tmp_path / "stage2_x16.pth")
    import_weights(tmp_path / "stage2_x16.pth", stage="indexer", scale=16, out=tmp_path / "w.safetensors")
    card = checkpoint.load_card(tmp_path / "w.safetensors")
    wanted = {"model": "gpemsr", "preset": "published", "stage": "indexer", "scale": 16, "sections": 5, "window": 64}
    assert {key: card[key] for key in wanted} == wanted
    assert card["training"]["imported"]["file"] == "stage2_x16.pth"


@pytest.mark.parametrize(("wrap", "why"), [
    (lambda state: {"params": state}, "as BasicSR saves"),
    (lambda state: {"state_dict": state}, "as Lightning saves"),
    (lambda state: {f"module.{name}": tensor for name, tensor in state.items()}, "as DataParallel saves"),
    (lambda state: {name: tensor.half() for name, tensor in state.items()}, "half precision"),
])  # fmt: skip
def test_wrappings(wrap: Callable[[State], Any], why: str, tmp_path: Path) -> None:
    torch.save(wrap(released("indexer", 16)), tmp_path / "w.pth")
    state, _ = published.import_weights(tmp_path / "w.pth", "indexer", 16)
    assert all(tensor.dtype is torch.float32 for tensor in state.values()), why


def without(*names: str) -> Callable[[State], Any]:
    return lambda state: {name: tensor for name, tensor in state.items() if name not in names}


def reshaped(state: State) -> State:
    return state | {"conv_last.weight": torch.zeros(3, 16, 3, 3)}


@pytest.mark.parametrize(("spoil", "stage", "scale", "message"), [
    (without("HRconv.bias", "upconv1.weight"), "fusion", 8, "missing upconv1.weight, HRconv.bias"),
    (reshaped, "fusion", 8, r"misshapen conv_last.weight is \(3, 16, 3, 3\) and not \(1, 16, 3, 3\)"),
    (lambda state: state | {"extra.weight": torch.zeros(1)}, "fusion", 8, "unknown extra.weight"),
    (dict, "fusion", 16, "no published x16 checkpoint of stage fusion: missing .*check --stage, --scale"),
    (dict, "indexer", 8, "no published x8 checkpoint of stage indexer: missing input_layer.0.weight"),
    (dict, "flow", 8, "stage 'flow' was not published: use one of codebook, indexer, fusion, affinity"),
    (dict, "fusion", 3, "scale 3 is not one of gpemsr's"),
    (dict, "fusion", None, "stage fusion has weights for each scale: say which with --scale, one of 4, 8, 16"),
    (lambda state: [1, 2], "fusion", 8, "holds no dictionary of tensors"),
    (lambda state: {"epoch": 3}, "fusion", 8, "holds no dictionary of tensors"),
])  # fmt: skip
def test_wrong_checkpoints(
    spoil: Callable[[State], Any], stage: str, scale: int | None, message: str, tmp_path: Path
) -> None:
    file, out = tmp_path / "stage3_x8.pth", tmp_path / "w.safetensors"
    torch.save(spoil(released("fusion", 8)), file)
    with pytest.raises(ValueError, match=message) as caught:
        import_weights(file, stage=stage, scale=scale, out=out)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [file], "nothing is written"


@pytest.mark.parametrize(("content", "why"), [
    (b"", "empty"),
    (b"\x80\x02}q\x00.", "a pickle of an empty dictionary, in no archive"),
    (b"PK\x03\x04 half an archive", "truncated"),
    (b"<html>not found</html>", "a failed download"),
])  # fmt: skip
def test_files_that_are_no_weights(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth (cannot be read|holds no|is no)") as caught:
        published.import_weights(file, "indexer", 8)
    assert "\n" not in str(caught.value), why


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": Path("x")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="cannot be read as PyTorch weights"):
        published.read(tmp_path / "w.pth")


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pth does not exist"):
        published.read(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match=r"does not end in \.safetensors"):
        import_weights(tmp_path / "w.pth", stage="fusion", scale=8, out=tmp_path / "w.pth")


def test_spynet_files_leave_mean_and_std_out(tmp_path: Path) -> None:
    network = fill(gpemsr.flow_network(NARROW))
    names = {name: name.replace("levels.0.", "levels.0.") for name, _ in network.named_parameters()}
    theirs = {name: "basic_module." + name.removeprefix("levels.").replace(".", ".basic_module.", 1) for name in names}
    torch.save({"params": {theirs[name]: p.data for name, p in network.named_parameters()}}, tmp_path / "spynet.pth")
    state = published.spynet_state(tmp_path / "spynet.pth", NARROW)
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    torch.save({"params": {}}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"is no SpyNet: missing levels\.0\.0\.weight"):
        published.spynet_state(tmp_path / "empty.pth", NARROW)


def test_vgg_comes_from_torchvisions_file(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64)}
    state = {f"features.{i}.weight": torch.randn(*shape, 3, 3, generator=draw) for i, shape in shapes.items()}
    state |= {f"features.{i}.bias": torch.randn(shape[0], generator=draw) for i, shape in shapes.items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg19.pth")
    taken = published.vgg_state(tmp_path / "vgg19.pth", "relu1_2", normalise=False)
    torch.testing.assert_close(taken["layers.0.weight"], state["features.0.weight"].sum(1, keepdim=True))
    assert set(taken) == {f"layers.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    with pytest.raises(ValueError, match=r"holds no VGG19: missing layers\.5\.weight|missing layers\.7\.weight"):
        published.vgg_state(tmp_path / "vgg19.pth", "relu3_4", normalise=True)
