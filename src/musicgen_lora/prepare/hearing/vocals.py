"""Finds and removes vocals with demucs (extra `vocals`).

demucs downloads its own weights on first use, as a pickle that it verifies by its own hash and
loads itself; none of this goes through this project's loaders.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Literal

import numpy as np
import soxr

Vocals = Literal["keep", "flag", "remove"]
MODEL = "htdemucs"
LIMIT_S = 900.0
"""Separating a clip takes far longer than reading it, and shows no progress meanwhile."""
LEAST_SHARE = 0.02
"""Share of the power below which a separated voice is bleed from other instruments: -17 dB. Not
measured on real vocals."""


@cache
def _separator() -> Any:
    return import_module("demucs.pretrained").get_model(MODEL).eval()


def split_vocals(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Returns a recording without its vocals, and how much of it the vocals were.

    Args:
        waveform: `[C, N]` float32, C is 1 or 2.

    Returns:
        `[C, N]` float32 at the same rate, and the vocals' share of the power, 0 to 1.
    """
    import torch

    model = _separator()
    mix = soxr.resample(waveform.T, sample_rate, model.samplerate, "HQ").T
    mix = torch.from_numpy(np.ascontiguousarray(np.broadcast_to(mix, (2, mix.shape[1]))))
    # Scaled as in demucs's own command.
    mean, scale = mix.mean(), mix.std() + 1e-8
    with torch.inference_mode():
        stems = import_module("demucs.apply").apply_model(
            model, ((mix - mean) / scale)[None], device="cpu", progress=False
        )[0]
    # The mix's mean is in no stem, as it isn't sound.
    voice = (stems[list(model.sources).index("vocals")] * scale).numpy()
    share = float(np.square(voice).mean() / max(float(mix.var()), 1e-12))
    voice = soxr.resample(voice.T, model.samplerate, sample_rate, "HQ").T
    if len(waveform) == 1:
        voice = voice.mean(axis=0, keepdims=True)
    n_samples = waveform.shape[1]
    voice = np.pad(voice[:, :n_samples], ((0, 0), (0, max(0, n_samples - voice.shape[1]))))
    # The voice is subtracted from the recording, so nothing else is lost.
    return (waveform - voice).astype(np.float32), min(1.0, share)
