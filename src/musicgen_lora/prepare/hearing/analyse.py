"""Analyses the sound of a file once and keeps the result in `output_dir/analysis`.

A record `<sha256[:16]>.json` and a fingerprint `<sha256[:16]>.npy` belong to a file's bytes, so
nothing is analysed again after a rename, an interruption or in a second run. Long files are read in
blocks and analysed in segments: memory doesn't grow with their length, and each segment has its own
tempo.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from musicgen_lora import atomic
from musicgen_lora.audio.ffmpeg import decodable
from musicgen_lora.audio.fold import cancelled_bands, fold_to_mono
from musicgen_lora.audio.spectra import welch_spectrum
from musicgen_lora.audio.stream import LONGEST_S, AudioStream
from musicgen_lora.errors import AudioError
from musicgen_lora.formats.arrays import open_array
from musicgen_lora.listening.duplicates import FINGERPRINT_HOP_S, audio_fingerprint
from musicgen_lora.listening.one_shots import is_one_shot
from musicgen_lora.listening.pitch.bass import find_bass_notes
from musicgen_lora.listening.pitch.key import estimate_key
from musicgen_lora.listening.pitch.key_names import usual_key
from musicgen_lora.listening.quality import (
    BlockQuality,
    Quality,
    measure_quality,
    merge_qualities,
    silence_quality,
)
from musicgen_lora.listening.rhythm.bars import SURE
from musicgen_lora.listening.rhythm.metre import BASS, FRAME_RATE, HATS, onset_strengths
from musicgen_lora.listening.rhythm.onsets import pick_onsets, rolled_share
from musicgen_lora.listening.rhythm.pieces import tempi_between_pauses, tempo_fields
from musicgen_lora.listening.rhythm.tempo import tempo_of_strengths
from musicgen_lora.prepare.hearing.records import FORMAT, Analysis, Segment, keep, made, read_kept
from musicgen_lora.prepare.reading.readers import facts_from_tags
from musicgen_lora.prepare.reading.unchanged import unchanged
from musicgen_lora.prepare.words.facts import Facts, make_facts
from musicgen_lora.prepare.words.heard_words import heard_words
from musicgen_lora.runtime.workers import Failure, SignOfLife

SEGMENT_S = 300.0
ANALYSIS_RATE = 32_000
"""Rate in Hz at which everything but the quality is analysed; lower rates are kept."""
BLOCK = 1 << 22
"""Samples, over all channels, whose quality is measured at once: 47 s of stereo at 44.1 kHz."""
DIGITAL_SILENCE = 1e-6
SILENT_PEAK_DB = -60.0
READING = 0.5
"""Share of a segment's processing time spent reading it and measuring its blocks' quality."""
SHARES_WINDOWS = 60
"""Half-second windows whose spectra are computed at once."""
SUB_HZ = (20.0, 60.0)
MOST_SURE = 0.85
"""Measurements never outweigh what somebody stated, see `facts.STATED`."""
ENOUGH_S = 8.0
"""A single note has a pitch but no key, two hits an interval but no tempo: the confidence in
shorter clips is lowered in proportion, except for loops."""


@dataclass(frozen=True)
class AnalysisTask:
    """A file to analyse, the SHA-256 of its bytes, and where the record goes."""

    path: Path
    digest: str
    folder: Path


def read_record(folder: Path, digest: str) -> Analysis | None:
    """The record of a file's bytes, if there is one in this format with its fingerprint."""
    record = read_kept(folder / f"{digest[:16]}.json", Analysis, digest)
    if record is None or record.format != FORMAT:
        return None
    return record if read_fingerprint(folder, digest) is not None else None


def read_fingerprint(folder: Path, digest: str) -> np.ndarray | None:
    """The fingerprint `[F]` uint64 of a file's bytes, if it was analysed."""
    found = open_array(folder / f"{digest[:16]}.npy", np.uint64, 1)
    try:
        return None if found is None else found.rows(0, found.shape[0])
    except (OSError, ValueError):
        return None


def analyse_file(task: AnalysisTask, alive: SignOfLife) -> Analysis | Failure:
    """Analyses a file and writes its record; returns a `Failure` if it isn't usable audio."""
    try:
        with (
            unchanged(task.path, task.digest, alive),
            decodable(task.path, task.folder, alive) as source,
        ):
            found, prints = _analyse(source, alive)
            # Files that need ffmpeg are mostly AAC.
            found["is_lossless"] &= source == task.path
            tags = dataclasses.asdict(facts_from_tags(task.path))
    except AudioError as error:
        return Failure(str(error).removeprefix(f"{task.path}: "))
    record = made(Analysis, {"format": FORMAT, "sha256": task.digest, "tags": tags, **found})
    # The record comes last: if it exists, everything does.
    place = task.folder / f"{task.digest[:16]}.npy"
    atomic.write_file(place, lambda temporary: np.save(temporary, prints))
    keep(task.folder / f"{task.digest[:16]}.json", record)
    return record


