"""Does a finished run hold what emsr promises: sr over bicubic on the test sections, also segmented; every stage alive?

python benchmarks/alive.py RESULTS        prints a line for each condition; ends with 1 if one does not hold
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from emsr.durable import read_json
from emsr.report.health import checks


def conditions(results: Path) -> Iterator[tuple[str, str, bool]]:
    """(what, figure and what was asked, whether it holds) of every volume with scores and every trained stage."""
    for file in sorted(results.glob("*/scores.json")):
        scores = read_json(file)
        image, segmented = scores["image"] or {}, scores["segmentation"] or {}
        for measure in ("psnr", "ssim") if image else ():
            floor, found = (image[name][measure] for name in ("bicubic", "sr"))
            said = f"{found:.3f}, more than bicubic's {floor:.3f}"
            yield f"{file.parent.name}: test {measure.upper()}", said, found > floor
        if segmented.keys() >= {"bicubic", "sr"}:
            floor, found = (segmented[name]["voi"] for name in ("bicubic", "sr"))
            yield f"{file.parent.name}: test VOI", f"{found:.3f} bits, less than bicubic's {floor:.3f}", found < floor
    for file in sorted(results.glob("trainings/*/*.json")):
        if file.stem.count("."):
            continue
        for check in checks(file.stem, read_json(file).get("health")):
            if check.state in ("pass", "warn"):
                what = f"{file.parent.name} {check.stage}: {check.name}"
                yield what, f"{check.figure}, {check.asked}", check.state == "pass"


def main(results: Path) -> int:
    found = list(conditions(results))
    for what, said, holds in found:
        print(f"{'holds' if holds else 'FAILS'}  {what}: {said}")
    held = sum(holds for _, _, holds in found)
    print(f"{held} of {len(found)} conditions hold")
    return 0 if found and held == len(found) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
