"""`emsr clean` among the arrays of segmentations; that of sr is tested in test_superresolve.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from emsr.commands.clean import clean
from emsr.steps.affinities import allocate_affinities
from emsr.steps.fragments import allocate_fragments
from segment_project import Chain, image, weights
from sr_project import tissue_like

SHAPE = (3, 34, 34)


def arrays(chain: Chain) -> dict[str, set[str]]:
    """Names of arrays and records by stage."""
    found = {}
    for stage in ("affinities", "fragments"):
        names = {path.name for path in (chain.folder / stage).glob(f"{stage}-*")}
        assert names
        found[stage] = names
    return found


def test_clean_keeps_what_is_finished_and_what_is_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = Chain(tmp_path / "volume" / "segmentations" / "hr", jobs=1)
    card, weight = image(tmp_path, tissue_like(SHAPE)), weights(tmp_path)
    chain.predict(card, weight)
    chain.cut()
    first = arrays(chain)
    chain.affinities["overlap"], chain.fragments["halo"] = 4, [0, 4, 4]
    allocate_affinities(chain.affinities, card, weight, chain.folder / "affinities" / "allocate.json")
    allocate_fragments(chain.fragments, chain.folder / "affinities.json", chain.folder / "fragments" / "allocate.json")
    begun = arrays(chain)
    assert all(first[stage] < begun[stage] for stage in first)
    clean(tmp_path, yes=True)
    assert arrays(chain) == begun, "the cards still name the first ones, the allocations the second"
    chain.predict(card, weight)
    chain.cut()
    finished = arrays(chain)
    capsys.readouterr()
    clean(tmp_path)
    told = capsys.readouterr().out
    for stage, names in first.items():
        for name in names:
            assert f"would remove {chain.folder / stage / name}\n" in told
    assert arrays(chain) == finished, "without --yes nothing is removed"
    clean(tmp_path, yes=True)
    assert arrays(chain) == {stage: finished[stage] - first[stage] for stage in first}
    chain.merge()
    assert (chain.folder / "segments.json").is_file(), "what is left is whole"
    clean(tmp_path)
    assert "nothing to remove" in capsys.readouterr().out


def test_clean_leaves_alone_what_no_allocation_is_beside(tmp_path: Path) -> None:
    kept = tmp_path / "volume" / "segmentations" / "hr" / "affinities" / "affinities-0123.zarr"
    kept.mkdir(parents=True)
    clean(tmp_path, yes=True)
    assert kept.is_dir()
