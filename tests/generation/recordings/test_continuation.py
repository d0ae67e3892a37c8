"""A beat continued by itself, altered as a codec and a model would."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.generation.recordings.continuation import HOLE_DB, hole_db_at, join_continuation

RATE = 32_000
BEAT = render_beat(make_beat(22, duration_s=10.0), RATE, seed=22)
SEAM, HEARD = 6 * RATE, 3 * RATE
GIVEN, GOES_ON = BEAT[:, :SEAM], BEAT[:, SEAM - HEARD :]


def test_the_true_continuation_is_the_recording_itself() -> None:
    joined = join_continuation(GIVEN, GOES_ON, HEARD, RATE)
    np.testing.assert_allclose(joined.waveform, BEAT, atol=1e-6)
    assert hole_db_at(joined.waveform, SEAM, RATE) >= HOLE_DB


@pytest.mark.parametrize("gain", [0.4, 2.0])
def test_it_goes_on_in_the_recording_s_level(gain: float) -> None:
    joined = join_continuation(GIVEN, np.float32(gain) * GOES_ON, HEARD, RATE)
    assert joined.gain_db == pytest.approx(-20.0 * np.log10(gain), abs=0.01)
    np.testing.assert_allclose(joined.waveform, BEAT, atol=1e-3)


def test_a_dc_offset_of_the_recording_is_no_level() -> None:
    joined = join_continuation(GIVEN + np.float32(0.3), GOES_ON, HEARD, RATE)
    assert joined.gain_db == pytest.approx(0.0, abs=0.01)
    assert hole_db_at(joined.waveform, SEAM, RATE) >= HOLE_DB


def test_what_was_given_is_kept_up_to_the_seam() -> None:
    rng = np.random.default_rng(0)
    coded = GOES_ON + 0.01 * rng.standard_normal(GOES_ON.shape).astype(np.float32)
    joined = join_continuation(GIVEN, coded, HEARD, RATE)
    n_kept = SEAM - round(0.06 * RATE)
    np.testing.assert_array_equal(joined.waveform[:, :n_kept], GIVEN[:, :n_kept])
    steps = np.abs(np.diff(joined.waveform[0, n_kept : SEAM + 100])).max()
    assert steps < np.abs(np.diff(BEAT[0])).max() + 0.05


def test_a_beat_of_silence_at_the_seam_is_measured() -> None:
    silent = GOES_ON.copy()
    silent[:, HEARD : HEARD + RATE // 4] = 0.0
    joined = join_continuation(GIVEN, silent, HEARD, RATE)
    hole_db = hole_db_at(joined.waveform, SEAM, RATE)
    assert hole_db < HOLE_DB
    assert hole_db < -20.0


def test_silence_of_the_recording_s_own_is_no_hole() -> None:
    given = GIVEN.copy()
    given[:, -RATE // 4 :] = 0.0
    goes_on = GOES_ON.copy()
    goes_on[:, HEARD - RATE // 4 : HEARD] = 0.0
    joined = join_continuation(given, goes_on, HEARD, RATE)
    assert hole_db_at(joined.waveform, SEAM, RATE) >= HOLE_DB


def test_what_does_not_go_on_is_refused() -> None:
    with pytest.raises(ValueError, match="doesn't go on"):
        join_continuation(GIVEN, np.concatenate([GOES_ON, GOES_ON]), HEARD, RATE)
    with pytest.raises(ValueError, match="doesn't go on"):
        join_continuation(GIVEN, GOES_ON, SEAM + 1, RATE)
