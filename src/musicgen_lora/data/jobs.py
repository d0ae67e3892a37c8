"""The files that a preparation cuts, and what the metadata lists when some of them are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from musicgen_lora.data.cut import ClipPlan
from musicgen_lora.data.inputs import Input
from musicgen_lora.data.succession import Entry


@dataclass
class Job:
    """The clips of a file that are to be written.

    Args:
        file: that they are cut from.
        plans: the clips.
        paths: where each goes in the dataset.
        replaces: digests of the files whose entries they take the place of.
    """

    file: Input
    plans: list[ClipPlan]
    paths: list[str]
    replaces: set[str]
    entries: list[Entry] | None = None
    """Once they are made, with those that stay for what a person wrote."""


def with_jobs(entries: Sequence[Entry], jobs: Sequence[Job]) -> list[Entry]:
    """A dataset's entries with those of the jobs that are done: of a file that was cut anew in
    place of its earlier ones, of new files at the end, in the order of the jobs."""
    done = [job for job in jobs if job.entries is not None]
    by_digest = {digest: job for job in done for digest in job.replaces}
    listed: list[Entry] = []
    placed: set[str] = set()
    for entry in entries:
        job = by_digest.get(str(entry.get("made_from")))
        if job is None:
            listed.append(entry)
        elif job.file.digest not in placed:
            placed.add(job.file.digest)
            listed += job.entries or []
    new = [job.entries or [] for job in done if job.file.digest not in placed]
    return listed + [entry for each in new for entry in each]
