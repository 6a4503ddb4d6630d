"""Patches, schedules, resumable state and the loop, on a network small enough to train in a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emsr.layers.flow import warp
from emsr.models.stage import Stage
from emsr.training import schedule, state, warps
from emsr.training.data import Batch, Patches, Place, Request, Series, cut, mirrored, orient, read_ahead
from emsr.training.loop import Result, Run, train
from emsr.training.objective import Losses, Turn

SCALE = 4


def series(y: int = 40, x: int = 36, name: str = "a") -> Series:
    """A volume whose lr pixels are those of hr at the block's corner, so that pairs can be told right."""
    hr = np.random.default_rng(0).integers(0, 256, (6, y * SCALE, x * SCALE), dtype=np.uint8)
    return Series(name, np.ascontiguousarray(hr[:, ::SCALE, ::SCALE]), hr, ((0, 0, 1), (0, 1, 2), (2, 3, 4)))


REQUEST = Request(patch=16, scale=SCALE, batch=5)


def test_a_batch_is_the_sections_of_its_places() -> None:
    one = series()
    batch = Patches([one], replace(REQUEST, augment=False), 3, "x").batch(7)
    assert batch.lr is not None
    assert batch.hr is not None
    assert batch.lr.shape == (5, 3, 1, 16, 16)
    assert batch.hr.shape == (5, 1, 64, 64)
    for place, lr, hr in zip(batch.places, batch.lr, batch.hr, strict=True):
        box = np.s_[place.y : place.y + 16, place.x : place.x + 16]
        for section, patch in zip(one.table[place.row], lr, strict=True):
            np.testing.assert_array_equal(patch[0], one.lr[(section, *box)])  # type: ignore[index]
        np.testing.assert_array_equal(hr[0, ::SCALE, ::SCALE], lr[1, 0])


def test_a_stage_without_lr_sees_all_of_hr() -> None:
    one = series()
    patches = Patches([one], Request(patch=64, scale=1, batch=5, lr=False, augment=False), 0, "codebook")
    batches = [patches.batch(step) for step in range(40)]
    assert max(place.y for batch in batches for place in batch.places) > 40 * SCALE - 64 - 10
    assert max(place.x for batch in batches for place in batch.places) > 36 * SCALE - 64 - 10
    for place, hr in ((p, h) for b in batches if b.hr is not None for p, h in zip(b.places, b.hr, strict=True)):
        box = np.s_[one.centre(place.row), place.y : place.y + 64, place.x : place.x + 64]
        np.testing.assert_array_equal(hr[0], one.hr[box])  # type: ignore[index]


@pytest.mark.parametrize("orientation", range(8))
def test_lr_and_hr_turn_together(orientation: int) -> None:
    one = series()
    patches = Patches([one], REQUEST, 0, "x")
    plain, turned = patches.read([Place(0, 1, 3, 5, 0)]), patches.read([Place(0, 1, 3, 5, orientation)])
    for one, other in ((plain.lr, turned.lr), (plain.hr, turned.hr)):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(other, orient(one, orientation))


def test_the_eight_orientations_differ_and_all_occur() -> None:
    square = np.arange(9).reshape(3, 3)
    assert len({orient(square, k).tobytes() for k in range(8)}) == 8
    drawn = Patches([series()], REQUEST, 0, "x")
    assert {place.orientation for step in range(30) for place in drawn.batch(step).places} == set(range(8))


def test_batches_depend_on_seed_stream_and_step_alone() -> None:
    def places(seed: int, stream: str, step: int) -> tuple[Place, ...]:
        return Patches([series()], REQUEST, seed, stream).batch(step).places

    assert places(1, "a", 2) == places(1, "a", 2)
    assert len({places(1, "a", 2), places(2, "a", 2), places(1, "b", 2), places(1, "a", 3)}) == 4


def test_fixed_patches_spread_over_the_sections_and_fill_batches() -> None:
    batches = Patches([series(), series(name="b")], replace(REQUEST, batch=4), 0, "v").fixed(12)
    rows = [(place.series, place.row) for batch in batches for place in batch.places]
    assert [len(batch.places) for batch in batches] == [4, 4, 4]
    assert rows == [(s, r) for s in range(2) for r in range(3) for _ in range(2)]


