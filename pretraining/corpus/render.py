"""Renders the pretraining corpus: `python -m pretraining.corpus.render`.

Clips already on disk are kept, so the same command resumes an interrupted run. A clip depends only
on the seed, its split and its number.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from musicgen_lora.beats.beats808 import Beat, beat_facts, caption, make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Pattern, Voice, render, step_time_s
from pretraining.corpus.captions import captions
from pretraining.corpus.colour import Colour, colour_808
from pretraining.corpus.composition import FRAME_S, Clip, compose
from pretraining.corpus.kits import DRUM_KITS, PRESETS, drum_sounds, note_bank
from pretraining.corpus.mastering import master
from pretraining.corpus.soundfont import SAMPLE_RATE, SoundfontError
from pretraining.paths import WORK

SPLITS = ("train", "validation")
N_CAPTIONS = 4
CHUNK = 25
"""Clips in one process's job."""


@dataclass(frozen=True)
class Job:
    """Clips `start` to `stop` of a split."""

    out_dir: Path
    split: str
    start: int
    stop: int
    seed: int
    duration_s: float


def clip_rng(job: Job, index: int, stream: int) -> np.random.Generator:
    """A random stream: 0 composes, 1 words captions, 2 mixes; they don't affect each other."""
    return np.random.default_rng([job.seed, SPLITS.index(job.split), index, stream])


def render_job(job: Job) -> list[dict[str, Any]]:
    """Renders a job's missing clips; returns the metadata rows of all its clips."""
    rows = []
    for index in range(job.start, job.stop):
        held_out = job.split == "validation"
        clip = compose(clip_rng(job, index, 0), job.duration_s, held_out)
        texts = captions(clip_rng(job, index, 1), clip, N_CAPTIONS)
        audio = f"{job.split}/{index:05d}.flac"
        path = job.out_dir / audio
        if not path.is_file():
            write_clip(path, _sound(clip_rng(job, index, 2), clip, job.duration_s))
        rows.append(metadata_row(audio, texts, clip, job, index))
    return rows


def _sound(rng: np.random.Generator, clip: Clip, duration_s: float) -> np.ndarray:
    """The clip's window `[N]`; earlier sounds ring into it."""
    drive = float(rng.uniform(0.2, 1.5)) if rng.random() < 0.5 else 0.0
    seed = int(rng.integers(2**31))
    pattern = on_frames(clip.pattern) if clip.timing.on_grid else clip.pattern
    humanise_ms = clip.timing.humanise_ms
    mix = render(pattern, clip.kit, SAMPLE_RATE, seed=seed, humanise_ms=humanise_ms, drive=drive)
    start = round(clip.start_s * SAMPLE_RATE)
    cut = mix[0, start : start + round(duration_s * SAMPLE_RATE)]
    return master(cut, SAMPLE_RATE, room=clip.room, is_lofi=clip.is_lofi, seed=seed)


def on_frames(pattern: Pattern) -> Pattern:
    """The pattern with every hit moved to the start of the nearest codec frame, swing included: a
    sound at another position within a frame has other tokens."""
    step_s = 15.0 / pattern.bpm
    tracks = {}
    for track, hits in pattern.tracks.items():
        times = [step_time_s(hit.step, pattern.bpm, pattern.swing) for hit in hits]
        # Halves go down in every bar, whatever the rounding of floats.
        frames = [floor(time_s / FRAME_S + 0.5 - 1e-6) for time_s in times]
        moved = [frame * FRAME_S / step_s for frame in frames]
        tracks[track] = [replace(hit, step=at) for hit, at in zip(hits, moved, strict=True)]
    return Pattern(pattern.bpm, pattern.n_bars, tracks)


def write_clip(path: Path, samples: np.ndarray) -> None:
    """Writes 16-bit FLAC under a temporary name first: a file that exists is complete."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.flac")
    sf.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16")
    os.replace(temporary, path)


def metadata_row(audio: str, texts: list[str], clip: Clip, job: Job, index: int) -> dict[str, Any]:
    """A clip's row in metadata.json."""
    tags = [clip.style, clip.layers, clip.energy]
    tags += ["no hats"] if clip.drums and not clip.has_hats else []
    tags += ["lo-fi"] if clip.is_lofi else []
    tags += ["half-time"] if clip.timing.is_half_time and clip.drums else []
    row = {
        "audio": audio,
        "text": texts[0],
        "texts": texts,
        "source": f"{job.split}-{job.seed}-{index}",
        "split": job.split,
        "bpm": clip.timing.bpm,
        "on_grid": clip.timing.on_grid,
        # `start_s` already has a meaning in datasets: where in its file a clip begins.
        "track_start_s": round(clip.start_s, 3),
        "first_bar_s": round(-clip.start_s % (240.0 / clip.timing.bpm), 4),
        "key": clip.harmony.key if clip.harmony else None,
        "tags": tags,
        "style": clip.style,
        "instruments": clip.instruments,
        "kit": clip.drums.name if clip.drums else None,
    }
    return {name: value for name, value in row.items() if value is not None}


