"""The report's plots. Each function returns its own figure: no pyplot, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.signal.windows import hann

from musicgen_lora.audio.spectra import magnitudes_at
from musicgen_lora.evaluation.sound.comparison import BY_NAME, Descriptor, band_label
from musicgen_lora.fonts import said
from musicgen_lora.listening.descriptors import BANDS_HZ, band_name
from musicgen_lora.plural import count

COLOURS = {"base": "#8a8f98", "adapter": "#d9480f", "reference": "#1971c2"}
"""Distinguishable for colour-blind readers; markers differ as well."""
MARKERS = {"base": "o", "adapter": "D", "reference": "s"}
NAMES = {"base": "base", "adapter": "with adapter", "reference": "held-out audio"}
INK = "#23272e"
DYNAMIC_RANGE_DB = 70.0
LOWEST_HZ = 25.0
N_ROWS, N_COLUMNS = 160, 480
DRAWN = (
    *("band_20_60_share", "band_60_120_share", "sub_f0_hz"),
    *("bass_glide_semitones", "bass_decay_s", "kick_onset_rate_hz"),
    *("hat_onset_rate_hz", "roll_density", "swing"),
    *("tempo_confidence", "spectral_centroid_hz", "crest_db"),
)
"""Descriptors shown as violins, those that make an 808 beat; all others are in the table."""
VIOLINS_A_ROW = 3
FEWEST_FOR_VIOLINS = 5
"""Fewest clips for which a violin is drawn; with fewer it would be a guess."""


def png_bytes(figure: Figure) -> bytes:
    target = BytesIO()
    FigureCanvasAgg(figure).print_png(target)
    return target.getvalue()


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    clean(axes)
    return figure, axes


def clean(axes: Axes) -> None:
    """Give axes the common style."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b6bbc3")
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_axisbelow(True)


def legend_mark(side: str, label: str) -> Line2D:
    """A side's marker for a legend."""
    return Line2D([], [], color=COLOURS[side], marker=MARKERS[side], linewidth=0, label=said(label))


def _legend_above(axes: Axes, marks: list[Line2D]) -> None:
    if marks:
        axes.legend(
            handles=marks,
            frameon=False,
            fontsize=9,
            ncols=len(marks),
            loc="lower left",
            bbox_to_anchor=(0, 1),
        )


def _draw_mark(axes: Axes, x: float, y: float, side: str, *, size: int) -> None:
    """Draw a bold marker of a side above all faint ones."""
    axes.plot(x, y, MARKERS[side], color=COLOURS[side], markersize=size, zorder=3)


def loss_plot(loss: Mapping[str, Any]) -> Figure:
    """Loss by codebook, base vs. adapter; each thin line is a source."""
    results = loss["codebooks"]
    figure, axes = _axes(max(6.4, 1.3 * len(results) + 1.2), 3.6)
    for k, result in enumerate(results):
        for source in loss["sources"]:
            axes.plot(
                [k - 0.18, k + 0.18],
                [source["base"][k], source["adapter"][k]],
                color="#c4c9d1",
                linewidth=0.8,
                zorder=1,
            )
        for side, offset in (("base", -0.18), ("adapter", 0.18)):
            value = result[f"mean_{side}"]
            _draw_mark(axes, k + offset, value, side, size=9)
            # Outside the pair, clear of the sources' lines.
            axes.annotate(
                f"{value:.2f}",
                (k + offset, value),
                xytext=(-9 if side == "base" else 9, 0),
                textcoords="offset points",
                ha="right" if side == "base" else "left",
                va="center",
                fontsize=8,
                color=COLOURS[side] if side == "adapter" else INK,
            )
    axes.set_xlim(-0.6, len(results) - 0.4)
    axes.margins(y=0.12)
    axes.set_xticks(range(len(results)), [said(f"codebook {k + 1}") for k in range(len(results))])
    axes.set_ylabel(said("loss (nats per token), lower is better"), fontsize=9, color=INK)
    axes.grid(axis="y", color="#e8eaee")
    axes.set_title(
        said(f"Held-out loss, n = {count(loss['n_sources'], 'source')} (one thin line each)"),
        fontsize=10,
        color=INK,
        loc="left",
    )
    axes.legend(
        handles=[legend_mark(side, NAMES[side]) for side in ("base", "adapter")],
        frameon=False,
        fontsize=9,
    )
    return figure


