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
from musicgen_lora.evaluation.measures.distances import FEWEST_ROWS
from musicgen_lora.evaluation.sound.ear import Ear, Heard, Vectors
from musicgen_lora.model.musicgen import MusicGen

MAX_REFERENCES = 64
"""Held-out clips that are described, evenly spaced over them all."""
MAX_OTHERS = 16
N_NOISES = 8
MAX_HEARD = 6
"""Clips of each anchor that are heard in full: all would take as long as the generated ones."""
N_SPLITS = 20
TOO_FEW_FOR_HALVES = "needs two sources of two clips each, at the least"
RECORDED, OTHER_MUSIC, NOISE = "recorded", "other_music", "noise"
ANCHORS = (RECORDED, OTHER_MUSIC, NOISE)
"""Beside the halves of the held-out clips."""
NOISE_LEVEL = 0.1
"""RMS, of full scale: about that of a beat."""
Sound = tuple[np.ndarray, np.ndarray | None]
"""A waveform `[C, N]`, and the codes `[K, T]` that it was decoded from, if it was."""


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
    some: Mapping[str, Mapping[int, Heard]] = field(default_factory=dict)
    """All that is heard of some of each anchor's clips, by names of `ANCHORS` and by their places
    among them."""

    @property
    def described(self) -> dict[str, list[dict[str, float]]]:
        """Descriptors of those clips; of anchors that have any."""
        return {
            name: [heard.descriptors for heard in clips.values()]
            for name, clips in self.some.items()
            if clips
        }

    def why_no(self, anchor: str) -> str:
        """Why an anchor has no clips."""
        why = {RECORDED: self.why_not_recorded, OTHER_MUSIC: self.why_no_others}
        return why.get(anchor, "") or "there are no held-out clips"

    def splits(self, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Halves of the clips that have no source in common, many times over."""
        names = sorted(set(self.sources))
        rng = np.random.default_rng(seed)
        splits = []
        for _ in range(N_SPLITS if len(names) > 1 else 0):
            ours = set(rng.permutation(names)[: len(names) // 2].tolist())
            is_ours = np.array([source in ours for source in self.sources])
            if min(is_ours.sum(), (~is_ours).sum()) >= FEWEST_ROWS:
                splits.append((is_ours, ~is_ours))
        return splits

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
        model: its codec is used.
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
    some: dict[str, dict[int, Heard]] = {}

    def hear(name: str, sounds: Iterable[Sound], n: int) -> list[Vectors]:
        vectors, some[name] = _hear(ear, sounds, n, tell)
        return vectors

    why = "--from_tokens leaves the audio alone" if settings.from_tokens else ""
    recorded: list[Vectors] = []
    try:
        if not why:
            recorded = hear(RECORDED, _recordings(model, chosen, settings), len(chosen))
    except UserError as error:
        why = str(error).rstrip(".")
    # Those that can't be read take no time.
    n_done = 2 * len(chosen)
    codes_of_others = (window.codes[:n_frames].T for window in anchors)
    sounds = ((_sound(model, own), own) for own in codes_of_others)
    return References(
        heard=heard,
        clips=chosen,
        recorded=recorded,
        why_not_recorded=why,
        others=hear(OTHER_MUSIC, sounds, len(anchors)),
        why_no_others=others.why_none,
        noises=hear(NOISE, _noises(model, settings.duration), N_NOISES),
        some=some,
    )


def _sound(model: MusicGen, codes: np.ndarray) -> np.ndarray:
    """The sound `[C, N]` of codes `[K, T]`."""
    first = np.ascontiguousarray(codes.astype(np.int64))
    return model.decode(torch.from_numpy(first)[None])[0]


def _hear_codes(model: MusicGen, ear: Ear, codes: np.ndarray) -> Heard:
    return ear.hear(_sound(model, codes), codes)


def _hear(
    ear: Ear, sounds: Iterable[Sound], n: int, tell: Callable[[], None]
) -> tuple[list[Vectors], dict[int, Heard]]:
    """Vectors of all of `n` sounds, and all that is heard of some, evenly spaced over them."""
    vectors: list[Vectors] = []
    some: dict[int, Heard] = {}
    for row, (sound, codes) in enumerate(sounds):
        if row % -(-n // MAX_HEARD) == 0:
            some[row] = ear.hear(sound, codes)
            vectors.append(some[row].vectors)
        else:
            vectors.append(ear.vectors(sound))
        tell()
    return vectors, some


def _recordings(
    model: MusicGen, clips: Sequence[Clip], settings: EvaluateSettings
) -> Iterator[Sound]:
    """The clips as they are in their files.

    Raises:
        UserError: one can't be read.
    """
    for clip in clips:
        length_s = min(settings.duration, clip.duration_s or settings.duration)
        sound = read_audio(
            clip.path, model.shape.sample_rate, start_s=clip.start_s, duration_s=length_s
        )
        yield sound, None


def _noises(model: MusicGen, duration_s: float) -> Iterator[Sound]:
    rng = np.random.default_rng(0)
    shape = (model.shape.n_channels, round(duration_s * model.shape.sample_rate))
    for _ in range(N_NOISES):
        yield (NOISE_LEVEL * rng.standard_normal(shape)).astype(np.float32), None
