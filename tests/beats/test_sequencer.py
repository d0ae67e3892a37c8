"""The step sequencer against answers known in advance."""

import numpy as np
import pytest

from musicgen_lora.beats.sequencer import (
    Channel,
    Hit,
    Pattern,
    Voice,
    one_shot,
    render,
    step_time_s,
)

RATE = 32000
CLICK = one_shot(np.ones(1, dtype=np.float32))


def play(pattern: Pattern, kit: dict[str, Channel], **settings: float) -> np.ndarray:
    return render(pattern, kit, RATE, humanise_ms=0.0, **settings)[0]  # type: ignore[arg-type]


def tone(level: float, duration_s: float = 1.0) -> Voice:
    return one_shot(np.full(round(duration_s * RATE), level, dtype=np.float32))


@pytest.mark.parametrize(("bpm", "step"), [(120, 0), (120, 5), (90, 7), (140, 12.25), (71, 31)])
def test_hit_lands_on_its_sample(bpm: float, step: float) -> None:
    waveform = play(Pattern(bpm, 2, {"click": [Hit(step)]}), {"click": Channel(CLICK)})
    assert np.flatnonzero(waveform).tolist() == [round(step * 15.0 / bpm * RATE)]


def test_length_is_whole_bars() -> None:
    pattern = Pattern(140, 8, {"click": [Hit(0)]})
    assert len(play(pattern, {"click": Channel(CLICK)})) == round(8 * 240 / 140 * RATE)


def test_swing_delays_the_second_sixteenth_only() -> None:
    times = [step_time_s(step, 60, 2 / 3) for step in (0, 1, 2, 3, 4)]
    # At 60 bpm an eighth lasts 0.5 s; a shuffle puts its second half at two thirds.
    assert times == pytest.approx([0, 1 / 3, 0.5, 0.5 + 1 / 3, 1.0])
    assert step_time_s(7, 90, 0.5) == pytest.approx(7 * 15 / 90)


def test_swing_is_heard() -> None:
    waveform = play(Pattern(60, 1, {"c": [Hit(1)]}, swing=0.6), {"c": Channel(CLICK)})
    assert np.flatnonzero(waveform).tolist() == [round(0.3 * RATE)]


def test_hit_with_a_length_is_cut_there() -> None:
    waveform = play(Pattern(60, 1, {"t": [Hit(0, length=2)]}), {"t": Channel(tone(1.0))})
    assert np.flatnonzero(waveform).max() == pytest.approx(0.5 * RATE, abs=2)


def test_choke_cuts_the_ringing_sound() -> None:
    tracks = {"open": [Hit(0)], "closed": [Hit(4)]}
    kit = {"open": Channel(tone(1.0, 3.0)), "closed": Channel(CLICK)}
    free = play(Pattern(120, 1, tracks), kit)
    kit["closed"] = Channel(CLICK, chokes=("open",))
    choked = play(Pattern(120, 1, tracks), kit)
    after = round(0.5 * RATE) + 1
    assert np.all(free[after:] > 0.1)
    assert np.all(choked[after:] == 0.0)


def test_monophonic_track_chokes_itself() -> None:
    kit = {"bass": Channel(tone(1.0, 2.0), chokes=("bass",))}
    waveform = play(Pattern(120, 1, {"bass": [Hit(0), Hit(4)]}), kit)
    # Two notes on top of each other would leave the first part at half of the peak.
    assert waveform[RATE // 4] == pytest.approx(waveform[round(0.75 * RATE)])


def test_duck_lowers_and_recovers() -> None:
    kit = {
        "pad": Channel(tone(1.0, 2.0), ducked_by="kick", duck_db=12.0),
        "kick": Channel(one_shot(np.full(1, 1e-6, dtype=np.float32))),
    }
    waveform = play(Pattern(120, 1, {"pad": [Hit(0)], "kick": [Hit(4)]}), kit)
    lowest = waveform[RATE // 4 : RATE].min() / waveform[RATE // 4]
    assert 20 * np.log10(lowest) == pytest.approx(-12.0, abs=0.1)
    assert waveform[round(0.7 * RATE)] == pytest.approx(waveform[RATE // 4])


def test_gain_and_velocity() -> None:
    kit = {"a": Channel(CLICK), "b": Channel(CLICK, gain_db=-6.0)}
    waveform = play(Pattern(120, 1, {"a": [Hit(0)], "b": [Hit(4)]}), kit)
    assert waveform[RATE // 2] / waveform[0] == pytest.approx(10 ** (-6 / 20), rel=1e-4)
    soft = play(Pattern(120, 1, {"a": [Hit(0), Hit(8, velocity=0.5)]}), kit)
    assert 0.0 < soft[RATE] < 0.5 * soft[0]


@pytest.mark.parametrize("drive", [0.0, 1.0])
def test_the_peak_is_a_decibel_below_full_scale(drive: float) -> None:
    kit = {"t": Channel(tone(3.0))}
    pattern = Pattern(120, 1, {"t": [Hit(0), Hit(1), Hit(2)]})
    waveform = play(pattern, kit, drive=drive)
    assert np.abs(waveform).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)


def test_transposition_of_a_recording() -> None:
    sine = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    kit = {"bell": Channel(one_shot(sine, root_pitch=60))}
    waveform = play(Pattern(120, 1, {"bell": [Hit(0, pitch=72)]}), kit)[: RATE // 4]
    peak = np.abs(np.fft.rfft(waveform)).argmax() * 4
    assert peak == pytest.approx(400, rel=0.02)


def test_pan_left_and_right() -> None:
    kit = {"l": Channel(CLICK, pan=-1.0), "r": Channel(CLICK, pan=1.0)}
    pattern = Pattern(120, 1, {"l": [Hit(0)], "r": [Hit(4)]})
    left, right = render(pattern, kit, RATE, n_channels=2, humanise_ms=0.0)
    assert left[0] > 0.5
    assert abs(right[0]) < 1e-6
    assert right[RATE // 2] > 0.5


def test_humanising_depends_on_the_seed_only() -> None:
    kit = {"c": Channel(CLICK)}
    pattern = Pattern(120, 2, {"c": [Hit(step) for step in range(4, 28)]})
    first, again, other = (render(pattern, kit, RATE, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    starts = np.flatnonzero(first[0])
    expected = np.arange(4, 28) * 0.125 * RATE
    assert 0 < np.abs(starts - expected).max() < 0.02 * RATE


def test_unknown_track_is_an_error() -> None:
    with pytest.raises(KeyError, match="tuba"):
        play(Pattern(120, 1, {"tuba": [Hit(0)]}), {"c": Channel(CLICK)})
