"""The page's own HTML: players, the curve of a run, the strip of jobs. Every text is escaped: names
and captions are written by strangers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from musicgen_lora.webui.jobs import Job
from musicgen_lora.webui.words import Words

WIDTH, HEIGHT, MARGIN = 640, 240, 40
MAX_POINTS = 300
SIGNS = {
    "waiting": "◔",
    "running": "●",
    "stopping": "◐",
    "finished": "✓",
    "stopped": "■",
    "failed": "✕",
    "interrupted": "!",
    "cancelled": "-",
}


def player(address: str, label: str, *, details: str = "", save_as: str = "") -> str:
    """A player of one file, with a loop and a download."""
    save = ""
    if save_as:
        save = f'<a class="save" href="{escape(address)}?save=1" download="{escape(save_as)}">⬇</a>'
    return (
        '<figure class="player">'
        f"<figcaption>{escape(label)}</figcaption>"
        f'<audio controls loop preload="none" src="{escape(address)}" '
        f'aria-label="{escape(label)}"></audio>{save}'
        f'<small dir="auto">{escape(details)}</small></figure>'
    )


def pair(first: str, second: str, label: str, words: Words) -> str:
    """Base and adapter in one player: the button goes over at the same instant of the other."""
    return (
        '<figure class="player pair">'
        f"<figcaption>{escape(label)}</figcaption>"
        f'<audio controls loop preload="auto" src="{escape(first)}" data-side="a"></audio>'
        f'<audio loop preload="auto" src="{escape(second)}" data-side="b"></audio>'
        f'<button type="button" class="switch" data-a="{escape(words("base"))}" '
        f'data-b="{escape(words("adapter"))}">{escape(words("base"))} ⇄</button></figure>'
    )


def strip(jobs: Sequence[Job], words: Words, last_line: str) -> str:
    """The jobs that are not over and the last one that is, each with its state in words."""
    shown = [job for job in jobs if not job.is_over] or list(jobs[:1])
    if not shown:
        return f'<p class="strip quiet">{escape(words("Nothing is running."))}</p>'
    rows = []
    for job in reversed(shown):
        line = last_line if job is _current(shown) else ""
        if job.can_resume and job.command == "train":
            line = words("It can go on from its last checkpoint: Jobs, Go on.")
        state = f"{SIGNS[job.status]} {escape(words(job.status))}"
        rows.append(
            f'<li data-status="{job.status}"><b>{state}</b> '
            f"{escape(words(job.command))} · {escape(job.title)}"
            f'<span class="line">{escape(line)}</span></li>'
        )
    return f'<ul class="strip" role="status">{"".join(rows)}</ul>'


def _current(jobs: Sequence[Job]) -> Job:
    return next((job for job in jobs if job.status in ("running", "stopping")), jobs[0])


def curve(rows: Sequence[dict[str, Any]], words: Words) -> str:
    """The losses of a run: training as a line, validations as dots, the base's as a level."""
    train = [(row["step"], row["loss"]) for row in rows if _is_point(row, "train")]
    held = [(row["step"], row["loss"]) for row in rows if _is_point(row, "validation")]
    base = next((row["loss"] for row in rows if row["event"] == "base" and _has_loss(row)), None)
    if not train and not held:
        return f'<p class="quiet">{escape(words("No step yet."))}</p>'
    smooth = _smoothed(train)
    points = [*smooth, *held]
    losses = [loss for _, loss in points] + ([base] if base is not None else [])
    low, high = min(losses), max(losses)
    low, high = (low - 0.1, high + 0.1) if high - low < 1e-6 else (low, high)
    last = max(step for step, _ in points) or 1

    def at(step: float, loss: float) -> str:
        x = MARGIN + (WIDTH - MARGIN - 10) * step / last
        y = 10 + (HEIGHT - MARGIN - 10) * (high - loss) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<polyline class="train" points="{" ".join(at(*point) for point in smooth)}"/>']
    if base is not None:
        parts.append(f'<polyline class="base" points="{at(0, base)} {at(last, base)}"/>')
    if held:
        parts.append(f'<polyline class="held" points="{" ".join(at(*point) for point in held)}"/>')
    for point in held:
        x, y = at(*point).split(",")
        parts.append(f'<circle class="held" cx="{x}" cy="{y}" r="3"/>')
    for value in (low, high):
        y = at(0, value).split(",")[1]
        parts.append(f'<text x="{MARGIN - 4}" y="{y}" text-anchor="end">{value:.2f}</text>')
    parts.append(f'<text x="{WIDTH - 10}" y="{HEIGHT - 12}" text-anchor="end">{last:.0f}</text>')
    key = " · ".join(
        f'<span class="{name}">■</span> {escape(words(label))}'
        for name, label in (("train", "training"), ("held", "held out"), ("base", "base"))
    )
    return (
        f'<figure class="curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(words("Loss by step"))}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(words('Loss by step'))}: {key}</figcaption></figure>"
    )


def _is_point(row: dict[str, Any], event: str) -> bool:
    return row["event"] == event and isinstance(row.get("step"), int) and _has_loss(row)


def _has_loss(row: dict[str, Any]) -> bool:
    return isinstance(row.get("loss"), (int, float)) and not isinstance(row["loss"], bool)


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most so many points, each the mean of its stretch."""
    size = max(1, -(-len(points) // MAX_POINTS))
    return [
        (
            sum(step for step, _ in points[at : at + size]) / len(points[at : at + size]),
            sum(loss for _, loss in points[at : at + size]) / len(points[at : at + size]),
        )
        for at in range(0, len(points), size)
    ]
