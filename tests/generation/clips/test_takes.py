"""Which of several takes is kept, with takes whose faults are known."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.generation.clips.loop import LoopRequest
from musicgen_lora.generation.clips.takes import (
    JudgedTake,
    draw_takes,
    judge_clip,
    judge_loop,
    take_seeds,
    takes_figures,
)
from musicgen_lora.listening.seam import measure_seam

RATE = 32_000
BEAT = make_beat(21, duration_s=10.0)
REQUEST = LoopRequest(float(BEAT.bpm), 2, RATE)
GOOD = render_beat(BEAT, RATE, seed=21)
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, GOOD.shape).astype(np.float32)


def drawer(takes: Sequence[np.ndarray]):
    """Plays the takes in turn, and records the batch sizes."""
    left, calls = list(takes), []

    def draw(seeds: Sequence[int]) -> list[np.ndarray]:
        calls.append(list(seeds))
        return [left.pop(0) for _ in seeds]

    return draw, calls


def drawn(takes: Sequence[np.ndarray], **how: int):
    draw, calls = drawer(takes)
    numbers = {"at_least": 1, "at_most": len(takes), "batch_size": 2} | how
    found = draw_takes(draw, lambda seed, take: judge_loop(seed, take, REQUEST), 5, **numbers)
    return found, calls


def test_takes_are_drawn_until_one_fits() -> None:
    found, calls = drawn([NOISE, 0.0 * NOISE, GOOD, NOISE])
    assert [len(call) for call in calls] == [1, 2]
    assert found[0].faults == ()
    assert found[0].seed == calls[1][1]
    assert found[0].waveform.shape == (1, REQUEST.n_samples)
    assert all(take.faults for take in found[1:])


def test_no_more_than_the_most_and_the_best_is_kept() -> None:
    found, calls = drawn([0.0 * NOISE, NOISE, np.full_like(NOISE, np.nan)], at_most=3)
    assert sum(map(len, calls)) == 3
    assert len({seed for call in calls for seed in call}) == 3
    assert "has no steady beat" in found[0].faults
    assert "samples that are not finite" in found[-1].faults[0]
    json.dumps(takes_figures(found), allow_nan=False)


def test_all_that_are_asked_for_are_drawn_though_one_fits() -> None:
    found, calls = drawn([GOOD, GOOD[:, RATE:], NOISE], at_least=3)
    assert sum(map(len, calls)) == 3
    assert [bool(take.faults) for take in found] == [False, False, True]


def test_the_first_take_is_the_clip_itself() -> None:
    seeds = take_seeds(2**40)
    first = [next(seeds) for _ in range(4)]
    assert first[0] == 2**40
    assert len(set(first)) == 4


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda good: np.clip(good, -0.2, 0.2), "is clipped"),
        (lambda good: good + 0.05, "has a DC offset"),
        (lambda good: np.where(np.arange(good.shape[1]) > 4 * RATE, 0.0, good), "is silent"),
        (lambda good: np.where(np.arange(good.shape[1]) == 77, np.inf, good), "not finite"),
    ],
)
def test_damage_is_named_and_comes_last(fault, said: str) -> None:
    damaged = fault(GOOD).astype(np.float32)
    good = judge_clip(0, GOOD, RATE, BEAT.bpm)
    bad = judge_clip(1, damaged, RATE, BEAT.bpm)
    assert good.faults == ()
    assert any(said in fault for fault in bad.faults)
    assert good.rank < bad.rank
    assert np.isfinite(bad.waveform).all()
    json.dumps(takes_figures([good, bad]), allow_nan=False)


@pytest.mark.parametrize("n_bars", [1, 2])
def test_a_loop_loses_its_dc_offset(n_bars: int) -> None:
    request = LoopRequest(float(BEAT.bpm), n_bars, RATE)
    # Asymmetric where it is loud and 0 where it is silent, as a decoder's bass is, and constant.
    for off in (GOOD + 0.3 * np.abs(GOOD), GOOD + np.float32(0.05)):
        good, loop = (judge_loop(0, take.astype(np.float32), request) for take in (GOOD, off))
        assert loop.faults == ()
        damage = good.figures["damage"], loop.figures["damage"]
        assert [figures["dc_removed"] for figures in damage] == [False, True]
        assert abs(float(loop.waveform.mean())) < 1e-5
        seam = measure_seam(loop.waveform, RATE, n_bars)
        assert seam.step_db == pytest.approx(loop.figures["seam"]["step_db"], abs=1.0)
    heard = np.square(loop.waveform).sum() / np.square(good.waveform).sum()
    assert heard == pytest.approx(1.0, abs=0.01)


def test_a_take_with_two_faults_comes_after_one_with_one() -> None:
    one, two = (
        JudgedTake(0, GOOD, ("a", "b")[:n], penalty, {}) for n, penalty in ((1, 9.0), (2, 1.0))
    )
    assert min(two, one, key=lambda take: take.rank) is one


def test_a_clip_that_obeys_the_tempo_is_kept() -> None:
    other = render_beat(make_beat(22, duration_s=10.0), RATE, seed=22)
    asked = float(BEAT.bpm)
    takes = [judge_clip(seed, take, RATE, asked) for seed, take in enumerate([NOISE, other, GOOD])]
    assert min(takes, key=lambda take: take.rank).seed == 2
