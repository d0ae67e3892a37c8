"""The strip of jobs as HTML. Every text is escaped: names are written by strangers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from musicgen_lora.webui.words import Words
from musicgen_lora.webui.work.jobs import Job

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
        elif job.status in ("interrupted", "stopped"):
            line = words("What is done of it stays: Jobs, Go on makes the rest.")
        state = f"{SIGNS[job.status]} {escape(words(job.status))}"
        rows.append(
            f'<li data-status="{job.status}"><b>{state}</b> '
            f"{escape(words(job.command))} · {escape(job.title)}"
            f'<span class="line">{escape(line)}</span></li>'
        )
    return f'<ul class="strip" role="status">{"".join(rows)}</ul>'


def _current(jobs: Sequence[Job]) -> Job:
    return next((job for job in jobs if job.status in ("running", "stopping")), jobs[0])
