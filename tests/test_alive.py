"""The last word of the demo: it fails where a stage is dead or sr is no better than bicubic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emsr.durable import write_json
from project import ROOT

GOOD = {"bicubic": {"psnr": 18.0, "ssim": 0.3}, "sr": {"psnr": 19.0, "ssim": 0.4}}
ALIVE = {"entries": 512, "entries_used": 0.9, "perplexity": 300.0, "psnr": 20.0, "ssim": 0.5}


@pytest.mark.parametrize(
    ("image", "voi", "health", "code", "why"),
    [
        (GOOD, 0.5, ALIVE, 0, "all holds"),
        ({**GOOD, "sr": {"psnr": 19.0, "ssim": 0.3}}, 0.5, ALIVE, 1, "SSIM no better than bicubic"),
        (GOOD, 1.1, ALIVE, 1, "segments no better than bicubic's"),
        (GOOD, 0.5, {**ALIVE, "entries_used": 0.012, "perplexity": 5.0}, 1, "a collapsed codebook under a good image"),
    ],
)
def test_it_fails_where_a_condition_does(
    tmp_path: Path, image: dict[str, object], voi: float, health: dict[str, float], code: int, why: str
) -> None:
    segmentation = {"bicubic": {"voi": 1.0}, "sr": {"voi": voi}}
    write_json(tmp_path / "tissue/scores.json", {"image": image, "segmentation": segmentation})
    write_json(tmp_path / "trainings/tissue/codebook.json", {"health": health})
    write_json(tmp_path / "trainings/tissue/codebook.record.json", {})
    command = [sys.executable, str(ROOT / "benchmarks" / "alive.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, why + done.stdout + done.stderr
    assert f"{5 if code == 0 else 5 - done.stdout.count('FAILS')} of 5 conditions hold" in done.stdout
    assert ("FAILS" in done.stdout) == bool(code)


def test_a_run_without_anything_to_hold_is_no_success(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "alive.py"), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 1
