"""A forest plot of everything that was tested: one row per difference, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musicgen_lora.evaluation.report.plots import COLOURS, INK, MARKERS, clean, said
from musicgen_lora.plural import count

ROW_INCHES = 0.34


class ForestRow(NamedTuple):
    """The difference adapter minus base; below 0 the adapter is nearer or predicts better."""

    label: str
    n: str
    value: float
    low: float
    high: float


def plotted_primaries(primaries: Sequence[Mapping[str, Any]]) -> list[ForestRow]:
    """The primary outcomes that have an interval, each in units of the change detectable at 80 %
    power: nats, KAD and standard deviations share no common scale."""
    return [
        ForestRow(
            p["label"],
            count(p["n"], p["unit"]),
            *(p[key] / p["detectable"] for key in ("difference", "ci_low", "ci_high")),
        )
        for p in primaries
        if p["detectable"] is not None and p["ci_low"] is not None
    ]


def plotted_losses(report: Mapping[str, Any]) -> list[ForestRow]:
    """Changes in loss in percent: held-out clips, by codebook, training clips, other styles."""
    found = []
    loss, overfitting, forgetting = (report[k] for k in ("loss", "overfitting", "forgetting"))
    if loss["computed"]:
        found.append(("held-out clips", loss["mean"]))
        found += [(f"codebook {k + 1}", own) for k, own in enumerate(loss["codebooks"])]
    if overfitting["computed"]:
        found.append(("training clips", overfitting["trained"]["mean"]))
    if forgetting["computed"]:
        found.append(("other styles", forgetting["mean"]))
    keys = ("relative", "relative_ci_low", "relative_ci_high")
    return [
        ForestRow(label, count(own["n"], "source"), *(100.0 * own[key] for key in keys))
        for label, own in found
        if own["relative"] is not None and own["relative_ci_low"] is not None
    ]


def forest_plot(report: Mapping[str, Any]) -> Figure | None:
    """Plot the primary outcomes above, the losses below; None if nothing has an interval."""
    primaries, losses = plotted_primaries(report["primaries"]), plotted_losses(report)
    parts = [part for part in (primaries, losses) if part]
    if not parts:
        return None
    heights = [len(part) + 1.6 for part in parts]
    figure = Figure(figsize=(8.2, ROW_INCHES * sum(heights)), dpi=130, layout="constrained")
    axes = figure.subplots(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    for own, rows in zip(axes, parts, strict=True):
        clean(own)
        _draw(own, rows)
        if rows is primaries:
            own.axvspan(-1.0, 1.0, color="#eef0f3", zorder=0)
            words = said("difference / change detectable at 80 % power (grey: not detectable)")
        else:
            words = said("change in loss (%)")
        own.set_xlabel(words, fontsize=9, color=INK)
    axes[0].set_title(said("left of the line is better"), fontsize=9, color=INK, loc="left")
    return figure


def _draw(axes: Axes, rows: Sequence[ForestRow]) -> None:
    axes.axvline(0.0, color=COLOURS["base"], linewidth=1.2)
    heights = np.arange(len(rows))[::-1]
    for height, row in zip(heights, rows, strict=True):
        axes.plot(
            [row.low, row.high], [height] * 2, color=COLOURS["adapter"], linewidth=1.6, alpha=0.6
        )
        axes.plot(row.value, height, MARKERS["adapter"], color=COLOURS["adapter"], markersize=7)
    labels = [f"{said(row.label)} (n = {said(row.n)})" for row in rows]
    axes.set_yticks(heights, labels)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.margins(x=0.06)
    axes.grid(axis="x", color="#e8eaee")
