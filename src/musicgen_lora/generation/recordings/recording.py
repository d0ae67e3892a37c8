"""Recordings to continue, or to regenerate bars of, and what is asked of them.

A recording keeps its rate, its channels and every sample that isn't regenerated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from musicgen_lora.atomic import sha256_file
from musicgen_lora.audio.stream import BLOCK_FRAMES, AudioStream
from musicgen_lora.config import GenerateSettings
from musicgen_lora.dataset.bar_lines import UNKNOWN, Lines
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips.written import read_facts
from musicgen_lora.generation.decoding.decode import STRIDE_SHARE
from musicgen_lora.generation.recordings.bar_grid import BarGrid, check_bars, find_grid
from musicgen_lora.generation.recordings.extension import Extension
from musicgen_lora.listening.rhythm.bars import SURE
from musicgen_lora.listening.rhythm.tempo import estimate_tempo
from musicgen_lora.model.shape import Shape
from musicgen_lora.plural import count
from musicgen_lora.urls import shown

SILENT_PEAK = 1e-3
"""What the model hears is silent if no sample is above this."""

LONGEST_S = 600.0
TEMPO_S = 30.0
"""A tempo is measured in this long before the new part."""
OTHER_TEMPO = 0.05
"""A tempo that differs by this share from another, octaves allowed, is another one."""
OTHERS = {
    "base": "The recording was made with another base model; to use that one, pass it "
    "as --base_model_path.",
    "adapters": "The recording was made with other adapters; to keep their sound, pass the same "
    "--lora_model_path and --strength.",
}
"""What to say if a recording was made with other models, by the key in the JSON beside it."""


@dataclass(frozen=True)
class Recording:
    """A sound file, unchanged.

    Args:
        waveform: `[C, N]` float32, C is 1 or 2.
        made_by: what the JSON beside it says; empty if there is none.
    """

    path: Path
    waveform: np.ndarray
    sample_rate: int
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Reads a whole file.

        Raises:
            UserError: unreadable, empty, longer than ten minutes, or more than two channels.
        """
        with AudioStream(path) as stream:
            rate, n_channels = stream.sample_rate, stream.n_channels
            if n_channels > 2:
                raise UserError(f"{path}: has {n_channels} channels; mix it down to two.")
            blocks, n_read = [], 0
            while len(block := stream.read(BLOCK_FRAMES)):
                blocks.append(block)
                n_read += len(block)
                if n_read > LONGEST_S * rate:
                    raise UserError(
                        f"{path}: is longer than {LONGEST_S:g} s; cut out the part that you need."
                    )
        if not blocks:
            raise UserError(f"{path}: has no samples; record or export it again.")
        waveform = np.ascontiguousarray(np.concatenate(blocks).T, dtype=np.float32)
        return cls(path, waveform, rate, read_facts(path.with_suffix(".json")))

    @property
    def duration_s(self) -> float:
        return self.waveform.shape[1] / self.sample_rate

    def until(self, at_s: float) -> Recording:
        """The part before a time.

        Raises:
            UserError: the recording is shorter.
        """
        n_samples = round(at_s * self.sample_rate)
        if n_samples > self.waveform.shape[1]:
            raise UserError(
                f"--continue_at {at_s:g}: {self.path} is {self.duration_s:.2f} s long; give a time "
                "within it, or leave the flag out to continue from its end."
            )
        return replace(self, waveform=self.waveform[:, :n_samples])

    def facts(self) -> dict[str, Any]:
        """Which file this is, for the JSON."""
        return {"path": shown(self.path), "sha256": sha256_file(self.path)}


@dataclass(frozen=True)
class Extending:
    """New music in a recording, and what the JSON and the user are told of it.

    Args:
        grid: the bars of the recording; None if they aren't needed, or can't be found.
        told_bpm: tempo for the prompt: one that was given, not measured.
        made_by: what the JSON beside the recording says; empty if there is none.
    """

    extension: Extension
    facts: dict[str, Any]
    said: str
    grid: BarGrid | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)
    told_bpm: float | None = None

    @cached_property
    def bpm(self) -> float | None:
        """The tempo before the new part; None if it has none that is certain."""
        if self.grid is not None:
            return self.grid.bpm
        extension = self.extension
        begin, rate = extension.begin, extension.sample_rate
        before = extension.recording[:, max(0, begin - round(TEMPO_S * rate)) : begin]
        found = estimate_tempo(before, rate)
        return found.bpm if found.confidence >= SURE and found.is_steady else None

    def bar_lines(self, n_heard: int, frame_rate: float) -> Lines:
        """The recording's bar lines, in frames from the first of the `n_heard` that the model
        hears; `UNKNOWN` without a grid."""
        if self.grid is None:
            return UNKNOWN
        begin_s = self.extension.begin / self.extension.sample_rate
        first = n_heard + (self.grid.first_s - begin_s) * frame_rate
        return first, 240.0 / self.grid.bpm * frame_rate


