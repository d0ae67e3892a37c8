"""Small pictures and players for the report on a dataset, each as text to embed in a page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from html import escape

import matplotlib
import numpy as np
import soundfile
import soxr
from matplotlib.image import imsave
from scipy.signal.windows import hann

from musicgen_lora.audio.spectra import magnitudes
from musicgen_lora.page import data_uri

PLAYER_RATE = 24_000
PICTURE_RATE = 32_000
N_MELS, N_COLUMNS = 64, 240
LOWEST_HZ, HIGHEST_HZ = 30.0, 16_000.0
RANGE_DB = 70.0
BAR_WIDTH, CHART_HEIGHT = 34, 120


def mp3_uri(waveform: np.ndarray, sample_rate: int) -> str:
    """`[C, N]` as a mono MP3 in a data URI, small enough for a page with many."""
    mono = soxr.resample(waveform.mean(axis=0), sample_rate, PLAYER_RATE, "MQ")
    target = io.BytesIO()
    soundfile.write(
        target,
        np.clip(mono, -1.0, 1.0),
        PLAYER_RATE,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        # 48 kbit/s, of the 8 to 160 available at this rate.
        compression_level=0.74,
    )
    return data_uri("audio/mpeg", target.getvalue())


def waveform_svg(waveform: np.ndarray) -> str:
    """The outline of `[C, N]` as an SVG."""
    mono = waveform.mean(axis=0)
    parts = np.array_split(mono, min(N_COLUMNS, len(mono)))
    tops = [float(part.max()) for part in parts]
    lows = [float(part.min()) for part in parts]
    points = [f"{x},{30.0 - 28.0 * min(1.0, y):.1f}" for x, y in enumerate(tops)]
    points += [f"{x},{30.0 - 28.0 * max(-1.0, y):.1f}" for x, y in reversed([*enumerate(lows)])]
    return (
        f'<svg class="wave" viewBox="0 0 {len(parts)} 60" preserveAspectRatio="none" '
        f'role="img" aria-label="waveform"><polygon points="{" ".join(points)}"/></svg>'
    )


def mel_spectrogram_png(waveform: np.ndarray, sample_rate: int, *, is_large: bool = False) -> bytes:
    """A mel spectrogram of `[C, N]` at `sample_rate` Hz as a PNG: small, or large enough for a
    separate window."""
    n_columns, n_mels, scale = (1200, 128, 3) if is_large else (N_COLUMNS, N_MELS, 1)
    mono = waveform.mean(axis=0)
    n_window = 2048
    mono = np.pad(mono, (0, max(0, n_window - len(mono))))
    hop = max(256, len(mono) // n_columns)
    window = np.asarray(hann(n_window, sym=False))
    power = np.square(magnitudes(mono, window, hop, n_window, n_frames=max(1, len(mono) // hop)))
    level = 10.0 * np.log10(_mel_weights(sample_rate, n_window, n_mels) @ power + 1e-18)
    level = np.clip((level - level.max()) / RANGE_DB + 1.0, 0.0, 1.0).repeat(scale, axis=0)
    target = io.BytesIO()
    imsave(target, matplotlib.colormaps["magma"](level[::-1]), format="png")
    return target.getvalue()


@cache
def _mel_weights(sample_rate: int, n_window: int, n_mels: int) -> np.ndarray:
    """Triangles `[n_mels, n_window / 2 + 1]`, evenly spaced in mel (HTK's formula)."""
    frequency = np.fft.rfftfreq(n_window, 1.0 / sample_rate)
    highest = min(HIGHEST_HZ, sample_rate / 2.0)
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (LOWEST_HZ, highest))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, n_mels + 2) / 2595.0) - 1.0)
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rise, fall), 0.0, 1.0)


def bar_chart(counts: Mapping[str, int], label: str) -> str:
    """Counts by name as an SVG of bars, in the order given."""
    if not counts:
        return ""
    most = max(counts.values())
    width = BAR_WIDTH * len(counts)
    bars = []
    for index, (name, count) in enumerate(counts.items()):
        height = round((CHART_HEIGHT - 46) * count / most)
        x, y = index * BAR_WIDTH, CHART_HEIGHT - 30 - height
        middle = x + BAR_WIDTH // 2
        bars.append(
            f'<rect x="{x + 3}" y="{y}" width="{BAR_WIDTH - 6}" height="{height}"/>'
            f'<text x="{middle}" y="{y - 4}">{count or ""}</text>'
            f'<text x="{middle}" y="{CHART_HEIGHT - 14}">{escape(name)}</text>'
        )
    return (
        f'<svg class="chart" viewBox="0 0 {width} {CHART_HEIGHT}" width="{width}" '
        f'height="{CHART_HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(bars)}</svg>'
    )
