"""What clips are compared with: held-out audio, and the anchors that say what a distance means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from musicgen_lora.audio.files import read_audio
from musicgen_lora.config import EvaluateSettings
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.scoring import OnStep
from musicgen_lora.dataset.tokens import TokenStore
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.losses.forgetting import OtherMusic
from musicgen_lora.evaluation.sound.ear import Ear, Heard, Vectors
from musicgen_lora.listening.descriptors import describe
from musicgen_lora.model.musicgen import MusicGen

MAX_REFERENCES = 64
"""Held-out clips that are described, evenly spaced over them all."""
MAX_OTHERS = 16
N_NOISES = 8
MAX_DESCRIBED = 6
"""Clips of each anchor that are described: all of them would take as long as the generated ones."""
NOISE_LEVEL = 0.1
"""RMS, of full scale: about that of a beat."""


@dataclass(frozen=True)
class References:
    """Held-out audio as the codec gives it back, and the anchors. What the codec does to a sound is
    no fault of the models that speak through it: generated clips went through it too."""

    heard: Sequence[Heard] = ()
    clips: Sequence[Clip] = ()
    """The clips that `heard` was measured of, in its order."""
    recorded: Sequence[Vectors] = ()
    """The same clips as they were recorded."""
    why_not_recorded: str = ""
    others: Sequence[Vectors] = ()
    """Other music, through the codec."""
    why_no_others: str = ""
    noises: Sequence[Vectors] = ()
    described: Mapping[str, Sequence[dict[str, float]]] = field(default_factory=dict)
    """Descriptors of some of each anchor's clips: `recorded`, `other_music` and `noise`."""

    @property
    def sources(self) -> list[str]:
        """Source of each clip."""
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
    described: dict[str, list[dict[str, float]]] = {}

    def hear(name: str, sounds: Iterable[np.ndarray], n: int) -> list[Vectors]:
        vectors, described[name] = _hear(ear, model.shape.sample_rate, sounds, n, tell)
        return vectors

    why = "--from_tokens leaves the audio alone" if settings.from_tokens else ""
    recorded: list[Vectors] = []
    try:
        if not why:
            recorded = hear("recorded", _recordings(model, chosen, settings), len(chosen))
    except UserError as error:
        why = str(error).rstrip(".")
    # Those that can't be read take no time.
    n_done = 2 * len(chosen)
    sounds = (_sound(model, window.codes[:n_frames].T) for window in anchors)
    return References(
        heard=heard,
        clips=chosen,
        recorded=recorded,
        why_not_recorded=why,
        others=hear("other_music", sounds, len(anchors)),
        why_no_others=others.why_none,
        noises=hear("noise", _noises(model, settings.duration), N_NOISES),
        described={name: found for name, found in described.items() if found},
    )


def _sound(model: MusicGen, codes: np.ndarray) -> np.ndarray:
    """The sound `[C, N]` of codes `[K, T]`."""
    first = np.ascontiguousarray(codes.astype(np.int64))
    return model.decode(torch.from_numpy(first)[None])[0]


def _hear_codes(model: MusicGen, ear: Ear, codes: np.ndarray) -> Heard:
    return ear.hear(_sound(model, codes), codes)


def _hear(
    ear: Ear, rate: int, sounds: Iterable[np.ndarray], n: int, tell: Callable[[], None]
) -> tuple[list[Vectors], list[dict[str, float]]]:
    """Vectors of all of `n` sounds, and descriptors of some, evenly spaced over them."""
    vectors, described = [], []
    for row, sound in enumerate(sounds):
        vectors.append(ear.vectors(sound))
        if row % -(-n // MAX_DESCRIBED) == 0:
            described.append(describe(sound, rate))
        tell()
    return vectors, described


def _recordings(
    model: MusicGen, clips: Sequence[Clip], settings: EvaluateSettings
) -> Iterator[np.ndarray]:
    """The clips as they are in their files.

    Raises:
        UserError: one can't be read.
    """
    for clip in clips:
        length_s = min(settings.duration, clip.duration_s or settings.duration)
        yield read_audio(
            clip.path, model.shape.sample_rate, start_s=clip.start_s, duration_s=length_s
        )


def _noises(model: MusicGen, duration_s: float) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (model.shape.n_channels, round(duration_s * model.shape.sample_rate))
    for _ in range(N_NOISES):
        yield (NOISE_LEVEL * rng.standard_normal(shape)).astype(np.float32)
