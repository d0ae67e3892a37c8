"""Copies are found however they were altered; other beats of the same kit are not copies."""

import io
from functools import cache

import numpy as np
import pytest
import soundfile as sf
import soxr

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.listening.duplicates import (
    THRESHOLD,
    audio_fingerprint,
    duplicate_groups,
    similarity,
)

RATE = 44100
N_BEATS = 12


@cache
def beat(index: int) -> np.ndarray:
    return render_beat(make_beat((5, index), duration_s=6.0), RATE, seed=index)


@cache
def prints(index: int) -> np.ndarray:
    return audio_fingerprint(beat(index), RATE)


def mp3_at_128(waveform: np.ndarray) -> tuple[np.ndarray, int]:
    buffer = io.BytesIO()
    sf.write(
        buffer,
        waveform.T,
        RATE,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=(320 - 128) / 288,
    )
    n_bytes = len(buffer.getvalue())
    assert n_bytes * 8 / (waveform.shape[1] / RATE) == pytest.approx(128_000, rel=0.05)
    buffer.seek(0)
    samples, rate = sf.read(buffer, dtype="float32", always_2d=True)
    return samples.T, rate


def later(waveform: np.ndarray, seconds: float) -> np.ndarray:
    return np.pad(waveform, ((0, 0), (round(seconds * RATE), 0)))


COPIES = {
    "gain": lambda w: (0.05 * w, RATE),
    "inverted": lambda w: (-w, RATE),
    "stereo": lambda w: (np.concatenate([w, w]), RATE),
    "one side inverted": lambda w: (np.concatenate([w, -w]), RATE),
    "MP3": mp3_at_128,
    "22 kHz": lambda w: (soxr.resample(w.T, RATE, 22050).T, 22050),
    "48 kHz": lambda w: (soxr.resample(w.T, RATE, 48000).T, 48000),
    "half a frame later": lambda w: (later(w, 0.05), RATE),
    "200 ms later": lambda w: (later(w, 0.2), RATE),
    "200 ms cut": lambda w: (w[:, round(0.2 * RATE) :], RATE),
    "later and MP3": lambda w: mp3_at_128(0.3 * later(w, 0.19)),
    "silence behind": lambda w: (np.pad(w, ((0, 0), (0, 2 * RATE))), RATE),
    "twice": lambda w: (np.tile(w, 2), RATE),
    "three times, MP3": lambda w: mp3_at_128(np.tile(w, 3)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_similar_both_ways(kind: str) -> None:
    for index in (0, 1):
        copy = audio_fingerprint(*COPIES[kind](beat(index)))
        assert similarity(prints(index), copy) > THRESHOLD
        assert similarity(copy, prints(index)) == pytest.approx(similarity(prints(index), copy))


def test_other_beats_of_the_kit_are_not_similar() -> None:
    alike = [similarity(prints(a), prints(b)) for a in range(N_BEATS) for b in range(a)]
    assert max(alike) < THRESHOLD - 0.15


def test_a_shift_beyond_the_search_is_another_clip() -> None:
    moved = audio_fingerprint(later(beat(0), 0.2), RATE)
    assert similarity(prints(0), moved, max_shift_s=0.05) < 0.5
    assert similarity(prints(0), moved, max_shift_s=0.25) > 0.75


def test_a_copy_scores_one_and_its_negative_minus_one() -> None:
    own = prints(0)
    assert similarity(own, own) == pytest.approx(1.0)
    exchanged = (own << np.uint64(32)) | (own >> np.uint64(32))
    assert similarity(own, exchanged, max_shift_s=0.0) == pytest.approx(-1.0)


def test_groups_gather_copies_and_nothing_else() -> None:
    ids, clips = [], []
    for index in range(N_BEATS):
        ids.append(f"{index}")
        clips.append((beat(index), RATE))
    for kind in ("gain", "later and MP3", "twice", "22 kHz"):
        ids.append(f"3 {kind}")
        clips.append(COPIES[kind](beat(3)))
    ids.append("7 MP3")
    clips.append(mp3_at_128(beat(7)))
    found = duplicate_groups(
        ids,
        [audio_fingerprint(samples, rate) for samples, rate in clips],
        [samples.shape[1] / rate for samples, rate in clips],
    )
    assert found == [["3", "3 gain", "3 later and MP3", "3 twice", "3 22 kHz"], ["7", "7 MP3"]]


def test_many_copies_of_one_clip_cost_one_comparison_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from musicgen_lora.listening import duplicates

    calls = []

    def counted(a: np.ndarray, b: np.ndarray, *rest: float, **named: float) -> float:
        calls.append(len(a) == len(b))
        return similarity(a, b, *rest, **named)

    monkeypatch.setattr(duplicates, "similarity", counted)
    n_clips = 60
    (group,) = duplicate_groups(range(n_clips), [prints(0)] * n_clips, [6.0] * n_clips)
    assert group == list(range(n_clips))
    assert sum(calls) <= n_clips


def test_silence_and_single_hits_are_like_nothing() -> None:
    silence = audio_fingerprint(np.zeros((1, RATE), dtype=np.float32), RATE)
    assert silence.shape == (50,)
    assert not silence.any()
    tone = np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)[None].astype(np.float32)
    held = audio_fingerprint(tone, RATE)
    assert similarity(silence, silence) == similarity(held, held) == 0.0
    assert duplicate_groups("abc", [silence, silence, held], [1.0] * 3) == []
    assert duplicate_groups([], [], []) == []


def test_short_and_odd_waveforms() -> None:
    for n_samples in (1, 7, 400):
        assert len(audio_fingerprint(np.ones((2, n_samples), dtype=np.float32), 8000)) >= 1
    with pytest.raises(ValueError, match=r"\[C, N\]"):
        audio_fingerprint(np.zeros(10, dtype=np.float32), RATE)
    with pytest.raises(ValueError, match="NaN"):
        audio_fingerprint(np.full((1, 10), np.nan, dtype=np.float32), RATE)