def asked_of(settings: GenerateSettings, window_s: float, frame_rate: float) -> Extending | None:
    """What the settings ask of a recording; None if they name none.

    Args:
        window_s: length of the model's window: what it hears and plays together.

    Raises:
        UserError: the recording can't be used, or has no such bars or time.
    """
    if settings.continue_from is not None:
        return _continuation(settings, Recording.read(settings.continue_from), window_s, frame_rate)
    if settings.regenerate is not None:
        return _regeneration(settings, Recording.read(settings.regenerate), window_s, frame_rate)
    return None


def _continuation(
    settings: GenerateSettings, recording: Recording, window_s: float, frame_rate: float
) -> Extending:
    at_s, path, rate = settings.continue_at, recording.path, recording.sample_rate
    recording = recording if at_s is None else recording.until(at_s)
    n_samples = recording.waveform.shape[1]
    heard_s = _heard_s(settings, window_s)
    if heard_s is None and recording.duration_s >= window_s:
        # As much as each window hears of the previous one.
        heard_s = (1.0 - STRIDE_SHARE) * window_s
    heard_s = min(recording.duration_s, heard_s or window_s)
    n_frames = int(heard_s * frame_rate)
    if not n_frames:
        raise UserError(
            f"{path}: is {recording.duration_s:.3f} s long, less than one codec frame; "
            "give a longer recording."
        )
    end = n_samples + round(settings.duration * rate)
    extension = Extension(recording.waveform, rate, n_samples, end, n_frames)
    facts = recording.facts() | {
        "begin_s": n_samples / rate,
        "end_s": end / rate,
        "heard_s": n_frames / frame_rate,
    }
    # With a single window, which begins with what is heard, bars are of no use.
    is_long = n_frames / frame_rate + settings.duration > window_s
    grid = _bars_to_go_on(recording, settings.bpm) if is_long else None
    if grid is not None and 240.0 / grid.bpm > STRIDE_SHARE * window_s:
        # The bars are too long for windows to begin on them.
        grid, is_long = None, False
    added, heard = f"{settings.duration:g}", f"{n_frames / frame_rate:.1f}"
    said = f"{path}: adding {added} s at its end; the model hears the last {heard} s."
    if at_s is not None:
        said = (
            f"{path}: adding {added} s from {at_s:g} s on, in place of the rest; the model hears "
            f"the {heard} s before."
        )
    if grid is not None:
        facts |= {"bpm": round(grid.bpm, 3), "bpm_from": grid.source, "first_bar_s": grid.first_s}
        said = (
            f"{said} Windows begin on its bars (bar 1 at {grid.first_s:.2f} s, {grid.told_bpm} "
            f"bpm: {grid.source})."
        )
    elif is_long:
        said = f"{said} Its bars can't be found reliably; with --bpm, windows begin on them."
    return Extending(
        extension,
        {"continued": facts},
        said,
        grid,
        made_by=recording.made_by,
        told_bpm=settings.bpm,
    )


def _bars_to_go_on(recording: Recording, bpm: float | None) -> BarGrid | None:
    """The bars of a recording, not a loop once it is continued; None if they can't be found."""
    try:
        grid = find_grid(
            recording.path, recording.waveform, recording.sample_rate, recording.made_by, bpm
        )
    except UserError:
        return None
    return replace(grid, is_loop=False)


