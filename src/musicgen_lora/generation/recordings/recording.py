"""Recordings that are gone on with, or of which bars are played anew, and what of them is asked.

A recording keeps its rate, its channels and every sample that isn't played anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from musicgen_lora.generation.recordings.bar_grid import BarGrid, find_grid
from musicgen_lora.generation.recordings.extension import Extension
from musicgen_lora.model.shape import Shape
from musicgen_lora.plural import count
from musicgen_lora.urls import shown

LONGEST_S = 600.0
OTHERS = {
    "base": "Another base model made the recording than plays now, which --base_model_path "
    "chooses.",
    "adapters": "Other adapters made the recording than play now: to go on in their sound, give "
    "the same --lora_model_path and --strength.",
}
"""What is said where another one made a recording, by what the JSON beside it names."""


@dataclass(frozen=True)
class Recording:
    """A sound file as it is.

    Args:
        waveform: `[C, N]` float32, C is 1 or 2.
    """

    path: Path
    waveform: np.ndarray
    sample_rate: int

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Reads a file whole.

        Raises:
            UserError: not readable, empty, longer than ten minutes, or of more than two channels.
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
                        f"{path}: is longer than {LONGEST_S:g} s; cut out the part that counts."
                    )
        if not blocks:
            raise UserError(f"{path}: has no samples; record or export it again.")
        waveform = np.ascontiguousarray(np.concatenate(blocks).T, dtype=np.float32)
        return cls(path, waveform, rate)

    @property
    def duration_s(self) -> float:
        return self.waveform.shape[1] / self.sample_rate

    def until(self, at_s: float) -> Recording:
        """What comes before a second of it.

        Raises:
            UserError: it has no such second.
        """
        n_samples = round(at_s * self.sample_rate)
        if n_samples > self.waveform.shape[1]:
            raise UserError(
                f"--continue_at {at_s:g}: {self.path} has {self.duration_s:.2f} s; give a second "
                "that it has, or leave it out for its end."
            )
        return replace(self, waveform=self.waveform[:, :n_samples])

    def facts(self) -> dict[str, Any]:
        """Which file it is, for the JSON."""
        return {"path": shown(self.path), "sha256": sha256_file(self.path)}


@dataclass(frozen=True)
class Extending:
    """What is played onto a recording, and how the JSON and the user are told.

    Args:
        grid: the bars of the recording; None where nobody asks for them, or they can't be told.
        told_bpm: the tempo that the prompt asks for: one that was told, and not measured.
        made_by: what the JSON beside the recording says; nothing where there is none.
    """

    extension: Extension
    facts: dict[str, Any]
    said: str
    grid: BarGrid | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)
    told_bpm: float | None = None

    def bar_lines(self, n_heard: int, frame_rate: float) -> Lines:
        """Where the recording's bars begin, in frames from the first of `n_heard` on that are
        heard; `UNKNOWN` where they are."""
        if self.grid is None:
            return UNKNOWN
        begin_s = self.extension.begin / self.extension.sample_rate
        first = n_heard + (self.grid.first_s - begin_s) * frame_rate
        return first, 240.0 / self.grid.bpm * frame_rate


def asked_of(settings: GenerateSettings, window_s: float, frame_rate: float) -> Extending | None:
    """What settings ask of a recording; None where they name none.

    Args:
        window_s: that the model hears and plays at once.

    Raises:
        UserError: the recording can't be used, or what is asked of it isn't there.
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
        # As much as each window hears of the one before.
        heard_s = (1.0 - STRIDE_SHARE) * window_s
    heard_s = min(recording.duration_s, heard_s or window_s)
    n_frames = int(heard_s * frame_rate)
    if not n_frames:
        raise UserError(f"{path}: has {recording.duration_s:.3f} s, less than a codec's frame.")
    end = n_samples + round(settings.duration * rate)
    extension = Extension(recording.waveform, rate, n_samples, end, n_frames)
    facts = recording.facts() | {
        "begin_s": n_samples / rate,
        "end_s": end / rate,
        "heard_s": n_frames / frame_rate,
    }
    # Where it takes one window, whose beginning is what is heard, bars are of no use.
    is_long = n_frames / frame_rate + settings.duration > window_s
    grid = _bars_to_go_on(recording, settings.bpm) if is_long else None
    if grid is not None and 240.0 / grid.bpm > STRIDE_SHARE * window_s:
        # Too long for windows to begin on them.
        grid, is_long = None, False
    added, heard = f"{settings.duration:g}", f"{n_frames / frame_rate:.1f}"
    said = f"{path}: {added} s are played on from its end; the last {heard} s are heard."
    if at_s is not None:
        said = (
            f"{path}: {added} s are played on from {at_s:g} s; what comes after is left out, and "
            f"the {heard} s before are heard."
        )
    if grid is not None:
        facts |= {"bpm": round(grid.bpm, 3), "bpm_from": grid.source, "first_bar_s": grid.first_s}
        said = (
            f"{said} Windows begin on its bars (bar 1 at {grid.first_s:.2f} s, {grid.told_bpm} "
            f"bpm: {grid.source})."
        )
    elif is_long:
        said = f"{said} Its bars can't be told for sure; windows begin on them with --bpm."
    return Extending(
        extension,
        {"continued": facts},
        said,
        grid,
        made_by=read_facts(path.with_suffix(".json")),
        told_bpm=settings.bpm,
    )


