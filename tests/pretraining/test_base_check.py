"""Measures of the base's check: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from pretraining.base.beat_figures import beat_figures, mean_sharpness, sharpness


def onsets(bpm, places, duration_s=90.0):
    """Onset strength, 200 frames a second: a hit an eighth, at places in it from 0 to 1."""
    strengths = np.zeros(round(200 * duration_s))
    eighth_s = 30.0 / bpm
    for number in range(int(duration_s / eighth_s) - 1):
        place = places[number % len(places)]
        strengths[round(200 * eighth_s * (number + place))] = 1.0
    return strengths


@pytest.mark.parametrize("bpm", [71.3, 120.0, 167.9])
def test_hits_on_the_eighths_are_sharp_and_at_their_own_tempo_alone(bpm):
    assert sharpness(onsets(bpm, [0.3]), bpm) > 0.98
    assert sharpness(onsets(bpm, [0.3]), 1.21 * bpm) < 0.1
    assert sharpness(onsets(bpm, np.linspace(0, 1, 20, endpoint=False)), bpm) < 0.1
    # Two places a quarter apart: the mean of two vectors at a right angle.
    assert sharpness(onsets(bpm, [0.0, 0.25]), bpm) == pytest.approx(np.sqrt(0.5), abs=0.03)


def test_silence_is_not_sharp():
    assert sharpness(np.zeros(2000), 120.0) == 0.0


def test_clips_are_held_against_their_own_tempo_and_the_others():
    rate, tempos = 32_000, (80.0, 93.0, 141.0)
    clips = []
    for bpm in tempos:
        clip = np.zeros((1, 10 * rate), np.float32)
        for hit in np.arange(0.0, 9.9, 30.0 / bpm):
            clip[0, round(hit * rate) :][:200] = np.hanning(200)
        clips.append(clip)
    found = mean_sharpness(clips, rate, tempos)
    assert found["asked_tempo"] > 0.9
    assert found["other_tempos"] < 0.2
    figures = beat_figures([np.zeros_like(clip) for clip in clips], clips, rate, tempos)
    assert (figures["within_4_percent"], figures["recordings"]) == (0.0, 1.0)
    assert figures["steadiness"]["played"] == 0.0
    assert figures["steadiness"]["recordings"] > 0.5
    assert beat_figures(clips, clips, rate, tempos)["shuffled"] == 0.0
