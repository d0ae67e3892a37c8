"""Candidates for the tempo and the bar lines of a recording, and their odds.

A beat tracker that looks only at periods reads half of all trap at half its tempo: what separates
140 from 70 is where in the bar things fall. So repeating periods (autocorrelation of the onset
strength in four bands, under a comb of multiples) only nominate candidates. Each is then laid over
the recording as a bar of sixteenths, at each of its 16 phases, and the resulting bar is scored: a
kick on the one, the backbeat on three (half time) or on two and four, hats on eighths, a bass that
repeats with the bar. The score is linear, with fitted weights.

Sources: Scheirer, Tempo and beat analysis of acoustic musical signals (JASA 1998), for bands and
combs; Klapuri, Eronen & Astola, Analysis of the meter of acoustic musical signals (TASLP 2006),
for choosing pulse, bar and phase at once. 4/4 is assumed, as hip-hop does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from musicgen_lora.listening.rhythm.onsets import spectral_flux

SLOWEST_BPM, FASTEST_BPM = 55.0, 190.0
BANDS = (
    # Lower and upper edge in Hz, window in s, and a sufficient sample rate.
    (20.0, 120.0, 0.096, 1_000),
    (150.0, 800.0, 0.046, 4_000),
    (1000.0, 5000.0, 0.023, 12_000),
    (6000.0, 14000.0, 0.012, 32_000),
)
BASS, BODY, SNAP, HATS, NOISE = range(5)
"""Rows of the onset strengths; NOISE is where SNAP and HATS rise together: snares and claps."""
FRAME_RATE = 200.0
BLOCK_S = 60.0
"""Long recordings are analysed in blocks, with constant memory."""
N_STEPS = 16
N_CANDIDATES = 10
LONGEST_LAG = 0.75
"""Share of the recording; longer lags have too few products to be reliable."""
UNHEARD = 0.4
"""A typical value, used for a correlation that the recording is too short to measure."""
SWING = 0.2
"""Every second sixteenth may come this share of a sixteenth late."""
STEADY_SHARE = 0.3
"""Quantile of a step's strength over bars: what 70 % of them reach in spite of fills and drops."""

WEIGHTS = {
    "octaves from 120 BPM": 3.37,
    "octaves from 120 BPM, squared": -1.54,
    "bass on 1": 1.09,
    "bass on 2 and 4": -0.66,
    "snare on 1": 0.26,
    "snare on offbeats": 0.76,
    "hats on beats": -0.28,
    "hats on offbeats": 0.76,
    "bass between sixteenths": -4.98,
    "snare between sixteenths": -6.91,
    "noise on 3": 0.32,
    "noise on offbeats": -0.46,
    "steady bass on 1": 0.06,
    "steady bass on 2 and 4": 0.32,
    "steady noise on 2 and 4": 0.73,
    "steady bass elsewhere": 0.83,
    "steady backbeat over the rest": 0.69,
    "bass repeats with the beat": 1.97,
    "bass repeats with the bar": 2.22,
    "body repeats with the bar": 2.66,
    "snap repeats with the sixteenth": -6.08,
    "snap repeats with the beat": -0.56,
    "hats repeat with the bar": 1.53,
}
"""Log odds per unit of each feature of `_bar_features`, in its order. Fitted by
`benchmarks/listening/analysis_accuracy.py --fit` on clips that no report uses: 808 beats of seeds
1000 to 1299 and training clips of the pretraining corpus, in 15 other styles."""


@dataclass(frozen=True)
class Hypotheses:
    """Possible bars of a recording, one per row.

    Args:
        bpm: `[H]`.
        first_bar_s: `[H]`, time of the first bar line, from 0 up to a bar.
        features: `[H, len(WEIGHTS)]`, see `_bar_features`.
        pulse: `[H]`, share of the onset strength that repeats with the beat, up to 1.
    """

    bpm: np.ndarray
    first_bar_s: np.ndarray
    features: np.ndarray
    pulse: np.ndarray

    @property
    def odds(self) -> np.ndarray:
        """Log odds `[H]`, up to a constant."""
        return self.features @ np.array(list(WEIGHTS.values()))


