"""The files that a preparation cuts, and the metadata's entries once some of them are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from musicgen_lora.prepare.clips import parts
from musicgen_lora.prepare.clips.cut import ClipPlan, clip_paths
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.reading.inputs import Dropped, Input
from musicgen_lora.prepare.reading.remarks import Remarks
from musicgen_lora.prepare.rerun.ledger import Ledger, sound_settings
from musicgen_lora.prepare.rerun.revision import Revision
from musicgen_lora.prepare.rerun.succession import Entry, lies_in


@dataclass
class CutJob:
    """The clips of a file to write.

    Args:
        paths: of each clip in the dataset.
        replaces: digests of the files whose entries these clips replace.
    """

    file: Input
    plans: list[ClipPlan]
    paths: list[str]
    replaces: set[str]
    entries: list[Entry] | None = None
    """Entries, once they are made, with those that stay only for a user's edits."""


def plan_jobs(
    files: Sequence[Input],
    records: Mapping[str, Analysis],
    revision: Revision,
    ledger: Ledger,
    remarks: Remarks,
) -> tuple[list[CutJob], list[Dropped]]:
    """A job for each file, without the stretches that the user removed; and the files that give no
    clips.

    Args:
        files: new ones and those that are recut.
        remarks: get the parts of files that are left out.
    """
    jobs, dropped = [], []
    for file in files:
        record = records[file.digest]
        plans = revision.plans(file, record)
        parts.say_left_out(file, record, plans, remarks)
        if not plans:
            reason = revision.unusable_reason(file, record)
            dropped.append(Dropped(file.name, reason or parts.no_clip_reason(file)))
            if file.digest not in revision.known:
                continue
        paths = clip_paths(file.name, file.digest, plans, sound_settings(revision.made_with))
        if file.in_place is not None:
            paths = [file.in_place] * len(plans)
        removed = ledger.removed_of(file.digest)
        kept = [
            (plan, path)
            for plan, path in zip(plans, paths, strict=True)
            if not lies_in((plan.start_s, plan.start_s + plan.duration_s), removed)
        ]
        replaces = {file.digest, *revision.replaced.get(file.digest, ())}
        jobs.append(CutJob(file, [p for p, _ in kept], [p for _, p in kept], replaces))
    return jobs, dropped


def with_jobs(entries: Sequence[Entry], jobs: Sequence[CutJob]) -> list[Entry]:
    """A dataset's entries with those of the finished jobs: recut files' entries in place of their
    earlier ones, new files' at the end, in the order of the jobs."""
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
