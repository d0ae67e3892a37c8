"""Held-out losses of the embedded base by position."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.dataset.batches import Window
from musicgen_lora.dataset.scoring import window_losses
from musicgen_lora.model.base_model import BaseModel
from pretraining.base.facts import with_tempo
from pretraining.base.losses import SPANS_S, losses_by_position


def windows(*lengths: int) -> list[Window]:
    random = np.random.default_rng(0)
    return [Window(random.integers(0, 2048, (n, 4)), "a beat") for n in lengths]


def test_each_span_has_a_loss_though_no_clip_lasts_the_whole_window():
    model = BaseModel.load("tiny-beats")
    clips = windows(1_300)
    figures = losses_by_position(model, [*clips, *windows(700)])
    assert figures["n_clips"] == 1
    sums, counts = window_losses(model, clips, 1)
    seconds = [min(stop, 26) - start for start, stop in SPANS_S]
    spans = [figures[f"{start}-{stop} s"] for start, stop in SPANS_S]
    # The last frames of codebooks that are late aren't predicted.
    assert np.average(spans, weights=seconds) == pytest.approx(sums.sum() / counts.sum(), rel=2e-3)


def test_clips_that_are_all_too_short_are_no_figure():
    with pytest.raises(ValueError, match="1250 frames"):
        losses_by_position(BaseModel.load("tiny-beats"), windows(700))


def test_a_caption_takes_another_tempo_and_keeps_its_words():
    exchanged = with_tempo("Techno, no hats, bpm: 133. key: C minor.", 71)
    assert exchanged == "Techno, no hats, bpm: 71. key: C minor."