def positions_plot(positions: Sequence[Mapping[str, Any]]) -> Figure:
    """The loss along the clip, base vs. adapter; each marker is a stretch."""
    figure, axes = _axes(8.2, 3.0)
    middles = [0.5 * (own["from_s"] + own["to_s"]) for own in positions]
    for side in ("base", "adapter"):
        values = [own["loss"][f"mean_{side}"] for own in positions]
        axes.plot(
            middles, values, color=COLOURS[side], marker=MARKERS[side], markersize=7, linewidth=1.4
        )
    axes.set_xlim(0.0, positions[-1]["to_s"])
    axes.margins(y=0.15)
    axes.set_xlabel(said("seconds from the start of the window"), fontsize=9, color=INK)
    axes.set_ylabel(said("loss (nats per token)"), fontsize=9, color=INK)
    axes.grid(axis="y", color="#e8eaee")
    _legend_above(axes, [legend_mark(side, NAMES[side]) for side in ("base", "adapter")])
    return figure


def bands_plot(
    facts: Mapping[str, Sequence[Mapping[str, float | None]]],
) -> Figure:
    """Energy by band in dB relative to the total; faint markers are clips, bold ones their mean.

    Args:
        facts: descriptors of the clips of "base", "adapter" and "reference", if there are any.
    """
    figure, axes = _axes(8.2, 3.6)
    sides = [side for side in COLOURS if facts.get(side)]
    for index, side in enumerate(sides):
        offset = 0.24 * (index - (len(sides) - 1) / 2)
        for band, (low, high) in enumerate(BANDS_HZ):
            shares = [clip[f"{band_name(low, high)}_share"] for clip in facts[side]]
            shares = np.array([share for share in shares if share is not None], np.float64)
            if not len(shares):
                continue
            levels = 10.0 * np.log10(np.maximum(shares, 1e-6))
            mean = 10.0 * np.log10(max(float(shares.mean()), 1e-6))
            spot = np.full(len(levels), band + offset)
            axes.plot(spot, levels, ".", color=COLOURS[side], alpha=0.3, markersize=5, zorder=2)
            _draw_mark(axes, band + offset, mean, side, size=8)
    labels = [said(band_label(low, high)) for low, high in BANDS_HZ]
    axes.set_xticks(range(len(BANDS_HZ)), labels)
    axes.set_ylabel(said("share of energy (dB)"), fontsize=9, color=INK)
    axes.grid(axis="y", color="#e8eaee")
    marks = [legend_mark(side, f"{said(NAMES[side])} (n = {len(facts[side])})") for side in sides]
    _legend_above(axes, marks)
    return figure


