"""Melodies as the melody models hear them: the strongest pitch class of each audio window.

transformers' `MusicgenMelodyFeatureExtractor` computes the same, but needs torchaudio, whose
builds break CPU installations. Its settings are read from the model's own files. Like the extractor
given plain audio, this hears the whole mix; audiocraft trained its models on stems separated by
demucs, without drums and bass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers.audio_utils import chroma_filter_bank

from musicgen_lora.audio.fold import fold_to_mono
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_json
from musicgen_lora.formats.kinds import check_kind, fields, integer
from musicgen_lora.model.base.bounds import DURATION_S, PITCH_CLASSES, SAMPLE_RATE
from musicgen_lora.model.base.folder import base_folder

SETTINGS_FILE = "preprocessor_config.json"
AT_ONCE = 256
"""Windows whose spectra are in memory at a time."""
_SETTINGS = fields(
    {
        "sampling_rate": SAMPLE_RATE,
        "chunk_length": DURATION_S,
        "n_fft": integer(16, 1 << 18),
        "hop_length": integer(16, 1 << 18),
    },
    dict.fromkeys(("num_chroma", "feature_size"), PITCH_CLASSES),
)


class Chroma:
    """Turns waveforms into pitch classes.

    Args:
        model_path: folder or hub id of a melody model, whose feature extractor's settings are read.
        chroma_length: M, the pitch classes that the model reads, from its config.

    Raises:
        UserError: the model has no usable feature extractor settings.
    """

    def __init__(self, model_path: str | Path, chroma_length: int) -> None:
        settings = extractor_settings(model_path)
        check_kind(settings, _SETTINGS, f"{model_path}: its {SETTINGS_FILE}")
        self.sample_rate: int = settings["sampling_rate"]
        self.max_duration_s = float(settings["chunk_length"])
        self._n_fft, self._hop = settings["n_fft"], settings["hop_length"]
        n_chroma = settings.get("num_chroma", settings.get("feature_size", 12))
        self._length = chroma_length
        filters = chroma_filter_bank(
            num_frequency_bins=self._n_fft,
            num_chroma=n_chroma,
            sampling_rate=self.sample_rate,
            tuning=0,
        )
        self._filters = torch.from_numpy(filters).float()
        self._window = torch.hann_window(self._n_fft)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """The melody of `[C, N]` float32 at `sample_rate`: pitch classes `[M]` uint8, where C is 0.

        A melody shorter than M is repeated, a longer one is cut, as in transformers.
        """
        return np.resize(
            self._classes(waveform[:, : round(self.max_duration_s * self.sample_rate)]),
            self._length,
        )

    def along(self, waveform: np.ndarray) -> np.ndarray:
        """The melody of a whole waveform `[C, N]`: `[L]` with L >= M, for music longer than the
        model reads at once. A shorter one is repeated up to M."""
        classes = self._classes(waveform)
        return np.resize(classes, max(len(classes), self._length))

    def _classes(self, waveform: np.ndarray) -> np.ndarray:
        """A pitch class for each window of `[C, N]`."""
        # The mean of two channels that cancel would be a melody of rounding errors.
        mono = torch.from_numpy(fold_to_mono(waveform, self.sample_rate)[0][0])
        lacking = max(0, self._n_fft - len(mono))
        mono = pad(mono, (lacking // 2, lacking - lacking // 2))
        centred = pad(mono[None], (self._n_fft // 2, self._n_fft // 2), mode="reflect")[0]
        stretches = centred.unfold(0, self._n_fft, self._hop)
        classes = []
        # In parts: the spectrum of ten minutes would take hundreds of megabytes.
        for part in stretches.split(AT_ONCE):
            power = torch.fft.rfft(part * self._window).abs().square()
            # The extractor also scales each window, which moves no maximum.
            classes.append((power @ self._filters.T).argmax(dim=1))
        return torch.cat(classes).numpy().astype(np.uint8)


def extractor_settings(model_path: str | Path) -> dict[str, Any]:
    """Reads the settings of a model's feature extractor.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    path = base_folder(str(model_path)) / SETTINGS_FILE
    if not path.is_file():
        raise UserError(f"{model_path}: has no {SETTINGS_FILE}.")
    return read_json(path)
