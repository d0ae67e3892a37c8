from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_datasets import beat, sine

from musicgen_lora.evaluation.measures.embeddings import (
    LOG_MEL,
    MUSICNN,
    Embedding,
    codec_latents,
    embed,
    log_mel,
)
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.codec import Codec

RATE = 32_000


def test_log_mel_finds_the_band_of_a_tone() -> None:
    low, high = log_mel(sine(55.0, 2.0, RATE), RATE), log_mel(sine(8_000.0, 2.0, RATE), RATE)
    assert low[:128].argmax() < 4
    assert 80 < high[:128].argmax() < 128
    # Half as loud: 6 dB less where the tone is.
    half = log_mel(sine(55.0, 2.0, RATE, 0.25), RATE)
    assert low[low[:128].argmax()] - half[low[:128].argmax()] == pytest.approx(6.02, abs=0.1)


def test_all_doors_tell_808_beats_from_hiss(tiny_model_dir: Path) -> None:
    rng = np.random.default_rng(0)
    beats = [beat(index) for index in range(4)]
    hiss = [rng.normal(0.0, 0.1, beats[0].shape).astype(np.float32) for _ in range(4)]
    for door in (MUSICNN, LOG_MEL, codec_latents(Codec(load_base(tiny_model_dir)))):
        ours, theirs = embed(door, beats, RATE), embed(door, hiss, RATE)
        assert ours.shape == theirs.shape
        within = np.linalg.norm(ours - ours.mean(axis=0), axis=1).mean()
        assert np.linalg.norm(ours.mean(axis=0) - theirs.mean(axis=0)) > within


def test_a_vector_that_is_no_number_is_named() -> None:
    broken = Embedding("mine", "my model", lambda waveform, rate: np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="my model: the vector of clip 1"):
        embed(broken, [beat(0)], RATE)
