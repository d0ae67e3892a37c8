"""Measures the clips of a long file one by one.

The analysis of a file covers five minutes at once. A mix changes its tempo and key within them, and
a clip captioned with its file's tempo and key would teach the wrong words. So each clip that is
part of a file is measured too, once, and the result is kept beside the file's record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from musicgen_lora.audio.ffmpeg import decodable
from musicgen_lora.audio.files import read_stretch
from musicgen_lora.audio.fold import band_levels, cancelled_bands, fold_to_mono
from musicgen_lora.audio.stream import AudioStream
from musicgen_lora.cluster.engine import Engine, run_shown
from musicgen_lora.errors import AudioError
from musicgen_lora.prepare.clips.cut import ClipPlan
from musicgen_lora.prepare.hearing.analyse import ANALYSIS_RATE, analyse_segment
from musicgen_lora.prepare.hearing.records import FORMAT, Segment, WindowRecord, keep, read_kept
from musicgen_lora.prepare.reading.inputs import Input
from musicgen_lora.prepare.reading.unchanged import unchanged
from musicgen_lora.prepare.words.captions import MIN_CONFIDENCE
from musicgen_lora.runtime.workers import Failure, SignOfLife

SAME_TEMPO = 0.04
"""Tempi whose ratio is within this share of 1/2, 1 or 2 differ by an octave at most."""

StretchKey = tuple[str, int, int]
"""Digest of a file, and where in it a stretch begins and ends, in hundredths of a second."""


@dataclass(frozen=True)
class WindowTask:
    """Stretches of a file to measure: starts and lengths in seconds."""

    path: Path
    digest: str
    folder: Path
    spans_s: tuple[tuple[float, float], ...]


def stretch_key(digest: str, plan: ClipPlan) -> StretchKey:
    """The key of a clip's own measurement."""
    return digest, round(100 * plan.start_s), round(100 * (plan.start_s + plan.duration_s))


def measure_windows(
    plans: Mapping[str, Sequence[ClipPlan]],
    files: Mapping[str, Input],
    folder: Path,
    console: Console,
    engine: Engine,
) -> dict[StretchKey, Segment]:
    """Measures each clip that is part of its file, in the form of a record's segments.

    Args:
        plans: clips by their file's digest.
        folder: where measurements are kept; existing ones are reused.
    """
    found: dict[StretchKey, Segment] = {}
    tasks = []
    for digest, clips in plans.items():
        missing = []
        for plan in (plan for plan in clips if plan.cut):
            kept = read_kept(_place(folder, stretch_key(digest, plan)), WindowRecord, digest)
            if kept is not None and kept.format == FORMAT:
                found[stretch_key(digest, plan)] = kept.segment
            else:
                missing.append((plan.start_s, plan.duration_s))
        if missing:
            tasks.append(WindowTask(files[digest].path.absolute(), digest, folder, tuple(missing)))
    for index, result in run_shown(console, "measuring clips", engine, measure_file, tasks):
        if isinstance(result, Failure):
            name = files[tasks[index].digest].name
            told = f"{name}: its clips keep the file's tempo and key: {result.reason}"
            console.print(told, style="yellow")
        else:
            found |= result
    return found


def measure_file(task: WindowTask, alive: SignOfLife) -> dict[StretchKey, Segment] | Failure:
    """Measures stretches of a file and keeps the results."""
    found = {}
    try:
        with (
            unchanged(task.path, task.digest, alive),
            decodable(task.path, task.folder, alive) as source,
            AudioStream(source) as stream,
        ):
            for start_s, duration_s in task.spans_s:
                key = stretch_key(task.digest, ClipPlan(start_s, duration_s))
                found[key] = _measure(stream, start_s, duration_s, alive)
                alive(len(found) / len(task.spans_s))
    except AudioError as error:
        return Failure(str(error).removeprefix(f"{task.path}: "))
    for key, segment in found.items():
        window = WindowRecord(format=FORMAT, sha256=task.digest, segment=segment)
        keep(_place(task.folder, key), window)
    return found


def _measure(
    stream: AudioStream, start_s: float, duration_s: float, alive: Callable[[], None]
) -> Segment:
    rate = min(ANALYSIS_RATE, stream.sample_rate)
    waveform = read_stretch(stream, rate, start_s=start_s, duration_s=duration_s)
    alive()
    if cancelled_bands(*(tuple(levels.tolist()) for levels in band_levels(waveform, rate))):
        waveform, _ = fold_to_mono(waveform, rate)
    return analyse_segment(waveform, rate, start_s, alive)


def _place(folder: Path, key: StretchKey) -> Path:
    digest, start, stop = key
    return folder / f"{digest[:16]}.{start}-{stop}.json"


def own_segment(segment: Segment, own: Segment | None) -> Segment:
    """The segment that describes a clip, with its own tempo and key.

    If the file's segment has one steady tempo, and the clip alone has no certain tempo or the same
    one in another octave, the clip gets the segment's tempo.

    Args:
        segment: the segment of the file's record that the clip lies in.
        own: the clip's measurement; None if there is none, as for a whole file.
    """
    if own is None:
        return segment
    if segment.bpm and segment.is_steady and segment.tempo_confidence >= MIN_CONFIDENCE:
        is_unsure = own.bpm is None or own.tempo_confidence < MIN_CONFIDENCE
        if is_unsure or _is_octave((own.bpm or 0.0) / segment.bpm):
            return replace(
                own,
                bpm=segment.bpm,
                alternative_bpm=segment.alternative_bpm,
                tempo_confidence=segment.tempo_confidence,
                is_steady=segment.is_steady,
            )
    return own


def _is_octave(ratio: float) -> bool:
    """Whether a ratio of two tempi is a half, 1 or 2."""
    return any(abs(ratio / whole - 1.0) < SAME_TEMPO for whole in (0.5, 1.0, 2.0))
