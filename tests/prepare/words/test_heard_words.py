"""Words for measurements are right for beats with known parts; unclear beats get none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from made_datasets import RATE

from musicgen_lora.atomic import sha256_file
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.prepare.hearing.analyse import AnalysisTask, analyse_file, measured_facts
from musicgen_lora.prepare.hearing.records import Analysis, Segment
from musicgen_lora.prepare.words.heard_words import heard_words

HATS = ("closed_hat", "open_hat")


def segment_of(folder: Path, waveform: np.ndarray, digest: str) -> Segment:
    path = folder / f"{digest}.wav"
    soundfile.write(path, waveform.T, RATE)
    record = analyse_file(AnalysisTask(path, sha256_file(path), folder), lambda *_: None)
    assert isinstance(record, Analysis)
    return record.segments[0]


def test_beats_are_given_words_that_are_true(tmp_path: Path) -> None:
    n_said = 0
    for index in range(8):
        beat = make_beat((900, index), duration_s=10.0)
        segment = segment_of(tmp_path, render_beat(beat, RATE, seed=index), str(index))
        words = measured_facts(segment).tags
        for word in {"rolling hi-hats", "gliding bass"} & set(words):
            assert word in beat.tags, (index, word)
        n_hats = sum(len(beat.pattern.tracks.get(name, ())) for name in HATS)
        if "busy" in words:
            assert n_hats >= 12 * beat.pattern.n_bars
        if "sparse" in words:
            assert n_hats <= 10 * beat.pattern.n_bars
        n_said += bool(words)
    assert n_said >= 5


def test_nothing_is_said_of_noise_and_of_a_pad(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.1, (1, 10 * RATE)).astype(np.float32)
    time_s = np.arange(10 * RATE) / RATE
    pad = (0.3 * np.sin(2.0 * np.pi * 220.0 * time_s))[None].astype(np.float32)
    click = np.zeros((1, 2 * RATE), dtype=np.float32)
    click[0, ::RATE] = 0.9
    for digest, waveform in (("a", noise), ("b", pad), ("c", pad[:, : 2 * RATE]), ("d", click)):
        assert measured_facts(segment_of(tmp_path, waveform, digest)).tags == (), digest


def test_figures_that_are_missing_say_nothing() -> None:
    assert heard_words(Segment(start_s=0.0, duration_s=8.0), 1.0) == ()