def violins_plot(facts: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Figure:
    """A violin per side for each descriptor; points are clips, the line is the median.

    Args:
        facts: descriptors of the clips of "base", "adapter" and "reference", if there are any.
    """
    sides = [side for side in COLOURS if facts.get(side)]
    n_rows = -(-len(DRAWN) // VIOLINS_A_ROW)
    figure = Figure(figsize=(8.2, 2.0 * n_rows + 0.4), dpi=130, layout="constrained")
    all_axes = figure.subplots(n_rows, VIOLINS_A_ROW).flat
    for axes, name in zip(all_axes, DRAWN, strict=True):
        clean(axes)
        _draw_violins(axes, BY_NAME[name], {side: facts[side] for side in sides})
    marks = [legend_mark(side, f"{said(NAMES[side])} (n = {len(facts[side])})") for side in sides]
    figure.legend(
        handles=marks, frameon=False, fontsize=9, ncols=len(marks), loc="outside lower center"
    )
    return figure


def _draw_violins(
    axes: Axes, shown: Descriptor, facts: Mapping[str, Sequence[Mapping[str, float | None]]]
) -> None:
    for place, (side, clips) in enumerate(facts.items()):
        values = np.array([clip[shown.name] for clip in clips], np.float64)
        values = shown.scale * values[np.isfinite(values)]
        if not len(values):
            continue
        colour = COLOURS[side]
        if len(values) >= FEWEST_FOR_VIOLINS and float(np.ptp(values)) > 1e-9 * abs(
            float(values.max())
        ):
            drawn = axes.violinplot(values, [place], widths=0.8, showextrema=False)
            for body in drawn["bodies"]:  # pyright: ignore[reportGeneralTypeIssues]
                body.set(facecolor=colour, alpha=0.28, linewidth=0)
        # Spread the points so that they don't overlap; deterministic.
        across = place + 0.22 * (np.arange(len(values)) / max(len(values) - 1, 1) - 0.5)
        axes.plot(across, values, ".", color=colour, markersize=4, alpha=0.75)
        middle = float(np.median(values))
        axes.plot([place - 0.3, place + 0.3], [middle, middle], color=colour, linewidth=2.2)
    unit = f" ({said(shown.unit)})" if shown.unit else ""
    axes.set_title(f"{said(shown.label)}{unit}", fontsize=9, color=INK, loc="left")
    axes.set_xticks([])
    axes.set_xlim(-0.6, len(facts) - 0.4)
    axes.grid(axis="y", color="#e8eaee")


def moves_plot(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Each descriptor's move from base to adapter, on a scale where the base is 0 and the held-out
    audio 1; None if no descriptor has such a move."""
    told = [row for row in rows if row["moved"] is not None and row["moved"]["share"] is not None]
    if not told:
        return None
    told.sort(key=lambda row: row["moved"]["share"])
    figure, axes = _axes(8.2, 0.36 * len(told) + 1.3)
    lowest, highest = -0.6, 1.8
    axes.axvline(0.0, color=COLOURS["base"], linewidth=1.2)
    axes.axvline(1.0, color=COLOURS["reference"], linewidth=1.2)
    for height, row in enumerate(told):
        moved = row["moved"]
        ends = np.clip([moved["ci_low"], moved["ci_high"]], lowest, highest)
        axes.plot(ends, [height, height], color=COLOURS["adapter"], linewidth=1.4, alpha=0.55)
        inside = lowest <= moved["share"] <= highest
        axes.plot(
            np.clip(moved["share"], lowest, highest),
            height,
            MARKERS["adapter"] if inside else (">" if moved["share"] > 0 else "<"),
            color=COLOURS["adapter"],
            markersize=7,
        )
    axes.set_xlim(lowest - 0.05, highest + 0.05)
    axes.set_yticks(range(len(told)), [said(BY_NAME[row["name"]].label) for row in told])
    axes.set_xticks(
        [0.0, 0.25, 0.5, 0.75, 1.0],
        [
            said("base"),
            *(said(f"{share} %") for share in (25, 50, 75)),
            said("held-out audio").replace(" ", "\n"),
        ],
    )
    axes.grid(axis="x", color="#e8eaee")
    _legend_above(axes, [legend_mark("adapter", "with adapter, 95 % CI")])
    return figure


def log_spectrogram(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Levels in dB `[160, up to 480]` of `[C, N]`, rows evenly spaced in octaves from 25 Hz to
    half the sample rate. Bass needs a long window, hi-hats a short one: from 100 to 400 Hz the
    two are crossfaded."""
    mono = waveform.mean(axis=0).astype(np.float64)
    edges = np.geomspace(LOWEST_HZ, sample_rate / 2.0, N_ROWS + 1)
    centres = np.sqrt(edges[1:] * edges[:-1])
    columns = np.linspace(0, len(mono) - 1, max(1, min(N_COLUMNS, len(mono) // 64)))
    shortness = np.clip(np.log2(centres / 100.0) / 2.0, 0.0, 1.0)[:, None]
    long, short = (_rows(mono, sample_rate, centres, columns, w) for w in (0.128, 0.032))
    return (1.0 - shortness) * long + shortness * short


def _rows(
    mono: np.ndarray, sample_rate: int, centres: np.ndarray, columns: np.ndarray, window_s: float
) -> np.ndarray:
    """Levels in dB at frequencies `[R]` (Hz) and samples `[M]`: `[R, M]`."""
    n_window = max(16, round(window_s * sample_rate))
    mono = np.pad(mono, (0, max(0, n_window - len(mono))))
    hop, n_fft = n_window // 8, 4 * n_window
    bins = np.round(centres * n_fft / sample_rate).astype(int)
    samples = (columns / hop).astype(int) * hop
    window = np.asarray(hann(n_window, sym=False))
    power = np.square(magnitudes_at(mono, window, samples, n_fft, bins))
    return 10.0 * np.log10(np.maximum(power, 1e-12))
