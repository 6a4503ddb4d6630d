"""Result numbers of the steps of segmentation: as test_result_numbers.py, from fixed affinities on.

``python tests/test_segment_numbers.py`` writes the goldens anew, after an intended change and a raised number.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from emsr.durable import read_json, write_json
from emsr.stores.shards import shard_boxes
from emsr.stores.zarr import Layout, create, open_array, write_box
from segment_project import CHUNK, SHAPE, Chain, image, weights
from segment_scored import Scored
from segmentable import cells, tiles
from sr_project import tissue_like
from test_result_numbers import ELSEWHERE, golden_path

Made = dict[str, np.ndarray]
STEPS = [
    *("allocate-affinities", "affinities", "prove-affinities", "allocate-fragments", "fragments", "prove-fragments"),
    *("agglomerate", "choose-threshold", "segment", "score-segments"),
]


def fixed(chain: Chain) -> None:
    """Affinities that depend on no network, as ``prove_affinities`` leaves them."""
    near, path = cells(SHAPE, 3, 9.0), chain.folder / "fixed.zarr"
    shard: Any = tuple(chain.shard)
    create(path, Layout(SHAPE, "uint8", shard, tuple(CHUNK), (40.0, 4.0, 4.0), channels=3))  # type: ignore[arg-type]
    array = open_array(path, write=True)
    for box in shard_boxes(array):
        write_box(array, box.start, near[(..., *box.slices)])
    card = read_json(chain.folder / "affinities.json")
    write_json(chain.folder / "affinities.json", {**card, "array": "fixed.zarr"})


def numbers(document: dict[str, Any], *keys: str) -> Made:
    return {key: np.array(document[key]) for key in keys}


@cache
def everything() -> dict[str, Made]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        chain, made = Chain(folder / "a"), {}
        proved = chain.predict(image(folder, tissue_like(SHAPE)), weights(folder))
        stated = read_json(chain.folder / "affinities" / "allocate.json")
        made["allocate-affinities"] = numbers(stated, "sections", "shape", "window", "depth", "halo", "translation_nm")
        made["affinities"] = {"voxels": chain.voxels("affinities.json")}
        made["prove-affinities"] = {"shards": np.array(sorted(proved["shards"]))}
        fixed(chain)
        proved = chain.cut()
        made["allocate-fragments"] = numbers(read_json(chain.folder / "fragments" / "allocate.json"), "shape", "shard")
        made["fragments"] = {"voxels": chain.voxels("fragments.json")}
        made["prove-fragments"] = {"shards": np.array(sorted(proved["shards"]))}
        segments = chain.merge(0.4)
        with np.load(chain.folder / "agglomeration" / "history.npz") as history:
            merges = history["merges"]
            made["agglomerate"] = {"pairs": np.stack([merges["a"], merges["b"]]), "score": merges["score"]}
        made["segment"] = {"voxels": segments}
        labels = image(folder, tiles(SHAPE, 12, 5), name="labels")
        chosen = chain.choose({"labels": str(labels), "validation": [[2, 6]], "candidates": [0.2, 0.4, 0.6, 0.8]})
        voi = [list(chosen["voi"][str(threshold)].values()) for threshold in (0.2, 0.4, 0.6, 0.8)]
        made["choose-threshold"] = {"threshold": np.array(chosen["threshold"]), "voi": np.array(voi)}
        made["score-segments"] = scores(folder / "scored")
    return made


def scores(folder: Path) -> Made:
    folder.mkdir()
    scored = Scored(folder)
    scored.labels(scored.truth)
    for name in ("bicubic", "sr", "hr"):
        scored.write(name)
    found = scored.score()
    figures = ("voi_split", "voi_merge", "arand")
    rows = [[found["segmentation"][name][figure] for figure in figures] for name in ("bicubic", "sr", "hr")]
    membrane = [found["membrane"][name]["best_f1"] for name in ("bicubic", "sr", "hr")]
    share = [found["worth"]["voi"][key] for key in ("share", "low", "high")]
    return {"segmentation": np.array(rows), "membrane": np.array(membrane), "worth": np.array(share)}


def test_every_step_has_a_golden() -> None:
    assert set(STEPS) <= ELSEWHERE


@pytest.mark.parametrize("step", STEPS)
def test_output_changes_only_with_the_result_number(step: str) -> None:
    made = everything()[step]
    with np.load(golden_path(step)) as golden:
        assert set(golden.files) == set(made)
        for name in made:
            if step == "affinities":  # float bits of another CPU type
                assert np.abs(golden[name].astype(int) - made[name].astype(int)).max() <= 1
            elif made[name].dtype.kind == "f":
                np.testing.assert_allclose(made[name], golden[name], rtol=1e-3, err_msg=name)
            else:
                assert np.array_equal(golden[name], made[name]), name


if __name__ == "__main__":
    for step in STEPS:
        np.savez_compressed(golden_path(step), **everything()[step])  # type: ignore[arg-type]
