"""Metadata that a user edits while a run is working on it."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from made_datasets import read_metadata, write_metadata

from musicgen_lora.prepare.rerun.shared_metadata import SharedMetadata, merge_entries
from musicgen_lora.prepare.rerun.succession import (
    CUT_ANEW,
    GONE,
    has_edits,
    is_marked,
    mark,
    succeed,
    take_over,
    unmark,
)
from musicgen_lora.prepare.words.captions import mark_made

Entry = dict[str, Any]


def entry(name: str, **fields: Any) -> Entry:
    made = {"text": f"made of {name}", "bpm": 90}
    return mark_made({"audio": f"{name}.wav", **made, "source": name}, list(made)) | fields


def clip(start_s: float, duration_s: float, **fields: Any) -> Entry:
    name = f"{start_s:g}-{start_s + duration_s:g}"
    return entry(name, cut="time", at_s=start_s, duration_s=duration_s, made_from="f", **fields)


@pytest.mark.parametrize("seed", range(20))
def test_edits_of_both_sides_are_in_the_merger(seed: int) -> None:
    """A field that only one side changed gets its value; if the user changed it, theirs wins."""
    rng = random.Random(seed)
    base = [entry(name, mood=rng.choice(["dark", "soft"])) for name in "abcdefgh"]
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    for each in rng.sample(ours, 4):
        each["bpm"] = 140
    for each in rng.sample(theirs, 4):
        each[rng.choice(["mood", "text", "bpm", "new"])] = "theirs"
    removed = theirs.pop(rng.randrange(8))["audio"]
    theirs.append({"audio": "added.wav", "text": "theirs"})
    ours.append(entry("z"))
    merged = {each["audio"]: each for each in merge_entries(base, ours, theirs, base)}
    names = {f"{name}.wav" for name in "abcdefghz"} | {"added.wav"}
    assert merged.keys() == names - {removed}
    before, own, now = ({e["audio"]: e for e in side} for side in (base, ours, theirs))
    for audio, found in merged.items():
        for name in ("text", "mood", "bpm", "new"):
            old, person = (side.get(audio, {}).get(name) for side in (before, now))
            assert found.get(name) == (person if person != old else own.get(audio, {}).get(name))
    assert merge_entries(base, ours, base, base) == ours
    assert merge_entries(base, base, theirs, base) == theirs


def test_an_entry_that_one_edits_while_the_other_drops_it_stays_aside() -> None:
    base = [entry("a"), entry("b")]
    edited = entry("a", text="mine")
    merged = merge_entries(base, [entry("c")], [edited, entry("b")], base)
    assert [each["audio"] for each in merged] == ["c.wav", "a.wav"]
    assert merged[1]["text"] == "mine"
    assert is_marked(merged[1], CUT_ANEW)


def test_each_write_has_the_edits_of_all_before_it(tmp_path: Path) -> None:
    path = write_metadata(tmp_path, [entry("a"), entry("b")])
    metadata = SharedMetadata(path)
    write_metadata(tmp_path, [entry("a", text="mine"), entry("b")])
    metadata.write([entry("a"), entry("b"), entry("c")])
    write_metadata(tmp_path, [e | {"mood": "dark"} for e in read_metadata(tmp_path)])
    written = metadata.write([entry("a"), entry("b"), entry("c"), entry("d")])
    assert written == read_metadata(tmp_path)
    assert [each["text"] for each in written][:2] == ["mine", "made of b"]
    assert [each.get("mood") for each in written] == ["dark", "dark", "dark", None]


def test_an_editor_that_knows_nothing_of_later_writes_takes_none_of_them_back(
    tmp_path: Path,
) -> None:
    first = [entry("a"), entry("b")]
    metadata = SharedMetadata(write_metadata(tmp_path, first))
    new = [entry("a", text="made anew"), entry("b", text="made anew"), entry("c")]
    metadata.write(new)
    # Opened at the beginning, saved now.
    write_metadata(tmp_path, [entry("a"), entry("b", mood="dark")])
    assert metadata.write([*new, entry("d")]) == [
        new[0],
        entry("b", text="made anew", mood="dark"),
        new[2],
        entry("d"),
    ]


def test_a_mark_is_told_from_a_persons_skip() -> None:
    assert is_marked(mark(entry("a"), GONE), GONE)
    assert unmark(mark(entry("a"), GONE)) == entry("a")
    for skip in (True, False, "too loud", GONE):
        own = entry("a", skip=skip)
        assert mark(own, GONE) == own
        assert unmark(own) == own
    changed = mark(entry("a"), GONE) | {"skip": False}
    assert mark(changed, GONE) == changed
    assert mark(mark(entry("a"), GONE), CUT_ANEW)["skip"] == CUT_ANEW
    assert not has_edits(mark(entry("a"), GONE))
    assert has_edits(entry("a", mood="dark"))
    assert has_edits(entry("a", bpm=91))


def test_a_clip_takes_over_words_and_not_structure() -> None:
    old = clip(0.0, 4.0, text="mine", mood="dark", split="validation", loudness_lufs=-9.0)
    new = take_over(old, clip(0.1, 3.0, loudness_lufs=-16.0))
    assert (new["text"], new["mood"], new["split"]) == ("mine", "dark", "validation")
    assert (new["at_s"], new["duration_s"], new["loudness_lufs"]) == (0.1, 3.0, -16.0)
    assert new["bpm"] == 90
    assert has_edits(new)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_a_person_wrote_is_lost_by_any_cut(seed: int) -> None:
    rng = random.Random(seed)

    def cuts() -> list[Entry]:
        edges = sorted(rng.sample(range(1, 60), rng.randrange(1, 6)))
        return [clip(a, b - a) for a, b in zip([0, *edges], [*edges, 60], strict=True)]

    entries = cuts()
    wrote = set()
    for each in rng.sample(entries, rng.randrange(len(entries) + 1)):
        each["text"] = f"mine {each['at_s']}"
        wrote.add(each["text"])
    for _ in range(4):
        new = cuts()
        entries = succeed(entries, new)
        assert wrote <= {each["text"] for each in entries}
        active = [each for each in entries if not each.get("skip")]
        assert [each["audio"] for each in active] == [each["audio"] for each in new]
        assert all(is_marked(e, CUT_ANEW) and has_edits(e) for e in entries if e.get("skip"))
