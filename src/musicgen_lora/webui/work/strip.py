"""The strip of jobs as HTML. Every text is escaped: names come from strangers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from musicgen_lora.webui.words import Words, beginning
from musicgen_lora.webui.work.job import Job
from musicgen_lora.webui.work.jobs import SHARING

STOP, GO_ON, BEGIN = "stop", "go on", "begin"
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
NEXT = {
    "prepare": "Data has the clips and a report: what to fix first, and what was left out.",
    "train": "Listen to it in Generate, measure it in Evaluate.",
    "evaluate": "Its report is in Evaluate.",
}
"""Where to find what a command has made."""
MOST_FAILED = 3
_STEP, _SHARE = re.compile(r"\b(\d+)/(\d+)\b"), re.compile(r"[(（](\d+) ?%[)）]")
"""How commands report their progress in any language; a step's line ends with the seconds left."""


def strip(jobs: Sequence[Job], words: Words, printed: Mapping[str, Sequence[str]]) -> str:
    """The jobs that have not ended, or else the last one, each with its status in words.

    Args:
        printed: by id, the last lines of running jobs, and why one has failed.
    """
    shown = shown_of(jobs)
    if not shown:
        return f'<p class="strip quiet">{escape(words("Nothing is running."))}</p>'
    rows, before = [], ""
    for job in reversed(shown):
        lines = printed.get(job.id, ())
        line, far = beginning(lines[-1], 300) if lines else "", _progress(lines, words)
        may_begin = can_begin(job, shown)
        begin = _act(BEGIN, words("Start now"), job, words) if may_begin else ""
        if job.status == "failed":
            line = f"{line} {words('Jobs, below, has the full output.')}".strip()
        elif job.status == "finished" and job.command in NEXT:
            line = words(NEXT[job.command])
        elif job.can_resume and job.command == "train":
            line = words("It can resume from its last checkpoint.")
        elif job.status in ("interrupted", "stopped"):
            line = words("What is done is kept; Resume does the rest.")
        elif job.status == "waiting":
            told = _beside(job, words) if may_begin or job.is_beside else waiting(words)
            # Of several in a row, only the first says it.
            line, before = "" if told == before else told, told
        state = f"{SIGNS[job.status]} {escape(words(job.status))}"
        rows.append(
            f'<li data-status="{job.status}"><b>{state}</b> '
            f"{escape(words(job.command))} · {escape(job.title)}{far}{_button(job, words)}{begin}"
            f'<span class="line">{escape(line)}</span></li>'
        )
    return f'<ul class="strip" role="status">{"".join(rows)}</ul>'


def shown_of(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that have not ended; if there are none, the one that ended last. Also those that
    failed meanwhile: of several in a row, a later one would hide it."""
    ended = sorted(
        (job for job in jobs if job.is_over), key=lambda job: -(job.ended or job.created)
    )
    shown = [job for job in jobs if not job.is_over] or ended[:1]
    since = min((job.created for job in shown), default=0.0)
    failed = [job for job in ended if job.status == "failed" and (job.ended or 0.0) >= since]
    seen = {job.id for job in [*shown, *failed[:MOST_FAILED]]}
    return [job for job in jobs if job.id in seen]


def waiting(words: Words) -> str:
    """What a waiting job waits for."""
    return words(
        "It starts when the running job ends; to start sooner, stop that; it can be resumed."
    )


def can_begin(job: Job, jobs: Sequence[Job]) -> bool:
    """Whether a job may be asked to start alongside what runs, unless only generation runs."""
    is_waiting = job.status == "waiting" and job.command in SHARING and not job.is_beside
    runs = [each for each in jobs if each.status in ("running", "stopping")]
    return is_waiting and any(each.command not in SHARING for each in runs)


def _beside(job: Job, words: Words) -> str:
    """What starting alongside the running job would mean."""
    if job.is_beside:
        return words("It starts alongside the running job once nothing else is generating.")
    return words(
        "It starts when the running job ends. Start now runs it alongside: both get slower, and "
        "memory, especially on a graphics card, may not be enough for both."
    )


def _button(job: Job, words: Words) -> str:
    """The button for a job, right beside it: a list elsewhere may be at another job."""
    if job.status == "running":
        act, label = STOP, words("Stop and save")
    elif job.status == "waiting":
        act, label = STOP, words("Cancel")
    elif job.can_resume:
        act, label = GO_ON, words("Try again" if job.status == "failed" else "Resume")
    else:
        return ""
    return _act(act, label, job, words)


def _act(act: str, label: str, job: Job, words: Words) -> str:
    told = escape(f"{label}: {words(job.command)} · {job.title}")
    return (
        f' <button type="button" data-act="{act}" data-job="{job.id}" aria-label="{told}">'
        f"{escape(label)}</button>"
    )


def _progress(lines: Sequence[str], words: Words) -> str:
    """How far a command is by its last progress line, and how long it will still take."""
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
