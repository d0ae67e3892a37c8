"""How many tokens stay the same when a sound changes inaudibly, or hardly audibly."""

from __future__ import annotations

import numpy as np
from transformers import EncodecModel

from pretraining.codec.crops import SAMPLE_RATE
from pretraining.codec.network import HOP, codes

CHANGES = ("2 ms", "10 ms", "-3 dB", "noise -60 dB")
MARGIN = round(0.02 * SAMPLE_RATE)


def changed(samples: np.ndarray, change: str) -> tuple[np.ndarray, np.ndarray]:
    """`samples [N]` without their margins, and a changed copy; both are whole frames long."""
    n = (len(samples) - 2 * MARGIN) // HOP * HOP
    plain = samples[MARGIN : MARGIN + n]
    if change.endswith("ms"):
        start = MARGIN - round(float(change.split()[0]) * SAMPLE_RATE / 1000)
        return plain, samples[start : start + n]
    if change.startswith("noise"):
        noise = np.random.default_rng(0).normal(0.0, 1e-3, n)
        return plain, (plain + noise).astype(np.float32)
    return plain, plain * np.float32(10.0 ** (float(change.split()[0]) / 20.0))


def equal_tokens(model: EncodecModel, clips: list[np.ndarray]) -> dict[str, list[float]]:
    """The share of equal tokens, codebook by codebook, for each of `CHANGES`."""
    equal: dict[str, list[np.ndarray]] = {change: [] for change in CHANGES}
    for samples in clips:
        plain = codes(model, changed(samples, CHANGES[0])[0])
        for change in CHANGES:
            other = codes(model, changed(samples, change)[1])
            equal[change].append((plain == other).mean(1))
    return {
        change: [round(float(share), 3) for share in np.mean(shares, 0)]
        for change, shares in equal.items()
    }
