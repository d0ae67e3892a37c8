"""Near duplicates among audio clips.

A sample folder may have the same loop as WAV and as MP3, once louder, once with a beat of silence
in front. Such copies give a clip several times its weight in training, and a copy in the validation
set makes the validation loss misleading.

Near copies have the same fingerprint: for each 20 ms and each pair of neighbouring bands, whether
the upper or the lower band gained (Haitsma & Kalker, A Highly Robust Audio Fingerprinting System,
ISMIR 2002). Gain, MP3 and resampling hardly change it. Unlike theirs it has a third state,
"neither": in the rests of a beat their bits are noise. The hits of a drum kit look alike wherever
they fall, so single frames are not looked up: whole patterns in time and frequency are compared, at
each shift up to a quarter of a second.

Comparing all pairs is quadratic. So each clip first gets a shift-invariant vector, the modulation
spectrum of its fingerprint; only pairs with nearly parallel vectors (one matrix product) are
compared in full.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft
from scipy.signal.windows import hann

from musicgen_lora.audio.waveforms import check_waveform

FINGERPRINT_HOP_S = 0.02
FINGERPRINT_RATE = 16_000
"""Audio is compared at this rate, in Hz: bands reach 7 kHz, which most codecs preserve."""
WINDOW_S = 0.16
"""Long compared with the hop, so that half a hop of misalignment changes little."""
LOW_HZ, HIGH_HZ, N_BANDS = 40.0, 7000.0, 32
"""Bands are 2.8 semitones wide, narrow enough to tell the notes of a bass."""
LAG_FRAMES = 3
"""A band's level is compared with that of 60 ms earlier."""
RANGE_DB, TILT_DB = 30.0, 60.0
"""Dynamic range of a band below its own loudest moment, which counts as at most TILT_DB below that
of the loudest band."""
SILENT_POWER = 1e-7
"""Clips that stay more than 70 dB below a full-scale sine have an empty fingerprint."""
CHANGE_DB = 2.0
"""Smaller changes count as "neither"."""

THRESHOLD = 0.7
"""Similarity from which two clips are near duplicates. Copies with another gain, format, rate or
start are above 0.79; different beats of one kit, style and tempo below 0.52
(benchmarks/listening/duplicates_accuracy.py)."""
VARIANT_THRESHOLD = 0.5
"""From here to `THRESHOLD` it is another version of the same beat: without its hats, overdriven, or
with another bass line. A dataset keeps both, but a split must not separate them."""
MAX_SHIFT_S = 0.25
"""200 ms for manual cuts, and up to 50 ms that an MP3 encoder adds in front."""
MIN_STATES = 150
"""A fingerprint with fewer states other than "neither" (about 0.7 s of a beat, or a held tone) says
too little: all hits of a kit would count as copies of each other."""
REPEATS = (2, 3, 4, 6, 8)
"""Numbers of repetitions of a loop within a clip that are recognised as copies of the loop."""

SUMMARY_FRAMES = 256
SUMMARY_BANDS = 8
SUMMARY_BINS = 64
"""Modulation spectrum: windows of 5.1 s, 8 groups of bands, 0 to 12.5 Hz."""
SUMMARY_THRESHOLD = 0.82
"""Cosine from which two clips are compared in full. Copies are above 0.9."""
BLOCK_FRAMES = 512
BLOCK_ROWS = 512

Id = TypeVar("Id", bound=Hashable)