def test_a_lattice_makes_places_recur_and_reaches_the_far_border() -> None:
    drawn = Patches([series(41, 36)], replace(REQUEST, lattice=8), 0, "x")
    corners = {(p.y, p.x) for step in range(60) for p in drawn.batch(step).places}
    assert corners == {(y, x) for y in (0, 8, 16, 24, 25) for x in (0, 8, 16, 20)}


@pytest.mark.parametrize(
    ("length", "why"),
    [(16, "just fits"), (10, "mirrored once"), (4, "mirrored again and again"), (1, "one pixel, repeated")],
)
def test_small_sections_are_mirrored_and_pairs_stay_pairs(length: int, why: str) -> None:
    lr = np.random.default_rng(1).integers(0, 256, (length,))
    padded = np.pad(lr, (0, 16 - length), mode="reflect" if length > 1 else "edge")
    np.testing.assert_array_equal(lr[mirrored(0, 16, length)], padded, err_msg=why)
    hr = mirrored(0, 16, length, SCALE).reshape(16, SCALE)
    np.testing.assert_array_equal(hr // SCALE, np.repeat(mirrored(0, 16, length)[:, None], SCALE, 1))
    if 1 < length < 16:
        np.testing.assert_array_equal(hr[length], hr[length - 2][::-1], err_msg="mirrored blocks run backwards")


def test_no_usable_section_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"no undamaged section .* in a: widen the ranges"):
        Patches([replace(series(), table=())], REQUEST, 0, "x")


def test_reading_ahead_keeps_the_order_and_passes_errors_on() -> None:
    assert list(read_ahead(lambda step: step * step, range(3, 9))) == [(s, s * s) for s in range(3, 9)]
    assert list(read_ahead(lambda step: step, range(0))) == []
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda step: 1 // (2 - step), range(5)))


STAGE = Stage("test", "image", steps=12, batch=5, patch=16, learning_rate=0.01, validate_every=4, checkpoint_every=3)


@pytest.mark.parametrize(
    ("step", "value", "why"),
    [
        (0, 4e-4, "begins at the full rate"),
        (40_000, 4e-4, "restarts with the discriminator"),
        (20_000, 2e-4, "half-way down the first cosine"),
        (79_999 + 80_000, None, "second segment of stage two is cut where its cosine is not yet down"),
        (200_000, 1e-7, "third segment of stage two is down after its period"),
        (239_999, 1e-4, "and has climbed by a quarter before its restart"),
    ],
)
def test_published_restarts(step: int, value: float | None, why: str) -> None:
    stage = replace(
        STAGE,
        learning_rate=4e-4,
        schedule="restarts",
        restarts=(40_000, 80_000, 240_000, 360_000),
        periods=(40_000, 80_000, 120_000, 120_000, 120_000),
    )
    rate = schedule.rate(stage, step)
    if value is None:
        assert 1e-7 < rate < 4e-4, why
    else:
        assert rate == pytest.approx(value, rel=2e-3), why


def test_cosine_rises_and_falls() -> None:
    stage = replace(STAGE, steps=100, warmup=10, learning_rate=1.0)
    rates = [schedule.rate(stage, step) for step in range(100)]
    assert rates[0] < 0.11
    assert max(rates) > 0.9
    assert rates[-1] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_periods_must_fit_restarts() -> None:
    with pytest.raises(ValueError, match="1 periods for 1 restarts"):
        schedule.rate(replace(STAGE, schedule="restarts", restarts=(5,), periods=(5,)), 0)


class Tiny:
    """Learns hr's mean brightness of a patch from lr, with a buffer that counts steps as a codebook would."""

    def __init__(self, stop_at: int | None = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network: nn.Module = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1)
            )
            self.critic = nn.Conv2d(1, 1, 3)
        self.stop_at = stop_at
        self.patches = Patches([series()], REQUEST, 0, "tiny")
        self.afters: list[int] = []

    def state(self) -> nn.Module:
        return nn.ModuleDict({"network": self.network, "critic": self.critic})

    def turns(self) -> Sequence[Turn]:
        return Turn(self.network, self.losses), Turn(self.critic, self.critic_losses, first_step=5)

    def batch(self, step: int) -> Batch:
        return self.patches.batch(step)

    def parts(self, batch: Batch, step: int, count: int) -> Sequence[Batch]:
        return cut(batch, count)

    def losses(self, batch: Batch, step: int) -> Losses:
        if step == self.stop_at:
            raise KeyboardInterrupt
        return {"loss": (self.network(centre(batch)) - 0.5).square().mean()}

    def critic_losses(self, batch: Batch, step: int) -> Losses:
        critic = self.critic(centre(batch)).square().mean()
        return {"loss": critic, "critic": critic}

    def after(self, step: int) -> None:
        self.afters.append(step)

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"score": -float((network(centre(self.batch(1000))) - 0.5).square().mean())}


