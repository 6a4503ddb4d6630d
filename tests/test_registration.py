"""Coarse and fine images taken apart: what was done to one is found again, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from scipy.ndimage import map_coordinates

from emsr import degradation, registration
from emsr.commands.check import check_config
from emsr.config import parse
from emsr.registration import Image, Similarity
from emsr.settings import Settings
from emsr.slices import result_number
from emsr.steps.data import ingest
from emsr.steps.registration import register
from emsr.steps.score import score
from emsr.steps.series import identity, series
from emsr.stores.card import read_card
from emsr.stores.zarr import open_array
from project import Project

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
SIDE, SCALE = 96, 4  # lr pixels of a section; hr has so many times as many
LR_NM = 32.0
LAYOUT = {"shard": [4, 128, 128], "chunk": [2, 64, 64]}
STATED = {"limit_nm": 6.0, "kernel": "bicubic"}
Warp = tuple[float, float, float, float]  # shift y, x in lr pixels, degrees, scale
Texture = Callable[[np.ndarray], np.ndarray]


def texture(seed: int, waves: int = 80) -> Texture:
    """Grey levels around 128 at any positions x + iy in hr pixels: waves of 6 to 60 pixels."""
    draw = np.random.default_rng(seed)
    length = 2 * np.pi / np.exp(draw.uniform(np.log(6), np.log(60), waves))
    wave = length * np.exp(1j * draw.uniform(0, 2 * np.pi, waves))
    phase = draw.uniform(0, 2 * np.pi, waves)
    return lambda at: (
        128
        + 30
        * sum(np.cos(w.real * at.real + w.imag * at.imag + p) for w, p in zip(wave, phase, strict=True))
        / np.sqrt(waves / 2)
    )


def grid(side: int) -> np.ndarray:
    """Centres of pixels, counted from the corner."""
    axis = np.arange(side) + 0.5
    return axis[None, :] + 1j * axis[:, None]


def truth(warp: Warp) -> Similarity:
    """Where a pixel of lr (in units of SCALE hr pixels) lies in hr that has been moved, turned and stretched."""
    y, x, degrees, scale = warp
    middle = SIDE / 2 * (1 + 1j)
    turn = np.exp(-1j * np.deg2rad(degrees)) / scale
    return Similarity(complex(turn), complex(middle - turn * (middle + complex(x, y))))


def grey(values: np.ndarray, noise: float, seed: int) -> np.ndarray:
    noisy = values + np.random.default_rng(seed).normal(0, noise, values.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def images(seed: int, warp: Warp, noise: float = 6.0, contrast: tuple[float, float] = (0.8, 20)) -> list[np.ndarray]:
    """hr, and lr of the same place as another microscope sees it."""
    seen, fine = texture(seed), grid(SIDE * SCALE)
    moved = seen(truth(warp).scaled(SCALE)(fine))
    lr = contrast[0] * degradation.degrade(moved, SCALE) + contrast[1]
    return [grey(seen(fine), noise, seed), grey(lr, noise, seed + 1000)]


def ingested(folder: Path, hr: np.ndarray, lr: np.ndarray, hr_nm: float = LR_NM / SCALE) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, voxels, size in (("hr", hr, hr_nm), ("lr", lr, LR_NM)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["raw"] = voxels
            file["raw"].attrs["resolution"] = (40.0, size, size)
        source = {"path": str(folder / f"{name}.h5"), "dataset": "raw", "voxel_size_nm": None}
        ingest({"image": name, "source": source, "region": None, **LAYOUT}, folder / f"{name}.json")
    return folder


def registered(folder: Path, out: str = "hr_registered.json", workers: int = 1, **how: Any) -> dict[str, Any]:
    settings = {"scale": SCALE, "registration": STATED, **LAYOUT, "result": 1, **how}
    register(settings, folder / "lr.json", folder / "hr.json", folder / out, workers=workers)
    return read_card(folder / out)


def voxels(folder: Path, out: str = "hr_registered.zarr") -> np.ndarray:
    return open_array(folder / out)[...].read().result()  # type: ignore[no-any-return]


WARPS: list[tuple[Warp, str]] = [
    ((0.37, -0.62, 0.0, 1.0), "parts of a pixel"),
    ((-11.3, 7.8, 0.0, 1.0), "many pixels"),
    ((1.2, 0.4, 5.0, 1.0), "the largest rotation"),
    ((0.0, 0.0, -3.3, 0.97), "the least scale"),
    ((-2.6, 3.1, 1.7, 1.03), "the largest scale"),
]


@pytest.mark.parametrize(("warp", "why"), WARPS, ids=[why for _, why in WARPS])
def test_a_known_warp_and_contrast_are_found_through_noise(warp: Warp, why: str) -> None:
    hr, lr = images(len(why), warp)
    coarse, still = degradation.degrade(hr.astype(float), SCALE), lr.astype(float)
    fit = registration.refine(Image.of(still), Image.of(coarse), registration.search(still, coarse, 1.0))
    assert fit is not None
    true, middle = truth(warp), np.array([SIDE / 2 * (1 + 1j)])
    assert abs((fit.similarity(middle) - true(middle))[0]) < 0.1, "lr pixels"
    assert abs(np.rad2deg(np.angle(fit.similarity.turn / true.turn))) < 0.05
    assert abs(abs(fit.similarity.turn) / abs(true.turn) - 1) < 0.001
    assert (fit.gain, fit.offset) == (pytest.approx(0.8, abs=0.03), pytest.approx(20, abs=4))
    assert fit.residual < 0.1
    assert fit.agreeing == fit.tiles


@pytest.mark.parametrize("kernel", degradation.KERNELS)
@pytest.mark.parametrize("scale", [2, 3, 8])
def test_what_emsr_made_coarser_itself_lies_where_it_lay(kernel: str, scale: int) -> None:
    """Half a voxel too much or too little would be seen here, in even and in odd scales."""
    hr = grey(texture(7)(grid(64 * scale)), 0, 0)
    coarse = degradation.degrade(hr.astype(float), scale, kernel)
    lr = degradation.degrade(hr, scale, kernel).astype(float)
    start = Similarity(1 + 0j, 0.4 - 0.3j)
    fit = registration.refine(Image.of(lr), Image.of(coarse), start)
    assert fit is not None
    corners = np.array([0, 64, 64j, 64 + 64j])
    assert np.abs(scale * (fit.similarity(corners) - corners)).max() < 0.02, "hr pixels"
    assert registration.search(lr, coarse, 1.0) == Similarity(1 + 0j, 0j)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Warp]]:
    """Six sections, each moved in its own way; one of lr is black, one of hr shows another place."""
    folder = tmp_path_factory.mktemp("chain")
    warps: list[Warp] = [(1.5 - z, 0.7 * z, 1.0 * z - 2, 1 + 0.004 * z) for z in range(6)]
    pairs = [images(z, warp) for z, warp in enumerate(warps)]
    hr, lr = (np.stack([pair[k] for pair in pairs]) for k in (0, 1))
    hr[3], lr[1] = images(99, (0, 0, 0, 1))[0], 0
    ingested(folder, hr, lr)
    registered(folder)
    return folder, warps


def test_each_section_is_moved_by_itself_and_bad_ones_are_left_out(chain: tuple[Path, list[Warp]]) -> None:
    folder, warps = chain
    card, made = read_card(folder / "hr_registered.json"), voxels(folder)
    assert made.shape == (6, SIDE * SCALE, SIDE * SCALE)
    assert card["voxel_size_nm"] == [40, 8, 8]
    assert card["missing"] == {"1": "damaged", "3": "unregistered"}
    assert not made[[1, 3]].any()
    (top, bottom), (left, right) = card["covered"]
    assert all(edge % SCALE == 0 for edge in (top, bottom, left, right))
    assert min(bottom - top, right - left) > 0.8 * SIDE * SCALE
    for z in (0, 2, 4, 5):
        expected = 0.8 * texture(z)(truth(warps[z]).scaled(SCALE)(grid(SIDE * SCALE))) + 20
        error = (made[z] - expected)[top:bottom, left:right]
        assert np.sqrt((error**2).mean()) < 6, "noise of hr, 0.8 times 6, and little besides"
        assert abs(error.mean()) < 1.5
        row = card["registration"]["sections"][str(z)]
        assert [*np.array(row["shift_nm"]) / LR_NM, row["rotation_deg"], row["scale"]] == pytest.approx(
            warps[z], abs=0.1
        )
        assert row["residual_nm"] < STATED["limit_nm"]
    table = (folder / "hr_registered.registration.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in table[1:]] == [
        *("registered", "damaged", "registered", "unregistered", "registered", "registered")
    ]
    assert "does not agree" in (folder / "hr_registered.sections.tsv").read_text()


def test_workers_and_shards_change_nothing(chain: tuple[Path, list[Warp]]) -> None:
    folder, _ = chain
    first, made = read_card(folder / "hr_registered.json"), voxels(folder)
    other = registered(folder, "other.json", 3, shard=[3, 96, 32], chunk=[1, 32, 32])
    assert np.array_equal(voxels(folder, "other.zarr"), made)
    assert other == first | {"array": "other.zarr"}


def test_training_sees_the_part_that_hr_covers(chain: tuple[Path, list[Warp]]) -> None:
    folder, _ = chain
    data = {"volume": "v", "hr": str(folder / "hr_registered.json"), "lr": str(folder / "lr.json")}
    data |= {"train": [[0, 6]], "validation": []}  # type: ignore[dict-item]
    read = {"scale": SCALE, "sections": 1, "section_step": 1, "data": [data]}
    found = series(read, data, "train")
    (top, bottom), (left, right) = read_card(folder / "hr_registered.json")["covered"]
    assert found.table == ((0,), (2,), (4,), (5,))
    assert found.hr is not None
    assert found.lr is not None
    assert np.array_equal(np.asarray(found.hr[:]), voxels(folder)[:, top:bottom, left:right])
    lr = voxels(folder, "lr.zarr")[:, top // SCALE : bottom // SCALE, left // SCALE : right // SCALE]
    assert np.array_equal(np.asarray(found.lr[:]), lr)
    assert identity(read)[0]["images"]["hr"]["covered"] == [[top, bottom], [left, right]]


def test_scores_keep_to_the_part_that_hr_covers(chain: tuple[Path, list[Warp]]) -> None:
    folder, _ = chain
    shutil.copy(folder / "hr_registered.json", folder / "sr.json")
    paths = {"lr": folder / "lr.json", "hr": folder / "hr_registered.json", "sr": folder / "sr.json"}
    settings = {"volume": "v", "scale": SCALE, "test": [[4, 6]], **{name: str(path) for name, path in paths.items()}}
    score(settings, folder / "scores.json")
    found = json.loads((folder / "scores.json").read_text())
    y, x = (slice(*span) for span in read_card(folder / "hr_registered.json")["covered"])
    error = degradation.upsample(voxels(folder, "lr.zarr"), SCALE)[4:6, y, x].astype(float) - voxels(folder)[4:6, y, x]
    assert found["settings"]["region_yx"] == list(error.shape[1:])
    assert found["image"]["bicubic"]["psnr_pooled"] == pytest.approx(10 * np.log10(255**2 / (error**2).mean()))


@pytest.mark.workflow
def test_the_workflow_registers_what_it_ingested(values: dict[str, Any], tmp_path: Path) -> None:
    hr, lr = (np.stack(part) for part in zip(*(images(z, (0.5, -0.3, 0.4, 1)) for z in range(7)), strict=True))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["hr"], file["lr"] = hr, lr
    values["volumes"]["v"]["hr"]["voxel_size_nm"] = [40, 8, 8]
    project = Project(tmp_path, values)
    assert project.run("results/v/hr_registered.json").rules == {"ingest": 2, "register": 1}
    assert project.json("v", "hr_registered.json")["missing"] == {}


def test_a_section_is_fitted_again_from_where_its_neighbours_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [images(seed, (2.0, 1.0, 2.0, 1.01)) for seed in range(3)]
    ingested(tmp_path, *(np.stack([pair[k] for pair in pairs]) for k in (0, 1)))
    search, lost = registration.search, Similarity(1 + 0j, 40 + 40j)
    calls: list[int] = []

    def sometimes(*given: Any) -> Similarity:
        calls.append(1)
        return lost if len(calls) == 2 else search(*given)

    monkeypatch.setattr(registration, "search", sometimes)
    assert registered(tmp_path)["missing"] == {}


@pytest.mark.parametrize(
    ("hr", "said"),
    [
        (lambda hr: np.stack([images(70 + z, (0, 0, 0, 1))[0] for z in range(len(hr))]),
         r"agrees with lr in 0 of 3 .* nm apart, registration.limit_nm is 6: state images of one place"),
        (lambda hr: 255 - hr, "agrees with lr in 0 of 3"),
        (lambda hr: hr[:2], "hr.json has 2 sections, .*lr.json 3: cut one"),
    ],
    ids=["another place", "a negative", "fewer sections"],
)  # fmt: skip
def test_images_of_no_pair_are_refused_before_anything_is_written(
    tmp_path: Path, hr: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    pairs = [images(seed, (0.5, 0.5, 0, 1)) for seed in range(3)]
    ingested(tmp_path, hr(np.stack([pair[0] for pair in pairs])), np.stack([pair[1] for pair in pairs]))
    with pytest.raises(ValueError, match=said) as caught:
        registered(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("hr_registered*"))


def test_sizes_need_not_be_multiples_and_voxel_sizes_are_believed(tmp_path: Path) -> None:
    """hr of 8.4 nm and 371 x 389 pixels, which covers part of lr."""
    stretched = texture(4)(1.05 * grid(400))[None, 9:380, 3:392]
    ingested(tmp_path, grey(stretched, 4, 1), images(4, (0, 0, 0, 1))[1][None], hr_nm=8.4)
    card = registered(tmp_path)
    assert card["shape"] == [1, SIDE * SCALE, SIDE * SCALE]
    row = card["registration"]["sections"]["0"]
    assert row["scale"] == pytest.approx(1, abs=0.001)
    (top, bottom), (left, right) = card["covered"]
    expected = np.array([9 * 1.05, 380 * 1.05, 3 * 1.05, 392 * 1.05])
    assert np.abs(np.clip(expected, 0, SIDE * SCALE) - [top, bottom, left, right]).max() <= SCALE
    assert not voxels(tmp_path)[0, :8].any(), "hr shows nothing there"


def test_output_changes_only_with_the_result_number(tmp_path: Path) -> None:
    made = golden(tmp_path)
    with np.load(GOLDEN / f"register_{result_number('register')}.npz") as stored:
        assert np.abs(stored["voxels"].astype(int) - made["voxels"].astype(int)).max() <= 1
        np.testing.assert_allclose(made["to_hr"], stored["to_hr"], atol=1e-3)


def golden(folder: Path) -> dict[str, np.ndarray]:
    ingested(folder, *(image[None] for image in images(5, (1.3, -0.4, 2.0, 1.01))))
    found = registered(folder)["registration"]["sections"]["0"]["to_hr"]
    return {"voxels": voxels(folder)[0, 100:164, 100:164], "to_hr": np.array(found)}


# what a config may say


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A config whose training reads a registered pair, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("v.h5", "w") as file:
        file["hr"], file["lr"] = np.zeros((7, 200, 201), np.uint8), np.zeros((7, 52, 50), np.uint8)
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    hr, lr = ({"path": "v.h5", "dataset": name, "voxel_size_nm": [40, v, v]} for name, v in (("hr", 8.2), ("lr", 32)))
    values["volumes"] = {"v": {"hr": hr, "lr": lr, "registration": dict(STATED), "weights": "t", "test": [[6, 7]]}}
    data = [{"volume": "v", "train": [[0, 1]], "validation": [[3, 4]]}]
    model = {"name": "edsr", "preset": "small", "options": {}}
    training = {**values["trainings"]["tissue"], "model": model, "stages": {"image": {"patch": 24}}}
    values["trainings"] = {"t": {**training, "scale": 4, "data": data, "sections": 1}}
    return values


def put(*where: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        part = values["volumes"]["v"]
        for name in where[:-1]:
            part = part[name]
        part[where[-1]] = value

    return change


BAD = [
    (
        lambda values: values["volumes"]["v"].update(lr=None, degradation={"kernel": "area"}),
        "registration brings hr onto lr, so it needs the sources of both",
    ),
    (put("registration", "limit_nm", value=0), "volumes.v.registration.limit_nm"),
    (put("registration", "kernel", value="lanczos"), "volumes.v.registration.kernel"),
    (put("registration", "angle", value=3), "volumes.v.registration"),
    (put("hr", "voxel_size_nm", value=[40, 6, 6]), r"voxels of lr \(32 nm\) are not about 4 of hr \(6 nm\)"),
    (put("hr", "voxel_size_nm", value=[40, 8, 9]), "voxels of hr are 8 x 9 nm in y and x"),
    (put("hr", "voxel_size_nm", value=[50, 8, 8]), "sections of hr are 50 nm thick, those of lr 40"),
    (put("registration", value=None), r"hr \[7, 200, 201\] is not lr \[7, 52, 50\] times scale 4"),
    (lambda values: values["trainings"].update(u={**values["trainings"]["t"], "scale": 2}), "registered at one scale"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said[:30] for _, said in BAD])
def test_what_cannot_be_registered_is_refused(
    values: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    change(values)
    with pytest.raises(ValueError, match=said) as caught:
        check_config(parse(values))
    assert "\n" not in str(caught.value)


def test_trainings_and_scores_read_registered_hr(values: dict[str, Any]) -> None:
    check_config(parse(values))
    settings = Settings(parse(values))
    assert "results/v/hr_registered.json" in settings.train_inputs("t", "image")
    assert json.loads(settings.score("v"))["hr"] == "results/v/hr_registered.json"
    assert json.loads(settings.register("v"))["scale"] == 4
    values["volumes"]["v"]["registration"]["limit_nm"] = 7.0
    assert Settings(parse(values)).register("v") != settings.register("v")


# real tissue


def test_real_sections_are_found_again(shared: Path) -> None:
    """FIB-SEM of 10 nm, moved by spline interpolation on the fine grid, made coarser and noisier."""
    with h5py.File(shared / "data" / "fib_medulla" / "train.h5") as file:
        section = file["volumes/raw"][20].astype(float)
    side = min(section.shape) // SCALE // 2 * 2
    hr = section[: side * SCALE, : side * SCALE]
    turn, middle = np.exp(1j * np.deg2rad(2.2)) / 1.012, side / 2 * (1 + 1j)
    true = Similarity(complex(turn), complex(middle - turn * (middle + 3.4 - 1.7j)))
    at = true.scaled(SCALE)(grid(side * SCALE))
    moved = map_coordinates(hr, [at.imag - 0.5, at.real - 0.5], order=5, mode="mirror")
    lr = grey(0.7 * degradation.degrade(moved, SCALE, "area") + 30, 8, 3).astype(float)
    coarse = degradation.degrade(hr, SCALE, "area")
    fit = registration.refine(Image.of(lr), Image.of(coarse), registration.search(lr, coarse, 1.0))
    assert fit is not None
    corners = np.array([0, side, 1j * side, side + 1j * side])
    assert np.abs(fit.similarity(corners) - true(corners)).max() < 0.1, "lr pixels"
    assert fit.gain == pytest.approx(0.7, abs=0.03)
    other = registration.refine(Image.of(lr), Image.of(coarse[::-1]), registration.search(lr, coarse[::-1], 1.0))
    assert other is None or other.residual > 3, "the mirrored section is of no pair"


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        np.savez_compressed(GOLDEN / f"register_{result_number('register')}.npz", **golden(Path(place)))