def audio_fingerprint(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Which bands gain on their neighbours, frame by frame.

    Args:
        waveform: `[C, N]` float32; channels are added by power, so nothing cancels.

    Returns:
        `[F]` uint64, F = N / (0.02 x sample_rate) rounded up. In each frame, bit m (0 to 30) is set
        if band m gained on band m + 1 by over 2 dB in the last 60 ms, bit 32 + m if it lost. 400
        bytes per second; all zero for silence.

    Raises:
        ValueError: not `[C, N]`, empty, or with NaN or infinite samples.
    """
    check_waveform(waveform)
    samples = np.asarray(waveform.T, dtype=np.float32)
    if sample_rate != FINGERPRINT_RATE:
        samples = soxr.resample(samples, sample_rate, FINGERPRINT_RATE, quality="HQ")
    level = _band_levels(samples.T)
    rise = np.zeros_like(level)
    rise[LAG_FRAMES:] = level[LAG_FRAMES:] - level[:-LAG_FRAMES]
    contrast = rise[:, :-1] - rise[:, 1:]
    weights = np.uint64(1) << np.arange(N_BANDS - 1, dtype=np.uint64)
    gains = (contrast > CHANGE_DB) @ weights
    losses = (contrast < -CHANGE_DB) @ weights
    return gains | (losses << np.uint64(32))


def _band_levels(samples: np.ndarray) -> np.ndarray:
    """Levels `[F, N_BANDS]` of samples `[C, N]` in dB, relative to each band's loudest moment."""
    hop, n_window = round(FINGERPRINT_HOP_S * FINGERPRINT_RATE), round(WINDOW_S * FINGERPRINT_RATE)
    window = hann(n_window, sym=False).astype(np.float32)
    padded = np.pad(samples, ((0, 0), (n_window // 2, n_window // 2)))
    frames = sliding_window_view(padded, n_window, axis=1)[:, : max(samples.shape[1], 1) : hop]
    weights = _band_weights(n_window)
    # Scaled so that a full-scale sine reads about 1.
    scale = np.float32(2.0 / window.sum())
    blocks = []
    for start in range(0, frames.shape[1], BLOCK_FRAMES):
        spectrum = np.asarray(rfft(frames[:, start : start + BLOCK_FRAMES] * window))
        blocks.append(np.square(np.abs(spectrum) * scale).mean(axis=0).dot(weights))
    power = np.concatenate(blocks)
    loudest = float(power.max())
    if loudest < SILENT_POWER:
        return np.full(power.shape, -RANGE_DB, dtype=np.float32)
    own = np.maximum(power.max(axis=0), loudest * 10.0 ** (-TILT_DB / 10.0))
    return 10.0 * np.log10(np.maximum(power / own, 10.0 ** (-RANGE_DB / 10.0)))


def _band_weights(n_window: int) -> np.ndarray:
    """`[n_window / 2 + 1, N_BANDS]` mean over the bins of each band; bins on an edge are shared."""
    frequency = np.fft.rfftfreq(n_window, 1.0 / FINGERPRINT_RATE)[:, None]
    edges = LOW_HZ * (HIGH_HZ / LOW_HZ) ** (np.arange(N_BANDS + 1) / N_BANDS)
    inside = np.minimum(frequency - edges[:-1], edges[1:] - frequency) * n_window / FINGERPRINT_RATE
    weights = np.clip(inside + 0.5, 0.0, 1.0)
    return (weights / weights.sum(axis=0)).astype(np.float32)


def similarity(
    a: np.ndarray, b: np.ndarray, max_shift_s: float = MAX_SHIFT_S, period_s: float | None = None
) -> float:
    """How well two fingerprints agree: 1 for copies, about 0 for unrelated audio.

    It is the number of agreeing states minus that of contradicting ones, over the geometric mean of
    their counts (the cosine of two vectors of -1, 0 and 1), at the best shift. If one clip is
    longer, the shorter is compared with it repeatedly, as a loop.

    Args:
        a: `[F]` from `fingerprint`.
        b: `[G]`, likewise.
        max_shift_s: search range, each way.
        period_s: length of the shorter clip as a loop (default: that of its fingerprint).

    Returns:
        -1 to 1; 0 if either has too few states.
    """
    short, long = sorted((a, b), key=len)
    max_shift = round(max_shift_s / FINGERPRINT_HOP_S)
    if min(count_states(short), count_states(long)) < MIN_STATES:
        return 0.0
    period = len(short) if period_s is None else period_s / FINGERPRINT_HOP_S
    # A remainder of the longer one that is only silence, or only the shift, isn't compared.
    n_long = int(np.flatnonzero(long)[-1]) + 1
    n_periods = max(1, int(np.ceil((n_long - 2 * max_shift) / period)))
    room = np.zeros(max_shift, dtype=np.uint64)
    padded = np.concatenate([room, long[:n_long], np.zeros(len(short), dtype=np.uint64), room])
    agreed, in_short, in_long = 0, 0, 0
    for index in range(n_periods):
        start = round(index * period)
        piece = short[: n_long - start] if index else short
        stop = start + len(piece) + 2 * max_shift
        windows = sliding_window_view(padded[start:stop], len(piece))
        same = np.bitwise_count(windows & piece).sum(axis=1, dtype=np.int64)
        against = np.bitwise_count(windows & negated(piece)).sum(axis=1, dtype=np.int64)
        best = int((same - against).argmax())
        agreed += int(same[best] - against[best])
        in_short += count_states(piece)
        in_long += count_states(windows[best])
    return agreed / float(np.sqrt(in_short * in_long)) if in_short and in_long else 0.0


def count_states(prints: np.ndarray) -> int:
    return int(np.bitwise_count(prints).sum(dtype=np.int64))


def negated(prints: np.ndarray) -> np.ndarray:
    """The fingerprint with gains and losses swapped."""
    return (prints << np.uint64(32)) | (prints >> np.uint64(32))


def duplicate_groups(
    ids: Sequence[Id],
    fingerprints: Sequence[np.ndarray],
    durations: Sequence[float],
    threshold: float = THRESHOLD,
) -> list[list[Id]]:
    """Groups of near duplicates.

    A clip belongs to a group if it is similar to any member. A loop and the same loop repeated 2,
    3, 4, 6 or 8 times are duplicates.

    Args:
        fingerprints: `[F]` each, from `fingerprint`.
        threshold: similarity from which two clips are duplicates.

    Returns:
        Groups of two and more, in the order of `ids`.
    """
    summaries, owners = _summaries(fingerprints, durations)
    labels = np.arange(len(ids))
    for place, others in candidates(summaries, owners, labels, SUMMARY_THRESHOLD):
        row = int(owners[place])
        for other in owners[others].tolist():
            if labels[row] == labels[other]:
                continue
            first, second = sorted((row, other), key=lambda clip: len(fingerprints[clip]))
            alike = similarity(fingerprints[first], fingerprints[second], period_s=durations[first])
            if alike >= threshold:
                # The label is the group's first clip.
                old, new = sorted((labels[row], labels[other]), reverse=True)
                labels[labels == old] = new
    groups: dict[int, list[Id]] = {}
    for clip, label in zip(ids, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(clip)
    return [group for group in groups.values() if len(group) > 1]


def candidates(
    summaries: np.ndarray, owners: np.ndarray, labels: np.ndarray, threshold: float
) -> Iterator[tuple[int, list[int]]]:
    """Yield each row with the later rows that it should be compared with, nearest first. Reads
    `labels` as it goes: rows of one group need no comparison.

    Args:
        summaries: `[M, D]`, from `summary_of`.
        owners: the recording of each row, `[M]`.
        labels: the group of each recording.
        threshold: cosine from which two rows may be similar.
    """
    for start in range(0, len(summaries), BLOCK_ROWS):
        cosines = summaries[start : start + BLOCK_ROWS] @ summaries[start:].T
        for offset, row in enumerate(cosines):
            first = start + offset
            near = np.flatnonzero(row[offset + 1 :] >= threshold) + first + 1
            near = near[labels[owners[near]] != labels[owners[first]]]
            if len(near):
                yield first, near[np.argsort(-row[near - start])].tolist()


def _summaries(
    fingerprints: Sequence[np.ndarray], durations: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors `[M, D]` and the clip that each belongs to `[M]`: one for each whole clip, and
    one for its loop for each number of times that it repeats."""
    rows, owners = [], []
    for index, (prints, duration_s) in enumerate(zip(fingerprints, durations, strict=True)):
        if count_states(prints) < MIN_STATES:
            continue
        rows.append(summary_of(prints))
        owners.append(index)
        for times in REPEATS:
            loop = prints[: round(duration_s / times / FINGERPRINT_HOP_S)]
            if similarity(loop, prints, 2 * FINGERPRINT_HOP_S, duration_s / times) >= THRESHOLD:
                rows.append(summary_of(loop))
                owners.append(index)
    if not rows:
        return np.zeros((0, 1), dtype=np.float32), np.zeros(0, dtype=np.int64)
    return np.stack(rows), np.asarray(owners)


def summary_of(prints: np.ndarray) -> np.ndarray:
    """Shift-invariant unit vector `[D]`: amplitudes of the fingerprint's modulation spectrum,
    averaged over windows, minus each band group's mean."""
    bits = np.arange(N_BANDS - 1, dtype=np.uint64)
    one = np.uint64(1)
    gains = ((prints[:, None] >> bits) & one).astype(np.float32)
    states = gains - ((prints[:, None] >> (bits + np.uint64(32))) & one).astype(np.float32)
    # Trailing silence isn't part of the pattern.
    states = states[: int(np.flatnonzero(prints)[-1]) + 1]
    states = np.pad(states, ((0, max(0, SUMMARY_FRAMES - len(states))), (0, 0)))
    windows = sliding_window_view(states, SUMMARY_FRAMES, axis=0)[:: SUMMARY_FRAMES // 4]
    power = np.zeros((N_BANDS - 1, SUMMARY_BINS), dtype=np.float32)
    taper = hann(SUMMARY_FRAMES, sym=False).astype(np.float32)
    for window in windows:
        power += np.square(np.abs(np.asarray(rfft(window * taper))[:, :SUMMARY_BINS]))
    groups = np.array_split(power, SUMMARY_BANDS)
    amplitude = np.sqrt(np.stack([group.sum(axis=0) for group in groups]))
    amplitude -= amplitude.mean(axis=1, keepdims=True)
    return (amplitude / max(float(np.linalg.norm(amplitude)), 1e-9)).ravel().astype(np.float32)
