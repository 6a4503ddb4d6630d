"""The step `train` on volumes on disk: four stages of a network small enough for a test."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from emsr.durable import read_json
from emsr.inference import cost
from emsr.steps.train import train
from emsr.stores.card import write_card
from emsr.training.objectives import codebook, flow, image, indexer
from train_project import OPTIONS, SCALE, STAGES, pair, settings


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pair(tmp_path_factory.mktemp("volume"))


@pytest.fixture(scope="module", autouse=True)
def few_patches() -> Iterator[None]:
    """Health is measured on an eighth of the patches: nothing here depends on how many they are."""
    with pytest.MonkeyPatch.context() as patch:
        for owner in (codebook, flow, image, indexer):
            patch.setattr(owner, "HEALTH_PATCHES", 8)
        yield


@pytest.fixture
def counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations of a network are counted once: counting takes seconds, and these tests train it again and again."""
    count = cost.of_network

    def remembered(network: nn.Module, *given: Any) -> cost.Cost:
        asked = (str(network), given)
        if asked not in COUNTED:
            COUNTED[asked] = count(network, *given)
        network.to("cpu").eval()
        return COUNTED[asked]

    monkeypatch.setattr(cost, "of_network", remembered)


COUNTED: dict[Any, cost.Cost] = {}