def render_808_job(job: Job) -> list[dict[str, Any]]:
    """Like `render_job`, but for the beats that only the codec may hear."""
    rows = []
    for index in range(job.start, job.stop):
        seeds = (job.seed, SPLITS.index(job.split), index)
        # Whole bars at least as long as a clip, however the composer rounds them.
        beat = make_beat(seeds, duration_s=1.5 * job.duration_s)
        audio = f"{job.split}/{index:05d}.flac"
        path = job.out_dir / audio
        if not path.is_file():
            waveform = coloured_beat(clip_rng(job, index, 3), beat, index)
            write_clip(path, waveform[: round(job.duration_s * SAMPLE_RATE)])
        row = {"audio": audio, "text": caption(beat, (*seeds, 1)), "split": job.split}
        rows.append({**row, "source": f"codec808-{job.split}-{index}", **beat_facts(beat)})
    return rows


def coloured_beat(rng: np.random.Generator, beat: Beat, seed: int) -> np.ndarray:
    """A beat `[N]`: half of them on the plain 808 kit, the others on a coloured one."""
    if rng.random() < 0.5:
        return render_beat(beat, SAMPLE_RATE, seed=seed)[0]
    kit = load_kit808(SAMPLE_RATE, bass_decay_s=beat.bass_decay_s, bass_drive=beat.bass_drive)
    coloured = {
        track: replace(kit[track], voice=_coloured(kit[track].voice, colour_808(rng, track)))
        for track in sorted(beat.pattern.tracks)
    }
    drive, humanise_ms = beat.master_drive, beat.humanise_ms
    return render(
        beat.pattern, coloured, SAMPLE_RATE, seed=seed, humanise_ms=humanise_ms, drive=drive
    )[0]


def _coloured(voice: Voice, colour: Colour) -> Voice:
    return lambda hit, held_s, sample_rate: colour(voice(hit, held_s, sample_rate))


def render_all(
    worker: Callable[[Job], list[dict[str, Any]]], jobs: list[Job], n_processes: int, what: str
) -> list[dict[str, Any]]:
    """Runs jobs in processes and prints progress; returns the rows in the order of the clips."""
    rows: dict[int, list[dict[str, Any]]] = {}
    n_clips, n_done, started = sum(job.stop - job.start for job in jobs), 0, time.monotonic()
    with ProcessPoolExecutor(n_processes) as pool:
        futures = {pool.submit(worker, job): position for position, job in enumerate(jobs)}
        for future in as_completed(futures):
            rows[futures[future]] = future.result()
            n_done += len(future.result())
            elapsed_s = time.monotonic() - started
            print(f"{what}: {n_done}/{n_clips} clips, {elapsed_s:.0f} s", flush=True)
    return [row for position in sorted(rows) for row in rows[position]]


def jobs_of(out_dir: Path, counts: dict[str, int], seed: int, duration_s: float) -> Iterator[Job]:
    # Validation first: it is small, and can be inspected while the rest is rendered.
    for split in reversed(SPLITS):
        (out_dir / split).mkdir(parents=True, exist_ok=True)
        for start in range(0, counts[split], CHUNK):
            stop = min(start + CHUNK, counts[split])
            yield Job(out_dir, split, start, stop, seed, duration_s)


def write_metadata(out_dir: Path, rows: list[dict[str, Any]]) -> None:
    temporary = out_dir / "metadata.json.tmp"
    temporary.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, out_dir / "metadata.json")


def prepare_sounds() -> None:
    """Fills the cache of notes once, before the processes start."""
    for kit in DRUM_KITS:
        drum_sounds(kit)
    for preset in PRESETS:
        note_bank(preset)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out_dir", type=Path, default=WORK / "corpus")
    parser.add_argument(
        "--extra808",
        type=int,
        default=0,
        metavar="N",
        help="instead of the corpus, render N 808 clips for the codec, and 8 %% more to check it",
    )
    parser.add_argument("--n_train", type=int, default=1920)
    parser.add_argument("--n_validation", type=int, default=96)
    parser.add_argument("--duration_s", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--n_processes", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.extra808:
        return _render_extra808(options)
    counts = {"train": options.n_train, "validation": options.n_validation}
    jobs = list(jobs_of(options.out_dir, counts, options.seed, options.duration_s))
    try:
        prepare_sounds()
    except SoundfontError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = render_all(render_job, jobs, options.n_processes, "corpus")
    write_metadata(options.out_dir, rows)
    print(f"{len(rows)} clips in {options.out_dir}")
    return 0


def _render_extra808(options: argparse.Namespace) -> int:
    out_dir = WORK / "codec_808"
    counts = {"train": options.extra808, "validation": max(1, options.extra808 * 2 // 25)}
    # Far from the small seeds of the example data.
    seed = 808_000_000 + options.seed
    jobs = list(jobs_of(out_dir, counts, seed, options.duration_s))
    rows = render_all(render_808_job, jobs, options.n_processes, "808 clips")
    write_metadata(out_dir, rows)
    print(f"{len(rows)} clips in {out_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
