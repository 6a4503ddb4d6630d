"""Neighbours, jobs, hashes and the proof that spares a rerun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsr.geometry import Box, ShardGrid
from emsr.plan import Plan, check_window, inputs_sha256, neighbour_table, settings_sha256
from emsr.shards import all_marks, jobs, parse_job, proved


@pytest.mark.parametrize(
    ("z", "named", "reason"),
    [
        (0, (0, 0, 0, 1, 2), "spec E: the first section stands before itself"),
        (1, (0, 0, 1, 2, 3), "spec E"),
        (2, (0, 1, 2, 3, 4), "inside"),
        (8, (6, 7, 8, 9, 9), "spec E: n-2 is made from n-4, n-3, n-2, n-1, n-1"),
        (9, (7, 8, 9, 9, 9), "spec E: n-1"),
    ],
)
def test_ends_are_those_of_the_authors(z: int, named: tuple[int, ...], reason: str) -> None:
    assert neighbour_table(10, 5, 1, (), ())[z] == named, reason


@pytest.mark.parametrize(
    ("sections", "step", "damaged", "missing", "z", "named", "reason"),
    [
        (5, 1, [4], [], 5, (3, 3, 5, 6, 7), "a damaged neighbour: the nearest good section of lower index"),
        (5, 1, [6], [], 5, (3, 4, 5, 5, 7), "above the centre that may be the centre itself"),
        (5, 1, [3, 4], [], 5, (2, 2, 5, 6, 7), "two damaged: further below"),
        (5, 1, [], [4], 5, (3, 3, 5, 6, 7), "a missing neighbour: like a damaged one"),
        (5, 1, [], [5], 5, None, "a missing centre has nothing to be made from"),
        (5, 1, [5], [], 5, (3, 4, 5, 6, 7), "a damaged centre is made from its own data"),
        (5, 1, [5, 6], [], 5, (3, 4, 5, 4, 7), "and never stands in for a damaged neighbour"),
        (5, 1, [0], [], 0, (1, 1, 0, 1, 2), "nothing good below: the nearest good above"),
        (5, 1, [0, 1], [], 2, (2, 2, 2, 3, 4), "nothing good below: above, here the centre"),
        (3, 4, [], [], 2, (0, 2, 6), "steps of four stop at the first section"),
        (3, 4, [], [], 8, (4, 8, 9), "and at the last"),
        (3, 4, [4], [], 8, (3, 8, 9), "the replacement is the nearest good section, not the next in steps"),
        (1, 1, [5], [], 5, (5,), "without neighbours every centre is its own"),
        (7, 1, [], [], 5, (2, 3, 4, 5, 6, 7, 8), "any odd number"),
    ],
)
def test_neighbours(
    sections: int, step: int, damaged: list[int], missing: list[int], z: int, named: tuple[int, ...], reason: str
) -> None:
    assert neighbour_table(10, sections, step, damaged, missing)[z] == named, reason


def test_fewer_sections_than_the_network_needs_work() -> None:
    assert neighbour_table(1, 5, 1, (), ()) == ((0, 0, 0, 0, 0),)
    assert neighbour_table(2, 5, 1, (), ()) == ((0, 0, 0, 1, 1), (0, 0, 1, 1, 1))


def test_a_volume_without_a_good_section_uses_centres() -> None:
    assert neighbour_table(2, 3, 1, (0, 1), ()) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(("sections", "step"), [(4, 1), (0, 1), (3, 0)])
def test_sections_without_a_centre_are_refused(sections: int, step: int) -> None:
    with pytest.raises(ValueError, match="have no centre"):
        neighbour_table(10, sections, step, (), ())


@given(st.integers(1, 30), st.sampled_from([1, 3, 5, 7]), st.integers(1, 5), st.data())
def test_neighbours_are_good_sections_of_the_volume(n: int, sections: int, step: int, data: st.DataObject) -> None:
    z = st.sets(st.integers(0, n - 1), max_size=n)
    damaged, missing = data.draw(z), data.draw(z)
    for centre, named in enumerate(neighbour_table(n, sections, step, damaged, missing)):
        assert (named is None) == (centre in missing)
        for place, section in enumerate(named or ()):
            assert 0 <= section < n
            assert section not in damaged | missing or section == centre
            assert section == centre or place != sections // 2


grids = st.builds(
    lambda counts, edge: ShardGrid(tuple(c * e for c, e in zip(counts, edge, strict=True)), edge),  # type: ignore[arg-type]
    st.tuples(*[st.integers(1, 7)] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
)


@given(grids, st.integers(1, 40))
def test_every_shard_has_exactly_one_job(grid: ShardGrid, n: int) -> None:
    dealt = jobs(grid, n)
    assert len(dealt) == n
    assert all(box.shape[0] == 1 and box.size for job in dealt for box in job), "one shard deep, and never empty"
    assert sorted(index for job in dealt for box in job for index in box.indices()) == list(grid.indices)


@pytest.mark.parametrize(
    ("counts", "n", "shapes", "reason"),
    [
        ((1, 4, 4), 4, [[(1, 2, 2)]] * 4, "quarters of a layer, not stripes"),
        ((1, 2, 8), 2, [[(1, 2, 4)]] * 2, "cut across the longer side"),
        ((4, 3, 3), 2, [[(1, 3, 3)] * 2] * 2, "fewer jobs than layers: whole layers"),
    ],
)
def test_shapes_of_jobs(counts: Any, n: int, shapes: list[Any], reason: str) -> None:
    assert [[box.shape for box in job] for job in jobs(ShardGrid(counts, (1, 1, 1)), n)] == shapes, reason


@pytest.mark.parametrize(("counts", "n"), [((2, 6, 6), 3), ((3, 6, 6), 2), ((3, 8, 8), 5), ((1, 6, 6), 4)])
def test_jobs_share_the_work_evenly(counts: Any, n: int) -> None:
    grid = ShardGrid(counts, (1, 1, 1))
    sizes = [sum(box.size for box in job) for job in jobs(grid, n)]
    assert max(sizes) <= 1.25 * len(grid.indices) / n


def test_jobs_without_shards_are_empty() -> None:
    assert sorted(map(len, jobs(ShardGrid((1, 1, 1), (1, 1, 1)), 3))) == [0, 0, 1]


def test_jobs_measure_sides_in_voxels() -> None:
    grid = ShardGrid((1, 400, 400), (1, 100, 200))  # four shards along y, two along x: a square
    assert [box.shape for job in jobs(grid, 2) for box in job] == [(1, 2, 2), (1, 2, 2)]


@pytest.mark.parametrize("job", ["0-of-2", "3-of-2", "1of2", "", "a-of-2", "1-of-2.json", "-1-of-2"])
def test_a_job_that_is_none_is_refused(job: str) -> None:
    with pytest.raises(ValueError, match="is not I-of-N"):
        parse_job(job)


@pytest.mark.parametrize(
    ("given", "marks", "reason"),
    [
        (["1-of-1"], ["1-of-1"], "one job"),
        (["2-of-3"], ["1-of-3", "2-of-3", "3-of-3"], "one mark stands for its set"),
        (["2-of-3", "1-of-3"], ["2-of-3", "1-of-3"], "several stand for themselves"),
    ],
)
def test_marks(given: list[str], marks: list[str], reason: str) -> None:
    folder = Path("jobs")
    assert all_marks([folder / f"{job}.json" for job in given]) == [folder / f"{job}.json" for job in marks], reason


def test_a_job_counts_from_one() -> None:
    assert parse_job("1-of-2") == (0, 2)
    assert parse_job("12-of-12") == (11, 12)


def test_columns_are_the_windows_that_touch_a_box() -> None:
    plan = Plan((1, 40, 40), 4, 16, 4, (1, 32, 32), ((0,),))
    assert plan.starts(1) == (0, 12, 24)
    assert plan.columns(Box((0, 0, 0), (1, 48, 49))) == ((0, 0), (0, 12)), "sr voxel 48 is the first of window 12"
    assert plan.columns(Box((0, 63, 0), (1, 65, 1))) == ((0, 0), (12, 0)), "window 0 ends at sr voxel 64"
    assert plan.columns(Box((0, 64, 0), (1, 65, 1))) == ((12, 0),)


@pytest.mark.parametrize(
    ("window", "scale", "stride", "message"),
    [
        (30, 8, 16, "window 30 is not a multiple of 4, which the network needs: use 28"),
        (2, 8, 16, "window 2 is not a multiple of 4, which the network needs: use 4"),
        (20, 4, 32, "window 20 is not a multiple of 8, which the network needs: use 16"),
        (64, 8, 16, None),
        (20, 4, 16, None),
    ],
)
def test_windows_that_the_network_cannot_take(window: int, scale: int, stride: int, message: str | None) -> None:
    card = {"scale": scale, "options": {"latent_stride": stride}}
    if message is None:
        check_window(window, 1, card)
    else:
        with pytest.raises(ValueError, match=message):
            check_window(window, 1, card)


def test_inputs_are_sections_in_their_order() -> None:
    hashes = ["a", "b", "c"]
    one = inputs_sha256(((0, 1), None), hashes)
    assert one == inputs_sha256([[0, 1], None], hashes)
    assert one != inputs_sha256(((1, 0), None), hashes), "order matters"
    assert one != inputs_sha256(((0, 1), (1, 1)), hashes), "so does a section without data"
    assert one != inputs_sha256(((0, 1), None), ["a", "x", "c"]), "and the voxels"
    assert one == inputs_sha256(((0, 1), None), ["a", "b", "x"]), "but not those of other sections"


def test_settings_have_one_spelling() -> None:
    assert settings_sha256({"a": 1, "b": (1, 2)}) == settings_sha256({"b": [1, 2], "a": 1})
    assert settings_sha256({"a": 1}) != settings_sha256({"a": 2})


PROOF = {"schema": 1, "settings": {"shard": [1, 2, 3], "result": 1}, "marks": ["jobs/1-of-2.json", "jobs/2-of-2.json"]}


@pytest.mark.parametrize(
    ("proof", "settings", "proves", "reason"),
    [
        (PROOF, {"result": 1, "shard": (1, 2, 3)}, True, "equal settings, however they are spelt"),
        (PROOF, {"result": 2, "shard": [1, 2, 3]}, False, "another result number"),
        (PROOF, {"result": 1, "shard": [1, 2, 4]}, False, "other settings"),
        ({**PROOF, "marks": []}, PROOF["settings"], False, "no marks prove nothing"),
        ({"schema": 1}, PROOF["settings"], False, "not a proof"),
        ([], PROOF["settings"], False, "not a proof either"),
        (None, PROOF["settings"], False, "never stitched"),
        ("torn", PROOF["settings"], False, "torn file"),
    ],
)
def test_proved(tmp_path: Path, proof: Any, settings: Any, proves: bool, reason: str) -> None:
    path = tmp_path / "sr" / "proof.json"
    path.parent.mkdir()
    if proof is not None:
        path.write_text('{"marks": [' if proof == "torn" else json.dumps(proof))
    marks = [f"{tmp_path}/sr/jobs/1-of-2.json", f"{tmp_path}/sr/jobs/2-of-2.json"]
    assert proved(path, settings) == (marks if proves else None), reason
