"""A key in a file's name is a key, and English is English."""

from __future__ import annotations

import pytest

from musicgen_lora.listening.pitch.key_names import find_key, key_distance, normalise_key, usual_key
from musicgen_lora.prepare.words.facts import STATED, facts_from_name


@pytest.mark.parametrize(
    "name",
    [
        "I Am The One 140bpm",
        "Who Am I - 92 BPM",
        "A Minor Threat 140bpm",
        "Where Am I Now 128",
        "I Am The One",
        "i am 140bpm",
        "I Am - 140 BPM",
        "Here I Am 90",
        "I_Am_140",
        "3 am 140bpm",
        "A Major Problem 95 bpm",
        "Just A Minor 140bpm",
        "Make a major hit 120",
        "Get Em 140bpm",
        "Hit Em Up 92",
        "Tell Em - 150 BPM",
        "dark beat in a minor key, 140 bpm",
    ],
)
def test_english_is_no_key(name: str) -> None:
    assert facts_from_name(f"{name}.wav").key is None


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Beat 140 Am", "A minor"),
        ("trap_Cmin_140", "C minor"),
        ("Am 140", "A minor"),
        ("F#m - 92bpm", "F# minor"),
        ("140bpm_Bbm", "Bb minor"),
        ("Moonlight Am 140bpm", "A minor"),
        ("trap_140_am", "A minor"),
        ("Guitar Loop Am (120)", "A minor"),
        ("120bpm Piano Am", "A minor"),
        ("Em_150bpm_drill", "E minor"),
        ("dark loop Em 92", "E minor"),
        ("Lo-Fi Am - 85 BPM", "A minor"),
        ("southern_82bpm_a_minor_004", "A minor"),
        ("Loop A Minor 140", "A minor"),
        ("140 A Major", "A major"),
        ("Type Beat A Min", "A minor"),
        ("hip hop beat in A minor with piano, 140 bpm", "A minor"),
        ("I Am 140bpm C#m", "C# minor"),
        ("Night (Gm) 140", "G minor"),
    ],
)
def test_keys_are_sure(name: str, key: str) -> None:
    facts = facts_from_name(f"{name}.wav")
    assert (facts.key, facts.sure("key")) == (key, STATED)


@pytest.mark.parametrize("name", ["Moonlight Am", "140bpm Tomorrow Am", "Vibes Em forever 92"])
def test_without_company_a_key_is_a_guess(name: str) -> None:
    facts = facts_from_name(f"{name}.wav")
    assert facts.key is not None
    assert facts.sure("key") < 0.7


@pytest.mark.parametrize(
    ("name", "usual"),
    [("A# minor", "Bb minor"), ("Db minor", "C# minor"), ("D# major", "Eb major"), ("x", "x")],
)
def test_keys_that_nobody_spelled_are_spelled_as_most_do(name: str, usual: str) -> None:
    assert usual_key(name) == usual
    assert usual_key(usual) == usual


def test_two_spellings_are_one_key() -> None:
    assert key_distance("A# minor", "Bb minor") == "same"
    assert (
        key_distance("Db major", "Bb minor") == key_distance("A# minor", "C# major") == "relative"
    )
    assert key_distance("C major", "C minor") is None
    assert key_distance("C major", "G major") is None
    assert key_distance("C major", "") is None
    both = find_key("140bpm Bbm A#m", has_tempo=True, music=lambda word: False)
    assert both is not None
    assert both.name == "Bb minor"


@pytest.mark.parametrize("note", "ABCDEFG")
@pytest.mark.parametrize("sign", ["", "#", "b"])
@pytest.mark.parametrize("mode", ["m", "maj"])
def test_an_authors_spelling_stays_and_is_the_same_key(note: str, sign: str, mode: str) -> None:
    key = normalise_key(note + sign + mode)
    assert key is not None
    assert normalise_key(key) == key
    assert key_distance(key, usual_key(key)) == "same"
    if note + sign not in ("E#", "B#", "Cb", "Fb"):
        assert key.startswith(f"{note}{sign} ")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("B-Dur", "Bb major"),
        ("b-Moll", "Bb minor"),
        ("h-moll", "B minor"),
        ("H Dur", "B major"),
        ("cis-Moll", "C# minor"),
        ("Fis Dur", "F# major"),
        ("Es-Dur", "Eb major"),
        ("as-moll", "Ab minor"),
        ("Des-Dur", "Db major"),
        ("His-Dur", "C major"),
        ("A-moll", "A minor"),
        ("Bb moll", "Bb minor"),
        ("F# dur", "F# major"),
        ("Ｃ＃ ｍｉｎｏｒ", "C# minor"),  # noqa: RUF001
        ("ｃ#m", "C# minor"),  # noqa: RUF001
        ("B minor", "B minor"),
        ("C♯m", "C# minor"),
    ],
)
def test_german_and_full_width_spellings(name: str, key: str) -> None:
    """B is Bb where the mode is German."""
    assert normalise_key(name) == key


@pytest.mark.parametrize("name", ["H minor", "Hes-Dur", "Cs-Moll", "Bs-Dur", "moll", "dur"])
def test_what_is_no_german_key(name: str) -> None:
    assert normalise_key(name) is None
