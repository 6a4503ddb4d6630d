"""`emsr plan`: numbers from a config, from options alone, from what a job took; one line for a mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from emsr import cli
from sr_project import TINY, SrProject, tissue_like, write_weights

ROOT = Path(__file__).parents[1]
WORDS = "--shape 9 40 40 --scale 8 --sections 3 --window 16 --overlap 4 --shard 4 64 64 --jobs 2 --preset small"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """config.yaml with one volume, of synthetic tissue, and a tiny network."""
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    training = values["trainings"]["tissue"]
    training |= {"window": 16, "model": {**training["model"], "options": TINY}}
    values["trainings"], volume = {"tissue": training}, values["volumes"]["tissue"]
    values["volumes"] = {"tissue": {**volume, "segmentations": None}}
    values["superresolve"] |= {"overlap": 4, "shard": [4, 64, 64], "chunk": [4, 64, 64]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "config.yaml"


def say(capsys: pytest.CaptureFixture[str], words: str) -> dict[str, str]:
    """What `emsr plan` prints, by the first word of each line."""
    assert cli.main(["plan", *words.split()]) == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    return {" ".join(line[:12].split()): line[12:] for line in reversed(lines)}


def test_a_config_alone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, f"{config}")
    assert said["volume"] == "lr 32 x 48 x 48, sr 32 x 384 x 384 voxels, x8"
    assert said["windows"] == "16 lr pixels, overlap 4: 4 x 4 over a section"
    assert said["shards"] == "4 x 64 x 64 sr voxels: 288"
    assert "2; the largest has 144 shards" in said["jobs"]
    assert said["a centre"].startswith("512 in windows"), "32 sections, 16 windows each"
    assert said["a section"].startswith("736 in windows"), "of eight layers the first and last have one neighbour more"
    assert "not ingested yet" in said["note"]
    assert not (config.parent / "results").exists(), "nothing is written"


def test_options_replace_what_a_config_says(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, f"{config} --jobs 1 --overlap 0 --shard 32 64 64 --shape 8 16 16 --rate 100")
    assert said["windows"] == "16 lr pixels, overlap 0: 1 x 1 over a section"
    assert said["jobs"].startswith("1; the largest has 4 shards")
    assert "note" not in said
    assert "1.000 times one pass" in said["operations"], "one window over all of it, and no halo along z"
    assert said["time"] == "0.36 hours of jobs, the longest 0.36", "8 x 128 x 128 voxels"


def test_a_pilot_and_a_mask(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = config.parent / "pilot.yaml"
    overlay.write_text("volumes: {tissue: {pilot: [[0, 4], [0, 9], [0, 8]]}}")
    said = say(capsys, f"{config} {overlay}")
    assert said["shards"] == "4 x 64 x 64 sr voxels: 2, 286 skipped"


def test_samples_are_jobs_of_their_own(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their centres take count times as much; their arrays are on the disk too, and time is told for both."""
    overlay, values = config.parent / "samples.yaml", yaml.safe_load(config.read_text())
    model = {"name": "irn", "preset": "small", "options": {"blocks": 1, "layers": 1, "growth": 4, "max_h": 6}}
    values["trainings"]["tissue"] |= {"model": model, "sections": 1, "stages": {"image": {"steps": 10}}}
    config.write_text(yaml.safe_dump(values))
    samples = {"count": 5, "temperature": 1.0, "seed": 0}
    overlay.write_text(yaml.safe_dump({"volumes": {"tissue": {"samples": samples}}}))
    assert cli.main(["plan", str(config), "--rate", "1e5"]) == 0
    before = capsys.readouterr().out.splitlines()
    assert cli.main(["plan", str(config), str(overlay), "--rate", "1e5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    more = [line for line in lines if line not in before and "free in" not in line]
    assert [line[:12].strip() for line in more] == ["samples", "samples", *["disk"] * 5, "time"]
    operations = float(next(line for line in lines if line.startswith("operations")).split()[1])
    found = re.search(r"5 of each centre in 2 jobs more, beside those of sr: ([\d.]+) GMAC", more[0])
    assert found
    assert float(found[1]) == pytest.approx(5 * operations, rel=0.01), "a section that enters takes nothing"
    disk = [line.split(":")[0].split("disk")[1].strip() for line in more if line.startswith("disk")]
    names = [f"tissue deviation {part}" for part in ("sr", "sr records", "sr jobs", "valid")]
    assert disk == [*names, "all"]
    hours = float(re.search(r"time +([\d.]+) hours of jobs", "\n".join(lines))[1])
    assert float(more[-1].split()[2]) == pytest.approx(5 * hours, abs=0.03)
    other = write_weights(config.parent, "bicubic", 8)
    assert cli.main(["plan", str(config), str(overlay), "--weights", str(other)]) == 0
    said = capsys.readouterr().out
    assert "samples are left out: model bicubic gives one image" in said
    assert "deviation" not in said


def test_an_ingested_volume_with_damage_and_what_a_job_took(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path, "gpemsr", 8)
    made = SrProject(tmp_path / "results" / "v", weights)
    made.folder.mkdir(parents=True)
    made.write_lr(tissue_like((9, 24, 24)), missing=(5,))
    made.all()
    overlay = tmp_path / "v.yaml"
    source = {"path": str(tmp_path / "results"), "dataset": None, "voxel_size_nm": None}
    volume = {"lr": source, "weights": {"path": str(weights.with_suffix(".safetensors"))}}
    overlay.write_text(yaml.safe_dump({"volumes": {"tissue": None, "v": volume}, "trainings": {"tissue": None}}))
    stats = made.mark("1-of-1").with_suffix(".stats.json")
    took = json.loads(stats.read_text())
    stats.write_text(json.dumps({**took, "seconds": 7200.0}))
    said = say(capsys, f"{config} {overlay} --jobs 1 --stats {stats}")
    assert said["time"] == "2.00 hours of jobs, the longest 2.00"
    assert took["windows"] == 9 * 4
    assert said["a centre"].startswith("32 in windows"), "four windows of the missing section are empty"
    assert "note" not in said
    assert cli.main(["plan", str(config), str(overlay), "--stats", str(stats), "--workers", "2"]) == 1
    assert "windows in flight, these have 2: state --workers 1" in capsys.readouterr().err
    stats.write_text(json.dumps({**took, "state": "running"}))
    assert cli.main(["plan", str(config), str(overlay), "--stats", str(stats)]) == 1
    assert "not of a finished job" in capsys.readouterr().err


def test_options_alone(capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, WORDS)
    assert said["network"] == "gpemsr, 3 sections, 4.1 million parameters"
    assert "indexer" in said["a section"]
    assert "flow" in said["a centre"]


def test_weights_of_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_weights(tmp_path, "bicubic", 4)
    said = say(capsys, f"--weights {weights} --shape 9 40 40 --overlap 4 --shard 4 64 64 --jobs 2")
    assert said["operations"].startswith("0.00 MMAC")


@pytest.mark.parametrize(("words", "line"), [
    ("", "no network is named: state --weights CARD, --preset, or a config"),
    (WORDS.replace("--jobs 2", ""), "--jobs is not stated: without a config it is needed, as --jobs 16"),
    (WORDS.replace("--scale 8", ""), "--preset small needs --scale beside it"),
    (WORDS.replace("small", "publish"), "preset 'publish' is unknown; did you mean 'published'?"),
    (WORDS.replace("--jobs 2", "--jobs 0"), "jobs 0 make nothing: state at least 1"),
    (WORDS.replace("9 40 40", "9 40"), "[9, 40] is not three integers"),
    (WORDS.replace("9 40 40", "9 0 40"), "shape [9, 0, 40] holds no voxel"),
    (WORDS.replace("4 64 64", "4 60 64"), "shard [4, 60, 64] is not a multiple of scale 8"),
    (WORDS.replace("--overlap 4", "--overlap 16"), "overlap 16 leaves no step for window 16"),
    (WORDS.replace("--window 16", "--window 18"), "window 18 is not a multiple of 4"),
    (WORDS.replace("--scale 8", "--scale 3"), "scale 3 is not one that model gpemsr has: 4, 8, 16"),
    (f"{WORDS} --workers 0", "workers 0 make nothing: state at least 1"),
    (f"{WORDS} --rate 0", "rate 0.0 makes no voxel"),
    (f"{WORDS} --stats nowhere.json", "nowhere.json"),
    (WORDS.replace("small", "small --model affinity").replace("--scale 8", "--scale 1"), "super-resolves nothing"),
])  # fmt: skip
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], words: str, line: str) -> None:
    assert cli.main(["plan", *words.split()]) == 1
    shown = capsys.readouterr()
    assert line in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert not shown.out


def test_volumes_must_be_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = config.parent / "two.yaml"
    values = yaml.safe_load(config.read_text())["volumes"]["tissue"]
    two.write_text(yaml.safe_dump({"volumes": {"other": values}}))
    assert cli.main(["plan", str(config), str(two)]) == 1
    assert "the config super-resolves 2 volumes: state one, as --volume tissue or other" in capsys.readouterr().err
    assert cli.main(["plan", str(config), "--volume", "tisue"]) == 1
    assert "did you mean 'tissue'?" in capsys.readouterr().err
