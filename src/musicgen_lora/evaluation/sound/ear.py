"""What is heard of a clip, once, while its samples are at hand: all measures of sound draw on it.

Samples of a minute of stereo take 23 MB, and what is kept of them here a few kilobytes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from musicgen_lora.evaluation.measures.damage import Damage, measure_damage
from musicgen_lora.evaluation.measures.embeddings import (
    LOG_MEL,
    MUSICNN,
    Embedding,
    codec_latents,
    embed,
)
from musicgen_lora.evaluation.report.document import PlayedClip
from musicgen_lora.listening.descriptors import describe
from musicgen_lora.listening.duplicates import audio_fingerprint
from musicgen_lora.listening.pitch.bass import find_bass_notes
from musicgen_lora.listening.pitch.key import estimate_key
from musicgen_lora.model.base_model import BaseModel

Vectors = dict[str, np.ndarray]
"""What each embedding hears of a clip, `[D]`, by its name."""


@dataclass(frozen=True)
class Heard:
    descriptors: dict[str, float]
    vectors: Vectors
    damage: Damage
    fingerprint: np.ndarray
    """`[F]`, of `listening.duplicates`."""
    bpm: float
    """NaN where none is heard."""
    key: str | None

    def played(self, audio: str) -> PlayedClip:
        """The clip's entry in report.json, under the name of its file."""
        return {
            "audio": audio,
            "descriptors": self.descriptors,
            "damage": asdict(self.damage),
            "heard_bpm": self.bpm,
            "heard_key": self.key,
        }


class Ear:
    """Hears clips at a model's rate.

    Args:
        model: its codec is one of the embeddings.
        further: embeddings beside ours.
    """

    def __init__(self, model: BaseModel, further: Sequence[Embedding] = ()) -> None:
        self.embeddings: tuple[Embedding, ...] = (
            LOG_MEL,
            MUSICNN,
            codec_latents(model.codec),
            *further,
        )
        self._is_ours = not further
        self.sample_rate = model.shape.sample_rate
        self._frame_rate = model.shape.frame_rate

    @property
    def hears_side_by_side(self) -> bool:
        """Whether several threads may hear with it at once: a function of somebody else's may not
        allow for that."""
        return self._is_ours

    @property
    def spectra_alone(self) -> Ear:
        """One that no model hears with, for clips that no set is made of: vectors are the log-mel
        spectrum's alone."""
        ear = copy.copy(self)
        ear.embeddings = (LOG_MEL,)
        return ear

    def vectors(self, waveform: np.ndarray) -> Vectors:
        """The embedding vectors of a waveform `[C, N]`, by the embedding's name.

        Raises:
            ValueError: one is not finite.
        """
        return {e.name: embed(e, [waveform], self.sample_rate)[0] for e in self.embeddings}

    def hear(self, waveform: np.ndarray, codes: np.ndarray | None) -> Heard:
        """All that is measured of a clip.

        Args:
            waveform: `[C, N]`; samples that are not finite are counted as damage and heard as 0.
            codes: `[K, T]` that it was decoded from; None of a sound that the codec had no part in.
        """
        finite = np.nan_to_num(waveform, nan=0.0, posinf=0.0, neginf=0.0)
        notes = find_bass_notes(finite, self.sample_rate)
        descriptors = describe(finite, self.sample_rate, notes=notes)
        return Heard(
            descriptors=descriptors,
            vectors=self.vectors(finite),
            damage=measure_damage(waveform, self.sample_rate, codes, self._frame_rate),
            fingerprint=audio_fingerprint(finite, self.sample_rate),
            bpm=descriptors["tempo_bpm"],
            key=estimate_key(finite, self.sample_rate, notes=notes).name,
        )