@pytest.fixture(scope="module")
def trained(volume: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training")
    for stage in STAGES:
        train(settings(stage, volume, out), out / f"{stage}.json")
    return out


def test_each_stage_leaves_weights_card_curves_and_figures(trained: Path) -> None:
    for stage in STAGES:
        card = json.loads((trained / f"{stage}.json").read_text())
        content = (trained / f"{stage}.safetensors").read_bytes()
        assert card["sha256"] == hashlib.sha256(content).hexdigest()
        assert card["stage"] == stage
        seen = {"kernel": "bicubic", "scale": SCALE}
        assert card["degradation"] == (None if stage == "codebook" else seen), "the codebook sees no lr"
        assert card["scale"] == (SCALE if stage in ("indexer", "fusion") else 1)
        curve = json.loads((trained / f"{stage}.curve.json").read_text())
        assert [row["step"] for row in curve["validation"]] == list(range(3, STAGES[stage]["steps"] + 1, 3))
        stats = json.loads((trained / f"{stage}.stats.json").read_text())
        assert stats["seconds"] > 0
        assert (stats["attempts"], stats["steps"]) == (1, STAGES[stage]["steps"])
        assert not (trained / f"{stage}.checkpoint").exists()


HEALTH = {
    "flow": ["endpoint_error", "endpoint_error_without_flow"],
    "codebook": ["entries", "entries_used", "perplexity", "psnr", "ssim"],
    "indexer": ["top1", "majority_share", "cross_entropy", "unigram_entropy"]
    + [f"reference_{measure}_{of}" for measure in ("psnr", "ssim") for of in ("predicted", "true")],
    "fusion": ["psnr", "ssim", "bicubic_psnr", "bicubic_ssim"],
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_card_says_whether_the_stage_is_alive(trained: Path, stage: str) -> None:
    health = json.loads((trained / f"{stage}.json").read_text())["health"]
    assert set(HEALTH[stage]) <= set(health)
    assert all(np.isfinite(health[name]) for name in HEALTH[stage])


def test_the_whole_network_holds_the_frozen_stages_untouched(trained: Path) -> None:
    from emsr.models import checkpoint

    whole = checkpoint.load_state(trained / "fusion.json")
    for stage, prefix in (("flow", "flow."), ("indexer", "reference.indexer.")):
        for name, tensor in checkpoint.load_state(trained / f"{stage}.json").items():
            assert torch.equal(whole[prefix + name], tensor), name
    card = checkpoint.load_card(trained / "fusion.json")
    cost = card["cost"]
    assert cost["flops_per_window"] == 2 * (3 * cost["macs"]["section"] + cost["macs"]["centre"])
    assert min(cost["macs"].values()) > cost["parameters"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_settings_give_the_same_bytes(
    trained: Path, volume: dict[str, str], tmp_path: Path, stage: str
) -> None:
    out = tmp_path / f"{stage}.json"
    train(settings(stage, volume, trained), out)
    for suffix in (".json", ".safetensors", ".curve.json"):
        assert out.with_suffix(suffix).read_bytes() == (trained / f"{stage}{suffix}").read_bytes(), suffix


class KilledError(Exception):
    """Stands for kill -9: nothing after it runs."""


@pytest.mark.usefixtures("counted_once")
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(
    trained: Path, volume: dict[str, str], tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emsr.training.loop import Trainer

    advance, steps = Trainer.advance, []

    def killed(self: Trainer, step: int, batch: Any) -> float:
        steps.append(step)
        if step == 5 and steps[0] == 0 and len(steps) == 6:
            raise KilledError
        return advance(self, step, batch)

    monkeypatch.setattr(Trainer, "advance", killed)
    out = tmp_path / f"{stage}.json"
    with pytest.raises(KilledError):
        train(settings(stage, volume, trained), out)
    assert not out.exists()
    train(settings(stage, volume, trained), out)
    assert steps[6] == 4, "continues from the last state"
    stats = json.loads(out.with_suffix(".stats.json").read_text())
    assert (stats["attempts"], stats["steps"]) == (2, STAGES[stage]["steps"])
    assert out.read_bytes() == (trained / f"{stage}.json").read_bytes()
    assert out.with_suffix(".safetensors").read_bytes() == (trained / f"{stage}.safetensors").read_bytes()


def test_the_twin_without_prior_and_neighbours_trains(trained: Path, volume: dict[str, str], tmp_path: Path) -> None:
    model = {"name": "gpemsr", "preset": "small", "options": {**OPTIONS, "reference": False}}
    train(settings("fusion", volume, trained, model=model, sections=1), tmp_path / "fusion.json")
    card = json.loads((tmp_path / "fusion.json").read_text())
    assert card["cost"]["parameters"] < json.loads((trained / "fusion.json").read_text())["cost"]["parameters"]


def test_a_model_without_training_gets_a_card(volume: dict[str, str], tmp_path: Path) -> None:
    model = {"name": "bicubic", "preset": "small", "options": {}}
    data = [{"volume": "v", "hr": None, "lr": None, "train": [[0, 8]], "validation": [[10, 14]]}]
    chosen = settings("flow", volume, tmp_path, model=model, stage="untrained", overrides={}, data=data, scale=SCALE)
    train(chosen, tmp_path / "untrained.json")
    card = json.loads((tmp_path / "untrained.json").read_text())
    assert (card["window"], card["scale"], card["degradation"]) == (16, SCALE, None)


def test_fine_tuning_begins_with_the_weights_it_is_given(trained: Path, volume: dict[str, str], tmp_path: Path) -> None:
    from emsr.models import checkpoint

    start = {"path": str(trained / "codebook.safetensors"), "sha256": "from the settings"}
    train(settings("codebook", volume, trained, init_from=start, overrides={"steps": 0}), tmp_path / "codebook.json")
    begun, given = (checkpoint.load_state(folder / "codebook.json") for folder in (tmp_path, trained))
    assert all(torch.equal(begun[name], given[name]) for name in given)


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("indexer", {"init_from": "codebook"}, "holds weights of stage codebook, indexer is needed"),
        ("indexer", {"init_from": "indexer", "scale": 8}, "not lr .* times scale 8|of scale 4, 8 is needed"),
        ("indexer", {"cards": {"codebook": "flow"}}, "holds weights of stage flow, codebook is needed"),
        ("flow", {"range": [12, 15]}, r"validation range \[12, 15\] is outside volume v of 14 sections"),
        ("codebook", {"range": [12, 15]}, r"validation range \[12, 15\] is outside volume v of 14 sections"),
        ("codebook", {"train": [[2, 3]]}, "no undamaged section to draw patches for codebook training from in v"),
        ("flow", {"overrides": {"step": 3}}, "stage flow: key 'step' is unknown"),
    ],
)
def test_bad_settings_are_one_line(
    trained: Path, volume: dict[str, str], tmp_path: Path, stage: str, changes: dict[str, Any], message: str
) -> None:
    chosen = settings(stage, volume, trained)
    for key, value in changes.items():
        if key == "init_from":
            chosen[key] = {"path": str(trained / f"{value}.safetensors"), "sha256": ""}
        elif key == "cards":
            chosen[key] = {name: str(trained / f"{other}.json") for name, other in value.items()}
        elif key == "range":
            chosen["data"][0]["validation"] = [value]
        elif key == "train":
            chosen["data"][0]["train"] = value
        else:
            chosen[key] = value
    with pytest.raises(ValueError, match=message) as caught:
        train(chosen, tmp_path / "out.json")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.usefixtures("counted_once")
@pytest.mark.parametrize("stage", ["indexer", "fusion"])
def test_what_frozen_stages_said_is_kept_and_changes_no_bit(
    trained: Path, volume: dict[str, str], tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emsr.models.gpemsr import Gpemsr
    from emsr.models.vqgan import Vqgan
    from emsr.training.objectives import fusion, indexer

    looks: list[int] = []
    for owner, name in ((Gpemsr, "references"), (Vqgan, "indices")):
        inner = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, inner=inner: looks.append(1) or inner(*args))
    # patches as large as lr / 2 make a small lattice, so that patches recur
    overrides = {"steps": 20, "batch": 4, "patch": 12, "cache": True, "augment": False, "validate_every": 10}
    results = []
    for kept in (10**9, 0):
        monkeypatch.setattr(fusion, "KEPT_BYTES", kept)
        monkeypatch.setattr(indexer, "KEPT", kept)
        looks.clear()
        out = tmp_path / str(kept) / f"{stage}.json"
        asked = settings(stage, volume, trained, overrides=overrides)
        asked["data"][0] |= {"train": [[0, 2]], "validation": [[10, 11]]}
        train(asked, out)
        results.append((len(looks), [out.with_suffix(suffix).read_bytes() for suffix in (".safetensors", ".json")]))
    (few, one), (many, other) = results
    assert few < many / 2, many
    assert one == other


PUBLISHED = {
    "codebook": {
        **{"codebook_weight": 10.0, "commitment": 1.0, "adversarial_weight": 0.05, "adversarial_from": 3},
        **{"penalty_weight": 1e-4, "penalty_every": 2, "entries_decay": 0.0, "kmeans_vectors": 0, "unquantised": 0.0},
    },
    "fusion": {"contextual_weight": 0.01},
}


@pytest.mark.usefixtures("counted_once")
@pytest.mark.parametrize(("stage", "term"), [("codebook", "critic"), ("fusion", "contextual")])
def test_published_losses_train_and_go_on_after_a_kill(
    trained: Path, volume: dict[str, str], tmp_path: Path, stage: str, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emsr.training.loop import Trainer

    options = {**OPTIONS, "discriminator_channels": [4, 8], "codebook_learning": "gradient"}
    model = {"name": "gpemsr", "preset": "small", "options": options if stage == "codebook" else OPTIONS}
    overrides = {**STAGES[stage], **PUBLISHED[stage], "steps": 8, "checkpoint_every": 2, "precision": "float32"}
    chosen = settings(stage, volume, trained, overrides=overrides, model=model)
    train(chosen, tmp_path / "whole" / f"{stage}.json")
    curve = json.loads((tmp_path / "whole" / f"{stage}.curve.json").read_text())["training"]
    assert [term in row for row in curve] == [stage == "fusion" or step >= 3 for step in range(8)]

    advance = Trainer.advance

    def killed(self: Trainer, step: int, batch: Any) -> float:
        if step == 7:
            raise KilledError
        return advance(self, step, batch)

    monkeypatch.setattr(Trainer, "advance", killed)
    with pytest.raises(KilledError):
        train(chosen, tmp_path / "cut" / f"{stage}.json")
    monkeypatch.setattr(Trainer, "advance", advance)
    train(chosen, tmp_path / "cut" / f"{stage}.json")
    for suffix in (".safetensors", ".json"):
        one, other = ((tmp_path / folder / f"{stage}{suffix}").read_bytes() for folder in ("whole", "cut"))
        assert one == other


def test_a_finished_training_is_not_repeated(
    trained: Path, volume: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever makes a rule run again deletes its card; weights that nothing changed for are not trained anew."""
    for stage in STAGES:
        for file in trained.glob(f"{stage}.*"):
            shutil.copy2(file, tmp_path / file.name)
    asked = settings("indexer", volume, tmp_path)
    card = tmp_path / "indexer.json"
    train(asked, card)  # its paths are others than those it was trained with: a training of its own
    whole = card.read_bytes()
    card.unlink()

    def never(*_: object) -> None:
        raise RuntimeError("trained again")

    monkeypatch.setattr("emsr.training.loop.train", never)
    train(asked, card)
    assert card.read_bytes() == whole
    card.unlink()
    with pytest.raises(RuntimeError, match="trained again"):
        train({**asked, "seed": 1}, card)
    (tmp_path / "indexer.safetensors").write_bytes(b"torn")
    with pytest.raises(RuntimeError, match="trained again"):
        train(asked, card)


def test_an_indexer_of_another_codebook_is_refused(trained: Path, volume: dict[str, str], tmp_path: Path) -> None:
    """Shapes would fit, and every index would point at a wrong entry."""
    train(settings("codebook", volume, tmp_path, seed=5), tmp_path / "codebook.json")
    asked = settings("fusion", volume, trained)
    asked["cards"]["codebook"] = str(tmp_path / "codebook.json")
    with pytest.raises(ValueError, match=r"indexer.json was made with codebook .*: train indexer again"):
        train(asked, tmp_path / "fusion.json")


def test_without_vgg_weights_the_mask_looks_by_the_encoder(
    trained: Path, volume: dict[str, str], tmp_path: Path
) -> None:
    """Most users have no pretrained weights; the card says what the network was built with."""
    asked = settings("fusion", volume, trained)
    asked["model"]["options"] |= {"mask_features": "vgg"}
    asked["overrides"] |= {"steps": 1}
    train(asked, tmp_path / "fusion.json")
    assert json.loads((tmp_path / "fusion.json").read_text())["options"]["mask_features"] == "encoder"


@pytest.mark.parametrize(
    ("image", "z", "what", "stages", "why"),
    [
        ("hr", 9, "voxels", [], "between training and validation, as a test section"),
        ("lr", 9, "voxels", [], "as well in lr"),
        ("lr", 9, "damaged", [], "what is damaged elsewhere"),
        ("hr", 3, "voxels", ["codebook", "indexer", "fusion"], "flow reads lr alone"),
        ("lr", 3, "voxels", ["flow", "indexer", "fusion"], "the codebook reads hr alone"),
        ("lr", 13, "voxels", ["flow", "indexer", "fusion"], "validation chooses the weights"),
        ("hr", 2, "voxels", [], "damaged, so nothing is made from it"),
        ("lr", 2, "voxels", ["flow"], "damaged in hr alone"),
        ("lr", 4, "damaged", ["flow", "indexer", "fusion"], "a table without it"),
    ],
)
def test_only_sections_that_a_stage_sees_make_it_another_training(
    trained: Path, volume: dict[str, str], image: str, z: int, what: str, stages: list[str], why: str
) -> None:
    from emsr.steps.train_job import Job

    def identities() -> dict[str, str]:
        chosen = {stage: settings(stage, volume, trained) for stage in STAGES}
        return {stage: Job.read(chosen[stage], trained / f"{stage}.json").identity() for stage in STAGES}

    path, before = Path(volume[image]), identities()
    whole = path.read_text()
    card = read_json(path)
    if what == "damaged":
        card["damaged"][str(z)] = "black"
    else:
        card["section_sha256"][z] = 64 * "0"
    del card["sha256"]
    try:
        write_card(path, card)
        after = identities()
    finally:
        path.write_text(whole)
    assert [stage for stage in STAGES if before[stage] != after[stage]] == stages, why


@pytest.mark.usefixtures("counted_once")
def test_fine_tuning_takes_the_mask_of_the_weights_that_it_starts_from(
    trained: Path, volume: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published weights compare VGG19 features; those that emsr trained without VGG19 the encoder's."""
    from emsr.layers.features import Vgg19
    from emsr.models import checkpoint, gpemsr

    asked = settings("fusion", volume, trained, overrides={"steps": 0, "patch": 16})
    asked["model"]["options"] |= {"mask_features": "vgg"}
    with torch.random.fork_rng():
        network = gpemsr.build(SCALE, 3, gpemsr.Options(**{**card_options(trained), "mask_features": "vgg"}))
    assert isinstance(network.reference.look, Vgg19)  # type: ignore[union-attr]
    card = {**checkpoint.load_card(trained / "fusion.json"), "options": {**card_options(trained)}}
    card["options"]["mask_features"] = "vgg"
    checkpoint.save(tmp_path / "published.safetensors", network.state_dict(), card)
    for start, features in ((trained / "fusion.safetensors", "encoder"), (tmp_path / "published.safetensors", "vgg")):
        out = tmp_path / features / "fusion.json"
        train({**asked, "init_from": {"path": str(start), "sha256": ""}}, out)
        assert json.loads(out.read_text())["options"]["mask_features"] == features
        begun, given = checkpoint.load_state(out), checkpoint.load_state(start)
        assert all(torch.equal(begun[name], given[name]) for name in given)


def card_options(trained: Path) -> dict[str, Any]:
    """The options of the fusion network as its dataclass takes them."""
    options = json.loads((trained / "fusion.json").read_text())["options"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
