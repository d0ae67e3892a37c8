"""Single hits are told from beats, however short."""

from __future__ import annotations

import numpy as np
import pytest
from made_datasets import KIT, RATE, beat, sine
from prepared.messy_pack import ONE_SHOTS

from musicgen_lora.audio.files import find_audio, read_audio
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import bass_voice
from musicgen_lora.beats.sequencer import Hit
from musicgen_lora.listening.one_shots import is_one_shot

LONG_HITS = ("bd_boom", "drum_cymbal_open", "drum_splash_hard", "elec_chime", "perc_bell")
NO_HITS = ("drum_roll", "perc_door", "perc_till", "vinyl_rewind", "vinyl_hiss")


@pytest.mark.parametrize("path", find_audio(KIT), ids=lambda path: path.stem)
def test_a_drum_of_the_kit_with_silence_behind_it(path) -> None:
    waveform = read_audio(path, RATE)
    room = max(0, 2 * RATE - waveform.shape[1])
    assert is_one_shot(np.pad(waveform, ((0, 0), (RATE // 10, room))), RATE)


@pytest.mark.parametrize("name", LONG_HITS)
def test_hits_that_ring(name: str) -> None:
    assert is_one_shot(read_audio(ONE_SHOTS / f"{name}.flac", RATE), RATE)
    assert is_one_shot(read_audio(ONE_SHOTS / f"{name}.flac", 44_100), 44_100)


@pytest.mark.parametrize("name", NO_HITS)
def test_sounds_with_more_than_one_onset(name: str) -> None:
    assert not is_one_shot(read_audio(ONE_SHOTS / f"{name}.flac", RATE), RATE)


def test_a_bass_note() -> None:
    note = bass_voice(0.6, 1.5)(Hit(0.0, pitch=30.0), None, RATE)[None]
    assert is_one_shot(note, RATE)
    assert not is_one_shot(np.concatenate([note[:, :RATE], note], axis=1), RATE)


@pytest.mark.parametrize("seed", range(12))
def test_a_bar_of_a_beat(seed: int) -> None:
    played = make_beat((8, seed), duration_s=8.0)
    bar = round(240.0 / played.bpm * RATE)
    waveform = render_beat(played, RATE, seed=seed)
    assert not is_one_shot(waveform[:, :bar], RATE)
    assert not is_one_shot(waveform[:, : 2 * bar], RATE)


def test_what_does_not_decay_or_is_long() -> None:
    assert not is_one_shot(sine(440.0, 2.0, RATE), RATE)
    assert not is_one_shot(np.zeros((1, RATE), np.float32), RATE)
    hit = read_audio(ONE_SHOTS / "bd_boom.flac", RATE)
    assert not is_one_shot(np.pad(hit, ((0, 0), (0, 30 * RATE))), RATE)
    held = np.pad(sine(200.0, 2.0, RATE), ((0, 0), (0, RATE)))
    assert not is_one_shot(held, RATE)
    assert not is_one_shot(beat(0, 4.0), RATE)
    assert not is_one_shot(np.zeros((2, 10), np.float32), RATE)
