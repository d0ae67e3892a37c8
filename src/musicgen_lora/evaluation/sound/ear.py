"""Analyses a clip once, while its samples are in memory; all measures of sound use the result.

The samples of a minute of stereo take 23 MB, the result a few kilobytes.
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
"""A clip's vector `[D]` from each embedding, by the embedding's name."""


@dataclass(frozen=True)
class Heard:
    descriptors: dict[str, float]
    vectors: Vectors
    damage: Damage
    fingerprint: np.ndarray
    """`[F]`, of `listening.duplicates`."""
    bpm: float
    """NaN if no tempo is detected."""
    key: str | None

    def played(self, audio: str) -> PlayedClip:
        """The clip's entry in report.json, with the name of its file."""
        return {
            "audio": audio,
            "descriptors": self.descriptors,
            "damage": asdict(self.damage),
            "heard_bpm": self.bpm,
            "heard_key": self.key,
        }


class Ear:
    """Analyses clips at a model's sample rate.

    Args:
        model: its codec is one of the embeddings.
        further: embeddings in addition to the built-in ones.
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
        """Whether several threads may use it at once: a user's function may not be thread-safe."""
        return self._is_ours

    @property
    def spectra_alone(self) -> Ear:
        """An ear without models, for clips that enter no distance between sets: its only vectors
        are log-mel spectra."""
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
        """Measure everything on a clip.

        Args:
            waveform: `[C, N]`; non-finite samples are counted as damage and replaced by 0.
            codes: `[K, T]`, from which it was decoded; None if it did not come from the codec.
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
