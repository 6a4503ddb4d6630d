"""What a config names is opened before anything is written: sources, ranges, labels, weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from emsr.commands.check import check, check_config
from emsr.commands.check_training import patch_rule
from emsr.config import parse
from emsr.models import checkpoint
from emsr.models.gpemsr import NEEDS, PRESETS, SCALES, network, stages
from project import Project

ROOT = Path(__file__).parents[1]
RAW = np.arange(6 * 32 * 32, dtype=np.uint8).reshape(6, 32, 32)


def write(path: Path, voxels: np.ndarray, resolution: bool = True, name: str = "volumes/raw") -> None:
    with h5py.File(path, "a") as file:
        file[name] = voxels
        if resolution:
            file[name].attrs["resolution"] = (40.0, 4.0, 4.0)


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A config with one good volume, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "v.h5", RAW)
    write(tmp_path / "v.h5", RAW.astype(np.uint64), name="volumes/labels/neuron_ids")
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    source = {"path": "v.h5", "dataset": "volumes/raw"}
    labels = {"path": "v.h5", "dataset": "volumes/labels/neuron_ids"}
    values["volumes"] = {"v": {"hr": source, "labels": labels, "degradation": {"kernel": "bicubic"}}}
    training = values["trainings"]["tissue"]
    data = [{"volume": "v", "train": [[0, 2]], "validation": [[4, 5]]}]
    values["trainings"] = {"t": {**training, "data": data}}
    return values


def test_a_good_config_passes(values: dict[str, Any], tmp_path: Path) -> None:
    check_config(parse(values))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "mine.yaml").write_text("jobs: 3")
    check([tmp_path / "config.yaml", tmp_path / "mine.yaml"])


def source_of(voxels: np.ndarray, **how: Any) -> Callable[[dict[str, Any]], None]:
    """Replace hr by another file; labels go."""

    def change(values: dict[str, Any]) -> None:
        write(Path("w.h5"), voxels, **how)
        values["volumes"]["v"] = {"hr": {"path": "w.h5", "dataset": "volumes/raw"}, "degradation": {"kernel": "area"}}

    return change


def put(*where: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        part = values
        for name in where[:-1]:
            part = part[name]
        part[where[-1]] = value

    return change


def with_lr(
    shape: tuple[int, int, int], size: tuple[float, float, float] | None = None
) -> Callable[[dict[str, Any]], None]:
    """Name a coarse image of a shape and voxel size beside hr."""

    def change(values: dict[str, Any]) -> None:
        write(Path("lr.h5"), np.zeros(shape, np.uint8), resolution=False)
        lr = {"path": "lr.h5", "dataset": "volumes/raw", "voxel_size_nm": size or (40, 32, 32)}
        values["volumes"]["v"].update(lr=lr, degradation=None)

    return change


def stage(name: str, value: dict[str, Any], **options: Any) -> Callable[[dict[str, Any]], None]:
    """Override a stage's recipe, and options of the model."""

    def change(values: dict[str, Any]) -> None:
        values["trainings"]["t"]["stages"][name] = value
        values["trainings"]["t"]["model"]["options"] = options

    return change


def recipe(preset: str, scale: int) -> Callable[[dict[str, Any]], None]:
    """Train as the model's file says."""

    def change(values: dict[str, Any]) -> None:
        model = {"name": "gpemsr", "preset": preset, "options": {}}
        values["trainings"]["t"].update(scale=scale, model=model, stages={stage: {} for stage in NEEDS})

    return change


