"""Prompts that ask for a tempo and a key as the captions say them."""

from __future__ import annotations

import pytest

from musicgen_lora.dataset.caption_words import stated_bpm, stated_key, with_tempo_and_key
from musicgen_lora.errors import UserError
from musicgen_lora.prepare.words.captions import Wording, make_captions
from musicgen_lora.prepare.words.facts import Facts


def test_prompts_have_the_captions_words() -> None:
    facts = Facts(bpm=140.0, key="C# minor")
    captions = make_captions(facts, "x", Wording(12, "dark trap beat"))
    prompt = with_tempo_and_key("dark trap beat", 140.0, "C# minor")
    assert prompt == "dark trap beat, 140 bpm, C# minor"
    assert any("140 bpm" in caption for caption in captions)
    assert any("C# minor" in caption for caption in captions)
    # A tempo between whole numbers is said as captions do.
    assert with_tempo_and_key("beat.", 139.7, None) == "beat, 140 bpm"


@pytest.mark.parametrize(
    "prompt",
    [
        "trap, 140 bpm, Db minor",
        "bpm: 140. key: C# minor. trap",
        "in c# minor, at 140 BPM",
        "trap in C# minor, tempo 140",
        "140 beats per minute, C# minor",
    ],
)
def test_what_a_prompt_says_is_not_said_twice(prompt: str) -> None:
    assert with_tempo_and_key(prompt, 140.0, "C# minor") == prompt


def test_contradictions_are_one_line() -> None:
    with pytest.raises(UserError, match=r'--bpm 140: the prompt "trap 90 bpm" says 90 bpm'):
        with_tempo_and_key("trap 90 bpm", 140.0, None)
    with pytest.raises(UserError, match=r'--key "C# minor": the prompt .* says F minor'):
        with_tempo_and_key("trap in F minor", None, "C# minor")


def test_statements_and_what_is_none() -> None:
    assert stated_bpm("dark 808 beat") is None
    assert stated_bpm("from 90 bpm to 140 bpm") is None
    assert stated_bpm("90 beats per minute, later 140 bpm") is None
    assert stated_bpm("Trap at 140 Beats per Minute") == 140.0
    assert stated_bpm("boom bap, tempo 87.5, dusty") == 87.5
    assert stated_bpm("tempo: 140 bpm") == 140.0
    assert stated_bpm("up-tempo 808 beat") is None
    assert stated_bpm("tempo 1400") is None
    assert stated_key("a major hit") is None
    assert stated_key("beat, F# minor, hard") == "F# minor"
