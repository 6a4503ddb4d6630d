"""The three steps: the same voxels however they are cut up, no work twice, nothing unproved."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warm
from emsr.commands.clean import clean
from emsr.durable import read_json, write_json
from emsr.geometry import Triple
from emsr.inference.survey import seam_score, survey
from emsr.plan import read_plan
from emsr.shards import proved
from emsr.stores.zarr import open_array, write_box
from sr_project import SrProject, tissue_like, write_weights

SHAPE = (7, 20, 28)  # lr: no multiple of window or shard, two layers of shards
GOLDEN = Path(__file__).parent / "golden"


def project(folder: Path, model: str = "bicubic", **settings: Any) -> SrProject:
    """A volume with a damaged and a missing section, x4."""
    folder.mkdir(parents=True, exist_ok=True)
    made = SrProject(folder, write_weights(folder, model, 4))
    made.settings |= settings
    made.write_lr(tissue_like(SHAPE), damaged=(2,), missing=(5,))
    return made


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> SrProject:
    """The network, one job, one worker."""
    made = project(tmp_path_factory.mktemp("reference"), "gpemsr")
    made.all()
    return made


# -- the same voxels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "workers"), [(1, 3), (2, 1), (5, 2), (40, 2)])
def test_bytes_do_not_depend_on_jobs_and_workers(reference: SrProject, tmp_path: Path, n: int, workers: int) -> None:
    made = project(tmp_path, "gpemsr")
    made.allocate()
    for i in reversed(range(n)):
        made.job(f"{i + 1}-of-{n}", workers)
    made.stitch(n, workers)
    assert made.files() == reference.files()
    assert (made.folder / "sr.json").read_bytes() == (reference.folder / "sr.json").read_bytes()


@pytest.mark.parametrize(
    ("shard", "chunk"), [([7, 80, 112], [7, 80, 112]), ([1, 16, 16], [1, 16, 16]), ([3, 32, 256], [1, 8, 64])]
)
def test_voxels_and_root_do_not_depend_on_shards(
    reference: SrProject, tmp_path: Path, shard: list[int], chunk: list[int]
) -> None:
    made = project(tmp_path, "gpemsr", shard=shard, chunk=chunk)
    card = made.all(n=2, workers=2)
    assert np.array_equal(made.voxels(), reference.voxels())
    stated = read_json(reference.folder / "sr.json")
    assert (card["sha256"], card["section_sha256"]) == (stated["sha256"], stated["section_sha256"])
    assert card["array"] == "sr.zarr"
    assert card["seams"]["window"] == stated["seams"]["window"]


def test_root_is_the_hash_of_sections_in_raster_order(reference: SrProject) -> None:
    sections = [hashlib.sha256(section.tobytes()).hexdigest() for section in reference.voxels()]
    card = read_json(reference.folder / "sr.json")
    assert card["section_sha256"] == sections
    assert card["sha256"] == hashlib.sha256("".join(sections).encode()).hexdigest()


def test_what_precision_and_overlap_change_is_another_array(reference: SrProject, tmp_path: Path) -> None:
    names = {(reference.folder / "sr.zarr").readlink().name}
    for change in ({"overlap": 8}, {"precision": "bfloat16"}, {"window": 20}, {"device": "auto"}):
        made = project(tmp_path / str(len(names)), "gpemsr", **change)
        made.allocate()
        names.add(Path(read_json(made.allocation)["array"]).name)
    assert len(names) == 5


def test_damaged_and_missing_sections(reference: SrProject) -> None:
    voxels, card = reference.voxels(), read_json(reference.folder / "sr.json")
    assert not voxels[5].any(), "no data: nothing is made up"
    assert voxels[2].any(), "damaged: made from its own data"
    assert (card["invalid"], card["damaged"], card["missing"]) == ([5], {"2": "black"}, {"5": "-"})
    assert read_json(reference.allocation)["sections"] == [
        [0, 0, 1], [0, 1, 1], [1, 2, 3], [1, 3, 4], [3, 4, 4], None, [4, 6, 6]
    ]  # fmt: skip


def test_neighbours_matter_and_damaged_ones_do_not(reference: SrProject, tmp_path: Path) -> None:
    before = reference.voxels()
    made = project(tmp_path, "gpemsr")
    volume = tissue_like(SHAPE)
    volume[2] = 255 - volume[2]
    made.write_lr(volume, damaged=(2,), missing=(5,))
    made.all()
    changed = (made.voxels() != before).any(axis=(1, 2))
    assert changed.tolist() == [False, False, True, False, False, False, False], "damaged section 2 is in no other"
    volume[3] = 255 - volume[3]
    made.write_lr(volume, damaged=(2,), missing=(5,))
    made.all()
    changed = (made.voxels() != before).any(axis=(1, 2))
    assert changed.tolist() == [False, False, True, True, True, False, False], "section 3 is in 2, 3 and 4"


def test_golden_of_the_result_number() -> None:
    """Voxels that change without a new result number fail here; one grey level is left to other types of CPU.

    After a change that is meant: raise ALLOCATE_RESULT, SUPERRESOLVE_RESULT, and run this file as a program.
    """
    expected, made = np.load(golden_path()), golden_voxels()
    assert expected.files == list(made)
    for model, voxels in made.items():
        assert np.abs(expected[model].astype(int) - voxels).max() <= 1, model


def golden_path() -> Path:
    from emsr.steps.superresolve import SUPERRESOLVE_RESULT

    return GOLDEN / f"superresolve_{SUPERRESOLVE_RESULT}.npz"


def golden_voxels() -> dict[str, np.ndarray]:
    """Two small volumes, by bicubic and by a random network."""
    import tempfile

    voxels = {}
    for model in ("bicubic", "gpemsr"):
        with tempfile.TemporaryDirectory() as folder:
            made = SrProject(Path(folder), write_weights(Path(folder), model, 4))
            made.write_lr(tissue_like((3, 14, 18)))
            made.all()
            voxels[model] = made.voxels()
    return voxels


# -- no work twice ----------------------------------------------------------------------------------------------------

ALL = [f"{z}_{y}_{x}" for z in (0, 1) for y in (0, 1) for x in (0, 1)]  # shards of 4 x 64 x 64 in 7 x 80 x 112


def half_done(made: SrProject) -> None:
    made.job("1-of-2")


def done(made: SrProject) -> None:
    made.all(n=2)


def one_section_changed(made: SrProject) -> None:
    done(made)
    volume = tissue_like(SHAPE)
    volume[0, 3, 3] ^= 1
    made.write_lr(volume, damaged=(2,), missing=(5,))
    made.allocate()


def a_shared_section_changed(made: SrProject) -> None:
    done(made)
    volume = tissue_like(SHAPE)
    volume[4, 3, 3] ^= 1
    made.write_lr(volume, damaged=(2,), missing=(5,))
    made.allocate()


def a_section_found_good(made: SrProject) -> None:
    done(made)
    made.write_lr(tissue_like(SHAPE), damaged=(), missing=(5,))
    made.allocate()


def a_record_lost(made: SrProject) -> None:
    done(made)
    records = (made.allocation.parent / read_json(made.allocation)["records"]).resolve()
    (records / "1_0_1.json").unlink()


def a_record_torn(made: SrProject) -> None:
    done(made)
    records = (made.allocation.parent / read_json(made.allocation)["records"]).resolve()
    (records / "0_1_1.json").write_text('{"schema": 1')


def a_shard_lost(made: SrProject) -> None:
    done(made)
    (made.folder / "sr.zarr" / "0" / "c" / "0" / "1" / "0").unlink()


def other_weights(made: SrProject) -> None:
    done(made)
    made.card = write_weights(made.folder, "bicubic", 4, window=20)
    made.allocate()


@pytest.mark.parametrize(
    ("before", "n", "computed", "reason"),
    [
        (lambda made: None, 2, ALL, "everything, the first time"),
        (done, 2, [], "nothing, when finished"),
        (done, 3, [], "nothing, with another number of jobs"),
        (half_done, 2, ALL[4:], "the second half"),
        (half_done, 3, ALL[4:], "the same half, by other jobs"),
        (half_done, 8, ALL[4:], "the same half, by many jobs"),
        (one_section_changed, 2, ALL[:4], "section 0 is in the first layer alone"),
        (a_shared_section_changed, 3, ALL, "section 4 is a neighbour in the first layer too"),
        (a_section_found_good, 2, ALL[:4], "section 2 is a neighbour again, in the first layer"),
        (a_record_lost, 2, ["1_0_1"], "what has no record"),
        (a_record_torn, 3, ["0_1_1"], "what has half a record"),
        (a_shard_lost, 2, ["0_1_0"], "what has a record and no voxels"),
        (other_weights, 1, ALL, "other weights are another array"),
    ],
)
def test_a_rerun_computes_exactly(
    tmp_path: Path, before: Callable[[SrProject], None], n: int, computed: list[str], reason: str
) -> None:
    made = project(tmp_path)
    made.allocate()
    before(made)
    found = [shard for i in range(n) for shard in made.job(f"{i + 1}-of-{n}")]
    assert sorted(found) == computed, reason
    made.stitch(n)
    fresh = project(tmp_path / "fresh")
    shutil.copy(made.lr, fresh.lr)
    shutil.rmtree(fresh.folder / "lr.zarr")
    shutil.copytree(made.folder / "lr.zarr", fresh.folder / "lr.zarr")
    fresh.card = made.card
    fresh.all()
    assert np.array_equal(made.voxels(), fresh.voxels()), "and ends as a fresh run does"


def test_only_the_windows_of_the_missing_shard_are_computed(tmp_path: Path) -> None:
    made = project(tmp_path)
    a_record_lost(made)
    made.job("1-of-1")
    stats = made.stats("1-of-1")
    # shard 1_0_1 is z 4-7, y 0-64, x 64-112 of sr; a window's side is 64
    starts = read_plan(read_json(made.allocation)).starts
    touching = [(y, x) for y in starts(1) for x in starts(2) if y * 4 < 64 and x * 4 + 64 > 64]
    assert (stats["windows"], stats["skipped"]) == (3 * len(touching), 7)
    assert stats["compute_seconds"] > 0
    assert 0 < stats["network_share"] <= 1
    parts = sum(stats[f"{part}_seconds"] for part in ("network", "blend", "stall"))
    assert parts == pytest.approx(stats["compute_seconds"] * stats["workers"], abs=0.01)
    assert stats["voxels_per_second"] == pytest.approx(stats["voxels"] / stats["compute_seconds"], rel=0.1)
    assert (stats["workers"], stats["in_flight"]) == (1, 1)
    assert len(touching) < len(starts(1)) * len(starts(2))


def test_attempts_and_marks(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.allocate()
    made.job("1-of-2")
    first = made.mark("1-of-2").read_bytes()
    made.job("1-of-2", workers=2)
    assert made.mark("1-of-2").read_bytes() == first, "a mark holds what inputs determine and nothing else"
    stats = made.stats("1-of-2")
    assert (stats["attempt"], stats["skipped"], stats["computed"], stats["state"]) == (2, 4, [], "finished")
    assert list(json.loads(first)["shards"]) == ALL[:4]


def test_a_new_place_in_space_keeps_the_voxels(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.all()
    card = read_json(made.lr)
    write_json(made.lr, {**card, "voxel_size_nm": [50.0, 40.0, 40.0], "translation_nm": [1.0, 2.0, 3.0]})
    made.allocate()
    assert made.job("1-of-1") == []
    assert made.stitch(1)["voxel_size_nm"] == [50.0, 10.0, 10.0]


def test_place_in_space(reference: SrProject) -> None:
    card = read_json(reference.folder / "sr.json")
    assert card["voxel_size_nm"] == [40.0, 8.0, 8.0]
    # lr's first voxel reaches from -16 to 16 nm; sr's first one from -16 to -8
    assert card["translation_nm"] == [0.0, -12.0, -12.0]
    document = read_json(reference.folder / "sr.zarr" / "zarr.json")
    datasets = document["attributes"]["ome"]["multiscales"][0]["datasets"]
    assert datasets[0]["coordinateTransformations"][1]["translation"] == [0.0, -12.0, -12.0]


# -- killed -----------------------------------------------------------------------------------------------------------

JOB = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from sr_project import SrProject
made = SrProject(Path({folder!r}), Path({card!r}))
made.job("1-of-1", workers=2)
"""


