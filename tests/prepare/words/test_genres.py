"""A genre is named once, and half-time genres get the tempo that a sequencer shows."""

from __future__ import annotations

import pytest

from musicgen_lora.prepare.words.captions import Wording, make_captions
from musicgen_lora.prepare.words.facts import GENRES, Facts, facts_from_name, find_words
from musicgen_lora.prepare.words.genres import in_sequencer_tempo, with_genre

DEFAULT = "hip hop 808 beat"


@pytest.mark.parametrize(
    ("base", "genre", "said"),
    [
        (DEFAULT, "trap", "trap hip hop 808 beat"),
        (DEFAULT, "hip hop", DEFAULT),
        ("Hip-Hop 808 beat", "southern hip hop", "southern hip hop 808 beat"),
        (DEFAULT, "cloud rap", "cloud rap 808 beat"),
        (DEFAULT, "techno", "techno 808 beat"),
        ("drill beat", "trap", "trap beat"),
        ("my own beats", "trap", "trap my own beats"),
        ("trap beat", "trap", "trap beat"),
        ("hip hop", "techno", "techno"),
    ],
)
def test_a_genre_and_a_base_are_one_phrase(base: str, genre: str, said: str) -> None:
    assert with_genre(base, genre) == said


@pytest.mark.parametrize("genre", GENRES)
def test_any_genre_is_said_once(genre: str) -> None:
    for clip in "abcdef":
        facts = Facts(bpm=132.0, genre=genre, tags=("hip hop",))
        for caption in make_captions(facts, clip, Wording(6, DEFAULT)):
            assert caption.lower().count("beat") == 1 + genre.count("beat")
            rest = caption.replace(genre, "", 1).replace(DEFAULT, "", 1)
            assert not find_words(rest, GENRES), caption
            assert genre in caption


def test_a_persons_sentence_is_given_no_second_genre() -> None:
    facts = Facts(text="a dark drill loop", genre="trap", bpm=140.0)
    for caption in make_captions(facts, "a", Wording(8, DEFAULT)):
        assert "trap" not in caption
        assert caption.startswith("a dark drill loop") or ", a dark drill loop" in caption


@pytest.mark.parametrize(
    ("name", "bpm", "is_half"),
    [
        ("trap 66bpm.wav", 132.0, True),
        ("UK Drill 71 bpm", 142.0, True),
        ("trap 140bpm.wav", 140.0, False),
        ("boom bap 86bpm.wav", 86.0, False),
        ("southern rap 66bpm", 66.0, False),
        ("66bpm.wav", 66.0, False),
    ],
)
def test_half_time_genres_are_told_in_the_sequencers_tempo(
    name: str, bpm: float, is_half: bool
) -> None:
    facts = in_sequencer_tempo(facts_from_name(name))
    assert (facts.bpm, "half-time" in facts.tags) == (bpm, is_half)
    first = make_captions(facts, "a", Wording(4, DEFAULT))[0]
    assert f"{bpm:g}" in first
    assert ("half-time" in first) == is_half


def test_a_tempo_that_the_metadata_states_stays() -> None:
    facts = Facts(bpm=66.0, genre="trap")
    assert in_sequencer_tempo(facts) == facts
