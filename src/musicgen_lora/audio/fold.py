"""Finds bands in which out-of-phase channels cancel in mono, and folds to mono without losing them.

MusicGen's mono models hear the mean of the channels. A stereo widener on the bass inverts one
channel: each sounds complete alone, but the mean has no bass. The mean of unrelated channels has a
known power; bands well below it cancel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from musicgen_lora.audio.spectra import welch_spectrum

BAND_EDGES_HZ = (20.0, 60.0, 120.0, 180.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
N_BANDS = len(BAND_EDGES_HZ) - 1
BASS_BELOW_HZ = 180.0
CANCELLED_DB = -3.0
"""Channels cancel in a band if their mean lies this far below the mean of unrelated channels. (Two
equal channels would give it twice the power.)"""
HEARD_DB, HEARD_BELOW_DB = -70.0, 30.0
"""A band counts if it has at least this level and is no further than this below the loudest."""
WINDOW_S = 0.1
PAD_S = 0.25
FLOOR_DB = -120.0


def band_levels(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Level of each band of `BAND_EDGES_HZ` in dBFS: that of the mean of the channels `[C, N]` if
    they were unrelated, and the actual one. Both -120 for less than 0.1 s."""
    n_window = round(WINDOW_S * sample_rate)
    if waveform.shape[1] < n_window:
        return np.full(N_BANDS, FLOOR_DB), np.full(N_BANDS, FLOOR_DB)
    powers = []
    for signal in (*waveform, waveform.mean(axis=0)):
        power, frequency = welch_spectrum(signal[None], sample_rate, n_window, noverlap=0)
        edges = np.searchsorted(frequency, BAND_EDGES_HZ)
        powers.append([float(power[a:b].sum()) for a, b in itertools.pairwise(edges)])
    # A density's bins are 1 / WINDOW_S Hz wide.
    decibels = 10.0 * np.log10(np.maximum(np.array(powers) / WINDOW_S, 10.0 ** (FLOOR_DB / 10.0)))
    total = 10.0 * np.log10((10.0 ** (decibels[:-1] / 10.0)).sum(axis=0))
    unrelated = total - 20.0 * np.log10(len(waveform))
    return np.maximum(unrelated, FLOOR_DB), decibels[-1]


def cancelled_bands(
    unrelated_db: Sequence[float] | np.ndarray, mono_db: Sequence[float] | np.ndarray
) -> list[tuple[float, float]]:
    """Bands, as (low, high) in Hz, that are audible in the channels and cancel in their mean;
    adjacent ones are joined. The levels come from `band_levels`."""
    least_db = max(HEARD_DB, max(unrelated_db) - HEARD_BELOW_DB)
    bands: list[tuple[float, float]] = []
    edges = itertools.pairwise(BAND_EDGES_HZ)
    for (low, high), whole, left in zip(edges, unrelated_db, mono_db, strict=True):
        if whole < least_db or left - whole > CANCELLED_DB:
            continue
        if bands and bands[-1][1] == low:
            bands[-1] = (bands[-1][0], high)
        else:
            bands.append((low, high))
    return bands


def fold_to_mono(
    waveform: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """The mean `[1, N]` of channels `[C, N]`, after inverting the channels that would cancel, in
    those bands only; and the bands."""
    mono = waveform.mean(axis=0, keepdims=True, dtype=np.float32)
    bands = cancelled_bands(*band_levels(waveform, sample_rate)) if len(waveform) > 1 else []
    if not bands:
        return mono, bands
    n_samples = waveform.shape[1]
    n_fft = 1 << (n_samples + round(PAD_S * sample_rate)).bit_length()
    frequency = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
    spectra = [np.fft.rfft(channel, n_fft) for channel in waveform]
    # One channel is the reference in all bands, so that adjacent bands fit together.
    leader = max(range(len(waveform)), key=lambda index: float(np.square(waveform[index]).sum()))
    change = np.zeros(len(frequency), dtype=np.complex64)
    for low, high in bands:
        share = _crossover(frequency, low) - _crossover(frequency, high)
        for spectrum in spectra:
            if float(np.vdot(spectra[leader] * share, spectrum).real) < 0.0:
                change -= (2.0 / len(spectra) * share * spectrum).astype(np.complex64)
    return mono + np.fft.irfft(change, n_fft)[None, :n_samples].astype(np.float32), bands


def _crossover(frequency: np.ndarray, edge_hz: float) -> np.ndarray:
    """0 below an edge and 1 above it, with a transition a third of the edge wide; the outermost
    edges have none."""
    if edge_hz in (BAND_EDGES_HZ[0], BAND_EDGES_HZ[-1]):
        return np.full(len(frequency), 1.0 if edge_hz == BAND_EDGES_HZ[0] else 0.0, np.float32)
    place = np.clip((frequency / edge_hz - 1.0) / 0.33 + 0.5, 0.0, 1.0)
    return (0.5 - 0.5 * np.cos(np.pi * place)).astype(np.float32)


def name_bands(bands: Sequence[tuple[float, float]]) -> str:
    """Formats bands as in "20-180 Hz, 2-4 kHz"."""
    return ", ".join(
        f"{low:g}-{high:g} Hz" if low < 1000.0 else f"{low / 1000.0:g}-{high / 1000.0:g} kHz"
        for low, high in bands
    )
