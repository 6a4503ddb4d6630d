"""The baseline without a network: smoothed grey levels as affinities, the same through every rule as a network's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from emsr.commands.check import check_config
from emsr.config import parse
from emsr.durable import read_json
from emsr.models import checkpoint, intensity
from emsr.models.intensity import Options
from emsr.steps.train import train
from segment_project import SHAPE, Chain, image
from sr_project import tissue_like
from test_segment_workflow import config, write

SOME = Options(sigma=(0.5, 1.0, 1.3), dark=0.35, bright=0.6)
TRAINING: dict[str, Any] = {
    "model": {
        "name": "intensity",
        "preset": "smoothed",
        "options": {"sigma": [0.5, 1, 1.3], "dark": 0.35, "bright": 0.6},
    },
    **{"stage": "untrained", "overrides": {"depth": 12}, "scale": 1, "sections": 1, "section_step": 1, "window": 40},
    **{"seed": 0, "threads": 1, "device": "cpu", "data": [], "cards": {}},
    **{"init_from": None, "perceptual": None, "spynet": None},
}


def expected(grey: np.ndarray, options: Options) -> np.ndarray:
    """Affinities (3, z, y, x) of a whole volume of grey levels in [0, 1], mirrored at its ends."""
    smooth = gaussian_filter(grey, options.sigma, mode="mirror")
    inside = np.pad(((smooth - options.dark) / (options.bright - options.dark)).clip(0, 1), 1, mode="reflect")
    here = inside[1:-1, 1:-1, 1:-1]
    lower = inside[:-2, 1:-1, 1:-1], inside[1:-1, :-2, 1:-1], inside[1:-1, 1:-1, :-2]
    return np.stack([np.minimum(here, below) for below in lower])


def built(options: Options) -> Any:
    return intensity.build(1, 1, options)


@pytest.mark.parametrize(
    "options",
    [SOME, Options((0.0, 0.0, 0.0), 0.0, 1.0), Options((1.0, 0.0, 2.0), 0.45, 0.5), Options((0.1, 0.7, 0.7), 0.4, 1)],
)
def test_it_is_scipys_gaussian_and_the_darker_of_two_voxels(options: Options) -> None:
    grey = tissue_like((9, 24, 21)) / 255
    network = built(options)
    halo = network.geometry.halo
    around = np.pad(grey, [(margin, margin) for margin in halo], mode="reflect")
    found = network(torch.from_numpy(around)[None, None])[0].numpy()
    assert found.shape == (3, 9, 24, 21) == (3, *network.geometry.output(around.shape))
    np.testing.assert_allclose(found, expected(grey, options), atol=1e-12)
    assert np.ptp(found) > 0.1, "grey voxels would show nothing"


def test_a_window_says_what_the_whole_says_bit_for_bit() -> None:
    network = built(SOME)
    grey = torch.from_numpy(tissue_like((14, 40, 37))).float()[None, None] / 255
    whole, (z, y, x) = network(grey), network.geometry.halo
    part = network(grey[..., 2:13, 5:36, 7:30])
    assert torch.equal(part, whole[..., 2 : 13 - 2 * z, 5 : 36 - 2 * y, 7 : 30 - 2 * x])


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("intensity")
    train(TRAINING, folder / "untrained.json")
    made = Chain(folder / "a")
    made.all(image(folder, tissue_like(SHAPE)), folder / "untrained.json")
    return made


def test_the_steps_make_of_a_volume_what_it_is_as_a_whole(chain: Chain) -> None:
    card = read_json(chain.folder.parent / "untrained.json")
    assert (card["depth"], card["window"], card["stage"]) == (12, 40, "untrained")
    found = chain.voxels("affinities.json").astype(int)
    wanted = 255 * expected(tissue_like(SHAPE) / 255, SOME)
    assert np.abs(found - wanted).max() < 0.51, "rounded once"
    assert (np.ptp(found, axis=(1, 2, 3)) == 255).all()


def test_windows_change_nothing(chain: Chain, tmp_path: Path) -> None:
    other = Chain(tmp_path, jobs=3, workers=2, shard=(9, 48, 32))
    other.affinities |= {"window": 23, "depth": 9}
    other.predict(chain.folder.parent / "hr.json", chain.folder.parent / "untrained.json")
    assert np.array_equal(other.voxels("affinities.json"), chain.voxels("affinities.json"))


def test_validation_chooses_its_threshold(chain: Chain, tmp_path: Path) -> None:
    labels = str(image(tmp_path, chain.segments(0.6), name="labels"))
    found = chain.choose({"labels": labels, "validation": [[2, 6]], "candidates": [0.4, 0.6, 0.8]})
    assert (found["threshold"], found["source"]) == (0.6, "validation")


# what a config may say


def stated(stage: dict[str, Any], window: int = 32, **options: Any) -> dict[str, Any]:
    """A config that segments hr without a network, the threshold chosen by validation."""
    values = copy.deepcopy(config())
    values["volumes"]["cube"]["segmentations"]["raw"] = {"image": "hr", "weights": "raw"}
    values["trainings"]["raw"] = {
        **values["trainings"]["membranes"],
        **{"window": window, "model": {"name": "intensity", "preset": "smoothed", "options": options}},
        **{"data": [{"volume": "cube", "image": "hr", "train": [], "validation": [[8, 9]]}]},
        "stages": {"untrained": stage},
    }
    return values


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("options", [{}, {"sigma": [1, 2, 2]}, {"sigma": [0, 0, 0], "dark": 0, "bright": 1}])
def test_what_fits_passes(options: dict[str, Any]) -> None:
    check_config(parse(stated({}, **options)))


@pytest.mark.usefixtures("project")
def test_without_validation_sections_a_threshold_is_stated() -> None:
    values = stated({})
    values["trainings"]["raw"]["data"] = []
    with pytest.raises(ValueError, match="raw has no validation sections in cube; state threshold"):
        parse(values)
    values["volumes"]["cube"]["segmentations"]["raw"]["threshold"] = 0.5
    check_config(parse(values))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ({}, {"sigma": [1, 2]}, r"sigma \(1, 2\) is not three numbers of at least 0: write voxels along z, y and x"),
        ({}, {"sigma": [1, -2, 2]}, r"sigma \(1, -2, 2\) is not three numbers of at least 0"),
        ({}, {"sigma": [1, 2, float("nan")]}, "is not three numbers of at least 0"),
        ({}, {"sigma": [1, 2, float("inf")]}, "is not three numbers of at least 0"),
        ({}, {"sigma": "wide"}, "sigma is 'wide'"),
        ({}, {"dark": 0.6}, "dark 0.6 and bright 0.55 must be parts of the range of grey levels, dark the lower"),
        ({}, {"dark": 0.55}, "use 0 <= dark < bright <= 1"),
        ({}, {"dark": -0.1}, "use 0 <= dark < bright <= 1"),
        ({}, {"bright": 140}, "use 0 <= dark < bright <= 1"),
        ({}, {"sigma": [1, 1, 1e9]}, "window 32: 32 voxels along x are too few for the network: give at least 800"),
        ({}, {"sigma": [4, 1, 1]}, "depth 32 and window 32: 32 voxels along z are too few .* give at least 35"),
        ({"depth": 0}, {}, "depth 0 and window 32: 0 voxels along z are too few for the network: give at least 9"),
    ],
)
def test_it_is_refused_in_one_line(stage: dict[str, Any], options: dict[str, Any], message: str) -> None:
    before = sorted(Path().iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        check_config(parse(stated(stage, **options)))
    assert "\n" not in str(caught.value)
    assert sorted(Path().iterdir()) == before


def test_other_options_are_other_weights(tmp_path: Path) -> None:
    """Scores tell networks apart by the hash of their weights."""
    card = {"model": "intensity", "options": {}, "scale": 1, "sections": 1, "stage": "untrained"}
    hashes = {
        checkpoint.save(tmp_path / "w.safetensors", intensity.build(1, 1, options).state_dict(), card)["sha256"]
        for options in (Options((1.0, 1.0, 1.0), 0.4, 0.5), Options((1.0, 1.0, 1.0), 0.4, 0.6))
    }
    assert len(hashes) == 2