def _bars_to_go_on(recording: Recording, bpm: float | None) -> BarGrid | None:
    """The bars of a recording, which is no loop once it goes on; None where they can't be told."""
    try:
        grid = find_grid(recording.path, recording.waveform, recording.sample_rate, bpm)
    except UserError:
        return None
    return replace(grid, is_loop=False)


def _regeneration(
    settings: GenerateSettings, recording: Recording, window_s: float, frame_rate: float
) -> Extending:
    path, rate = recording.path, recording.sample_rate
    first, last = settings.from_bar or 1, settings.to_bar or 1
    grid = find_grid(path, recording.waveform, rate, settings.bpm)
    if last > grid.n_bars:
        raise UserError(
            f"--to_bar {last}: {path} has {grid.n_bars} bars at {grid.told_bpm} bpm "
            f"({grid.source}); give bars that it has, or its tempo, --bpm."
        )
    begin, end = grid.span(first, last, rate)
    end = min(end, recording.waveform.shape[1])
    if grid.is_loop and (first, last) == (1, grid.n_bars):
        raise UserError(
            f"--from_bar 1 --to_bar {last}: are all of {path}; make another loop, with --bars."
        )
    before_s = (begin if begin or not grid.is_loop else recording.waveform.shape[1] - end) / rate
    fits_s = max(window_s - (end - begin) / rate, (1.0 - STRIDE_SHARE) * window_s)
    said_s = _heard_s(settings, window_s)
    heard_s, bar_s = min(before_s, said_s or fits_s), 240.0 / grid.bpm
    if said_s is None and bar_s <= heard_s < before_s:
        # From a bar line on, as what is played and trained on begins.
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
    said = (
        f"{path}: bars {first} to {last}, {begin / rate:.2f} to {end / rate:.2f} s, are played "
        f"anew (bar 1 at {grid.first_s:.2f} s, {grid.told_bpm} bpm: {grid.source}); the "
        f"{n_frames / frame_rate:.1f} s before are heard."
    )
    told_bpm = None if grid.source == "measured" else grid.bpm
    made_by = read_facts(path.with_suffix(".json"))
    return Extending(extension, {"regenerated": facts}, said, grid, made_by, told_bpm)


def _heard_s(settings: GenerateSettings, window_s: float) -> float | None:
    """How much is to be heard, as far as it is said.

    Raises:
        UserError: more than the model hears at once.
    """
    if settings.heard is not None and settings.heard >= window_s:
        raise UserError(
            f"--heard {settings.heard:g}: the base hears less than {window_s:g} s at once; take "
            "fewer."
        )
    return settings.heard


def say_of_recording(
    asked: Extending, facts: Mapping[str, Any], shape: Shape, console: Console
) -> None:
    """Says what happens to a recording, and what of it isn't as one might think.

    Args:
        facts: who plays, as the JSON has it.
    """
    console.print(asked.said)
    rate, n_channels = asked.extension.sample_rate, len(asked.extension.recording)
    if (rate, n_channels) != (shape.sample_rate, shape.n_channels):
        console.print(
            f"The base plays {shape.sample_rate} Hz, {count(shape.n_channels, 'channel')}; what is "
            f"new is brought to the recording's {rate} Hz, {count(n_channels, 'channel')}.",
            style="yellow",
        )
    was = asked.made_by
    for name, told in OTHERS.items():
        if name in was and _identity(was[name]) != _identity(facts[name]):
            console.print(told, style="yellow")


def _identity(players: Any) -> Any:
    """The fingerprints of a base or of adapters as a JSON has them."""
    if isinstance(players, list):
        return [_identity(player) for player in players]
    names = ("fingerprint", "strength")
    return [players.get(name) for name in names] if isinstance(players, dict) else None