def started(name: str, made: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Let a stage start from the weights of another network."""

    def change(values: dict[str, Any]) -> None:
        training = values["trainings"]["t"]
        save_weights("start", training, made)
        training["init_from"] = {name: "start.safetensors"}

    return change


def save_weights(name: str, training: dict[str, Any], made: dict[str, Any]) -> None:
    """Untrained weights with their card: what a training of the config would begin with, but for ``made``."""
    options = {**asdict(PRESETS["small"]), **made.get("options", {})}
    card = {"model": "gpemsr", "scale": training["scale"], "sections": 3, "window": 64, **made, "options": options}
    checkpoint.save(Path(f"{name}.safetensors"), checkpoint.network(card).state_dict(), card)


def other_network(key: str) -> Callable[[dict[str, Any]], None]:
    """Name a PyTorch file of something else as pretrained weights."""

    def change(values: dict[str, Any]) -> None:
        torch.save({"x": torch.zeros(3)}, "other.pth")
        values["trainings"]["t"].update({key: "other.pth"})
        values["trainings"]["t"]["model"]["options"] = {"mask_features": "vgg"}

    return change


EMPTY = safetensors.torch.save({})


def with_weights(card: dict[str, Any], content: bytes = b"") -> Callable[[dict[str, Any]], None]:
    """Name a weights file with its card, which states the hash of ``EMPTY``."""

    def change(values: dict[str, Any]) -> None:
        Path("w.safetensors").write_bytes(content)
        Path("w.json").write_text(json.dumps(card))
        values["volumes"]["v"]["weights"] = {"path": "w.safetensors"}

    return change


CARD = {
    "sha256": hashlib.sha256(EMPTY).hexdigest(),
    "model": "gpemsr",
    "options": {},
    "scale": 8,
    "sections": 3,
    "stage": "fusion",
    "window": 64,
}
HR = ("volumes", "v", "hr")
MISTAKES = [
    ("range outside", put("trainings", "t", "data", value=[{"volume": "v", "train": [[0, 7]], "validation": []}]),
     "train [0, 7] does not lie in volume v of 6 sections"),
    ("test outside", put("volumes", "v", "test", value=[[5, 9]]), "test [5, 9] does not lie in volume v of 6 sections"),
    ("missing dataset", put(*HR, "dataset", value="volumes/ram"), "volumes/ram"),
    ("truncated", lambda values: Path("v.h5").write_bytes(Path("v.h5").read_bytes()[:3000]), "v.h5"),
    ("empty file", lambda values: Path("v.h5").write_bytes(b""), "0 bytes"),
    ("no voxel size", source_of(RAW, resolution=False), "voxel"),
    ("another voxel size", put(*HR, "voxel_size_nm", value=[40, 5, 5]), "voxel"),
    ("float", source_of(RAW.astype(np.float32)), "float32"),
    ("not a number", source_of(np.full((4, 8, 8), np.nan, np.float32)), "float32"),
    ("colour", source_of(np.zeros((8, 8, 8, 3), np.uint8)), "4 axes"),
    ("colour as last axis", source_of(np.zeros((8, 8, 3), np.uint8)), "RGB"),
    ("labels of another shape", lambda values: write(Path("v.h5"), RAW.astype(np.uint64)[:5], name="other")
     or values["volumes"]["v"]["labels"].update(dataset="other"), "labels /other have shape [5, 32, 32]"),
    ("negative labels", lambda values: write(Path("v.h5"), RAW.astype(np.int64), name="other")
     or values["volumes"]["v"]["labels"].update(dataset="other"), "int64"),
    ("stride finer than the scale", put("trainings", "t", "model", "options", value={"latent_stride": 4}),
     "trainings.t: latent_stride 4 is finer than scale 8"),
    ("window off the latent grid", lambda values: values["trainings"]["t"].update(
        window=68, scale=4, model={"name": "gpemsr", "preset": "small", "options": {"latent_stride": 32,
        "channels": [8] * 6, "indexer_channels": [8] * 5}}), "window 68 is not a multiple of 8"),
    ("card of nothing", with_weights({"scale": 8}), "is no card of weights"),
    ("another stage", with_weights({**CARD, "stage": "indexer"}), "are of stage indexer; the whole network is fusion"),
    ("overlap of the window", with_weights({**CARD, "window": 8}), "overlap 8 leaves no step for window 8"),
    ("no window at all", with_weights({**CARD, "window": None}), "states no window; set superresolve.window"),
    ("options of another model", with_weights({**CARD, "options": {"colour": 3}}, EMPTY),
     "its card (Options.__init__() got an unexpected keyword argument 'colour'): train or import the weights again"),
    ("no options", with_weights({**CARD, "options": None}), "w.json is no card of weights: options is None"),
    ("shard that the scale of a file does not divide", lambda values: values["superresolve"].update(
        shard=[16, 516, 516], chunk=[16, 129, 129]) or with_weights(CARD)(values),
     "shard [16, 516, 516] is not a multiple of scale 8"),
    ("fewer coarse sections", with_lr((5, 4, 4)), "volumes.v: hr has 6 sections, lr 5"),
    ("coarse image of another place", with_lr((6, 4, 3)),
     "hr [6, 32, 32] is not lr [6, 4, 3] times scale 8 of training t"),
    ("coarse image of another scale", with_lr((6, 8, 8), (40, 16, 16)),
     "is not lr [6, 8, 8] times scale 8 of training t"),
    ("coarse voxels of another scale", with_lr((6, 4, 4), (40, 16, 16)),
     "voxel size [40.0, 16.0, 16.0] nm of lr is not [40.0, 4.0, 4.0] nm of hr times scale 8 of training t"),
    ("thinner coarse sections", with_lr((6, 4, 4), (30, 32, 32)), "voxel size [30.0, 32.0, 32.0] nm of lr is not"),
    ("labels of another voxel size", lambda values: write(Path("v.h5"), RAW.astype(np.uint64), False, "o")
     or values["volumes"]["v"]["labels"].update(dataset="o", voxel_size_nm=[40, 8, 8]),
     "volumes.v: voxel size [40.0, 8.0, 8.0] nm of labels is not [40.0, 4.0, 4.0] nm of hr"),
    ("hr smaller than the scale", source_of(RAW[:, :6, :]), "hr [6, 6, 32] is smaller than scale 8 of training t"),
    ("patch off the latent grid", stage("codebook", {"patch": 100}),
     "trainings.t: stage codebook: patch 100 is not a multiple of 16, which its network needs; use 96"),
    ("patch of hr less than a code", stage("codebook", {"patch": 4}), "use 16"),
    ("patch below a window of SSIM", lambda values: stage("codebook", {"patch": 4}, latent_stride=4)(values)
     or values["trainings"]["t"].update(scale=4), "patch 4 is not a multiple of 4 of at least 7, which its network"),
    ("patch below the discriminator", stage("codebook", {"patch": 64, "adversarial_weight": 0.1}),
     "patch 64 is not a multiple of 16 of at least 70, which its network needs; use 80"),
    ("patch that cuts a code", stage("indexer", {"patch": 25}), "patch 25 is not a multiple of 2 of at least 4"),
    ("patch off the pyramid", stage("fusion", {"patch": 18}),
     "stage fusion: patch 18 is not a multiple of 4, which its"),
    ("patch off the levels of flow", stage("flow", {"patch": 30}, flow_levels=4), "patch 30 is not a multiple of 8"),
    ("patch off the levels of correlation", stage("flow", {"patch": 30}, flow="correlation", flow_scale=4),
     "patch 30 is not a multiple of 4"),
    ("unknown flow network", stage("flow", {}, flow="spinet"), "option flow 'spinet' is unknown; did you mean"),
    ("nothing to learn for flow", stage("flow", {"displacement": 0}), "stage flow: displacement 0 gives"),
    ("a batch that cannot be cut", stage("fusion", {"batch": 4, "accumulate": 3}),
     "batch 4 of stage fusion is no multiple of 3 (accumulate 3)"),
    ("restarts without periods", stage("fusion", {"schedule": "restarts", "restarts": [5]}),
     "0 periods for 1 restarts"),
    ("few vectors", stage("codebook", {"kmeans_vectors": 20}), "kmeans_vectors 20 cannot initialise 512 entries"),
    ("two ways to learn entries", stage("codebook", {}, codebook_learning="gradient"), "not gradient; use 0"),
    ("unknown learning", stage("codebook", {}, codebook_learning="mean"), "codebook_learning 'mean' is unknown"),
    ("a width of nothing", stage("fusion", {}, deformable_groups=0), "trainings.t: "),
    ("a start of another stage", started("indexer", {"stage": "codebook"}),
     "weights of stage codebook, indexer is needed"),
    ("a start of another scale", started("indexer", {"stage": "indexer", "scale": 4}), "of scale 4, 8 is needed"),
    ("a start with other options", started("codebook", {"stage": "codebook", "options": {"entries": 100}}),
     "start.safetensors does not fit the network: misshapen codebook.entries is (100, 128) and not (512, 128)"),
    ("no SpyNet", other_network("spynet"), "trainings.t: other.pth is no SpyNet: missing"),
    ("no VGG19", other_network("perceptual"), "trainings.t: other.pth holds no VGG19: missing"),
    ("weights of nothing", with_weights(CARD | {"options": asdict(PRESETS["small"])}, EMPTY),
     "w.safetensors does not fit the network: missing first.weight"),
    ("other weights", with_weights(CARD, b"other"), "its card says"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(
    values: dict[str, Any], change: Callable[[dict[str, Any]], None], words: str
) -> None:
    change(values)
    before = sorted(Path().iterdir())
    with pytest.raises((ValueError, OSError)) as error:
        check_config(parse(values))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(Path().iterdir()) == before


GOOD = [
    ("hr that its scale does not divide", lambda values: source_of(np.zeros((6, 39, 33), np.uint8))(values)
     or with_lr((6, 4, 4), (40, 32.1, 31.9))(values)),
    ("the same weights to go on from", started("codebook", {"stage": "codebook", "scale": 4})),
    ("weights whose mask looks by the encoder", lambda values: started("fusion", {"stage": "fusion"})(values)
     or values["trainings"]["t"]["model"].update(options={"mask_features": "vgg"})),
    *[(f"recipe {preset} x{scale}", recipe(preset, scale)) for preset in PRESETS for scale in SCALES],
    ("patches of twins without prior", stage("fusion", {"patch": 20}, reference=False)),
    ("weights without window, and one set", lambda values: save_weights("w", values["trainings"]["t"], {
        "stage": "fusion", "window": None}) or values["superresolve"].update(window=32)
     or values["volumes"]["v"].update(weights={"path": "w.safetensors"})),
    ("a window that only another training takes", lambda values: values["superresolve"].update(window=36)
     or values["trainings"]["t"]["model"].update(options={"latent_stride": 64, "channels": [8] * 7,
        "indexer_channels": [8] * 5, "reference": False}) or values["trainings"]["t"]["stages"].update(
        codebook={"patch": 64}, indexer={"patch": 64})),
]  # fmt: skip


@pytest.mark.parametrize("change", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
def test_what_fits_passes(values: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    change(values)
    check_config(parse(values))


SMALL = {
    **{"latent": 8, "entries": 16, "tail_blocks": 1, "indexer_channels": (8, 8, 8), "width": 8, "front_blocks": 1},
    **{"back_blocks": 1, "deformable_groups": 1, "flow_widths": (8,), "flow_levels": 4, "flow_scale": 2},
}


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("number", range(4), ids=["flow", "codebook", "indexer", "fusion"])
def test_patches_are_what_the_networks_need(stride: int, number: int) -> None:
    """What is refused cannot be trained on, what is allowed can."""
    taught, scale = stages("small", 4)[number], 4
    options: Any = replace(PRESETS["small"], **SMALL, latent_stride=stride, channels=(8,) * 5)
    whole: Any = network("fusion", scale, 1, options)
    own: Any = network(taught.name, scale, 1, options)

    def gives(patch: int) -> int:
        """The side of the image that is compared with the truth, which should be as large as it."""
        if taught.name == "flow":
            return int(own.coarse_to_fine(*[torch.zeros(1, 1, 2 * patch, 2 * patch)] * 2)[-1].shape[-1]) * scale // 2
        if taught.name == "codebook":
            return int(own(torch.zeros(1, 1, patch, patch)).image.shape[-1]) * scale
        if taught.name == "indexer":
            return int(own(torch.zeros(1, 1, patch, patch)).shape[1]) * stride
        return int(own.eval()(torch.zeros(1, 1, 1, patch, patch)).shape[-1])

    for patch in range(4, 18):
        try:
            with torch.inference_mode():
                works = gives(patch) == scale * patch
        except (RuntimeError, ValueError):
            works = False
        assert works is (patch % patch_rule(options, taught, scale, whole.multiple)[0] == 0), patch


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "is not YAML"), ("- a", "holds no keys"), ("\xff", "is not YAML")]
)
def test_a_file_that_is_no_config_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=words) as error:
        check([tmp_path / "mine.yaml"])
    assert "\n" not in str(error.value)


@pytest.mark.workflow
def test_snakemake_ends_with_the_one_line(values: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is written, no traceback is shown and the folder is not left locked."""
    source_of(RAW.astype(np.float32))(values)
    project = Project(tmp_path, values)
    run = project.run(check=False)
    assert run.returncode == 1
    assert [line for line in run.output.splitlines() if "float32" in line] == [
        "emsr: error: w.h5: /volumes/raw is float32, images are uint8 or uint16: map its range to 0-255 (NaN to 0) "
        "and convert"
    ]
    assert "Traceback" not in run.output
    assert ", line " not in run.output
    assert not project.path().exists()
    again = project.run("-n")
    assert again.rules["ingest"] == 1
    assert "lock" not in again.output