def test_kill_and_go_on(reference: SrProject, tmp_path: Path) -> None:
    made = project(tmp_path, "gpemsr")
    made.allocate()
    records = (made.allocation.parent / read_json(made.allocation)["records"]).resolve()
    program = tmp_path / "job.py"
    program.write_text(JOB.format(tests=str(Path(__file__).parent), folder=str(made.folder), card=str(made.card)))
    process = warm.Started([str(program)], tmp_path, os.environ)
    deadline = time.monotonic() + 120
    while not list(records.glob("*.json")) and not process.ended() and time.monotonic() < deadline:
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    done = process.wait()
    assert done.returncode == -signal.SIGKILL, done.stdout
    kept = sorted(path.stem for path in records.glob("*.json"))
    assert 1 <= len(kept) < 8
    assert not made.mark("1-of-1").exists()
    assert sorted([*made.job("1-of-1"), *kept]) == ALL, "what has a record is not computed again"
    assert made.stats("1-of-1")["attempt"] == 2
    made.stitch(1)
    left = {name: data for name, data in made.files().items() if not name.endswith(".partial")}  # of a write cut short
    assert left == reference.files()


def test_a_kill_between_voxels_and_record_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emsr.inference.records import Records

    made = project(tmp_path)
    made.all()
    one_section_changed(made)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Records, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        made.job("1-of-1")
    monkeypatch.undo()
    made.write_lr(tissue_like(SHAPE), damaged=(2,), missing=(5,))  # the old section is back
    made.allocate()
    assert made.job("1-of-1") == ["0_0_0"], "its old record would hold again, its voxels are the new ones"


