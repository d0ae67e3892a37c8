"""The strip of jobs as HTML. Every text is escaped: names are written by strangers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from musicgen_lora.webui.words import Words
from musicgen_lora.webui.work.jobs import Job

STOP, GO_ON = "stop", "go on"
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


_STEP, _SHARE = re.compile(r"\b(\d+)/(\d+)\b"), re.compile(r"\((\d+) %\)")
"""How commands say in any language which step or part they are at; a step's line ends with the
seconds that are left."""


def strip(jobs: Sequence[Job], words: Words, lines: Sequence[str]) -> str:
    """The jobs that are not over and the last one that is, each with its state in words.

    Args:
        lines: the last that the one that runs has printed.
    """
    shown = [job for job in jobs if not job.is_over] or list(jobs[:1])
    if not shown:
        return f'<p class="strip quiet">{escape(words("Nothing is running."))}</p>'
    rows = []
    for job in reversed(shown):
        line, far = "", ""
        if job.status in ("running", "stopping"):
            line, far = lines[-1][:200] if lines else "", _progress(lines, words)
        if job.can_resume and job.command == "train":
            line = words("It can go on from its last checkpoint.")
        elif job.status in ("interrupted", "stopped"):
            line = words("What is done of it stays; Go on makes the rest.")
        elif job.status == "waiting":
            line = waiting(words)
        state = f"{SIGNS[job.status]} {escape(words(job.status))}"
        rows.append(
            f'<li data-status="{job.status}"><b>{state}</b> '
            f"{escape(words(job.command))} · {escape(job.title)}{far}{_button(job, words)}"
            f'<span class="line">{escape(line)}</span></li>'
        )
    return f'<ul class="strip" role="status">{"".join(rows)}</ul>'


def waiting(words: Words) -> str:
    """What a job waits for."""
    return words(
        "It begins when what runs is over; to have it sooner, stop that: it can go on later."
    )


def _button(job: Job, words: Words) -> str:
    """What can be done with a job, beside it: a list elsewhere may be at another one."""
    if job.status == "running":
        act, label = STOP, words("Stop and save")
    elif job.status == "waiting":
        act, label = STOP, words("Cancel")
    elif job.can_resume:
        act, label = GO_ON, words("Go on")
    else:
        return ""
    told = escape(f"{label}: {words(job.command)} · {job.title}")
    return (
        f' <button type="button" data-act="{act}" data-job="{job.id}" aria-label="{told}">'
        f"{escape(label)}</button>"
    )


def _progress(lines: Sequence[str], words: Words) -> str:
    """How far a command is by what it said last of it, and how long it will still take."""
    for line in reversed(lines):
        if found := _STEP.search(line):
            done, of = map(int, found.groups())
            left = int(re.findall(r"\d+", line)[-1])
            told = words(
                "{done} of {of}, about {time} left", time=words.duration(left), done=done, of=of
            )
        elif found := _SHARE.search(line):
            done, of, told = int(found[1]), 100, f"{found[1]} %"
        else:
            continue
        return (
            f' <progress max="{of}" value="{done}" aria-label="{escape(words("Progress"))}">'
            f"</progress> {escape(told)}"
        )
    return ""