def centre(batch: Batch) -> Tensor:
    assert batch.lr is not None
    return torch.from_numpy(batch.lr[:, 1]).float() / 255


def run(folder: Path, stage: Stage = STAGE, tiny: Tiny | None = None, identity: str = "a") -> tuple[Result, Tiny]:
    tiny = tiny or Tiny()
    return train(tiny, stage, Run(folder, identity, "tiny")), tiny


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop_at", [4, 6, 9, 11])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "plain weights"),
        ({"weight_ema": 0.9}, "averaged weights are state too"),
        ({"weight_ema": 0.9, "precision": "bfloat16", "clip": 0.1}, "mixed precision"),
        ({"precision": "float16"}, "the scale of the loss is state too"),
    ],
)
def test_an_interrupted_training_ends_with_the_same_bits(
    tmp_path: Path, stop_at: int, changes: dict[str, Any], why: str
) -> None:
    stage = replace(STAGE, **changes)
    whole, tiny = run(tmp_path / "whole", stage)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stage, Tiny(stop_at))
    resumed, again = run(tmp_path / "cut", stage)
    assert again.afters[0] == stop_at // 3 * 3, "continues from the last state, not from the beginning"
    assert same(whole.weights, resumed.weights), why
    assert same(tiny.state().state_dict(), again.state().state_dict()), why
    assert whole.curve == resumed.curve
    assert whole.scores == resumed.scores


def test_another_identity_never_resumes_and_costs_the_first_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run with a forgotten overlay begins anew; going back to the settings before it goes on where they were."""
    whole, _ = run(tmp_path / "whole")
    for identity, stop_at in (("a", 7), ("b", 10)):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", tiny=Tiny(stop_at), identity=identity)
    assert "other settings has not ended; they go on from step 6 of" in caplog.text
    resumed, again = run(tmp_path / "cut", identity="a")
    assert again.afters[0] == 6
    assert same(whole.weights, resumed.weights)
    assert run(tmp_path / "cut", identity="b")[1].afters[0] == 9
    assert run(tmp_path / "cut", identity="c")[1].afters[0] == 0


def test_a_resumed_training_states_what_all_its_attempts_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock by which a step takes ten seconds and everything else nothing."""
    import emsr.training.loop as loop

    clock = [1000.0]
    advance = loop.Trainer.advance

    def slow(self: loop.Trainer, step: int, batch: Batch) -> float:
        clock[0] += 10
        return advance(self, step, batch)

    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop.Trainer, "advance", slow)
    for stop_at in (4, 8):  # states are saved after 3 and 6 steps
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, tiny=Tiny(stop_at))
        clock[0] += 5000
    stats = run(tmp_path)[0].stats
    assert (stats["attempts"], stats["steps"], stats["seconds"]) == (3, 12, 30 + 30 + 60)
    assert stats["steps_per_second"] == pytest.approx(0.1)
    assert stats["peak_memory_bytes"] > 1e6
    assert 0 < stats["cpu_seconds"] < 600


def test_training_learns_validates_and_keeps_the_best(tmp_path: Path) -> None:
    result, tiny = run(tmp_path, replace(STAGE, steps=60, learning_rate=0.05, weight_ema=0.5))
    validation = result.curve["validation"]
    assert [row["step"] for row in validation] == list(range(4, 61, 4))
    best = max(validation, key=lambda row: row["score"])
    assert result.scores == best
    assert best["score"] > validation[0]["score"] / 4, "the error fell to a quarter"
    kept = Tiny()
    kept.network.load_state_dict(result.weights)
    with torch.inference_mode():
        assert tiny.validate(kept.network.eval())["score"] == pytest.approx(best["score"], rel=1e-5)


def test_a_turn_waits_for_its_first_step(tmp_path: Path) -> None:
    before = Tiny().critic.weight
    _, early = run(tmp_path / "early", replace(STAGE, steps=5))
    assert torch.equal(early.critic.weight, before)
    result, late = run(tmp_path / "late", replace(STAGE, steps=6))
    assert not torch.equal(late.critic.weight, before)
    assert ["critic" in row for row in result.curve["training"]] == [False] * 5 + [True]