# -- proofs -----------------------------------------------------------------------------------------------------------


def no_record(made: SrProject) -> None:
    a_record_lost(made)


def no_voxels(made: SrProject) -> None:
    a_shard_lost(made)


def other_voxels(made: SrProject) -> None:
    done(made)
    array = open_array(made.folder / "sr.zarr", write=True)
    write_box(array, (0, 0, 64), np.zeros((4, 64, 48), np.uint8))


def two_devices(made: SrProject) -> None:
    done(made)
    path = (made.allocation.parent / read_json(made.allocation)["records"]).resolve() / "0_0_1.json"
    write_json(path, {**read_json(path), "device": "cuda"})


def an_old_mark(made: SrProject) -> None:
    done(made)
    mark = read_json(made.mark("2-of-2"))
    write_json(made.mark("2-of-2"), {**mark, "settings_sha256": "0" * 64})


def a_foreign_mark(made: SrProject) -> None:
    done(made)
    mark = read_json(made.mark("2-of-2"))
    write_json(made.mark("2-of-2"), {**mark, "array": "../sr-0.zarr"})


def a_mark_of_other_voxels(made: SrProject) -> None:
    done(made)
    mark = read_json(made.mark("1-of-2"))
    write_json(made.mark("1-of-2"), {**mark, "shards": {**mark["shards"], "0_0_0": "0" * 64}})


