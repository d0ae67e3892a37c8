"""Reports the stretches of a file that become no clips, above all the parts that the metadata
describes one by one (`start_s`, `duration_s`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from musicgen_lora.prepare.clips.cut import ClipPlan, is_of_another_file, left_out_stretches
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.reading.inputs import Input
from musicgen_lora.prepare.reading.remarks import (
    PART_OUTSIDE,
    PART_REST,
    SHORT_STRETCH,
    SILENT_CLIP,
    Remarks,
)
from musicgen_lora.prepare.words.facts import FilePart

SLACK_S = 0.1
"""How far a part may reach past the end of its file."""
TOLD_REST_S = 1.0
"""Stretches in no clip are reported from this length on."""


def say_left_out(
    file: Input, record: Analysis, plans: Sequence[ClipPlan], remarks: Remarks
) -> None:
    """Reports which parts of a new file give no clip or are cut short, and what no part covers."""
    duration_s = record.duration_s
    say_short_stretches(file, record, plans, remarks)
    if not file.parts or is_of_another_file(file.parts, duration_s) is not None:
        return
    used = {plan.part for plan in plans}
    for part in file.parts:
        start_s, end_s = part
        if start_s >= duration_s or (end_s is not None and end_s > duration_s + SLACK_S):
            remarks.add(PART_OUTSIDE, f"{_name(file, part)}: the file is {duration_s:.2f} s long")
        elif part not in used:
            remarks.add(PART_OUTSIDE, f"{_name(file, part)}: too short for a clip, or silent")
    rest_s = duration_s - _covered_s(file.parts, duration_s)
    if rest_s > TOLD_REST_S:
        remarks.add(PART_REST, f"{file.name}: {rest_s:.1f} of {duration_s:.1f} s")


def say_short_stretches(
    file: Input, record: Analysis, plans: Sequence[ClipPlan], remarks: Remarks
) -> None:
    """Reports which sounding stretches of a file that is cut become no clip, and their length."""
    if not plans or any(plan.cut is None for plan in plans):
        return
    # `say_left_out` reports parts that give no clip.
    used = {plan.part for plan in plans if plan.part is not None}
    duration_s = record.duration_s
    regions = [(start_s, duration_s if end_s is None else end_s) for start_s, end_s in used]
    if is_of_another_file(file.parts, duration_s) is not None or not regions:
        regions = [(0.0, duration_s)]
    found = left_out_stretches(record, plans, sorted(regions))
    told = [(a, b) for a, b in found if b - a >= TOLD_REST_S]
    if told:
        sum_s = sum(stop_s - start_s for start_s, stop_s in told)
        listed = ", ".join(f"{start_s:.1f}-{stop_s:.1f}" for start_s, stop_s in told)
        remarks.add(
            SHORT_STRETCH, f"{file.name}: {sum_s:.1f} of {duration_s:.1f} s, left out at {listed} s"
        )


def _covered_s(parts: Iterable[FilePart], duration_s: float) -> float:
    covered_s, until_s = 0.0, 0.0
    for start_s, end_s in parts:
        stop_s = min(duration_s, duration_s if end_s is None else end_s)
        covered_s += max(0.0, stop_s - max(until_s, start_s))
        until_s = max(until_s, stop_s)
    return covered_s


def no_clip_reason(file: Input) -> str:
    """Why a file has no clip at all."""
    if file.parts:
        return "none of the parts in its metadata (start_s) can be cut from it."
    return "has no stretch that is long enough without silence."


def say_silent(
    file: Input, plans: Sequence[ClipPlan], made: Sequence[object | None], remarks: Remarks
) -> None:
    """Reports the clips of a file that were dropped as silent; `made` has None in their place."""
    for plan, clip in zip(plans, made, strict=True):
        if clip is None:
            remarks.add(SILENT_CLIP, f"{file.name}, from {plan.start_s:.2f} s")


def _name(file: Input, part: FilePart) -> str:
    start_s, end_s = part
    return f"{file.name}, {start_s:g} s to {'its end' if end_s is None else f'{end_s:g} s'}"
