"""Loops cut from takes whose tempo, bar lines and tails are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips.loop import STRETCH_MOST, LoopRequest, cut_loop
from musicgen_lora.listening.rhythm.asked_tempo import kept_tempo
from musicgen_lora.listening.rhythm.metre import onset_strengths

RATE = 32_000


def beat_take(seed: int, bpm: float, *, duration_s: float = 14.0, skip_s: float = 0.0):
    """A take of a beat at a tempo that begins somewhere in a bar."""
    beat = make_beat(seed, duration_s=duration_s + 6.0)
    pattern = dataclasses.replace(beat.pattern, bpm=bpm)
    waveform = render_beat(dataclasses.replace(beat, pattern=pattern), RATE, seed=seed)
    return waveform[:, round(skip_s * RATE) :][:, : round(duration_s * RATE)]


def accelerated(seed: int, *bpms: float) -> np.ndarray:
    """A take of two bars at each of two tempi."""
    slow, fast = (beat_take(seed, bpm) for bpm in bpms)
    both = np.concatenate([slow[:, : round(2 * 240 / bpms[0] * RATE)], fast], axis=1)
    return both[:, : round(7.2 * RATE)]


@pytest.mark.parametrize("bpm", [140.0, 139.7, 93.5])
@pytest.mark.parametrize("n_bars", [1, 2, 4])
def test_loops_are_exact_to_the_sample_whatever_the_take(bpm: float, n_bars: int) -> None:
    request = LoopRequest(bpm, n_bars, RATE)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 12 * RATE)).astype(np.float32)
    takes = [noise, np.zeros((1, 12 * RATE), dtype=np.float32), beat_take(21, bpm), noise[:, :9000]]
    for take in takes:
        loop = cut_loop(take, request)
        assert loop.waveform.shape == (len(take), round(n_bars * 240.0 / bpm * RATE))
        assert np.isfinite(loop.waveform).all()


@pytest.mark.parametrize("seed", [21, 22, 23, 24, 25, 26])
@pytest.mark.parametrize("off", [-0.03, 0.0, 0.015])
def test_takes_near_the_tempo_fit(seed: int, off: float) -> None:
    request = LoopRequest(142.0, 4, RATE)
    loop = cut_loop(beat_take(seed, 142.0 * (1.0 + off), skip_s=0.4), request)
    assert loop.faults == ()
    assert loop.take.bpm == pytest.approx(142.0 * (1.0 + off), rel=0.003)
    made = kept_tempo(onset_strengths(loop.waveform, RATE), 142.0)
    assert made.bpm == pytest.approx(142.0, rel=0.003)
    # Played three times, it is one beat: nothing is early or late where it comes round.
    thrice = np.tile(loop.waveform, (1, 3))
    kept = kept_tempo(onset_strengths(thrice, RATE), 142.0)
    assert kept.is_steady
    assert kept.bpm == pytest.approx(142.0, rel=0.0005)
    assert loop.seam.hits_db < 0.0


def test_loops_begin_on_the_one() -> None:
    n_right = 0
    for seed in range(30, 40):
        beat = make_beat(seed, duration_s=16.0)
        bar_s = 240.0 / beat.bpm
        skipped_s = 0.37 * bar_s
        waveform = render_beat(beat, RATE, seed=seed)[:, round(skipped_s * RATE) :]
        loop = cut_loop(waveform, LoopRequest(float(beat.bpm), 2, RATE))
        late_s = (loop.start_s + skipped_s + 0.5 * bar_s) % bar_s - 0.5 * bar_s
        n_right += abs(late_s) < 0.02
    assert n_right >= 8


def plain_take(bpm: float, n_bars: int, skip_s: float) -> np.ndarray:
    """Kicks on the one, snares on two and four, hats on eighths; from a moment in a bar on."""
    rows = {"kick": (0, 6, 10), "snare": (4, 12), "closed_hat": range(0, 16, 2)}
    tracks = {
        name: [Hit(16.0 * bar + step) for bar in range(n_bars) for step in steps]
        for name, steps in rows.items()
    }
    take = render(Pattern(bpm, n_bars, tracks), load_kit808(RATE), RATE, humanise_ms=0.0)
    return take[:, round(skip_s * RATE) :]


@pytest.mark.parametrize("bpm", [40.0, 48.0, 75.0, 90.0, 140.0, 200.0, 240.0])
@pytest.mark.parametrize("times", [1, 2])
def test_very_slow_and_fast_loops_begin_on_the_one(bpm: float, times: int) -> None:
    """Also where a slow tempo is played twice as fast."""
    if times == 2 and bpm > 95.0:
        return
    for share in (0.15, 0.4, 0.65, 0.9):
        bar_s = 240.0 / bpm
        n_bars = 4 * times if bpm < 95.0 else 8
        take = plain_take(times * bpm, n_bars, share * bar_s)
        loop = cut_loop(take, LoopRequest(bpm, 2, RATE))
        own_s = bar_s / times
        late_s = (loop.start_s + share * bar_s + 0.5 * own_s) % own_s - 0.5 * own_s
        assert abs(late_s) < 0.02


def test_half_time_is_no_error() -> None:
    loop = cut_loop(beat_take(22, 70.0), LoopRequest(140.0, 4, RATE))
    assert loop.faults == ()
    assert loop.speed == pytest.approx(1.0, abs=0.003)


def test_what_rings_on_is_laid_over_the_beginning() -> None:
    # A bass note on the last beat rings into the next bar, in which nothing is played.
    hits = {"kick": [Hit(0.0), Hit(4.0), Hit(8.0)], "sub": [Hit(12.0, 1.0, 33.0)]}
    hats = {"closed_hat": [Hit(2.0 * step) for step in range(8)]}
    kit = load_kit808(RATE, bass_decay_s=1.5)
    take = render(Pattern(120.0, 3, hits | hats), kit, RATE, humanise_ms=0.0)
    loop = cut_loop(take, LoopRequest(120.0, 1, RATE))
    assert (loop.joined, loop.start_s) == ("tail", 0.0)
    # As where the bar comes round in the sequencer: the ringing goes on under the first kick.
    rung = take[:, : 2 * RATE].copy()
    n_early = RATE // 4
    rung[:, :n_early] += take[:, 2 * RATE : 2 * RATE + n_early]
    error = np.square(loop.waveform[:, :n_early] - rung[:, :n_early]).sum()
    assert error < 1e-4 * np.square(rung[:, :n_early]).sum()
    assert not loop.seam.clicks
    cut = np.pad(take[:, : 2 * RATE], ((0, 0), (0, 2 * RATE)))
    assert np.square(loop.waveform - cut[:, : 2 * RATE]).sum() > 0.0


def test_a_bass_held_over_the_bar_line_does_not_break() -> None:
    drums = {
        "kick": [Hit(16.0 * bar + 4.0) for bar in range(8)],
        "closed_hat": [Hit(2.0 * step) for step in range(64)],
    }
    take = render(Pattern(120.0, 8, drums), load_kit808(RATE), RATE, humanise_ms=0.0)
    time_s = np.arange(take.shape[1]) / RATE
    # 52.3 Hz: no whole number of periods in a bar of 2 s.
    take = take + (0.3 * np.sin(2.0 * np.pi * 52.3 * time_s)).astype(np.float32)
    loop = cut_loop(take[:, RATE:], LoopRequest(120.0, 2, RATE))
    assert loop.joined == "crossfade"
    assert not loop.seam.clicks
    assert loop.seam.step_db < 3.0


@pytest.mark.parametrize("slack_s", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(8))
def test_a_take_without_a_beat_does_not_click(seed: int, slack_s: float) -> None:
    """A held chord with strokes at any time, which begins and ends in the middle of a sound."""
    rng = np.random.default_rng(seed)
    request = LoopRequest(130.0, 2, RATE)
    time_s = np.arange(request.n_samples + round(slack_s * RATE)) / RATE
    take = np.zeros(len(time_s))
    for hertz in rng.uniform(80.0, 900.0, 5):
        take += 0.1 * np.sin(2.0 * np.pi * hertz * time_s + rng.uniform(0.0, 6.0))
    for start_s in rng.uniform(0.0, time_s[-1], 10):
        ringing = np.maximum(time_s - start_s, 0.0)
        noise = rng.normal(0.0, 0.4, len(time_s)) * (time_s >= start_s)
        take += noise * np.exp(-ringing / 0.025)
    loop = cut_loop(take[None].astype(np.float32), request)
    assert loop.waveform.shape == (1, request.n_samples)
    assert loop.faults == ("has no steady beat",)


def test_what_is_wrong_with_a_take_is_said() -> None:
    request = LoopRequest(140.0, 2, RATE)
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, (1, 8 * RATE)).astype(np.float32)
    assert "has no steady beat" in cut_loop(noise, request).faults
    silence = cut_loop(np.zeros((1, 8 * RATE), dtype=np.float32), request)
    assert silence.faults == ("has no steady beat",)
    too_fast = cut_loop(beat_take(23, 140.0 * (1.0 + STRETCH_MOST + 0.02)), request)
    assert too_fast.speed == 1.0
    assert any("off the tempo" in fault for fault in too_fast.faults)
    short = cut_loop(beat_take(23, 140.0, duration_s=4.1, skip_s=0.9), LoopRequest(140.0, 2, RATE))
    assert any("begins off the one" in fault for fault in short.faults)
    # The tempo jumps by 7 %: nothing straightens that without bending the bass.
    loop = cut_loop(accelerated(23, 135.0, 145.0), LoopRequest(140.0, 4, RATE))
    assert loop.drift_s > 0.02
    assert any("drifts from the grid" in fault for fault in loop.faults)


def test_a_take_that_gets_faster_is_straightened() -> None:
    loop = cut_loop(accelerated(23, 138.0, 142.0), LoopRequest(140.0, 4, RATE))
    assert loop.faults == ()
    assert loop.drift_s < 0.01 < loop.straightened_s < 0.03


@pytest.mark.parametrize("seed", [20, 21, 22, 30])
def test_a_take_that_wanders_is_straightened_and_no_other(seed: int) -> None:
    beat = make_beat(seed, duration_s=24.0)
    request = LoopRequest(float(beat.bpm), 4, RATE)
    take = render_beat(beat, RATE, seed=seed)[:, : round(5.1 * request.bar_s * RATE)]
    assert cut_loop(take, request).straightened_s == 0.0
    time_s = np.arange(take.shape[1]) / RATE
    played_s = time_s - 0.025 * np.sin(2.0 * np.pi * time_s / 9.0 + seed)
    wandering = np.interp(played_s, time_s, take[0])[None].astype(np.float32)
    loop = cut_loop(wandering, request)
    assert loop.faults == ()
    assert loop.drift_s < 0.015
    assert loop.straightened_s == pytest.approx(0.025, abs=0.012)
    assert loop.take.bpm == pytest.approx(beat.bpm, rel=0.01)


def test_what_does_not_fit_a_clip_is_one_line() -> None:
    assert LoopRequest(140.0, 4, RATE).take_s(30.0) == pytest.approx(6.857 * 1.04 + 1.964, abs=0.01)
    assert LoopRequest(120.0, 15, RATE).take_s(30.0) == 30.0
    with pytest.raises(UserError, match=r"--bpm 120 --bars 16 make 32\.0 s, .* --bars 15 or fewer"):
        LoopRequest(120.0, 16, RATE).take_s(30.0)
    with pytest.raises(UserError, match="a faster --bpm"):
        LoopRequest(20.0, 1, RATE).take_s(10.0)
