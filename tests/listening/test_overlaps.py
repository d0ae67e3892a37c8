"""Audio that two recordings share is found at any position, and nothing else is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from made_datasets import RATE

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.listening.duplicates import FINGERPRINT_HOP_S, audio_fingerprint
from musicgen_lora.listening.overlaps import Overlap, find_overlaps

N_BEATS = 8


@cache
def played(index: int) -> np.ndarray:
    """A beat `[1, N]` of about 12 s."""
    return render_beat(make_beat((91, index), duration_s=12.0), RATE, seed=index)


def overlaps(*waveforms: np.ndarray, **how: object) -> list[Overlap]:
    prints = [audio_fingerprint(waveform, RATE) for waveform in waveforms]
    durations = [waveform.shape[1] / RATE for waveform in waveforms]
    groups = how.pop("groups", range(len(waveforms)))
    return find_overlaps(prints, durations, groups, **how)  # type: ignore[arg-type]


def test_different_beats_of_one_kit_share_nothing() -> None:
    beats = [played(index) for index in range(N_BEATS)]
    assert overlaps(*beats, *(beat[:, : 2 * RATE] for beat in beats[:4]), groups=[
        *range(N_BEATS), *range(4)
    ]) == []  # fmt: skip


@pytest.mark.parametrize("index", range(4))
def test_a_beat_is_found_in_a_mix_with_its_place(index: int) -> None:
    before, beat, after = (played((index + step) % N_BEATS) for step in range(3))
    excerpt = beat[:, 3 * RATE : 11 * RATE]
    mix = 0.5 * np.concatenate([before, excerpt, after], axis=1)
    (found,) = overlaps(mix, beat)
    assert (found.first, found.second) == (0, 1)
    shift_s = before.shape[1] / RATE - 3.0
    assert found.first_s - found.second_s == pytest.approx(shift_s, abs=2 * FINGERPRINT_HOP_S)


def test_a_loop_is_found_where_it_goes_round() -> None:
    beat = played(0)
    bar = round(240.0 / make_beat((91, 0), duration_s=12.0).bpm * RATE)
    loop = beat[:, bar : 2 * bar]
    mix = np.concatenate([played(1), np.tile(loop, 5)], axis=1)
    assert [(found.first, found.second) for found in overlaps(loop, mix)] == [(0, 1)]
    assert overlaps(loop, played(1)) == []


def test_what_belongs_together_and_what_was_compared_is_passed_over() -> None:
    beat = played(0)
    mix = np.concatenate([played(1), beat], axis=1)
    assert overlaps(mix, beat, groups=["a", "a"]) == []
    assert overlaps(mix, beat, fresh=set()) == []
    assert len(overlaps(mix, beat, fresh={1})) == 1
    # Two overlaps join three.
    assert len(overlaps(mix, beat, played(1), beat)) == 3


def test_silence_and_short_sounds_share_nothing() -> None:
    assert overlaps(np.zeros((1, 8 * RATE), np.float32), np.zeros((1, 8 * RATE), np.float32)) == []
    assert overlaps(played(0)[:, : RATE // 2], played(0)) == []
    assert overlaps() == []
