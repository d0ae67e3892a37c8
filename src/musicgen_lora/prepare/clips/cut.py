"""The clips of a file: where they begin and end, and how they are written.

Files no longer than the longest clip stay whole. Longer ones are cut where bars begin, if the
analysis is sure of the bars; each clip's entry says what it was cut on.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lora.atomic import RESERVED_NAME
from musicgen_lora.audio.ffmpeg import decodable
from musicgen_lora.audio.files import read_stretch, write_wav
from musicgen_lora.audio.fold import fold_to_mono, name_bands
from musicgen_lora.audio.limiter import raise_loudness
from musicgen_lora.audio.loudness import integrated_loudness
from musicgen_lora.audio.stream import AudioStream
from musicgen_lora.errors import AudioError
from musicgen_lora.listening.rhythm.bars import (
    KEPT_BARS,
    cut_on_bars,
    repeats_to_reach,
    sounding_spans,
    whole_bars,
)
from musicgen_lora.listening.rhythm.tempo import Tempo
from musicgen_lora.prepare.hearing.records import Analysis, Segment
from musicgen_lora.prepare.hearing.vocals import LEAST_SHARE, Vocals, split_vocals
from musicgen_lora.prepare.reading.unchanged import unchanged
from musicgen_lora.prepare.words.facts import FilePart
from musicgen_lora.runtime.workers import Failure, SignOfLife

MAX_NAME_BYTES = 150
PEAK_CEILING_DB = -1.0
"""True peak in dBTP that no gain exceeds."""
MOST_GAIN_DB = 30.0
"""A clip that needs more gain is nearly silent, and would mostly become noise."""
MOST_LIMITED_DB = 6.0
"""The limiter, if enabled, turns the highest peak down by this much at most."""
HELD_LU = 0.5
"""A clip that is further below the target than this is held back by its peaks."""
SILENT_PEAK = 1e-3
SAME_LENGTH_S = 0.5
"""How far a file's length may differ from the one that the metadata says it was cut to."""


@dataclass(frozen=True)
class ClipPlan:
    """A stretch of a file that becomes a clip.

    Args:
        duration_s: its length, played once.
        segment: index of the record's segment that it lies in.
        cut: what it was cut on: "bars", "beats" or "time"; "part" for one that the metadata
            gives as it is; None for a whole file.
        repeated: how many times it is played.
        part: the part of the file described by the metadata that this lies in.
    """

    start_s: float
    duration_s: float
    segment: int = 0
    cut: str | None = None
    repeated: int = 1
    part: FilePart | None = None


def plan_clips(
    record: Analysis,
    *,
    max_s: float,
    min_window_s: float,
    min_clip_s: float,
    repeat_to_s: float | None,
    parts: Sequence[FilePart] = (),
) -> list[ClipPlan]:
    """The clips of a file.

    With parts, a clip is one of them, or a window of one that is longer than `max_s`; none
    crosses a part's ends, because it is captioned as that part.

    Args:
        max_s: longest clip; files up to this length stay whole.
        min_window_s: shortest window of a longer file, if a sounding stretch is long enough.
        min_clip_s: shorter windows are left out.
        repeat_to_s: loops of whole bars are repeated until they are this long; None for never.
        parts: the parts of the file that the metadata describes, in order.
    """
    duration_s = record.duration_s
    whole = is_of_another_file(parts, duration_s)
    if parts and whole is None:
        plans = [p for part in parts for p in _plan_part(record, part, max_s, min_window_s)]
        return [plan for plan in plans if plan.duration_s >= min_clip_s]
    if duration_s <= max_s + 1e-6:
        n_bars = whole_bars(record.segments[0].tempo, duration_s)
        repeated = 1
        if repeat_to_s is not None and n_bars:
            repeated = repeats_to_reach(duration_s, min(repeat_to_s, max_s), max_s)
        return [ClipPlan(0.0, duration_s, repeated=repeated, part=whole)]
    plans = _windows(record, (0.0, duration_s), max_s, min_window_s)
    return [replace(plan, part=whole) for plan in plans if plan.duration_s >= min_clip_s]


def _windows(
    record: Analysis, stretch: tuple[float, float], max_s: float, min_window_s: float
) -> list[ClipPlan]:
    """Windows of a stretch of a file, each within one segment and one piece of a mix."""
    plans = []
    # Windows of x to 2x seconds, such as 15 to 30 s, tile any length; so must shorter ones.
    shortest_s = min(min_window_s, 0.5 * max_s)
    for index, segment in enumerate(record.segments):
        start_s = max(stretch[0], segment.start_s)
        length_s = min(stretch[1], segment.start_s + segment.duration_s) - start_s
        if length_s <= 0.0:
            continue
        silences = [
            (max(0.0, begin_s - start_s), min(length_s, end_s - start_s))
            for begin_s, end_s in record.quality.silences_s
            if begin_s < start_s + length_s and end_s > start_s
        ]
        pieces = _piece_windows(segment, (start_s, start_s + length_s), shortest_s, max_s)
        if pieces:
            plans += [replace(piece, segment=index) for piece in pieces]
            continue
        tempo = _within(segment.tempo, start_s - segment.start_s, length_s)
        cuts = cut_on_bars(tempo, length_s, min_s=shortest_s, max_s=max_s, silences_s=silences)
        plans += [
            ClipPlan(start_s + begin_s, end_s - begin_s, index, cuts.grid)
            for begin_s, end_s in cuts.windows_s
        ]
    return plans