def _regeneration(
    settings: GenerateSettings, recording: Recording, window_s: float, frame_rate: float
) -> Extending:
    path, rate = recording.path, recording.sample_rate
    first, last = settings.from_bar or 1, settings.to_bar or 1
    grid = find_grid(path, recording.waveform, rate, recording.made_by, settings.bpm)
    check_bars(path, grid, first, last)
    begin, end = grid.span(first, last, rate)
    end = min(end, recording.waveform.shape[1])
    before_s = (begin if begin or not grid.is_loop else recording.waveform.shape[1] - end) / rate
    fits_s = max(window_s - (end - begin) / rate, (1.0 - STRIDE_SHARE) * window_s)
    said_s = _heard_s(settings, window_s)
    heard_s, bar_s = min(before_s, said_s or fits_s), 240.0 / grid.bpm
    if said_s is None and bar_s <= heard_s < before_s:
        # From a bar line on, as clips in training and generation begin.
        heard_s = heard_s // bar_s * bar_s + 0.5 / frame_rate
    n_frames = int(heard_s * frame_rate)
    extension = Extension(recording.waveform, rate, begin, end, n_frames, wraps=grid.is_loop)
    facts = recording.facts() | {
        "from_bar": first,
        "to_bar": last,
        "bpm": round(grid.bpm, 3),
        "bpm_from": grid.source,
        "begin_s": begin / rate,
        "end_s": end / rate,
        "heard_s": n_frames / frame_rate,
    }
    bars = f"bar {first} alone" if first == last else f"bars {first} to {last}"
    said = (
        f"{path}: regenerating {bars}, {begin / rate:.2f} to {end / rate:.2f} s "
        f"(bar 1 at {grid.first_s:.2f} s, {grid.told_bpm} bpm: {grid.source}); the model hears the "
        f"{n_frames / frame_rate:.1f} s before."
    )
    told_bpm = None if grid.source == "measured" else grid.bpm
    return Extending(extension, {"regenerated": facts}, said, grid, recording.made_by, told_bpm)


def _heard_s(settings: GenerateSettings, window_s: float) -> float | None:
    """Seconds to hear, if the settings say so.

    Raises:
        UserError: more than fits into the model's window.
    """
    if settings.heard is not None and settings.heard >= window_s:
        raise UserError(
            f"--heard {settings.heard:g}: the base hears less than {window_s:g} s at once; give "
            "less."
        )
    return settings.heard


def silence_sentence(asked: Extending, shape: Shape) -> str:
    """What to tell the user if what the model hears is silent; empty if it isn't, or is nothing."""
    heard = asked.extension.heard(shape)
    if not heard.size or float(np.abs(heard).max()) >= SILENT_PEAK:
        return ""
    if "regenerated" in asked.facts:
        return (
            "What the model hears is silent, so the new music has nothing to follow: give other "
            "bars, or more --heard."
        )
    return (
        "What the model hears is silent, so the new music has nothing to follow: give a "
        "--continue_at before the silence, or more --heard."
    )


def tempo_sentence(asked: Extending, said_bpm: float | None) -> str:
    """What to tell the user if a prompt says another tempo than the recording's, octaves allowed;
    empty if it says none, or the recording's tempo isn't certain."""
    if said_bpm is None or asked.bpm is None:
        return ""
    octaves = math.log2(said_bpm / asked.bpm)
    if abs(octaves - round(octaves)) <= math.log2(1.0 + OTHER_TEMPO):
        return ""
    return (
        f"The prompt says {said_bpm:g} bpm, but the recording plays {asked.bpm:.0f}: the new music "
        "may leave its beat. Take the tempo out of the prompt, or state the recording's."
    )


def say_of_recording(
    asked: Extending, facts: Mapping[str, Any], shape: Shape, console: Console
) -> None:
    """Prints what happens to a recording, and what the user may not expect.

    Args:
        facts: base and adapters, as in the JSON.
    """
    console.print(asked.said)
    if said := silence_sentence(asked, shape):
        console.print(said, style="yellow")
    rate, n_channels = asked.extension.sample_rate, len(asked.extension.recording)
    if (rate, n_channels) != (shape.sample_rate, shape.n_channels):
        console.print(
            f"The base generates {shape.sample_rate} Hz, {count(shape.n_channels, 'channel')}; the "
            f"new music is converted to the recording's {rate} Hz, {count(n_channels, 'channel')}.",
            style="yellow",
        )
    was = asked.made_by
    for name, told in OTHERS.items():
        if name in was and _identity(was[name]) != _identity(facts[name]):
            console.print(told, style="yellow")


def _identity(players: Any) -> Any:
    """Fingerprint and strength of a base or of adapters as in a JSON."""
    if isinstance(players, list):
        return [_identity(player) for player in players]
    names = ("fingerprint", "strength")
    return [players.get(name) for name in names] if isinstance(players, dict) else None
