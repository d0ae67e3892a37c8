"""What the metadata says about a clip: made from facts, and refreshed without losing edits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from musicgen_lora.dataset.splits import Split, normalise_split, source_of
from musicgen_lora.model.text.wording import english_of
from musicgen_lora.prepare.clips.cut import ClipPlan
from musicgen_lora.prepare.clips.windows import own_segment
from musicgen_lora.prepare.hearing.analyse import measured_facts
from musicgen_lora.prepare.hearing.records import Analysis, Segment
from musicgen_lora.prepare.reading.inputs import Input
from musicgen_lora.prepare.rerun.succession import (
    CUT_ANEW,
    GONE,
    SKIP_FIELD,
    is_marked,
    span_of,
)
from musicgen_lora.prepare.words.captions import (
    MADE_FIELD,
    MIN_CONFIDENCE,
    Wording,
    make_captions,
    mark_made,
    merge_edits,
)
from musicgen_lora.prepare.words.facts import Facts, merge_facts
from musicgen_lora.prepare.words.genres import in_sequencer_tempo

ONE_SHOT_TEXT = "one-shot sample"
"""Caption of single hits that have none; words from their names (808, kick) are added."""
MADE_NAMES = ("text", "texts", "bpm", "key", "tags", "split")
"""Fields that a second run refreshes unless the user changed them, as it does those fields of the
input's metadata that are unknown here."""


def describe_clip(
    file: Input,
    record: Analysis,
    plan: ClipPlan,
    *,
    window: Segment | None,
    heard: Facts,
    wording: Wording,
) -> dict[str, Any]:
    """The fields of `MADE_NAMES` that are known for a clip, and the fields that are only kept.

    A clip of a part that the metadata describes gets that part's description first, then that of
    the whole file.

    Args:
        window: the clip's own measurement, if there is one.
    """
    measured = measured_facts(own_segment(record.segments[plan.segment], window))
    if record.is_one_shot:
        measured, wording = Facts(), replace(wording, default_text=ONE_SHOT_TEXT)
    own = [facts for facts in file.stated if facts.part is not None and facts.part == plan.part]
    stated = [*own, *(facts for facts in file.stated if facts.part is None)]
    facts = merge_facts([*stated, record.tags, *file.named, measured, heard])
    facts = in_sequencer_tempo(facts)
    texts = make_captions(facts, f"{file.digest}:{plan.start_s:.3f}", wording)
    # The author's caption is kept; its English reading is added, to be seen and corrected.
    texts = list(dict.fromkeys([*texts, *map(english_of, texts)]))
    fields: dict[str, Any] = {"text": texts[0]}
    if len(texts) > 1:
        fields["texts"] = texts
    if facts.bpm is not None and facts.sure("bpm") >= MIN_CONFIDENCE:
        fields["bpm"] = int(facts.bpm) if facts.bpm == int(facts.bpm) else facts.bpm
    if facts.key is not None and facts.sure("key") >= MIN_CONFIDENCE:
        fields["key"] = facts.key
    tags = list(dict.fromkeys([*([facts.genre] if facts.genre else []), *facts.tags]))
    if tags:
        fields["tags"] = tags
    if file.split is not None:
        fields["split"] = file.split
    return {**fields, **{name: v for name, v in facts.other.items() if name not in fields}}


def make_entry(
    file: Input,
    audio: str,
    source: str,
    plan: ClipPlan,
    made: Mapping[str, Any],
    described: Mapping[str, Any],
) -> dict[str, Any]:
    """The metadata entry of a new clip.

    Args:
        source: clips of one source stay on the same side of the split.
        made: the clip's facts from `cut.cut_file`.
    """
    optional = {
        # Written clips are separate files; a file that stays in place is read in windows.
        "start_s": round(plan.start_s, 6) if plan.cut and file.in_place is not None else None,
        "loudness_lufs": made["loudness_lufs"],
        "vocals": made.get("vocals"),
        "gain_db": made.get("gain_db") or None,
        "limited_db": made.get("limited_db"),
        "held_db": made.get("held_db"),
        "folded": made.get("folded"),
        "repeated": plan.repeated if plan.repeated > 1 else None,
        "cut": plan.cut,
        "at_s": round(plan.start_s, 6) if plan.cut else None,
    }
    entry = {
        "audio": audio,
        **described,
        "source": source,
        "duration_s": made["duration_s"],
        **{name: value for name, value in optional.items() if value is not None},
        "made_from": file.digest,
    }
    return mark_made(entry, list(described))


def refresh_entries(
    entries: list[dict[str, Any]], described: Mapping[tuple[str, float], Mapping[str, Any]]
) -> int:
    """Brings the captions and facts of listed clips up to date, in place; edits are kept.

    Args:
        described: from `describe_clip`, by the file's digest and the clip's start (`clip_key`).

    Returns:
        How many entries changed.
    """
    changed = 0
    for index, entry in enumerate(entries):
        fields = described.get(clip_key(str(entry.get("made_from")), entry.get("at_s") or 0.0))
        # Entries without marks are the user's own.
        if fields is None or not isinstance(entry.get(MADE_FIELD), Mapping):
            continue
        if is_marked(entry, GONE, CUT_ANEW):
            fields = {**fields, SKIP_FIELD: entry[SKIP_FIELD]}
        made = {*MADE_NAMES, *entry[MADE_FIELD], MADE_FIELD}
        rest = {name: value for name, value in entry.items() if name not in made}
        merged = merge_edits(entry, mark_made({**rest, **fields}, list(fields)))
        if merged != entry:
            entries[index] = merged
            changed += 1
    return changed


def own_plan(entry: Mapping[str, Any], file: Input, record: Analysis) -> ClipPlan:
    """The stretch of its file that a listed clip covers, whatever would be cut now."""
    start_s, stop_s = span_of(entry)
    begins = [segment.start_s for segment in record.segments]
    segment = max((i for i, at_s in enumerate(begins) if at_s <= start_s + 1e-3), default=0)
    lies_in = [p for p in file.parts if p[0] <= start_s + 1e-3 and stop_s <= (p[1] or inf) + 1e-3]
    part = lies_in[-1] if lies_in else None
    return ClipPlan(start_s, stop_s - start_s, segment, entry.get("cut"), part=part)


def clip_key(digest: str, at_s: float) -> tuple[str, float]:
    """What identifies a clip in later runs, even if it or its file is renamed."""
    return digest, round(float(at_s), 2)


def listed_sources(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The source that the dataset states for each file it has clips of, by digest."""
    return {
        str(entry["made_from"]): source_of(entry)
        for entry in entries
        if "made_from" in entry and not is_marked(entry, CUT_ANEW)
    }


def listed_sides(entries: Iterable[Mapping[str, Any]], metadata: Path) -> dict[str, set[Split]]:
    """The splits that the dataset states for the clips of each source, an empty set if none.

    Raises:
        UserError: an entry's split is unknown.
    """
    sides: dict[str, set[Split]] = {}
    for index, entry in enumerate(entries, 1):
        stated = sides.setdefault(source_of(entry), set())
        split = normalise_split(entry.get("split"), f"{metadata}: entry {index}")
        stated |= {split} if split is not None else set()
    return sides
