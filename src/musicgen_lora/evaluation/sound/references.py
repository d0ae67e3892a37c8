"""What clips are compared with: held-out audio, and the anchors that say what a distance means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from musicgen_lora.audio.files import read_audio
from musicgen_lora.config import EvaluateSettings
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.scoring import OnStep, Windows
from musicgen_lora.dataset.tokens import TokenStore
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.losses.forgetting import OtherMusic
from musicgen_lora.evaluation.sound.ear import Ear, Heard, Vectors
from musicgen_lora.model.musicgen import MusicGen

MAX_REFERENCES = 64
"""Held-out clips that are described, evenly spaced over them all."""
MAX_OTHERS = 16
N_NOISES = 8
NOISE_LEVEL = 0.1
"""RMS, of full scale: about that of a beat."""


@dataclass(frozen=True)
class References:
    """Held-out audio as the codec gives it back, and the anchors."""

    heard: Sequence[Heard] = ()
    clips: Sequence[Clip] = ()
    """Of `heard`."""
    recorded: Sequence[Vectors] = ()
    """The same clips as they were recorded."""
    why_not_recorded: str = ""
    others: Sequence[Vectors] = ()
    """Other music, through the codec."""
    why_no_others: str = ""
    noises: Sequence[Vectors] = ()

    @property
    def sources(self) -> list[str]:
        """Of the clips."""
        return [clip.source for clip in self.clips]

    def describe(self) -> dict[str, Any]:
        """The report's `reference`: means over each source's clips, one for each source, and how
        many there are."""
        by_source: dict[str, list[dict[str, float]]] = {}
        for source, heard in zip(self.sources, self.heard, strict=True):
            by_source.setdefault(source, []).append(heard.descriptors)
        means = [_mean(group) for group in by_source.values()]
        return {"n_sources": len(means), "n_clips": len(self.clips), "descriptors": means}


def _mean(group: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each descriptor over the clips that have it."""
    result = {}
    for name in group[0]:
        values = [facts[name] for facts in group if np.isfinite(facts[name])]
        result[name] = float(np.mean(values)) if values else float("nan")
    return result


def hear_references(
    settings: EvaluateSettings,
    model: MusicGen,
    ear: Ear,
    held_out: tuple[Sequence[Clip], TokenStore],
    others: OtherMusic,
    on_clip: OnStep,
) -> References:
    """Hears the beginning of held-out clips, as long as generated ones, and the anchors.

    What the codec does to a sound is no fault of the models that speak through it: the reference
    went through it as generated clips did.

    Args:
        settings: of the evaluation.
        model: its codec is used.
        ear: hears.
        held_out: clips and their codes.
        others: other music.
        on_clip: told how many clips are done, and of how many.
    """
    clips, codes = held_out
    n_frames = model.shape.frames(settings.duration)
    stride = -(-len(clips) // MAX_REFERENCES)
    chosen = list(clips[::stride])
    anchors = others.windows[:: -(-len(others.windows) // MAX_OTHERS) or 1]
    n_done, n_clips = 0, 2 * len(chosen) + len(anchors) + N_NOISES

    def tell() -> None:
        nonlocal n_done
        n_done += 1
        on_clip(n_done, n_clips)

    heard = []
    for own in codes[::stride]:
        heard.append(_hear_codes(model, ear, own[:n_frames].T))
        tell()
    recorded, why = _hear_recorded(model, ear, chosen, settings, tell)
    # Those that can't be read take no time.
    n_done = 2 * len(chosen)
    return References(
        heard=heard,
        clips=chosen,
        recorded=recorded,
        why_not_recorded=why,
        others=_hear_others(model, ear, anchors, n_frames, tell),
        why_no_others=others.why_none,
        noises=_hear_noises(model, ear, settings.duration, tell),
    )


def _sound(model: MusicGen, codes: np.ndarray) -> np.ndarray:
    """The sound `[C, N]` of codes `[K, T]`."""
    first = np.ascontiguousarray(codes.astype(np.int64))
    return model.decode(torch.from_numpy(first)[None])[0]


def _hear_codes(model: MusicGen, ear: Ear, codes: np.ndarray) -> Heard:
    return ear.hear(_sound(model, codes), codes)


def _hear_recorded(
    model: MusicGen,
    ear: Ear,
    clips: Sequence[Clip],
    settings: EvaluateSettings,
    tell: Callable[[], None],
) -> tuple[list[Vectors], str]:
    """The clips as they are in their files, or why not."""
    if settings.from_tokens:
        return [], "--from_tokens leaves the audio alone"
    heard = []
    for clip in clips:
        length_s = min(settings.duration, clip.duration_s or settings.duration)
        try:
            waveform = read_audio(
                clip.path, model.shape.sample_rate, start_s=clip.start_s, duration_s=length_s
            )
        except UserError as error:
            return [], str(error).rstrip(".")
        heard.append(ear.vectors(waveform))
        tell()
    return heard, ""


def _hear_others(
    model: MusicGen, ear: Ear, windows: Windows, n_frames: int, tell: Callable[[], None]
) -> list[Vectors]:
    heard = []
    for window in windows:
        heard.append(ear.vectors(_sound(model, window.codes[:n_frames].T)))
        tell()
    return heard


def _hear_noises(
    model: MusicGen, ear: Ear, duration_s: float, tell: Callable[[], None]
) -> list[Vectors]:
    rng = np.random.default_rng(0)
    n_samples = round(duration_s * model.shape.sample_rate)
    shape = (model.shape.n_channels, n_samples)
    heard = []
    for _ in range(N_NOISES):
        noise = NOISE_LEVEL * rng.standard_normal(shape)
        heard.append(ear.vectors(noise.astype(np.float32)))
        tell()
    return heard
