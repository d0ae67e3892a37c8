"""What clips are compared with: held-out audio, and the anchors that give distances a meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from musicgen_lora.audio.files import read_audio
from musicgen_lora.config import EvaluateSettings
from musicgen_lora.console import OnStep
from musicgen_lora.dataset.clip_ids import is_as_listed
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.tokens import TokenStore
from musicgen_lora.errors import AudioError, UserError, audio_unread
from musicgen_lora.evaluation.losses.forgetting import OtherMusic
from musicgen_lora.evaluation.measures.distances import FEWEST_ROWS
from musicgen_lora.evaluation.players import hearers
from musicgen_lora.evaluation.remarks import silent, too_loud
from musicgen_lora.evaluation.sound.ear import Ear, Heard, Vectors
from musicgen_lora.listening.descriptors import clipped_share, silence_share
from musicgen_lora.model.base_model import BaseModel

MAX_REFERENCES = 64
"""Most held-out clips to analyse, evenly spaced."""
MAX_OTHERS = 16
N_NOISES = 8
MAX_HEARD = 6
"""Clips of each anchor with a full analysis: all would take as long as the generated ones."""
N_SPLITS = 20
TOO_FEW_FOR_HALVES = "needs at least two sources with two clips each"
HELD_OUT, RECORDED, OTHER_MUSIC, NOISE = "held_out", "recorded", "other_music", "noise"
ANCHORS = (RECORDED, OTHER_MUSIC, NOISE)
"""The anchors besides the halves of the held-out clips."""
NOISE_LEVEL = 0.1
"""RMS relative to full scale: about that of a beat."""
SoundAndCodes = tuple[np.ndarray, np.ndarray | None]
"""A waveform `[C, N]`, and the codes `[K, T]` that it was decoded from, if any."""
Make = Callable[[], SoundAndCodes]
"""Decodes or reads a sound."""
SILENT_SHARE = 0.9
"""The same limit that `prepare` uses for files."""
LOUD_SHARE = 0.001
"""The same limit as for generated clips."""


class Level(NamedTuple):
    """The shares of a sound that are silent, and at full scale."""

    silent: float
    loud: float


@dataclass(frozen=True)
class References:
    """Held-out audio after the codec, and the anchors. The codec's effect on the sound is not the
    model's fault: generated clips went through the codec too."""

    heard: Sequence[Heard] = ()
    clips: Sequence[Clip] = ()
    """The clips that `heard` was measured on, in the same order."""
    recorded: Sequence[Vectors] = ()
    """The same clips as recorded, without the codec."""
    why_not_recorded: str = ""
    silent: Sequence[str] = ()
    """Names of further held-out clips, which are left out of all figures: a silent clip is no
    example of a style."""
    loud: Sequence[str] = ()
    """Names of clips among `clips` at full scale or beyond."""
    others: Sequence[Vectors] = ()
    """Other music, through the codec."""
    why_no_others: str = ""
    noises: Sequence[Vectors] = ()
    some: Mapping[str, Mapping[int, Heard]] = field(default_factory=dict)
    """Full analyses of some of each anchor's clips, by names of `ANCHORS` and by index."""

    @property
    def described(self) -> dict[str, list[dict[str, float]]]:
        """Descriptors of the clips in `some`, for anchors that have any."""
        return {
            name: [heard.descriptors for heard in clips.values()]
            for name, clips in self.some.items()
            if clips
        }

    @property
    def why_none(self) -> str:
        """Why there are none although there were clips."""
        return "every held-out clip is silent" if self.silent and not self.clips else ""

    @property
    def remarks(self) -> list[str]:
        """Sentences on clips that are unsuitable for comparison."""
        n_heard = len(self.silent) + len(self.clips)
        kinds = ((silent, self.silent), (too_loud, self.loud))
        return [told(names, n_heard) for told, names in kinds if names]

    def why_no(self, anchor: str) -> str:
        why = {RECORDED: self.why_not_recorded, OTHER_MUSIC: self.why_no_others}
        return why.get(anchor, "") or "there are no held-out clips"

    def splits(self, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Random splits of the clips into halves that have no source in common."""
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
        return [clip.source for clip in self.clips]

    def describe(self) -> dict[str, Any]:
        """The report's `reference`: the means over each source's clips, and the numbers of sources
        and clips."""
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
    model: BaseModel,
    ear: Ear,
    held_out: tuple[Sequence[Clip], TokenStore],
    others: OtherMusic,
    on_clip: OnStep,
) -> References:
    """Analyse the beginning of held-out clips, as long as generated ones, and the anchors.

    Args:
        model: its codec decodes.
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

    some: dict[str, dict[int, Heard]] = {}
    levels: dict[str, list[Level]] = {}
    with hearers(side_by_side=ear.hears_side_by_side) as pool:

        def hear(name: str, sounds: Sequence[Make], most: int = MAX_HEARD) -> list[Vectors]:
            vectors, some[name], levels[name] = _hear(ear, sounds, pool, tell, most)
            return vectors

        hear(HELD_OUT, [_of_codes(model, own[:n_frames]) for own in codes[::stride]], len(chosen))
        why = "--from_tokens does not read the audio" if settings.from_tokens else ""
        recorded: list[Vectors] = []
        try:
            if not why:
                own = [partial(_recording, model, clip, settings.duration) for clip in chosen]
                recorded = hear(RECORDED, own)
        except UserError as error:
            why = str(error).rstrip(".")
        # Unreadable clips count as done.
        n_done = 2 * len(chosen)
        found = References(
            heard=[*some.pop(HELD_OUT).values()],
            clips=chosen,
            recorded=recorded,
            why_not_recorded=why,
            others=hear(OTHER_MUSIC, [_of_codes(model, own.codes[:n_frames]) for own in anchors]),
            why_no_others=others.why_none,
            noises=hear(NOISE, _noises(model, settings.duration)),
            some=some,
        )
    return _with_sound(found, levels.get(RECORDED, []), levels[HELD_OUT])


def _with_sound(
    found: References, recorded: Sequence[Level], decoded: Sequence[Level]
) -> References:
    """The references without silent clips. The codec turns silence into faint noise and overshoots
    peaks, so the recordings decide if they were read."""
    is_silent = [level.silent >= SILENT_SHARE for level in recorded or decoded]
    kept = [row for row in range(len(found.clips)) if not is_silent[row]]
    place = {row: index for index, row in enumerate(kept)}
    raw = found.some.get(RECORDED, {})
    return replace(
        found,
        heard=[found.heard[row] for row in kept],
        clips=[found.clips[row] for row in kept],
        recorded=[found.recorded[row] for row in kept] if found.recorded else [],
        silent=[clip.name for row, clip in enumerate(found.clips) if is_silent[row]],
        loud=[
            found.clips[row].name for row in kept if recorded and recorded[row].loud > LOUD_SHARE
        ],
        some={**found.some, RECORDED: {place[row]: raw[row] for row in raw if row in place}},
    )


def _of_codes(model: BaseModel, codes: np.ndarray) -> Make:
    """The sound of codes `[T, K]`."""

    def make() -> SoundAndCodes:
        first = np.ascontiguousarray(codes.T.astype(np.int64))  # [K, T]
        return model.decode(torch.from_numpy(first)[None])[0], codes.T

    return make


def _recording(model: BaseModel, clip: Clip, longest_s: float) -> SoundAndCodes:
    """A clip's audio from its file.

    Raises:
        UserError: it can't be read, or is no longer the one whose codes are measured.
    """
    length_s = min(longest_s, clip.duration_s or longest_s)
    rate = model.shape.sample_rate
    sound = read_audio(clip.path, rate, start_s=clip.start_s, duration_s=length_s)
    try:
        is_same = is_as_listed(clip)
    except OSError as error:
        raise audio_unread(clip.path, error) from error
    if not is_same:
        raise AudioError(f"{clip.path}: changed while it was evaluated; run the command again.")
    return sound, None


def _noises(model: BaseModel, duration_s: float) -> list[Make]:
    rng = np.random.default_rng(0)
    shape = (model.shape.n_channels, round(duration_s * model.shape.sample_rate))

    def make(noise: np.ndarray) -> SoundAndCodes:
        return noise, None

    noises = [NOISE_LEVEL * rng.standard_normal(shape) for _ in range(N_NOISES)]
    return [partial(make, noise.astype(np.float32)) for noise in noises]


def _hear(
    ear: Ear, sounds: Sequence[Make], pool: Executor, tell: Callable[[], None], most: int
) -> tuple[list[Vectors], dict[int, Heard], list[Level]]:
    """Vectors and levels of all sounds, and full analyses of up to `most` evenly spaced ones."""
    rows = range(0, len(sounds), max(1, -(-len(sounds) // most)))

    def hear(row: int) -> tuple[Heard | Vectors, Level]:
        sound, codes = sounds[row]()
        level = Level(silence_share(sound, ear.sample_rate), clipped_share(sound))
        return ear.hear(sound, codes) if row in rows else ear.vectors(sound), level

    vectors: list[Vectors] = []
    some: dict[int, Heard] = {}
    levels: list[Level] = []
    for row, (found, level) in enumerate(pool.map(hear, range(len(sounds)))):
        levels.append(level)
        if isinstance(found, Heard):
            some[row] = found
        vectors.append(found.vectors if isinstance(found, Heard) else found)
        tell()
    return vectors, some, levels