def _analyse(path: Path, alive: SignOfLife) -> tuple[dict[str, Any], np.ndarray]:
    with AudioStream(path) as stream:
        rate = stream.sample_rate
        n_frames = _length(stream, alive)
        n_segments = max(1, math.ceil(n_frames / (SEGMENT_S * rate)))
        n_wanted = math.ceil(n_frames / n_segments)
        segments, prints, measured = [], [], []
        n_read, is_hit = 0, False

        def on_block(n_new: int) -> None:
            alive(min(1.0, (n_read + READING * n_new) / n_frames))

        while segment := _read_segment(stream, n_read / rate, n_wanted, on_block):
            start_s, segment_s = n_read / rate, segment.n_frames / rate
            measured += segment.measured
            if all(quality.peak_db <= SILENT_PEAK_DB for _, _, quality in segment.measured):
                # Hours of silence, as a small FLAC can hold, are not worth a measurement.
                segments.append(Segment(start_s=start_s, duration_s=segment_s))
                prints.append(np.zeros(math.ceil(segment_s / FINGERPRINT_HOP_S), dtype=np.uint64))
            else:
                is_hit = n_segments == 1 and is_one_shot(segment.waveform, segment.rate)
                segments.append(
                    analyse_segment(
                        segment.waveform, segment.rate, start_s, alive, segment.measured
                    )
                )
                prints.append(audio_fingerprint(segment.waveform, segment.rate))
            n_read += segment.n_frames
            # Freed before the next one is read.
            del segment
            alive(min(1.0, n_read / n_frames))
    if not segments:
        raise AudioError(f"{path}: no audio in it, only a header; copy or export it again.")
    record = {
        "duration_s": n_read / rate,
        "claimed_s": stream.claimed_s,
        "is_cut_off": stream.is_cut_off,
        "n_decoder_faults": stream.n_faults,
        "sample_rate": rate,
        "n_channels": stream.n_channels,
        "is_float": stream.is_float,
        "is_lossless": stream.is_lossless,
        "is_one_shot": is_hit,
        "quality": dataclasses.asdict(merge_qualities(measured)),
        "segments": [dataclasses.asdict(segment) for segment in segments],
    }
    return record, np.concatenate(prints)


def _length(stream: AudioStream, alive: Callable[[], None]) -> int:
    """Samples per channel of a file, counted if its header doesn't know or claims too many."""
    n_frames = stream.n_frames
    if n_frames is None:
        n_frames = stream.count_frames(alive)
        stream.move_to(0)
    if n_frames > LONGEST_S * stream.sample_rate:
        hours = LONGEST_S / 3600.0
        raise AudioError(
            f"{stream.path}: has more than {hours:.0f} hours of audio; split it into files of up "
            f"to {hours:.0f}."
        )
    return n_frames


@dataclass
class _Segment:
    """A stretch of a file: `waveform` `[C, N]` at the analysis `rate`, C is 1 or 2; the quality of
    its blocks and its samples per channel, both at the file's own rate."""

    waveform: np.ndarray
    rate: int
    measured: list[BlockQuality]
    n_frames: int


def _read_segment(
    stream: AudioStream, start_s: float, n_wanted: int, on_block: Callable[[int], None]
) -> _Segment | None:
    """The next samples of a file; None at its end. `on_block` gets the number read so far."""
    own_rate = stream.sample_rate
    rate = min(ANALYSIS_RATE, own_rate)
    n_channels = stream.n_channels if stream.n_channels <= 2 else 1
    n_block = BLOCK // max(2, stream.n_channels)
    waveform = np.zeros((n_channels, 0), dtype=np.float32)
    resampler = None
    if rate != own_rate:
        resampler = soxr.ResampleStream(own_rate, rate, n_channels, "float32", "HQ")
    measured: list[BlockQuality] = []
    filled, n_read = 0, 0

    def append(samples: np.ndarray) -> None:
        nonlocal filled
        count = min(len(samples), waveform.shape[1] - filled)
        waveform[:, filled : filled + count] = samples[:count].T
        filled += count

    while n_read < n_wanted:
        block = np.ascontiguousarray(stream.read(min(n_block, n_wanted - n_read)).T)
        n_new = block.shape[1]
        if not n_new:
            break
        if not waveform.shape[1]:
            # A wrong header must not cost memory.
            room = n_wanted if n_new == n_block else n_new
            waveform = np.zeros((n_channels, math.ceil(room * rate / own_rate) + 1), np.float32)
        quality = _block_quality(block, own_rate)
        measured.append((start_s + n_read / own_rate, n_new / own_rate, quality))
        heard = np.ascontiguousarray(_heard(block, quality, own_rate, n_channels).T)
        append(heard if resampler is None else resampler.resample_chunk(heard))
        n_read += n_new
        on_block(n_read)
    if not n_read:
        return None
    if resampler is not None:
        nothing = np.zeros((0, n_channels), dtype=np.float32)
        append(resampler.resample_chunk(nothing, last=True))
    return _Segment(waveform[:, :filled], rate, measured, n_read)


