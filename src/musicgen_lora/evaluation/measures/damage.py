"""What is broken in a clip, whatever it plays: faults that nobody asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d

CLICK_RATIO = 30.0
"""A click's bend, in mean bends of the milliseconds before and after it."""
CLICK_LEAST = 0.02
"""Smaller bends, of full scale, are not heard as clicks."""
CLICK_NEAR_S, CLICK_AROUND_S = 0.0004, 0.004
STUCK_PERIOD_S, STUCK_LEAST_S = 0.25, 0.5


@dataclass(frozen=True)
class Damage:
    bad_samples: int
    """NaN or infinite."""
    clicks: int
    """Jumps of the waveform that no sound around them explains. A kick that cuts off the bass
    before it makes one too: read them beside the reference's."""
    stuck_share: float
    """Share of its frames in a stretch of half a second or more that repeats the same codes, in
    every codebook, with a period below a quarter of a second; NaN without codes."""


def measure_damage(
    waveform: np.ndarray, sample_rate: int, codes: np.ndarray | None, frame_rate: float
) -> Damage:
    """Damage of a clip.

    Args:
        waveform: `[C, N]`.
        codes: `[K, T]` that it was decoded from; None where it wasn't.
        frame_rate: of the codes, in Hz.
    """
    finite = np.isfinite(waveform)
    heard = np.where(finite, waveform, 0.0)
    return Damage(
        bad_samples=int((~finite).sum()),
        clicks=max(count_clicks(channel, sample_rate) for channel in heard),
        stuck_share=float("nan") if codes is None else stuck_share(codes, frame_rate),
    )


def count_clicks(samples: np.ndarray, sample_rate: int) -> int:
    """Clicks among samples `[N]`: bends (second differences) far above those before and above those
    after. A drum's attack bends too, and goes on bending."""
    bend = np.abs(np.diff(np.asarray(samples, np.float64), 2))
    near, around = (max(1, round(s * sample_rate)) for s in (CLICK_NEAR_S, CLICK_AROUND_S))
    if len(bend) <= 2 * (near + around):
        return 0
    mean = uniform_filter1d(bend, around, mode="nearest")
    reach = near + around // 2 + 1
    before = np.concatenate([np.full(reach, np.inf), mean[:-reach]])
    after = np.concatenate([mean[reach:], np.full(reach, np.inf)])
    least = np.maximum(CLICK_RATIO * np.maximum(before, after), CLICK_LEAST)
    clicks = bend > least
    # The bends of one jump are neighbours.
    spread = maximum_filter1d(clicks.astype(np.int8), 2 * near + 1)
    return int((np.diff(spread, prepend=0) == 1).sum())


def stuck_share(codes: np.ndarray, frame_rate: float) -> float:
    """Share of the frames of codes `[K, T]` in stretches that are stuck; see `Damage`."""
    n_frames = codes.shape[1]
    stuck = np.zeros(n_frames, bool)
    least = round(STUCK_LEAST_S * frame_rate)
    for period in range(1, round(STUCK_PERIOD_S * frame_rate) + 1):
        equal = (codes[:, period:] == codes[:, :-period]).all(axis=0)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], equal.astype(np.int8), [0]])))
        for first, end in edges.reshape(-1, 2):
            # The run and the period that it repeats.
            if end - first + period >= max(least, 2 * period):
                stuck[first : end + period] = True
    return float(stuck.mean()) if n_frames else 0.0
