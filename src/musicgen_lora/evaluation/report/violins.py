"""How descriptors are spread over clips: two sides of one mean may have no clip in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musicgen_lora.evaluation.report.plots import (
    COLOURS,
    INK,
    NAMES,
    clean,
    legend_below,
    legend_mark,
    said,
)
from musicgen_lora.evaluation.sound.comparison import BY_NAME, Descriptor

DRAWN = (
    *("band_20_60_share", "band_60_120_share", "sub_f0_hz"),
    *("bass_glide_semitones", "bass_decay_s", "kick_onset_rate_hz"),
    *("hat_onset_rate_hz", "roll_density", "swing"),
    *("tempo_confidence", "spectral_centroid_hz", "crest_db"),
)
"""What makes an 808 beat; all others are in the table."""
N_COLUMNS = 3
FEWEST = 5
"""Clips from which a violin is drawn around them; of fewer it would be a guess."""


def violins_plot(facts: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Figure:
    """A violin a side for each descriptor, every clip a point, the median a line.

    Args:
        facts: descriptors of the clips of "base", "adapter" and "reference", where there are.
    """
    sides = [side for side in COLOURS if facts.get(side)]
    n_rows = -(-len(DRAWN) // N_COLUMNS)
    figure = Figure(figsize=(8.2, 2.0 * n_rows + 0.4), dpi=130, layout="constrained")
    all_axes = figure.subplots(n_rows, N_COLUMNS).flat
    for axes, name in zip(all_axes, DRAWN, strict=True):
        clean(axes)
        _draw(axes, BY_NAME[name], {side: facts[side] for side in sides})
    marks = [legend_mark(side, f"{said(NAMES[side])} (n = {len(facts[side])})") for side in sides]
    legend_below(figure, marks)
    return figure


def _draw(
    axes: Axes, shown: Descriptor, facts: Mapping[str, Sequence[Mapping[str, float | None]]]
) -> None:
    for place, (side, clips) in enumerate(facts.items()):
        values = np.array([clip[shown.name] for clip in clips], np.float64)
        values = shown.scale * values[np.isfinite(values)]
        if not len(values):
            continue
        colour = COLOURS[side]
        if len(values) >= FEWEST and float(np.ptp(values)) > 1e-9 * abs(float(values.max())):
            drawn = axes.violinplot(values, [place], widths=0.8, showextrema=False)
            for body in drawn["bodies"]:  # pyright: ignore[reportGeneralTypeIssues]
                body.set(facecolor=colour, alpha=0.28, linewidth=0)
        # Side by side rather than on top of one another; the same each time.
        across = place + 0.22 * (np.arange(len(values)) / max(len(values) - 1, 1) - 0.5)
        axes.plot(across, values, ".", color=colour, markersize=4, alpha=0.75)
        middle = float(np.median(values))
        axes.plot([place - 0.3, place + 0.3], [middle, middle], color=colour, linewidth=2.2)
    unit = f" ({said(shown.unit)})" if shown.unit else ""
    axes.set_title(f"{said(shown.label)}{unit}", fontsize=9, color=INK, loc="left")
    axes.set_xticks([])
    axes.set_xlim(-0.6, len(facts) - 0.4)
    axes.grid(axis="y", color="#e8eaee")