def _piece_windows(
    segment: Segment, region: tuple[float, float], shortest_s: float, max_s: float
) -> list[ClipPlan]:
    """Windows of the pieces of a mix, which pauses separate and whose tempi differ: each is cut on
    its own bars. A piece shorter than a window stays whole if it has whole bars."""
    plans = []
    for piece in segment.stretches:
        start_s = max(region[0], piece.start_s)
        length_s = min(region[1], piece.start_s + piece.duration_s) - start_s
        if length_s <= 0.0:
            continue
        tempo = _within(piece.tempo, start_s - piece.start_s, length_s)
        cuts = cut_on_bars(tempo, length_s, min_s=shortest_s, max_s=max_s)
        if length_s < shortest_s and (cuts.grid == "time" or len(tempo.downbeats_s) <= KEPT_BARS):
            continue
        plans += [
            ClipPlan(start_s + begin_s, end_s - begin_s, cut=cuts.grid)
            for begin_s, end_s in cuts.windows_s
        ]
    return plans


def left_out_stretches(
    record: Analysis, plans: Sequence[ClipPlan], regions: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """The sounding stretches of a file that are in no clip."""
    taken = [tuple(pair) for pair in record.quality.silences_s]
    taken += [(plan.start_s, plan.start_s + plan.duration_s) for plan in plans]
    left = []
    for start_s, stop_s in regions:
        inside = [
            (max(start_s, begin_s) - start_s, min(stop_s, end_s) - start_s)
            for begin_s, end_s in taken
            if begin_s < stop_s and end_s > start_s
        ]
        left += [
            (start_s + begin_s, start_s + end_s)
            for begin_s, end_s in sounding_spans(stop_s - start_s, inside)
        ]
    return left


def _within(tempo: Tempo, offset_s: float, length_s: float) -> Tempo:
    """A segment's tempo, relative to a stretch of it that begins at `offset_s`."""

    def kept(lines_s: np.ndarray) -> np.ndarray:
        moved = lines_s - offset_s
        return moved[(moved >= 0.0) & (moved <= length_s)]

    if offset_s == 0.0:
        return tempo
    return replace(tempo, beats_s=kept(tempo.beats_s), downbeats_s=kept(tempo.downbeats_s))


def _plan_part(
    record: Analysis, part: FilePart, max_s: float, min_window_s: float
) -> list[ClipPlan]:
    """The clips of one part of a file, as far as the file reaches."""
    start_s, end_s = part[0], record.duration_s
    if part[1] is not None:
        end_s = min(end_s, part[1])
    if end_s - start_s > max_s + 1e-6:
        windows = _windows(record, (start_s, end_s), max_s, min_window_s)
        return [replace(window, part=part) for window in windows]
    middle_s = 0.5 * (start_s + end_s)
    begun = [i for i, s in enumerate(record.segments) if s.start_s <= middle_s]
    return [ClipPlan(start_s, end_s - start_s, max(begun, default=0), "part", part=part)]


def is_of_another_file(parts: Sequence[FilePart], duration_s: float) -> FilePart | None:
    """The single part that this file already is: its times refer to the recording it was cut from,
    as in MusicCaps. None where the parts refer to the file itself."""
    if len(parts) != 1:
        return None
    start_s, end_s = parts[0]
    if end_s is None or start_s == 0.0:
        return None
    return parts[0] if abs(end_s - start_s - duration_s) <= SAME_LENGTH_S else None


def clip_paths(
    source: str, digest: str, plans: Sequence[ClipPlan], sound: Mapping[str, Any]
) -> list[str]:
    """The paths of a file's clips, relative to the dataset. The names hold a hash of the file, its
    parts and the processing of its sound, so different audio never shares a name, a clip in use is
    never overwritten, and an interrupted run finds the clips that it has made.

    Args:
        source: the file's path below the input folder.
        sound: the settings that decide how the clips sound.
    """
    parts = [(round(p.start_s, 6), round(p.duration_s, 6), p.repeated) for p in plans]
    made_of = json.dumps([digest, parts, dict(sound)], sort_keys=True)
    stem = f"train/{_safe_name(source)}_{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
    if len(plans) == 1:
        return [f"{stem}.wav" if plans[0].repeated == 1 else f"{stem}_x{plans[0].repeated}.wav"]
    return [f"{stem}_{index + 1}of{len(plans)}.wav" for index in range(len(plans))]


def _safe_name(source: str) -> str:
    """A readable file name made from a path below the input folder."""
    name = re.sub(r"[^\w.#+-]+", "_", "__".join(Path(source).with_suffix("").parts)).strip("._-")
    if RESERVED_NAME.fullmatch(name.partition(".")[0]):
        name = f"clip_{name}"
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "clip"


@dataclass(frozen=True)
class CutTask:
    """The clips of a file to write.

    Args:
        digest: SHA-256 of the bytes that the plans are for.
        targets: a path for each; None where the file lies in the dataset and is only read.
        loudness_lufs: target loudness; None leaves the level alone.
        vocals: whether they are looked for, and removed from the written clips.
        to_mono: whether the written clips are folded to mono, see `fold.fold_to_mono`.
        limit: whether peaks that keep a clip below its target loudness are limited.
    """

    path: Path
    digest: str
    plans: tuple[ClipPlan, ...]
    targets: tuple[Path, ...] | None
    sample_rate: int
    loudness_lufs: float | None
    vocals: Vocals = "keep"
    to_mono: bool = False
    limit: bool = False


def cut_file(task: CutTask, alive: SignOfLife) -> list[dict[str, Any] | None] | Failure:
    """Writes the clips of a file.

    Returns:
        Facts of each clip, see `_make_clip`; None for a silent clip, which isn't written.
    """
    try:
        # Files that stay in place are never M4A, see `inputs`.
        folder = task.path.parent if task.targets is None else task.targets[0].parent
        made = []
        # Opened once: consecutive clips are read without seeking.
        with (
            unchanged(task.path, task.digest, alive),
            decodable(task.path, folder, alive) as source,
            AudioStream(source) as stream,
        ):
            for index, plan in enumerate(task.plans):
                target = None if task.targets is None else task.targets[index]
                made.append(_make_clip(task, plan, target, stream))
                alive((index + 1) / len(task.plans))
        return made
    except AudioError as error:
        return Failure(str(error).removeprefix(f"{task.path}: "))


def _make_clip(
    task: CutTask, plan: ClipPlan, target: Path | None, stream: AudioStream
) -> dict[str, Any] | None:
    """Writes a clip if it has a target.

    Returns:
        `duration_s`, `loudness_lufs` (None for silence or below 0.4 s), those of `_write_clip` and,
        where they apply, `vocals` ("none", "some" or "removed") and `folded` ("mean", or the bands
        that were inverted first). None for a silent clip.
    """
    rate = task.sample_rate
    facts: dict[str, Any] = {}

    def fold(channels: np.ndarray, own_rate: int) -> np.ndarray:
        mono, bands = fold_to_mono(channels, own_rate)
        if len(channels) > 1:
            facts["folded"] = f"turned {name_bands(bands)}" if bands else "mean"
        return mono

    waveform = read_stretch(
        stream,
        rate,
        start_s=plan.start_s,
        # A whole file ends where its samples end, not where its header says.
        duration_s=plan.duration_s if plan.cut else None,
        fold=fold if task.to_mono and target is not None else None,
    )
    if float(np.abs(waveform).max()) < SILENT_PEAK:
        return None
    if task.vocals != "keep":
        without, share = split_vocals(waveform, rate)
        facts["vocals"] = "some" if share >= LEAST_SHARE else "none"
        if facts["vocals"] == "some" and task.vocals == "remove" and target is not None:
            waveform, facts["vocals"] = without, "removed"
            if float(np.abs(waveform).max()) < SILENT_PEAK:
                return None
    if target is not None:
        waveform, levels = _write_clip(target, waveform, task, plan.repeated)
        facts |= levels
    loudness = integrated_loudness(waveform, rate)
    facts["duration_s"] = round(waveform.shape[1] / rate, 6)
    facts["loudness_lufs"] = round(loudness, 1) if math.isfinite(loudness) else None
    return facts


def _write_clip(
    target: Path, waveform: np.ndarray, task: CutTask, repeated: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Writes a clip `[C, N]`.

    Returns:
        The written samples and, in dB: `gain_db`, the gain applied; `limited_db`, by how much its
        highest peak was limited; `held_db`, by how much its peaks keep it below the target. The
        last two only where they apply.
    """
    if repeated > 1:
        waveform = np.tile(waveform, repeated)
    gain_db, levels = 0.0, {}
    if task.loudness_lufs is not None:
        waveform, gain_db, limited_db = raise_loudness(
            waveform,
            task.sample_rate,
            target_lufs=task.loudness_lufs,
            ceiling_db=PEAK_CEILING_DB,
            most_gain_db=MOST_GAIN_DB,
            most_db=MOST_LIMITED_DB if task.limit else 0.0,
        )
        if limited_db > 0.05:
            levels["limited_db"] = round(limited_db, 1)
        held_db = task.loudness_lufs - integrated_loudness(waveform, task.sample_rate)
        if held_db > HELD_LU and gain_db < MOST_GAIN_DB:
            levels["held_db"] = round(held_db, 1)
    gain_db += 20.0 * math.log10(write_wav(target, waveform, task.sample_rate))
    return waveform, {"gain_db": round(gain_db, 1), **levels}