def a_folder_in_the_way(made: SrProject) -> None:
    done(made)
    (made.folder / "sr.zarr").unlink()
    (made.folder / "sr.zarr").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_record, "shard 1_0_1 of sr-.* has no record that holds: remove .*2-of-2.json and run again"),
        (no_voxels, "shard 0_1_0 of sr-.* has no record that holds"),
        (other_voxels, "shard 0_0_1 of sr-.* does not hold the voxels of its record"),
        (two_devices, r"different devices \(7 on cpu, 1 on cuda\).*set superresolve.device to one of cpu, cuda"),
        (an_old_mark, "marks name 2 different settings"),
        (a_foreign_mark, "is a mark of ../sr-0.zarr, not of"),
        (a_mark_of_other_voxels, "shard 0_0_0 of sr-.* is not the one of its mark"),
        (a_folder_in_the_way, "sr.zarr is not a link"),
    ],
)
def test_stitch_refuses(tmp_path: Path, spoil: Callable[[SrProject], None], message: str) -> None:
    made = project(tmp_path)
    made.allocate()
    spoil(made)
    (made.folder / "sr.json").unlink()
    with pytest.raises(ValueError, match=message):
        made.stitch(2)
    assert not (made.folder / "sr.json").exists()


def test_a_job_does_not_go_on_where_another_device_began(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.allocate()
    two_devices(made)
    records = (made.allocation.parent / read_json(made.allocation)["records"]).resolve()
    (records / "0_0_0.json").unlink()
    with pytest.raises(ValueError, match=r"shard 0_0_1 of .* was computed on cuda, others would be on cpu"):
        made.job("1-of-2")


def test_stitch_needs_every_job(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.allocate()
    made.job("1-of-2")
    with pytest.raises(FileNotFoundError, match=r"2-of-2.json does not exist"):
        made.stitch(2)
    made.job("2-of-2")
    write_json(made.mark("2-of-2"), {**read_json(made.mark("2-of-2")), "shards": {}})
    with pytest.raises(ValueError, match=r"shard 1_0_0 of sr-.* is not the one of its mark: run the jobs again"):
        made.stitch(2)


def test_a_proof_names_the_marks_of_its_settings(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.all(n=3)
    settings = {**made.settings, "result": 1}
    proof = made.allocation.parent / "proof.json"
    assert proved(proof, settings) == [str(made.mark(f"{i}-of-3")) for i in (1, 2, 3)]
    assert proved(proof, {**settings, "overlap": 5}) is None
    moved = tmp_path / "moved"
    shutil.copytree(made.folder / "sr", moved / "sr")
    assert proved(moved / "sr" / "proof.json", settings) == [str(moved / f"sr/jobs/{i}-of-3.json") for i in (1, 2, 3)]


def test_steps_refuse_an_allocation_of_other_settings(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.all()
    made.settings["overlap"] = 8
    with pytest.raises(ValueError, match=r"was made with settings .* run allocate again"):
        made.job("1-of-1")
    with pytest.raises(ValueError, match="run allocate again"):
        made.stitch(1)


# -- seams ------------------------------------------------------------------------------------------------------------


class Silent:
    def update(self, n: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.mark.parametrize("workers", [1, 3])
def test_a_survey_sees_every_step(reference: SrProject, workers: int) -> None:
    voxels = reference.voxels()
    grid = read_plan(read_json(reference.allocation)).grid
    hashes: dict[Triple, str] = {}
    surveyed = survey(grid, lambda box: voxels[box.slices], workers, Silent(), hashes.__setitem__)
    for axis, steepness in ((1, surveyed.steepness[0]), (2, surveyed.steepness[1])):
        differences = np.abs(np.diff(voxels.astype(int), axis=axis)).sum(axis=(0, 3 - axis))
        assert steepness.tolist() == [0, *differences]
    assert hashes.keys() == set(grid.indices)
    for index, sha256 in hashes.items():
        assert sha256 == hashlib.sha256(voxels[grid.box(index).slices].tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("heights", "borders", "score", "reason"),
    [
        ([0, 2, 2, 2, 2, 2, 2, 2], [4], 1.0, "as steep as beside it"),
        ([0, 2, 2, 2, 6, 2, 2, 2], [4], 3.0, "three times as steep"),
        ([0, 2, 2, 6, 2, 2, 2, 2], [4], 1.0, "the step beside lies two voxels away at scale 2: 3 is not looked at"),
        ([0, 2, 6, 2, 6, 2, 6, 2], [4], 1.0, "the period of the lr pixels is no seam"),
        ([0, 2, 2, 2, 2, 2, 2, 2], [], None, "no border"),
        ([0, 2, 2, 2, 2, 2, 2, 2], [1, 7], None, "nothing on one side to compare with"),
        ([0, 0, 0, 0, 0, 0, 0, 0], [4], None, "a flat volume"),
    ],
)
def test_seam_scores(heights: list[int], borders: list[int], score: float | None, reason: str) -> None:
    assert seam_score(np.array(heights), borders, 2) == score, reason


# -- bad input --------------------------------------------------------------------------------------------------------


def changed_card(**changes: Any) -> Callable[[SrProject], None]:
    def change(made: SrProject) -> None:
        write_json(made.card, {**read_json(made.card), **changes})

    return change


def changed_lr(**changes: Any) -> Callable[[SrProject], None]:
    def change(made: SrProject) -> None:
        write_json(made.lr, {**read_json(made.lr), **changes})

    return change


def changed_settings(**changes: Any) -> Callable[[SrProject], None]:
    def change(made: SrProject) -> None:
        made.settings |= changes

    return change


def swapped_weights(made: SrProject) -> None:
    other = write_weights(made.folder / "other", "gpemsr", 4, seed=1)
    shutil.copy(other.with_suffix(".safetensors"), made.card.with_suffix(".safetensors"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (changed_settings(overlap=16), "overlap 16 leaves no step for window 16: use 0 to 15"),
        (changed_settings(window=18), "window 18 is not a multiple of 4, which the network needs: use 16"),
        (changed_settings(shard=[4, 66, 64]), r"shard \[4, 66, 64\] is not a multiple of scale 4 along y and x"),
        (changed_settings(chunk=[3, 32, 32]), r"shard \(4, 64, 64\) is not a multiple of chunk \(3, 32, 32\)"),
        (changed_settings(shard=[4, 64]), "is not three integers"),
        (changed_card(stage="indexer"), "holds weights of stage indexer: super-resolution needs those of fusion"),
        (changed_card(model="nothing"), "models? name 'nothing' is unknown"),
        (changed_card(model="affinity"), "holds weights of affinity, which super-resolves nothing"),
        (changed_lr(degradation={"scale": 8}), "holds weights of scale 4, .*lr.json is coarser by 8"),
        (changed_lr(dtype="uint16"), "holds uint16, the weights of .* see uint8"),
        (swapped_weights, "has sha256 .*, its card says"),
        (lambda made: made.lr.unlink(), "lr.json does not exist"),
        (lambda made: made.card.unlink(), "does not exist: weights need their card"),
    ],
)
def test_allocate_refuses_before_anything_is_written(
    tmp_path: Path, spoil: Callable[[SrProject], None], message: str
) -> None:
    made = project(tmp_path, "gpemsr")
    spoil(made)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        made.allocate()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("sr-*"))
    assert not made.allocation.exists()


def test_weights_swapped_after_allocation_are_refused(tmp_path: Path) -> None:
    made = project(tmp_path, "gpemsr")
    made.allocate()
    swapped_weights(made)
    with pytest.raises(ValueError, match="has sha256"):
        made.job("1-of-1")


@pytest.mark.parametrize("shape", [(1, 3, 5), (2, 1, 20), (9, 16, 16)])
def test_volumes_smaller_than_window_and_neighbourhood(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    made = SrProject(tmp_path, write_weights(tmp_path, "gpemsr", 4, sections=5))
    made.write_lr(tissue_like(shape))
    made.all(n=2)
    assert made.voxels().shape == (shape[0], shape[1] * 4, shape[2] * 4)
    assert made.voxels().any()


# -- clean ------------------------------------------------------------------------------------------------------------


def test_clean_removes_what_no_allocation_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = project(tmp_path / "volume")
    made.all()
    old = (made.folder / "sr.zarr").resolve()
    made.settings["overlap"] = 8
    made.allocate()
    clean(tmp_path, yes=True)
    assert old.is_dir(), "sr.zarr still points to it"
    made.all()
    new = (made.folder / "sr.zarr").resolve()
    clean(tmp_path)
    assert f"would remove {old}" in capsys.readouterr().out
    assert old.is_dir()
    clean(tmp_path, yes=True)
    assert sorted(path.name for path in made.folder.glob("sr-*")) == sorted([new.name, f"{new.stem}.records"])
    assert made.all()["sha256"] == read_json(made.folder / "sr.json")["sha256"]
    clean(tmp_path)
    assert "nothing to remove" in capsys.readouterr().out


def test_clean_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        clean(tmp_path / "nowhere")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(golden_path(), **golden_voxels())  # type: ignore[arg-type]
