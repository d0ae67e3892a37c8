"""Clean seams, and seams with a known fault."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render
from musicgen_lora.listening.seam import measure_seam

RATE = 32_000


def tone(hertz: float, n_samples: int = 4 * RATE, level: float = 0.3) -> np.ndarray:
    time_s = np.arange(n_samples) / RATE
    return (level * np.sin(2.0 * np.pi * hertz * time_s)).astype(np.float32)[None]


def test_a_tone_of_whole_periods_has_no_seam() -> None:
    seam = measure_seam(tone(50.0), RATE, 2)
    assert not seam.clicks
    assert seam.phase_deg == pytest.approx(0.0, abs=5.0)
    assert seam.level_db == pytest.approx(0.0, abs=0.1)
    assert seam.spectrum_db == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize("jump_deg", [60.0, 180.0])
def test_a_phase_that_jumps_clicks_and_is_measured(jump_deg: float) -> None:
    # The last period is cut short by a part of it.
    n_samples = 4 * RATE - round(jump_deg / 360.0 * RATE / 50.0)
    seam = measure_seam(tone(50.0, n_samples), RATE, 2)
    assert abs(seam.phase_deg or 0.0) == pytest.approx(jump_deg, abs=8.0)
    assert seam.clicks


def test_a_step_between_hits_clicks() -> None:
    tracks = {"closed_hat": [Hit(2.0 * step + 1.0) for step in range(16)]}
    loop = render(Pattern(120, 2, tracks), load_kit808(RATE), RATE, humanise_ms=0.0)
    assert not measure_seam(loop, RATE, 2).clicks
    faulty = loop.copy()
    faulty[:, :2000] += 0.1 * np.linspace(1.0, 0.0, 2000)
    assert measure_seam(faulty, RATE, 2).step_db > 20.0


def test_a_hit_on_the_one_is_no_click() -> None:
    tracks = {
        "kick": [Hit(0.0), Hit(8.0), Hit(16.0), Hit(24.0)],
        "closed_hat": [Hit(2.0 * step) for step in range(16)],
    }
    loop = render(Pattern(120, 2, tracks), load_kit808(RATE), RATE, humanise_ms=0.0)
    seam = measure_seam(np.roll(loop, 48, axis=1), RATE, 2)
    assert not seam.clicks
    assert seam.level_db == pytest.approx(0.0, abs=0.5)


def test_an_ending_that_other_bars_do_not_have_is_measured() -> None:
    loop = np.concatenate([tone(50.0), 0.1 * tone(400.0)], axis=1)
    seam = measure_seam(np.roll(loop, RATE, axis=1), RATE, 4)
    assert seam.level_db is not None
    assert seam.level_db < 1.0
    faded = np.concatenate([loop[:, :-RATE], 0.01 * tone(400.0, RATE)], axis=1)
    seam = measure_seam(faded, RATE, 8)
    assert seam.level_db is not None
    assert seam.level_db > 10.0


def test_silence_and_one_bar() -> None:
    silent = measure_seam(np.zeros((2, RATE), dtype=np.float32), RATE, 1)
    assert not silent.clicks
    assert (silent.level_db, silent.spectrum_db, silent.phase_deg) == (None, None, None)
