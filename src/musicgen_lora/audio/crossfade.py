"""Crossfades from one recording into another where the two are most alike.

Loops and continuations both need this: two versions of the same moments, one that leads up to them
and one that continues.
"""

from __future__ import annotations

import numpy as np


def pass_into(waveform: np.ndarray, other: np.ndarray, n_fade: int) -> np.ndarray:
    """Crossfades the end of a recording `[C, N]` into another version of the same moments, `[C, M]`
    with M <= N, over the `n_fade` samples where the two are most alike. After that comes the
    other. The crossfade peaks no higher than the higher peak of both."""
    ending = waveform[:, waveform.shape[1] - other.shape[1] :]
    at = most_alike_at(ending, other, n_fade)
    here = slice(at, at + n_fade)
    rising = np.linspace(0.0, 1.0, n_fade, dtype=np.float32)
    old, new = ending[:, here], other[:, here]
    power = float(np.sqrt(np.square(old).sum() * np.square(new).sum()))
    alike = max(0.0, float((old * new).sum()) / power) if power > 0.0 else 1.0
    # Unrelated signals add in power, identical ones in amplitude.
    both = np.sqrt(rising**2 + (1.0 - rising) ** 2 + 2.0 * alike * rising * (1.0 - rising))
    joined = other.astype(np.float32)
    joined[:, :at] = ending[:, :at]
    mixed = old * (1.0 - rising) + new * rising
    highest = max(float(np.abs(waveform).max()), float(np.abs(other).max()))
    joined[:, here] = mixed * _boost_below(mixed, 1.0 / both, highest)
    return np.concatenate([waveform[:, : waveform.shape[1] - other.shape[1]], joined], axis=1)


def _boost_below(mixed: np.ndarray, boost: np.ndarray, highest: float) -> np.ndarray:
    """The gains `[N]`, at least 1, drawn towards 1 as far as `[C, N]` needs it to stay within
    `highest`."""
    peaks = np.abs(mixed).max(axis=0)
    risen = boost - 1.0
    over = (peaks * boost > highest) & (risen > 1e-6)
    kept = ((highest / peaks[over] - 1.0) / risen[over]).min(initial=1.0)
    return 1.0 + max(0.0, float(kept)) * risen


def most_alike_at(ending: np.ndarray, other: np.ndarray, n_fade: int) -> int:
    """The sample from which two versions of the same moments `[C, M]` are most alike for `n_fade`
    samples."""
    unlike = np.square(ending - other).sum(axis=0)
    sums = np.concatenate([[0.0], np.cumsum(unlike)])
    return int((sums[n_fade:] - sums[:-n_fade]).argmin())
