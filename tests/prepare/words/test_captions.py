"""Captions vary and contain nothing unsure; edits survive the next run."""

import re
from typing import Any

import pytest

from musicgen_lora.prepare.words.captions import (
    Wording,
    make_captions,
    mark_made,
    merge_edits,
    names_genre,
)
from musicgen_lora.prepare.words.facts import Facts

DEFAULT = "hip hop 808 beat"
FACTS = Facts(
    bpm=140.0,
    key="C minor",
    genre="trap",
    tags=("dark", "piano", "808", "rolling hi-hats"),
)
TAGGED = re.compile(r"\. (bpm|key|genre|moods|instrument|keywords): [^.]+\.")


def captions(
    facts: Facts = FACTS, n_variants: int = 8, clip: str = "a", **settings: Any
) -> list[str]:
    named = {"default_text": DEFAULT, **settings}
    return make_captions(facts, clip, Wording(n_variants, **named))


def test_variants_differ_and_repeat_by_seed_and_clip() -> None:
    made = captions()
    assert len(set(made)) == len(made) == 8
    assert made == captions()
    assert made != captions(clip="b")
    assert made != captions(seed=1)


def test_the_first_caption_says_everything_and_begins_with_the_base() -> None:
    for clip in "abcdefgh":
        first = captions(clip=clip)[0]
        assert not TAGGED.search(first)
        for word in (DEFAULT, "140", "C minor", "trap", "dark", "piano", "rolling hi-hats"):
            assert word in first


def test_every_caption_names_the_genre_and_has_the_base() -> None:
    for clip in "abcdefgh":
        for caption in captions(clip=clip, default_text="my own beats"):
            assert "trap" in caption
            assert "my own beats" in caption
            assert names_genre(caption)
    assert not names_genre("my own beats")


def test_facts_are_dropped_from_some() -> None:
    many = [caption for clip in "abcdefgh" for caption in captions(clip=clip)]
    for word in ("140", "C minor", "dark", "piano"):
        share = sum(word in caption for caption in many) / len(many)
        assert 0.4 < share < 0.95
    assert len({caption.split(",")[0] for caption in many}) > 10


def test_a_quarter_has_audiocrafts_form() -> None:
    many = [captions(clip=str(clip), n_variants=6) for clip in range(60)]
    shares = [sum(bool(TAGGED.search(caption)) for caption in made) / 6 for made in many]
    assert sum(shares) / len(shares) == pytest.approx(0.25, abs=0.03)
    tagged = next(c for made in many for c in made if TAGGED.search(c) and "bpm" in c)
    assert tagged.startswith(f"{DEFAULT}. ")
    assert "bpm: 140." in tagged


@pytest.mark.parametrize("field", ["bpm", "key", "genre", "tags"])
def test_unsure_facts_are_not_said(field: str) -> None:
    words = {"bpm": "140", "key": "C minor", "genre": "trap", "tags": "piano"}
    for sure, is_said in ((0.6, False), (0.75, True)):
        facts = Facts(
            bpm=140.0, key="C minor", genre="trap", tags=("piano",), confidence={field: sure}
        )
        assert any(words[field] in caption for caption in captions(facts)) == is_said


def test_a_persons_captions_come_first_as_they_wrote_them() -> None:
    given = ("Hard trap beat with a flute.", "Flute loop")
    facts = Facts(text=given[0], texts=given, bpm=140.0, tags=("flute",))
    made = captions(facts)
    assert made[:2] == list(given)
    assert all("flute" in caption.lower() and DEFAULT not in caption for caption in made)
    assert captions(facts, n_variants=1) == list(given)


def test_a_persons_tempo_and_key_are_not_contradicted() -> None:
    facts = Facts(text="70 BPM dub in Gm", bpm=140.0, key="C minor", genre="trap")
    for caption in captions(facts):
        assert "140" not in caption
        assert "C minor" not in caption


def test_the_trigger_word_is_in_all_but_once() -> None:
    facts = Facts(text="zk808, hard", texts=("zk808, hard", "soft"), bpm=90.0)
    for caption in [*captions(trigger="zk808"), *captions(facts, trigger="zk808")]:
        assert caption.count("zk808") == 1
        assert caption.startswith("zk808, ")


def test_without_facts_there_is_the_base_alone() -> None:
    assert captions(Facts()) == [DEFAULT]
    with pytest.raises(ValueError, match="default_text"):
        captions(Facts(), default_text=" ")


def made_entry(text: str, texts: list[str], bpm: int) -> dict[str, object]:
    entry = {"audio": "a.wav", "text": text, "texts": texts, "bpm": bpm}
    return mark_made(entry, ["text", "texts", "bpm"])


OLD = made_entry("one", ["one", "two"], 140)
NEW = made_entry("three", ["three", "four"], 70)


def test_untouched_fields_are_refreshed() -> None:
    assert merge_edits(OLD, NEW) == NEW
    assert merge_edits(OLD, OLD) == OLD


def test_edited_fields_stay_run_after_run() -> None:
    old = {**OLD, "bpm": 141, "mine": {"x": 1}}
    for _ in range(3):
        old = merge_edits(old, NEW)
        assert (old["bpm"], old["mine"], old["text"]) == (141, {"x": 1}, "three")


def test_an_edited_caption_stands_alone() -> None:
    old = {**OLD, "text": "by hand"}
    for _ in range(3):
        old = merge_edits(old, NEW)
        assert old["text"] == "by hand"
        assert "texts" not in old


def test_edited_variants_stay_too() -> None:
    merged = merge_edits({**OLD, "texts": ["by hand"]}, NEW)
    assert merged["texts"] == ["by hand"]


def test_what_was_removed_stays_away() -> None:
    old = {name: value for name, value in OLD.items() if name != "bpm"}
    for _ in range(3):
        old = merge_edits(old, NEW)
        assert "bpm" not in old


def test_what_is_not_made_any_more_goes() -> None:
    new = mark_made({"audio": "a.wav", "text": "three"}, ["text"])
    assert merge_edits(OLD, new) == new


def test_an_entry_without_marks_is_a_persons() -> None:
    old = {"audio": "a.wav", "text": "by hand", "bpm": 1}
    merged = merge_edits(old, made_entry("three", ["three"], 70) | {"key": "C minor"})
    assert merged["text"] == "by hand"
    assert merged["bpm"] == 1
    assert merged["key"] == "C minor"
    assert "texts" not in merged
