"""Checks that an array is a valid waveform."""

from __future__ import annotations

import numpy as np


def check_waveform(waveform: np.ndarray) -> None:
    """Raises a ValueError unless it is `[C, N]`, with at least one sample and no NaN or infinite
    samples."""
    check_shape(waveform)
    if not np.isfinite(waveform).all():
        raise ValueError("The waveform has NaN or infinite samples.")


def check_shape(waveform: np.ndarray) -> None:
    """Raises a ValueError unless it is `[C, N]` with at least one sample."""
    if waveform.ndim != 2 or waveform.size == 0:
        raise ValueError(f"A waveform is [C, N] with at least one sample, not {waveform.shape}.")
