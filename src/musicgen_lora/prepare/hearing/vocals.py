"""Vocals, found and taken out by demucs (extra `vocals`).

demucs downloads its own weights on first use, as a pickle that it checks by a hash of its own and
loads itself; nothing of it goes through this project's loaders.
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
"""Separating a clip takes far longer than reading it, and gives no sign of life meanwhile."""
LEAST_SHARE = 0.02
"""Share of the power below which a separated voice is bleed of other instruments: -17 dB. Not
measured on real vocals."""


@cache
def _separator() -> Any:
    return import_module("demucs.pretrained").get_model(MODEL).eval()


def split_vocals(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """A recording without its vocals, and how much of it they are.

    Args:
        waveform: `[C, N]` float32, C is 1 or 2.

    Returns:
        `[C, N]` float32 at the same rate, and the vocals' share of the power, 0 to 1.
    """
    import torch

    model = _separator()
    mix = soxr.resample(waveform.T, sample_rate, model.samplerate, "HQ").T
    mix = torch.from_numpy(np.ascontiguousarray(np.broadcast_to(mix, (2, mix.shape[1]))))
    # As demucs's own command scales what it separates.
    mean, scale = mix.mean(), mix.std() + 1e-8
    with torch.inference_mode():
        stems = import_module("demucs.apply").apply_model(
            model, ((mix - mean) / scale)[None], device="cpu", progress=False
        )[0]
    # The mean of the mix is in no stem: it isn't sound.
    voice = (stems[list(model.sources).index("vocals")] * scale).numpy()
    share = float(np.square(voice).mean() / max(float(mix.var()), 1e-12))
    voice = soxr.resample(voice.T, model.samplerate, sample_rate, "HQ").T
    if len(waveform) == 1:
        voice = voice.mean(axis=0, keepdims=True)
    n_samples = waveform.shape[1]
    voice = np.pad(voice[:, :n_samples], ((0, 0), (0, max(0, n_samples - voice.shape[1]))))
    # What is left is the recording less its voice, so nothing else is lost.
    return (waveform - voice).astype(np.float32), min(1.0, share)
