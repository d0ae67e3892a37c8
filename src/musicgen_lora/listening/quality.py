"""Technical faults of a recording: clipping, silence, DC offset, fake stereo, phase, lossy origin.

Sources: ITU-R BS.1770-4 for loudness (by pyloudnorm) and its annex 2 for the true peak.
Everything is measured at the recording's own rate: resampling would hide the edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import median_filter, uniform_filter1d

from musicgen_lora.audio.fold import BAND_EDGES_HZ, band_levels
from musicgen_lora.audio.loudness import (
    FLOOR_DB,
    blocks,
    decibels,
    integrated_loudness,
    true_peak_db,
)
from musicgen_lora.audio.spectra import welch_spectrum
from musicgen_lora.audio.waveforms import check_shape

FULL_SCALE = 0.9999
CLIPPED_RUN = 3
FRAME_S = 0.05
SILENT_DB = -60.0
SHORTEST_SILENCE_S = 0.5
IDENTICAL_DB, NEAR_MONO_DB = -80.0, -40.0
"""Side relative to mid: below these, two channels are identical, or nearly."""
BAND_FLOOR_DB = -112.0
"""Level of a 10 Hz bin, relative to a full-scale sine, below which it counts as empty: the rounding
noise of 16 bits is at -130."""
BAND_RANGE_DB = -90.0
"""So does a bin this far below the strongest one."""
EDGE_HZ, EDGE_GAP_HZ, EDGE_DB = 600.0, 300.0, 30.0
"""An encoder's low-pass falls by `EDGE_DB` over `EDGE_GAP_HZ`, from the level of the `EDGE_HZ`
below; a cymbal's treble doesn't."""
LOWEST_EDGE_HZ, HIGHEST_EDGE = 4_000.0, 0.91
"""Range in which such an edge is searched; the upper limit is a share of half the sample rate, as
every converter has an edge above."""

Channels = Literal["mono", "identical", "near mono", "one-sided", "inverted", "stereo"]


@dataclass(frozen=True)
class Quality:
    """Technical facts of a recording; None if one is undefined.

    Args:
        loudness_lufs: integrated, None below 0.4 s or for silence.
        true_peak_db: dBTP, at least -120.
        clipped_samples: in flat runs of three or more at full scale or beyond it, all channels.
        over_samples: samples beyond full scale, all channels.
        peak_db: largest sample in dB of full scale, at least -120.
        silences_s: stretches of half a second or more below -60 dBFS, start and stop.
        dc_offset: mean sample of the channel with the largest offset.
        channels: "identical" and "near mono" are mono stored as stereo; "one-sided" has one silent
            channel; "inverted" cancels in mono.
        bandwidth_hz: frequency above which it is empty.
        has_lossy_edge: the band ends well below half the sample rate, and as steeply as an
            encoder's low-pass: an MP3 converted to WAV, or an upsampled file.
        unrelated_db, mono_db: levels by band, see `fold.band_levels`.
    """

    loudness_lufs: float | None
    true_peak_db: float
    clipped_samples: int
    over_samples: int
    peak_db: float
    silences_s: tuple[tuple[float, float], ...]
    dc_offset: float
    channels: Channels
    bandwidth_hz: float | None
    has_lossy_edge: bool
    unrelated_db: tuple[float, ...]
    mono_db: tuple[float, ...]


def measure_quality(waveform: np.ndarray, sample_rate: int) -> Quality:
    """The facts of a recording `[C, N]`, full scale at 1, at `sample_rate` Hz.

    Raises:
        ValueError: not `[C, N]` with at least a sample.
    """
    check_shape(waveform)
    means = waveform.mean(axis=1, dtype=np.float64)
    loudness_lufs = integrated_loudness(waveform, sample_rate)
    bandwidth_hz, has_edge = find_bandwidth(waveform, sample_rate)
    unrelated_db, mono_db = band_levels(waveform, sample_rate)
    return Quality(
        loudness_lufs=loudness_lufs if math.isfinite(loudness_lufs) else None,
        true_peak_db=true_peak_db(waveform, sample_rate),
        clipped_samples=count_clipped(waveform),
        over_samples=int(np.count_nonzero(np.abs(waveform) > 1.0)),
        peak_db=decibels(float(np.abs(waveform).max()) ** 2),
        silences_s=tuple(find_silences(waveform, sample_rate)),
        dc_offset=float(means[np.abs(means).argmax()]),
        channels=classify_channels(waveform),
        bandwidth_hz=bandwidth_hz,
        has_lossy_edge=has_edge,
        unrelated_db=tuple(unrelated_db.tolist()),
        mono_db=tuple(mono_db.tolist()),
    )


def silence_quality(n_channels: int, duration_s: float) -> Quality:
    """The facts of digital silence, without measuring."""
    channels: Channels = "mono" if n_channels == 1 else "identical"
    nothing = (len(BAND_EDGES_HZ) - 1) * (FLOOR_DB,)
    return Quality(
        loudness_lufs=None,
        true_peak_db=FLOOR_DB,
        clipped_samples=0,
        over_samples=0,
        peak_db=FLOOR_DB,
        silences_s=((0.0, duration_s),),
        dc_offset=0.0,
        channels=channels,
        bandwidth_hz=None,
        has_lossy_edge=False,
        unrelated_db=nothing,
        mono_db=nothing,
    )


BlockQuality = tuple[float, float, Quality]
"""Start and length in seconds of a stretch, and its quality."""


def merge_qualities(measured: Sequence[BlockQuality]) -> Quality:
    """The quality of a file from that of its blocks. Loudness is their mean power, without blocks
    10 LU below it, as BS.1770 gates its shorter blocks."""
    seconds = np.array([length_s for _, length_s, _ in measured])
    qualities = [quality for _, _, quality in measured]
    levels = [-math.inf if q.loudness_lufs is None else q.loudness_lufs for q in qualities]
    powers = 10.0 ** (np.array(levels) / 10.0)
    heard, loudness = powers > 0.0, None
    if heard.any():
        mean = float(np.average(powers[heard], weights=seconds[heard]))
        loud = heard & (powers >= 0.1 * mean)
        loudness = 10.0 * math.log10(float(np.average(powers[loud], weights=seconds[loud])))
    silences: list[tuple[float, float]] = []
    for at_s, _, quality in measured:
        for start_s, stop_s in quality.silences_s:
            if silences and at_s + start_s - silences[-1][1] < 1e-3:
                silences[-1] = (silences[-1][0], at_s + stop_s)
            else:
                silences.append((at_s + start_s, at_s + stop_s))
    sounding = [q for q in qualities if q.bandwidth_hz is not None] or qualities
    widest = max(sounding, key=lambda q: q.bandwidth_hz or 0.0)
    found: list[Channels] = [q.channels for q in sounding]
    channels = "stereo" if "stereo" in found else max(found, key=found.count)
    return Quality(
        loudness_lufs=loudness,
        true_peak_db=max(q.true_peak_db for q in qualities),
        clipped_samples=sum(q.clipped_samples for q in qualities),
        over_samples=sum(q.over_samples for q in qualities),
        peak_db=max(q.peak_db for q in qualities),
        silences_s=tuple(silences),
        dc_offset=max((q.dc_offset for q in qualities), key=abs),
        channels=channels,
        bandwidth_hz=widest.bandwidth_hz,
        has_lossy_edge=widest.has_lossy_edge,
        unrelated_db=_mean_levels([q.unrelated_db for q in qualities], seconds),
        mono_db=_mean_levels([q.mono_db for q in qualities], seconds),
    )


def _mean_levels(levels_db: Sequence[Sequence[float]], seconds: np.ndarray) -> tuple[float, ...]:
    powers = np.average(10.0 ** (np.array(levels_db) / 10.0), axis=0, weights=seconds)
    return tuple((10.0 * np.log10(powers)).tolist())


def count_clipped(waveform: np.ndarray) -> int:
    """Count the samples of `[C, N]` in runs of `CLIPPED_RUN` or more equal values at full scale or
    beyond: the crest of a clean bass is nearly flat, but only nearly. Samples that merely exceed
    full scale, as floats can, are not clipped."""
    n_clipped = 0
    for channel in waveform:
        at_full = np.abs(channel) >= FULL_SCALE
        held = np.concatenate([[False], at_full[1:] & (channel[1:] == channel[:-1]), [False]])
        edges = np.flatnonzero(held[1:] != held[:-1])
        # A run of n samples has n - 1 that equal the previous one.
        runs = edges[1::2] - edges[::2] + 1
        n_clipped += int(runs[runs >= CLIPPED_RUN].sum())
    return n_clipped


def find_silences(waveform: np.ndarray, sample_rate: int) -> list[tuple[float, float]]:
    """Find stretches of `[C, N]`, in seconds, whose 50 ms frames stay below `SILENT_DB` RMS for
    `SHORTEST_SILENCE_S` or longer."""
    n_frame = max(1, round(FRAME_S * sample_rate))
    n_samples = waveform.shape[1]
    starts = np.arange(0, n_samples, n_frame)
    power = np.zeros(len(starts))
    for channel in waveform:
        sums = np.add.reduceat(np.square(channel, dtype=np.float32), starts, dtype=np.float64)
        power = np.maximum(power, sums / np.diff(np.append(starts, n_samples)))
    silent = np.concatenate([[False], power < 10.0 ** (SILENT_DB / 10.0), [False]])
    edges = np.flatnonzero(silent[1:] != silent[:-1]) * n_frame
    edges_s = np.minimum(edges, n_samples) / sample_rate
    return [
        (float(start_s), float(stop_s))
        for start_s, stop_s in zip(edges_s[::2], edges_s[1::2], strict=True)
        if stop_s - start_s >= SHORTEST_SILENCE_S
    ]


def classify_channels(waveform: np.ndarray) -> Channels:
    """What the channels of `[C, N]` really are, see `Quality`."""
    if len(waveform) == 1:
        return "mono"
    powers = [float(np.square(channel, dtype=np.float64).mean()) for channel in waveform]
    if max(powers) == 0.0:
        return "identical"
    if len(waveform) == 2 and min(powers) < 1e-6 * max(powers):
        return "one-sided"
    # For two channels these are mid and side.
    mid = waveform.mean(axis=0, dtype=np.float64)
    mid_power = float(np.square(mid).mean())
    side_power = float(np.mean([np.square(channel - mid).mean() for channel in waveform]))
    if mid_power < 10.0 ** (NEAR_MONO_DB / 10.0) * side_power:
        return "inverted"
    side_db = decibels(side_power / mid_power)
    if side_db <= IDENTICAL_DB:
        return "identical"
    return "near mono" if side_db <= NEAR_MONO_DB else "stereo"


def find_bandwidth(waveform: np.ndarray, sample_rate: int) -> tuple[float | None, bool]:
    """The frequency in Hz above which `[C, N]` is empty, and whether it ends in an encoder's
    low-pass; None and False for silence or less than 0.1 s."""
    n_window = round(sample_rate / 10)
    if waveform.shape[1] < n_window:
        return None, False
    total, frequency = np.zeros(n_window // 2 + 1), np.zeros(0)
    for block in blocks(waveform):
        if block.shape[1] >= n_window:
            power, frequency = welch_spectrum(block, sample_rate, n_window, scaling="spectrum")
            # The loudest block counts at each frequency: hats may only play in a part.
            total = np.maximum(total, power)
    level = 10.0 * np.log10(np.maximum(2.0 * uniform_filter1d(total, 9), 1e-20))
    heard = np.flatnonzero(level > max(BAND_FLOOR_DB, float(level.max()) + BAND_RANGE_DB))
    if not len(heard):
        return None, False
    # A decoder's clipping leaves some noise above the low-pass: the edge is where everything above
    # is far below the level just under it.
    bin_hz = float(frequency[1])
    n_edge, n_gap = round(EDGE_HZ / bin_hz), round(EDGE_GAP_HZ / bin_hz)
    loudest_above = np.maximum.accumulate(level[::-1])[::-1]
    edges = np.arange(round(LOWEST_EDGE_HZ / bin_hz), int(HIGHEST_EDGE * len(level)) - n_gap)
    if not len(edges):
        return float(frequency[heard[-1]]), False
    under = median_filter(level, n_edge)[edges - n_edge // 2]
    falls = under - loudest_above[edges + n_gap]
    steepest = int(falls.argmax())
    if falls[steepest] < EDGE_DB:
        return float(frequency[heard[-1]]), False
    return float(frequency[edges[steepest]]), True
