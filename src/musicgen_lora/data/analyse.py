"""What a file sounds like, measured once and kept in `output_dir/analysis`.

A record `<sha256[:16]>.json` and a fingerprint `<sha256[:16]>.npy` belong to a file's bytes, so a
renamed file, an interrupted run and a second run cost nothing. Long files are read in blocks and
analysed in segments: memory doesn't grow with their length, and each segment has its own tempo.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from scipy.signal import welch

from musicgen_lora import atomic
from musicgen_lora.audio.bass import find_bass_notes
from musicgen_lora.audio.ffmpeg import readable
from musicgen_lora.audio.files import AudioError, iter_audio, probe
from musicgen_lora.audio.key import estimate_key
from musicgen_lora.audio.metre import BASS, FRAME_RATE, HATS, onset_strengths
from musicgen_lora.audio.onsets import pick_onsets
from musicgen_lora.audio.quality import Channels, Quality, measure_quality
from musicgen_lora.audio.tempo import Tempo, tempo_of_strengths
from musicgen_lora.data.duplicates import HOP_S, fingerprint
from musicgen_lora.data.facts import Facts, make_facts
from musicgen_lora.data.readers import facts_from_tags
from musicgen_lora.data.records import ANALYSIS_RECORD, read_array, read_kept
from musicgen_lora.data.workers import Failure

FORMAT = 2
"""Of the records; those of another are made again."""
SEGMENT_S = 300.0
MAX_FILE_S = 12 * 3600.0
RATE = 32_000
"""Of what is analysed, but for the quality, in Hz; lower rates stay as they are."""
BLOCK = 1 << 21
"""Samples a channel whose quality is measured together: 47 s at 44.1 kHz."""
DIGITAL_SILENCE = 1e-6
SILENT_PEAK_DB = -60.0
SHARES_WINDOWS = 60
"""Half seconds whose spectra are taken together."""
BASS_BANDS_HZ = ((20, 60), (60, 120), (120, 250))
ROLL_GAP_S = 0.09
MOST_SURE = 0.85
"""What was measured never outweighs what somebody stated, see `facts.STATED`."""
ENOUGH_S = 8.0
"""A single note has a pitch and no key, two hits an interval and no tempo: what captions say of
shorter clips is less sure in proportion."""


@dataclass(frozen=True)
class AnalysisTask:
    """A file to analyse, the SHA-256 of its bytes, and where the record goes."""

    path: Path
    digest: str
    folder: Path


def read_record(folder: Path, digest: str) -> dict[str, Any] | None:
    """The record of a file's bytes, if there is one of this format with its fingerprint."""
    record = read_kept(folder / f"{digest[:16]}.json", ANALYSIS_RECORD, digest)
    if record is None or record["format"] != FORMAT:
        return None
    return record if read_fingerprint(folder, digest) is not None else None


def read_fingerprint(folder: Path, digest: str) -> np.ndarray | None:
    """The fingerprint `[F]` uint64 of a file's bytes, if it was analysed."""
    found = read_array(folder / f"{digest[:16]}.npy", np.uint64, 1)
    return None if found is None else np.array(found)


def analyse_file(task: AnalysisTask, alive: Callable[[], None]) -> dict[str, Any] | Failure:
    """Analyses a file and writes its record; a `Failure` where it is no usable audio."""
    try:
        with readable(task.path, task.folder, alive) as source:
            record, prints = _analyse(source, alive)
    except AudioError as error:
        return Failure(str(error).removeprefix(f"{task.path}: "))
    tags = dataclasses.asdict(facts_from_tags(task.path))
    record = {"format": FORMAT, "sha256": task.digest, "tags": tags, **record}
    text = json.dumps(_plain(record), ensure_ascii=True, allow_nan=False)

    def save(path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, prints)

    # The record last: with it there, all is.
    atomic.write_file(task.folder / f"{task.digest[:16]}.npy", save)
    atomic.write_file(task.folder / f"{task.digest[:16]}.json", lambda path: path.write_text(text))
    return json.loads(text)