def test_a_training_of_no_steps_keeps_its_weights(tmp_path: Path) -> None:
    result, _ = run(tmp_path, replace(STAGE, steps=0))
    assert same(result.weights, Tiny().network.state_dict())


def test_a_loss_that_is_no_number_stops_with_its_reason(tmp_path: Path) -> None:
    tiny = Tiny()
    nn.init.constant_(tiny.network[0].weight, math.nan)  # type: ignore[index]
    with pytest.raises(ValueError, match=r"loss of tiny became .*nan.* at step 0: lower the learning rate"):
        run(tmp_path, tiny=tiny)


def test_global_torch_settings_are_left_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run(tmp_path)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.rand(1), expected), "training draws nothing from the global generator"


def test_state_is_whole_or_not_there(tmp_path: Path) -> None:
    for step in (1, 2):
        state.save(tmp_path, {"step": step, "weights": torch.full((3,), float(step))}, "me")
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000002-me.pt"]
    loaded = state.load(tmp_path, "me")
    assert loaded is not None
    assert loaded["step"] == 2
    assert state.load(tmp_path, "you") is None
    (tmp_path / "step-00000003-me.pt.partial").write_bytes(b"killed while writing")
    assert state.load(tmp_path, "me") is not None
    saved = tmp_path / "step-00000002-me.pt"
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    assert state.load(tmp_path, "me") is None, "a flipped bit is not resumed from"


def test_states_of_two_trainings_are_kept_until_they_end(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for identity, step in (("a", 5), ("b", 1), ("c", 1), ("b", 2)):
        state.save(folder, {"step": step}, identity)
    (folder / "step-00000009-z.pt.partial").write_bytes(b"killed while writing")
    found = {identity: state.load(folder, identity) for identity in "abc"}
    assert found == {"a": None, "b": {"step": 2}, "c": {"step": 1}}, "the two newest"
    assert [entry["step"] for entry in state.others(folder, "c")] == [2]
    state.forget(folder, "b")
    assert sorted(file.name for file in folder.iterdir()) == ["latest.json", "step-00000001-c.pt"]
    assert state.load(folder, "c") == {"step": 1}
    state.forget(folder, "c")
    assert not folder.exists()
    state.forget(folder, "c")


@pytest.mark.parametrize("call", ["replace", "write_sealed", "unlink"])
def test_a_kill_while_saving_leaves_a_whole_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Before the file has its name, before the index names it, before the older one is gone."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for identity in ("other", "me"):
        state.save(tmp_path, {"step": 1}, identity)
    owner = {"replace": state.os, "write_sealed": state, "unlink": Path}[call]
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, killed)
        with pytest.raises(KeyboardInterrupt):
            state.save(tmp_path, {"step": 2}, "me")
    assert state.load(tmp_path, "me") == {"step": 2 if call == "unlink" else 1}
    assert state.load(tmp_path, "other") == {"step": 1}
    state.save(tmp_path, {"step": 3}, "me")
    assert len(list(tmp_path.glob("step-*"))) == 2, "what was left over is gone"


def test_displacements_are_smooth_and_bounded() -> None:
    largest = 0.0
    for seed in range(40):
        flow = warps.displacement(np.random.default_rng(seed), 64, 16.0, 3.0)
        length = np.hypot(*flow)
        assert flow.shape == (2, 64, 64)
        assert length.max() <= 16.001
        steepest = max(np.abs(np.diff(flow, axis=1)).max(), np.abs(np.diff(flow, axis=2)).max())
        assert steepest < 0.5, "nothing folds over"
        largest = max(largest, float(length.max()))
    assert largest > 8


def test_flow_points_from_moved_to_fixed() -> None:
    flow = torch.zeros(1, 2, 5, 6)
    flow[:, 0], flow[:, 1] = 1.0, 2.0  # dx, dy
    image = torch.arange(30.0).view(1, 1, 5, 6)
    torch.testing.assert_close(warp(image, flow)[0, 0, :3, :5], image[0, 0, 2:, 1:])
    within = warps.inside(flow)[0, 0]
    assert within[:3, :5].all()
    assert within.sum() == 3 * 5
