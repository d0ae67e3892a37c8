"""The bundled tagger compared with the original on the same recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicgen_lora.listening.musicnn import N_FRAMES, TAGS, mel_windows, tag_waveform

GOLDEN = Path(__file__).resolve().parents[1] / "assets" / "musicnn"


def golden_input() -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(GOLDEN / "golden_input.opus", dtype="float32", always_2d=True)
    return samples.T, rate


def test_tags_and_embedding_are_the_originals() -> None:
    with np.load(GOLDEN / "golden_output.npz", allow_pickle=False) as golden:
        tags, embeddings = tag_waveform(*golden_input())
        # The original computes its spectrogram in float16.
        np.testing.assert_allclose(tags, golden["tags_tensorflow"], atol=2e-4)
        np.testing.assert_allclose(tags, golden["tags_fp32"], atol=1e-5)
        np.testing.assert_allclose(embeddings, golden["penultimate_fp32"], atol=1e-4)
    assert len(TAGS) == len(set(TAGS)) == tags.shape[1]


def test_short_and_loud_recordings_have_finite_tags() -> None:
    waveform, rate = golden_input()
    tags, embeddings = tag_waveform(100.0 * waveform[:, : rate // 2], rate)
    assert tags.shape == (1, 50)
    assert embeddings.shape == (1, 200)
    assert np.isfinite(tags).all()
    assert np.isfinite(embeddings).all()


def test_windows_cover_whole_threes_of_seconds() -> None:
    waveform, rate = golden_input()
    whole = mel_windows(waveform, rate)
    part = mel_windows(waveform[:, : 4 * rate], rate)
    assert whole.shape == (3, N_FRAMES, 96)
    # The same frames, but for those that reach over the end.
    np.testing.assert_allclose(part[0], whole[0], atol=1e-5)


def test_nothing_is_not_tagged() -> None:
    with pytest.raises(ValueError, match="No samples"):
        tag_waveform(np.zeros((1, 0), dtype=np.float32), 44_100)