def _plain(value: Any) -> Any:
    """As JSON has it; NaN is null."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value


def _analyse(path: Path, alive: Callable[[], None]) -> tuple[dict[str, Any], np.ndarray]:
    info = probe(path)
    if info.duration_s > MAX_FILE_S:
        hours = info.duration_s / 3600.0
        raise AudioError(
            f"{path}: claims {hours:.0f} hours of audio; split it into files of up to "
            f"{MAX_FILE_S / 3600.0:.0f}."
        )
    n_segments = max(1, math.ceil(info.duration_s / SEGMENT_S))
    wanted_s = info.duration_s / n_segments
    segments, prints, measured = [], [], []
    read_s = 0.0
    for index in range(n_segments):
        # The last one reads to the end.
        duration_s = wanted_s if index + 1 < n_segments else SEGMENT_S
        waveform, rate, qualities, segment_s = _read_segment(
            path, info.sample_rate, index * wanted_s, duration_s, alive
        )
        measured += qualities
        if all(quality.true_peak_db <= SILENT_PEAK_DB for _, _, quality in qualities):
            # Hours of silence, as a small FLAC can hold, are not worth a measurement.
            segments.append(_silent_segment(index * wanted_s, segment_s))
            prints.append(np.zeros(math.ceil(segment_s / HOP_S), dtype=np.uint64))
        else:
            segments.append(_analyse_segment(waveform, rate, index * wanted_s, alive))
            prints.append(fingerprint(waveform, rate))
        # Not kept while the next one is read.
        del waveform
        read_s += segment_s
        if not qualities:
            del segments[-1], prints[-1]
        if segment_s < 0.99 * wanted_s:
            break
        alive()
    if not measured or not segments:
        raise AudioError(f"{path}: no audio in it.")
    record = {
        "duration_s": read_s,
        "claimed_s": info.duration_s,
        "sample_rate": info.sample_rate,
        "n_channels": info.n_channels,
        "quality": dataclasses.asdict(_merge_qualities(measured)),
        "segments": segments,
    }
    return record, np.concatenate(prints)


Measured = tuple[float, float, Quality]
"""Start and length in seconds of a block, and its quality."""


def _read_segment(
    path: Path, sample_rate: int, start_s: float, duration_s: float, alive: Callable[[], None]
) -> tuple[np.ndarray, int, list[Measured], float]:
    """A stretch at the analysis' rate `[C, N]`, that rate, its blocks' quality at their own rate,
    and how long it is in seconds."""
    rate = min(RATE, sample_rate)
    filled, n_read = 0, 0
    waveform = np.zeros((1, 0), dtype=np.float32)
    stream = None
    qualities: list[Measured] = []

    def append(samples: np.ndarray) -> None:
        nonlocal filled
        count = min(len(samples), waveform.shape[1] - filled)
        waveform[:, filled : filled + count] = samples[:count].T
        filled += count

    for block in iter_audio(path, start_s=start_s, duration_s=duration_s, n_block=BLOCK):
        if not waveform.shape[1]:
            room = round(duration_s * rate) + 1 if block.shape[1] == BLOCK else 0
            room = max(room, math.ceil(block.shape[1] * rate / sample_rate) + 1)
            waveform = np.zeros((len(block), room), dtype=np.float32)
            if rate != sample_rate:
                stream = soxr.ResampleStream(sample_rate, rate, len(block), "float32", "HQ")
        at_s = start_s + n_read / sample_rate
        qualities.append((at_s, block.shape[1] / sample_rate, _block_quality(block, sample_rate)))
        append(block.T if stream is None else stream.resample_chunk(np.ascontiguousarray(block.T)))
        n_read += block.shape[1]
        alive()
    if stream is not None:
        nothing = np.zeros((0, len(waveform)), dtype=np.float32)
        append(stream.resample_chunk(nothing, last=True))
    return waveform[:, :filled], rate, qualities, n_read / sample_rate


def _block_quality(block: np.ndarray, sample_rate: int) -> Quality:
    if float(np.abs(block).max()) >= DIGITAL_SILENCE:
        return measure_quality(block, sample_rate)
    nan, whole = float("nan"), ((0.0, block.shape[1] / sample_rate),)
    channels: Channels = "mono" if len(block) == 1 else "identical"
    return Quality(nan, -120.0, 0, whole, 0.0, channels, nan, False, 0)


def _merge_qualities(measured: Sequence[Measured]) -> Quality:
    """The quality of a file from that of its blocks. Loudness is their mean power, less those
    10 LU below it, as BS.1770's gate has it for its shorter blocks."""
    seconds = np.array([length_s for _, length_s, _ in measured])
    powers = np.array([10.0 ** (quality.loudness_lufs / 10.0) for _, _, quality in measured])
    heard = np.isfinite(powers)
    loudness = float("nan")
    if heard.any():
        mean = float(np.average(powers[heard], weights=seconds[heard]))
        loud = heard & (np.nan_to_num(powers) >= 0.1 * mean)
        loudness = 10.0 * math.log10(float(np.average(powers[loud], weights=seconds[loud])))
    silences: list[tuple[float, float]] = []
    for at_s, _, quality in measured:
        for start_s, stop_s in quality.silences_s:
            if silences and at_s + start_s - silences[-1][1] < 1e-3:
                silences[-1] = (silences[-1][0], at_s + stop_s)
            else:
                silences.append((at_s + start_s, at_s + stop_s))
    qualities = [quality for _, _, quality in measured]
    sounding = [q for q in qualities if math.isfinite(q.bandwidth_hz)] or qualities
    widest = max(sounding, key=lambda q: q.bandwidth_hz if math.isfinite(q.bandwidth_hz) else 0.0)
    found: list[Channels] = [q.channels for q in sounding]
    channels = "stereo" if "stereo" in found else max(found, key=found.count)
    return Quality(
        loudness_lufs=loudness,
        true_peak_db=max(q.true_peak_db for q in qualities),
        clipped_samples=sum(q.clipped_samples for q in qualities),
        silences_s=tuple(silences),
        dc_offset=max((q.dc_offset for q in qualities), key=abs),
        channels=channels,
        bandwidth_hz=widest.bandwidth_hz,
        has_lossy_edge=widest.has_lossy_edge,
        bad_samples=0,
    )