def _heard(block: np.ndarray, quality: Quality, sample_rate: int, n_channels: int) -> np.ndarray:
    """The one or two channels of a block `[C, N]` that are analysed: tempo and key come from their
    mean, in which nothing may cancel."""
    if cancelled_bands(quality.unrelated_db, quality.mono_db):
        mono, _ = fold_to_mono(block, sample_rate)
        return np.repeat(mono, n_channels, axis=0)
    return block if len(block) == n_channels else block.mean(axis=0, keepdims=True)


def _block_quality(block: np.ndarray, sample_rate: int) -> Quality:
    if float(np.abs(block).max()) >= DIGITAL_SILENCE:
        return measure_quality(block, sample_rate)
    return silence_quality(len(block), block.shape[1] / sample_rate)


def analyse_segment(
    waveform: np.ndarray,
    rate: int,
    start_s: float,
    alive: Callable[[], None],
    measured: Sequence[BlockQuality] = (),
) -> Segment:
    """Measures tempo, key and bass of a stretch `[C, N]` of a file that begins at `start_s`."""
    duration_s = waveform.shape[1] / rate
    strengths = onset_strengths(waveform, rate)
    # Five minutes of audio take a core some seconds, and far longer on a busy machine.
    alive()
    tempo = tempo_of_strengths(strengths, duration_s)
    alive()
    stretches: list[dict[str, Any]] = []
    if measured and tempo.confidence < SURE:
        stretches = tempi_between_pauses(strengths, duration_s, start_s, measured)
        alive()
    notes = find_bass_notes(waveform, rate)
    alive()
    key = estimate_key(waveform, rate, notes=notes)
    kicks, hats = (pick_onsets(strengths[row], FRAME_RATE) for row in (BASS, HATS))
    bars = duration_s * tempo.bpm / 240.0
    sub_share = _sub_share(waveform, rate)
    alive()
    fields = {
        "start_s": start_s,
        "duration_s": duration_s,
        **tempo_fields(tempo),
        "stretches": stretches,
        "key": key.name,
        "key_confidence": key.confidence,
        "kicks_per_bar": len(kicks) / bars,
        "hats_per_bar": len(hats) / bars,
        "roll_density": rolled_share(hats),
        "bass_notes": len(notes),
        "bass_glides": sum(note.glide != 0.0 for note in notes),
        "band_20_60_share": sub_share,
    }
    return made(Segment, fields)


def _sub_share(waveform: np.ndarray, rate: int) -> float:
    """Share of the power that lies in `SUB_HZ`; NaN for silence."""
    n_samples = waveform.shape[1]
    n_window = min(rate // 2, n_samples)
    frequency = np.fft.rfftfreq(n_window, 1.0 / rate)
    power = np.zeros(len(frequency))
    # welch copies its input several times. A last block shorter than a window is ignored.
    for start in range(0, n_samples, SHARES_WINDOWS * n_window):
        block = waveform[:, start : start + SHARES_WINDOWS * n_window]
        if block.shape[1] >= n_window:
            power += welch_spectrum(block, rate, n_window)[0] * block.shape[1]
    total = float(power.sum())
    sub = float(power[(frequency >= SUB_HZ[0]) & (frequency < SUB_HZ[1])].sum())
    return sub / total if total > 0.0 else float("nan")


def tempo_confidence(confidence: float, loop_bars: int | None, duration_s: float) -> float:
    """How sure captions are of a tempo: less for a short recording, unless its length is a whole
    number of bars, which confirms the tempo."""
    return confidence * (1.0 if loop_bars else min(1.0, duration_s / ENOUGH_S))


def measured_facts(segment: Segment) -> Facts:
    """The facts that a segment gives for captions, with their confidence."""
    bpm = segment.bpm
    if bpm is not None:
        # Sequencers are mostly set to whole numbers.
        bpm = float(round(bpm)) if abs(bpm - round(bpm)) < 0.06 else round(bpm, 1)
    duration_s = segment.duration_s
    sure_bpm = tempo_confidence(segment.tempo_confidence, segment.loop_bars, duration_s)
    sure_key = min(1.0, duration_s / ENOUGH_S) * segment.key_confidence
    sure = {"bpm": min(MOST_SURE, sure_bpm), "key": min(MOST_SURE, sure_key)}
    sure["tags"] = MOST_SURE
    key = None if segment.key is None else usual_key(segment.key)
    return make_facts("analysis", sure, bpm=bpm, key=key, tags=heard_words(segment, sure_bpm))