def onset_strengths(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Onset strength of a recording `[C, N]` in `BANDS`, `[4, F]` at 200 frames per second.

    Raises:
        ValueError: not `[C, N]`, or NaN or infinite samples.
    """
    if waveform.ndim != 2:
        raise ValueError(f"A waveform is [C, N], not {waveform.shape}.")
    n_block, n_lead = round(BLOCK_S * sample_rate), round(0.5 * sample_rate)
    n_frames = round(BLOCK_S * FRAME_RATE)
    blocks = [np.zeros((len(BANDS), 0), dtype=np.float32)]
    for start in range(0, waveform.shape[1], n_block):
        lead = min(start, n_lead)
        block = waveform[:, start - lead : start + n_block + n_lead]
        mono = block.mean(axis=0, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise ValueError("The waveform has NaN or infinite samples.")
        skipped = round(lead / sample_rate * FRAME_RATE)
        blocks.append(_block_strengths(mono, sample_rate)[:, skipped : skipped + n_frames])
    strengths = np.concatenate(blocks, axis=1)
    return strengths[:, : int(waveform.shape[1] / sample_rate * FRAME_RATE) + 1]


def _block_strengths(mono: np.ndarray, sample_rate: int) -> np.ndarray:
    fluxes = []
    for low_hz, high_hz, window_s, rate in BANDS:
        band = mono if rate == sample_rate else soxr.resample(mono, sample_rate, rate, "LQ")
        fluxes.append(spectral_flux(band, rate, low_hz, high_hz, window_s)[0])
    n_frames = min(map(len, fluxes))
    return np.stack([flux[:n_frames] for flux in fluxes]).astype(np.float32)


def find_hypotheses(
    strengths: np.ndarray, bpms: np.ndarray, correlation: np.ndarray
) -> Hypotheses | None:
    """Every candidate tempo at each of its 16 phases; None if no bar fits into the recording.

    Args:
        strengths: `[4, F]`, see `onset_strengths`.
        bpms: the candidates `[T]`, from `find_tempi`.
        correlation: `[4, L]`, from `find_tempi`.
    """
    spread = strengths.std(axis=1, keepdims=True)
    units = np.where(spread > 0.0, strengths / np.maximum(spread, 1e-9), 0.0)
    # Played notes deviate by a frame or two.
    reached = maximum_filter1d(units, 5, axis=1)
    noise = np.sqrt(reached[SNAP] * reached[HATS]) if spread[HATS] > 0.0 else reached[SNAP]
    reached = np.concatenate([reached, noise[None]])
    bpm_rows, start_rows, feature_rows, pulse_rows = [], [], [], []
    for bpm in bpms:
        step = 15.0 * FRAME_RATE / bpm
        offset = _eighth_offset(units.sum(axis=0), 2.0 * step)
        if strengths.shape[1] - offset < N_STEPS * step:
            continue
        repeats = _at(correlation, step * np.array([1.0, 4.0, 16.0]))
        repeats = np.where(np.isfinite(repeats), repeats, UNHEARD)
        starts = offset + step * np.arange(N_STEPS)
        bpm_rows += [float(bpm)] * N_STEPS
        start_rows.append(starts / FRAME_RATE % (240.0 / bpm))
        feature_rows.append(_bar_features(bpm, _bar_profile(reached, offset, step), repeats))
        pulse_rows += [float(repeats[:, 1:].max(axis=1).mean())] * N_STEPS
    if not bpm_rows:
        return None
    return Hypotheses(
        np.array(bpm_rows),
        np.concatenate(start_rows),
        np.concatenate(feature_rows),
        np.array(pulse_rows),
    )


def find_tempi(strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeating tempos `[T]`, with their octaves, and the autocorrelation `[4, L]` of the bands
    that they were found in; no tempo if the recording is too short."""
    n_frames = strengths.shape[1]
    centred = strengths - strengths.mean(axis=1, keepdims=True)
    centred = gaussian_filter1d(centred.astype(np.float64), 1.0, axis=1)
    spectrum = np.fft.rfft(centred, 1 << (2 * n_frames).bit_length(), axis=1)
    n_lags = max(2, int(LONGEST_LAG * n_frames))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :n_lags]
    # Unbiased: a long lag has fewer products.
    fewer = 1.0 - np.arange(correlation.shape[1]) / n_frames
    correlation /= np.maximum(correlation[:, :1], 1e-9) * fewer
    heard = correlation[strengths.std(axis=1) > 0.0].mean(axis=0, keepdims=True)
    bpms = np.exp(np.arange(np.log(SLOWEST_BPM), np.log(FASTEST_BPM), 0.0025))
    combs = np.stack([_at(heard, 60.0 * FRAME_RATE * n / bpms)[0] for n in (1, 2, 4, 8)])
    n_teeth = np.isfinite(combs).sum(axis=0)
    salience = np.where(n_teeth > 0, np.nansum(combs, axis=0) / np.maximum(n_teeth, 1), -np.inf)
    peaks = np.flatnonzero((salience >= maximum_filter1d(salience, 7)) & (n_teeth > 0))
    peaks = peaks[np.argsort(-salience[peaks])][:N_CANDIDATES]
    tempi: list[float] = []
    for rank, peak in enumerate(peaks):
        for octave in (1.0, 2.0, 0.5) if rank < 6 else (1.0,):
            bpm = _refined(heard[0], float(bpms[peak]) * octave)
            is_new = all(abs(bpm / other - 1.0) >= 0.015 for other in tempi)
            if SLOWEST_BPM <= bpm <= FASTEST_BPM and is_new:
                tempi.append(bpm)
    return np.array(tempi), correlation