def _analyse_segment(
    waveform: np.ndarray, rate: int, start_s: float, alive: Callable[[], None]
) -> dict[str, Any]:
    duration_s = waveform.shape[1] / rate
    strengths = onset_strengths(waveform, rate)
    # Five minutes of audio take some seconds of a core, on a busy one far longer.
    alive()
    tempo = tempo_of_strengths(strengths, duration_s)
    alive()
    notes = find_bass_notes(waveform, rate)
    alive()
    key = estimate_key(waveform, rate, notes=notes)
    kicks, hats = (pick_onsets(strengths[row], FRAME_RATE) for row in (BASS, HATS))
    bars = duration_s * tempo.bpm / 240.0
    shares = _bass_shares(waveform, rate)
    alive()
    return {
        "start_s": start_s,
        "duration_s": duration_s,
        "bpm": tempo.bpm,
        "alternative_bpm": tempo.alternative_bpm,
        "tempo_confidence": tempo.confidence,
        "downbeat_confidence": tempo.downbeat_confidence,
        "is_steady": tempo.is_steady,
        "beats_s": tempo.beats_s.tolist(),
        "downbeats_s": tempo.downbeats_s.tolist(),
        "key": key.name,
        "key_confidence": key.confidence,
        "kicks_per_bar": len(kicks) / bars,
        "hats_per_bar": len(hats) / bars,
        "roll_density": float((np.diff(hats) < ROLL_GAP_S).sum() / max(1, len(hats))),
        "bass_notes": len(notes),
        "bass_glides": sum(note.glide != 0.0 for note in notes),
        "bass_pitch": float(np.median([note.pitch for note in notes])) if notes else None,
        **shares,
    }


def _silent_segment(start_s: float, duration_s: float) -> dict[str, Any]:
    return {
        "start_s": start_s,
        "duration_s": duration_s,
        **dict.fromkeys(("bpm", "alternative_bpm", "key", "bass_pitch")),
        **dict.fromkeys(("tempo_confidence", "downbeat_confidence", "key_confidence"), 0.0),
        "is_steady": False,
        "beats_s": [],
        "downbeats_s": [],
    }


def _bass_shares(waveform: np.ndarray, rate: int) -> dict[str, float]:
    """Share of the power in each low band."""
    n_samples = waveform.shape[1]
    n_window = min(rate // 2, n_samples)
    frequency = np.fft.rfftfreq(n_window, 1.0 / rate)
    power = np.zeros(len(frequency))
    # welch copies all that it is given, several times. A last block without a window goes.
    for start in range(0, n_samples, SHARES_WINDOWS * n_window):
        block = waveform[:, start : start + SHARES_WINDOWS * n_window]
        if block.shape[1] >= n_window:
            _, found = welch(block, rate, nperseg=n_window, detrend="constant")
            power += found.mean(axis=0) * block.shape[1]
    total = float(power.sum())
    return {
        f"band_{low}_{high}_share": float(power[(frequency >= low) & (frequency < high)].sum())
        / total
        if total > 0.0
        else float("nan")
        for low, high in BASS_BANDS_HZ
    }


def tempo_of(segment: dict[str, Any]) -> Tempo:
    """The tempo in a segment of a record; times are from the segment's start."""
    nan = float("nan")
    return Tempo(
        bpm=segment["bpm"] or nan,
        alternative_bpm=segment["alternative_bpm"] or nan,
        confidence=segment["tempo_confidence"],
        beats_s=np.array(segment["beats_s"]),
        downbeats_s=np.array(segment["downbeats_s"]),
        downbeat_confidence=segment["downbeat_confidence"],
        is_steady=segment["is_steady"],
    )


def tag_facts(record: dict[str, Any]) -> Facts:
    """What the tags inside the file said."""
    tags: dict[str, Any] = {**record["tags"]}
    tags["texts"], tags["tags"] = tuple(tags["texts"]), tuple(tags["tags"])
    return Facts(**tags)


def measured_facts(segment: dict[str, Any]) -> Facts:
    """What a segment of a record says for captions, with its confidence."""
    bpm = segment["bpm"]
    if bpm is not None:
        # Sequencers are set to whole numbers, mostly.
        bpm = float(round(bpm)) if abs(bpm - round(bpm)) < 0.06 else round(bpm, 1)
    sure = {"bpm": segment["tempo_confidence"], "key": segment["key_confidence"]}
    enough = min(1.0, segment["duration_s"] / ENOUGH_S)
    sure = {name: min(MOST_SURE, enough * value) for name, value in sure.items()}
    return make_facts("analysis", sure, bpm=bpm, key=segment["key"])
