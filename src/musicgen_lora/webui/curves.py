"""The losses of a run as SVG: their mean, and each codebook separately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from musicgen_lora.formats.kinds import is_number
from musicgen_lora.webui.page import quiet
from musicgen_lora.webui.words import Words

MAX_POINTS = 300
SERIES = (("train", "training"), ("held", "held out"), ("base", "base"))
Point = tuple[float, float]


@dataclass(frozen=True)
class PlotArea:
    """Where a chart is drawn.

    Args:
        left: margin for numbers.
        below: margin for numbers.
    """

    width: float
    height: float
    left: float = 40.0
    below: float = 24.0


LARGE, SMALL = PlotArea(420.0, 200.0), PlotArea(190.0, 100.0, left=32.0, below=20.0)


@dataclass(frozen=True)
class LossCurves:
    """One loss of a run.

    Args:
        train: step and loss during training.
        held: on the held-out clips.
        base: of the base on the same clips; None if unknown.
    """

    train: list[Point]
    held: list[Point]
    base: float | None

    def held_alone(self) -> LossCurves:
        """The held-out loss and the base's level; the training loss if no clips are held out."""
        return LossCurves([], self.held, self.base) if self.held else self


def curves(rows: Sequence[dict[str, Any]], words: Words) -> str:
    """The losses in `metrics.jsonl`: their mean as a large chart, and a small one per codebook."""
    mean = losses(rows, None)
    if not mean.train and not mean.held:
        return quiet(words("No steps yet."))
    key = " · ".join(
        f'<span class="{name}">■</span> {escape(words(label))}' for name, label in SERIES
    )
    charts = [
        # Held-out losses change too little for the same chart.
        (words("Training loss by step"), LossCurves(mean.train, [], None), LARGE, ""),
        (words("Held-out loss by step"), LossCurves([], mean.held, mean.base), LARGE, ""),
        *(
            (words("Codebook {n}", n=number + 1), losses(rows, number).held_alone(), SMALL, "small")
            for number in range(_n_codebooks(rows))
        ),
    ]
    parts = [
        f'<figure class="curve {size}"><figcaption>{escape(label)}</figcaption>'
        f"{_chart(found, area, label)}</figure>"
        for label, found, area, size in charts
        if found.train or found.held
    ]
    return f'<p class="key">{key}</p><div class="curves">{"".join(parts)}</div>'


def losses(rows: Sequence[dict[str, Any]], codebook: int | None) -> LossCurves:
    """The losses of one codebook in the rows, or of the mean if it is None."""

    def points(event: str) -> list[Point]:
        found = [(row.get("step"), _loss(row, codebook)) for row in rows if row["event"] == event]
        return [(s, loss) for s, loss in found if isinstance(s, int) and loss is not None]

    base = points("base")
    return LossCurves(_thinned(points("train")), points("validation"), base[0][1] if base else None)


def _loss(row: dict[str, Any], codebook: int | None) -> float | None:
    value = row.get("loss")
    if codebook is not None:
        each = row.get("codebooks")
        value = each[codebook] if isinstance(each, list) and codebook < len(each) else None
    return float(value) if is_number(value) else None


def _n_codebooks(rows: Sequence[dict[str, Any]]) -> int:
    counts = (len(row["codebooks"]) for row in rows if isinstance(row.get("codebooks"), list))
    return min(max(counts, default=0), 16)


def _thinned(points: list[Point]) -> list[Point]:
    """At most MAX_POINTS points, each the mean of its stretch."""
    size = max(1, -(-len(points) // MAX_POINTS))
    stretches = [points[at : at + size] for at in range(0, len(points), size)]
    return [
        (sum(step for step, _ in each) / len(each), sum(loss for _, loss in each) / len(each))
        for each in stretches
    ]


def _chart(found: LossCurves, area: PlotArea, label: str) -> str:
    """Draws training as a line, validations as dots, and the base as a level."""
    points = [*found.train, *found.held]
    if not points:
        return ""
    values = [loss for _, loss in points] + ([] if found.base is None else [found.base])
    low, high = min(values), max(values)
    low, high = (low - 0.1, high + 0.1) if high - low < 1e-6 else (low, high)
    last = max(step for step, _ in points) or 1.0

    def at(step: float, loss: float) -> tuple[float, float]:
        x = area.left + (area.width - area.left - 10.0) * step / last
        return x, 10.0 + (area.height - area.below - 10.0) * (high - loss) / (high - low)

    def line(name: str, shown: Sequence[Point]) -> str:
        drawn = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in shown)
        return f'<polyline class="{name}" points="{drawn}"/>' if shown else ""

    base = [] if found.base is None else [(0.0, found.base), (last, found.base)]
    parts = [line("train", found.train), line("base", base), line("held", found.held)]
    for point in found.held:
        x, y = at(*point)
        parts.append(f'<circle class="held" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    for value in (low, high):
        y = at(0.0, value)[1] + 4.0
        parts.append(f'<text x="{area.left - 6}" y="{y:.1f}" text-anchor="end">{value:.2f}</text>')
    parts.append(
        f'<text x="{area.width - 10}" y="{area.height - 6}" text-anchor="end">{last:.0f}</text>'
    )
    return (
        f'<svg viewBox="0 0 {area.width:.0f} {area.height:.0f}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
