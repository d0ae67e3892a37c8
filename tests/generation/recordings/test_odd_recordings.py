"""Recordings with a DC offset, or with channels in opposite phase, and the new music in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.generation.recordings.extension import Extension
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.shape import Shape

RATE = 32_000
SHAPE = Shape(4, 1, Delays.of(4, 1), 64, RATE, 50.0)
LOOP = render_beat(make_beat(24, duration_s=8.0), RATE, seed=0)[:, : 8 * RATE]
EXTENSION = Extension(LOOP, RATE, 4 * RATE, 6 * RATE, 100)


def test_new_music_is_as_loud_as_a_recording_with_an_offset() -> None:
    extension = EXTENSION
    shifted = replace(extension, recording=LOOP + np.float32(0.3))
    # A codec that plays no offset.
    take = LOOP[:, extension.begin - extension.n_heard(SHAPE) : extension.end]
    done = shifted.finish(0.3 * take, SHAPE)
    # Before the crossfade back.
    before = slice(extension.begin, extension.end - RATE // 5)
    level, own = (float(np.std(one[:, before])) for one in (done.waveform, LOOP))
    assert 20.0 * np.log10(level / own) == pytest.approx(0.0, abs=2.1)


def test_a_mono_model_hears_channels_in_opposite_phase() -> None:
    class Codec:
        def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
            (self.heard,) = waveforms
            return [np.zeros((4, 100), dtype=np.uint16)]

    codec: Any = Codec()
    extension = EXTENSION
    wide = replace(extension, recording=np.concatenate([LOOP[:1], -LOOP[:1]]))
    wide.codes(codec, SHAPE)
    own = extension.heard(SHAPE)[:1]
    assert np.std(codec.heard.mean(axis=0)) == pytest.approx(float(np.std(own)), rel=0.1)
