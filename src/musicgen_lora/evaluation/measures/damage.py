"""Faults in a clip, whatever its content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d

CLICK_RATIO = 30.0
"""Smallest second difference of a click, relative to the mean in the milliseconds around it."""
CLICK_LEAST = 0.02
"""Smaller second differences, relative to full scale, are not audible as clicks."""
CLICK_NEAR_S, CLICK_AROUND_S = 0.0004, 0.004
STUCK_PERIOD_S, STUCK_LEAST_S = 0.25, 0.5


@dataclass(frozen=True)
class Damage:
    bad_samples: int
    """NaN or infinite."""
    clicks: int
    """Jumps of the waveform that no sound around them explains. A kick that cuts off a bass note
    makes one too: compare with the reference."""
    stuck_share: float
    """Share of frames in stretches of half a second or more that repeat the same codes, in every
    codebook, with a period of up to a quarter of a second; NaN without codes."""


def measure_damage(
    waveform: np.ndarray, sample_rate: int, codes: np.ndarray | None, frame_rate: float
) -> Damage:
    """Damage of a clip.

    Args:
        waveform: `[C, N]`.
        codes: `[K, T]`, from which it was decoded; None if it wasn't.
        frame_rate: frame rate of the codes in Hz.
    """
    finite = np.isfinite(waveform)
    heard = np.where(finite, waveform, 0.0)
    return Damage(
        bad_samples=int((~finite).sum()),
        clicks=max(count_clicks(channel, sample_rate) for channel in heard),
        stuck_share=float("nan") if codes is None else stuck_share(codes, frame_rate),
    )


def count_clicks(samples: np.ndarray, sample_rate: int) -> int:
    """Count clicks in samples `[N]`: second differences far above those before and those after. A
    drum's attack has large ones too, but they go on."""
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
    # The second differences of one jump are neighbours.
    spread = maximum_filter1d(clicks.astype(np.int8), 2 * near + 1)
    return int((np.diff(spread, prepend=0) == 1).sum())


def stuck_share(codes: np.ndarray, frame_rate: float) -> float:
    """Share of frames of codes `[K, T]` in stuck stretches; see `Damage`."""
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