def repetition(strengths: np.ndarray, correlation: np.ndarray, bpm: float) -> float:
    """How well the onsets repeat after a beat, half a bar or a bar of a tempo, whichever is best: 0
    for not at all, 1 for exactly, NaN if the recording is too short.

    Args:
        strengths: `[4, F]`; bands without onsets don't count.
        correlation: `[4, L]`, from `find_tempi`.
    """
    heard = correlation[strengths.std(axis=1) > 0.0]
    repeats = _at(heard, 60.0 * FRAME_RATE / bpm * np.array([1.0, 2.0, 4.0])).mean(axis=0)
    known = repeats[np.isfinite(repeats)]
    return float(np.clip(known.max(), 0.0, 1.0)) if len(known) else float("nan")


def _at(rows: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """`rows` `[R, L]` at fractional lags `[M]`, as `[R, M]`; NaN beyond the last."""
    index = np.minimum(lags, rows.shape[1] - 2.0).astype(int)
    part = lags - index
    values = rows[:, index] * (1.0 - part) + rows[:, index + 1] * part
    return np.where(lags <= rows.shape[1] - 1.0, values, np.nan)


def _refined(correlation: np.ndarray, bpm: float) -> float:
    """Refine a tempo beyond frame resolution: find the peak of a correlation `[L]` at 1, 2, 4 ...
    32 beats, each near where the previous one points."""
    lag = 60.0 * FRAME_RATE / bpm
    for n_beats in (1, 2, 4, 8, 16, 32):
        reach = 3 if n_beats == 1 else int(np.clip(round(0.012 * n_beats * lag), 2, 6))
        centre = round(n_beats * lag)
        if centre + reach + 1 >= len(correlation):
            break
        nearby = correlation[centre - reach : centre + reach + 1]
        peak = int(nearby.argmax())
        if 0 < peak < 2 * reach:
            left, middle, right = nearby[peak - 1 : peak + 2]
            bend = left - 2.0 * middle + right
            shift = 0.5 * (left - right) / bend if bend < 0.0 else 0.0
            lag = (centre - reach + peak + float(shift)) / n_beats
    return 60.0 * FRAME_RATE / lag


def _eighth_offset(strength: np.ndarray, eighth: float) -> float:
    """First frame of the grid of eighths, `eighth` frames apart, with most of `strength` `[F]`.
    Eighths, because swing doesn't move them."""
    offsets = np.arange(0.0, eighth)
    pulses = np.arange(max(1, int((len(strength) - 1 - eighth) / eighth))) * eighth
    frames = np.minimum(np.round(offsets[:, None] + pulses).astype(int), len(strength) - 1)
    return float(offsets[strength[frames].mean(axis=1).argmax()])


def _bar_profile(reached: np.ndarray, offset: float, step: float) -> list[np.ndarray]:
    """The mean bar, from frame `offset` on: strength on each of its 16 steps, the same with swing,
    what most bars reach there, and the mean half a step later; `[5, 16]` each."""
    n_frames = reached.shape[1]
    times = offset + step * np.arange(int((n_frames - 1 - offset) / step) + 1)
    n_bars, n_first = divmod(len(times), N_STEPS)

    def fold(late: float) -> np.ndarray:
        """Values `[5, bars, 16]`; the last bar has only its first steps, then zeros."""
        frames = np.round(times + late * step).astype(int)
        values = np.where(frames < n_frames, reached[:, np.minimum(frames, n_frames - 1)], 0.0)
        return np.pad(values, ((0, 0), (0, N_STEPS - n_first))).reshape(-1, n_bars + 1, N_STEPS)

    n_heard = (n_bars + (np.arange(N_STEPS) < n_first)).astype(reached.dtype)
    bars = fold(0.0)
    mean, swung, between = (own.sum(axis=1) / n_heard for own in (bars, fold(SWING), fold(0.5)))
    whole, rest = bars[..., :n_first], bars[:, :n_bars, n_first:]
    steady = [np.quantile(part, STEADY_SHARE, axis=1) for part in (whole, rest)]
    return [mean, swung, np.concatenate(steady, axis=1), between]


def _bar_features(bpm: float, bar: list[np.ndarray], repeats: np.ndarray) -> np.ndarray:
    """The features, in the order of `WEIGHTS`, with each of the 16 steps as the bar line:
    `[16, len(WEIGHTS)]`.

    Args:
        bar: `_bar_profile`.
        repeats: `[4, 3]`, autocorrelation at a sixteenth, a beat and a bar.
    """
    turned = (np.arange(N_STEPS)[:, None] + np.arange(N_STEPS)) % N_STEPS
    # [5, 16, 16] each: for each bar line, the steps from it on.
    mean, swung, steady, between = (np.take(part, turned, axis=1) for part in bar)
    mean[..., 1::2] = np.maximum(mean[..., 1::2], swung[..., 1::2])
    snare = 0.5 * (mean[BODY] + mean[SNAP])
    octaves = float(np.log2(bpm / 120.0))
    backbeats = [4, 12]
    offbeats = [2, 6, 10, 14]
    elsewhere = [step for step in range(1, N_STEPS) if step not in (4, 8, 12)]
    noise = steady[NOISE]
    on_three, on_two_and_four = noise[:, 8], noise[:, backbeats].min(axis=1)
    columns = [
        octaves,
        octaves**2,
        mean[BASS, :, 0],
        mean[BASS][:, backbeats].mean(axis=1),
        snare[:, 0],
        snare[:, offbeats].mean(axis=1),
        mean[HATS][:, ::4].mean(axis=1),
        mean[HATS][:, offbeats].mean(axis=1),
        between[BASS].mean(axis=1),
        (0.5 * (between[BODY] + between[SNAP])).mean(axis=1),
        mean[NOISE, :, 8],
        mean[NOISE][:, offbeats].mean(axis=1),
        steady[BASS, :, 0],
        steady[BASS][:, backbeats].mean(axis=1),
        on_two_and_four,
        steady[BASS][:, 1:].max(axis=1),
        np.maximum(on_three, on_two_and_four) - noise[:, elsewhere].max(axis=1),
        repeats[BASS, 1],
        repeats[BASS, 2],
        repeats[BODY, 2],
        repeats[SNAP, 0],
        repeats[SNAP, 1],
        repeats[HATS, 2],
    ]
    return np.stack([np.broadcast_to(column, N_STEPS) for column in columns], axis=1)
