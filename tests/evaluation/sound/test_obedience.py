"""Prompt adherence: what a prompt asks for, and whether a clip has it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.measures.damage import Damage
from musicgen_lora.evaluation.sound.asked_words import WORDS, Middle, asked_words
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.obedience import judge_obedience, measure_obedience, read_prompt
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.listening.descriptors import describe

NOTHING = Middle(None, None, is_stereo=False)


@pytest.mark.parametrize(
    ("prompt", "bpm", "key"),
    [
        ("trap beat with claps, 140 bpm, C# minor", 140.0, "C# minor"),
        ("84 bpm busy southern 808 hip hop beat in B minor with swing", 84.0, "B minor"),
        ("drill trap beat at 143.5 bpm in F# minor: gliding bass", 143.5, "F# minor"),
        ("hip hop. bpm: 92. key: Bb major.", 92.0, "Bb major"),
        ("beat in A-sharp major", None, "Bb major"),
        ("hip hop 808 beat with trap drums", None, None),
        ("a minor change of the beat, 808", None, None),
        ("at 00 bpm", None, None),
        ("Dm loop at 90BPM", 90.0, "D minor"),
        ("dark trap, tempo 140, c# minor", 140.0, "C# minor"),
        ("140 beats per minute, Am", 140.0, "A minor"),
        ("a beat that goes from 140 bpm to 120 bpm", None, None),
    ],
)
def test_prompts(prompt: str, bpm: float | None, key: str | None) -> None:
    asked = read_prompt(prompt)
    assert (asked.bpm, asked.key) == (bpm, key)


def heard(bpm: float, key: str | None = None, **descriptors: float) -> Heard:
    return Heard(descriptors, {}, Damage(0, 0, 0.0), np.zeros(0, np.uint64), bpm, key)


def references(captions: list[str], clips: list[Heard], **some: dict[int, Heard]) -> References:
    return References(
        heard=clips,
        clips=[Clip(f"{i}.wav", Path("."), (text,), f"{i}") for i, text in enumerate(captions)],
        some=some,
    )


NONE = references([], [])


def judged(prompt: str, bpm: float, key: str | None) -> dict[str, bool | None]:
    found = judge_obedience(read_prompt(prompt), heard(bpm, key), NOTHING)
    return {name: found[name] for name in ("tempo", "tempo_or_octave", "key", "key_or_relative")}


def test_a_clip_is_judged_by_what_was_asked() -> None:
    asked = "140 bpm, C# minor"
    assert all(judged(asked, 143.0, "Db minor").values())
    half = judged(asked, 70.0, "E major")
    assert half == {"tempo": False, "tempo_or_octave": True, "key": False, "key_or_relative": True}
    # What isn't heard isn't as it was asked for.
    assert not any(judged(asked, float("nan"), None).values())
    assert set(judged("808", 140.0, "C minor").values()) == {None}


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("Latin with live drums at 91 bpm, only drums, without hi-hats", {"no_hats", "no_bass"}),
        ("busy boom-bap with electric bass, only drums and bass, swung", {"busy", "swing"}),
        ("trap with long gliding 808 bass, rolling hi-hats", {"bass_808", "gliding_bass"}),
        ("drill beat, sliding 808s, very fast hi-hat rolls", {"bass_808", "gliding_bass"}),
        ("no bass, only drums, hip hop beat on an 808 with congas", {"no_bass"}),
        ("808 kick, clap and open hats", set()),
        ("slow, minimal beat without hats", {"slow", "sparse", "no_hats"}),
        ("fast-paced drums with fast 1/32 hi-hats", {"fast"}),
        ("sparse intro, busy drums, slow, then fast", set()),
        ("mono recording in a monotone, no swing", {"mono"}),
    ],
)
def test_words_of_a_prompt(prompt: str, names: set[str]) -> None:
    found = {word.name for word in asked_words(prompt)}
    assert found - {"rolling_hats"} == names
    assert ("rolling_hats" in found) == ("roll" in prompt)


@pytest.fixture(scope="module")
def beats() -> dict[str, dict[str, float]]:
    """A composed trap beat: complete, without its hats, and without its 808."""
    beat = next(
        own
        for own in (make_beat(seed, duration_s=5.0) for seed in range(100))
        if {"rolling hi-hats", "gliding bass", "half-time"} <= set(own.tags)
    )
    found = {}
    for name, track in (("all", ""), ("no_hats", "_hat"), ("no_bass", "sub")):
        tracks = {
            own: hits
            for own, hits in beat.pattern.tracks.items()
            if not (track and own.endswith(track)) and not (track == "_hat" and own == "ride")
        }
        pattern = dataclasses.replace(beat.pattern, tracks=tracks)
        wave = render_beat(dataclasses.replace(beat, pattern=pattern), 32_000)
        found[name] = describe(wave[:, : 5 * 32_000], 32_000)
    return found


@pytest.mark.parametrize(
    ("word", "has", "has_not"),
    [
        ("no_hats", "no_hats", "all"),
        ("no_bass", "no_bass", "all"),
        ("bass_808", "all", "no_bass"),
    ],
)
def test_words_are_heard_where_they_are_so(
    word: str, has: str, has_not: str, beats: dict[str, dict[str, float]]
) -> None:
    (own,) = (own for own in WORDS if own.name == word)
    assert own.holds(beats[has], NOTHING)
    assert not own.holds(beats[has_not], NOTHING)


def test_chance_is_what_other_prompts_clips_have() -> None:
    prompts = ["no hats, 140 bpm", "no hats, 100 bpm", "808 beat", "808 beat"]
    clips = [heard(140.0, hat_onset_rate_hz=rate) for rate in (1.0, 5.0, 1.0, 6.0)]
    found = measure_obedience(prompts, Compared(None, clips), NONE)["measures"]
    assert (found["no_hats"]["adapter"]["hits"], found["no_hats"]["adapter"]["n"]) == (1, 2)
    assert found["no_hats"]["others"] == {"hits": 1, "n": 2, "share": 0.5}
    # Three clips weren't asked for 140, and three not for 100.
    assert found["tempo"]["others"] == {"hits": 3, "n": 6, "share": 0.5}
    assert (found["no_hats"]["asked"], found["no_hats"]["why"]) == (2, "")
    assert (found["swing"]["asked"], found["swing"]["why"]) == (0, "no prompt asks for it")


def test_what_cant_be_told_has_a_reason() -> None:
    prompts = ["busy, mono", "sparse, mono"]
    clips = [heard(90.0, onset_rate_hz=rate, side_share=0.0) for rate in (9.0, 2.0)]
    found = measure_obedience(prompts, Compared(None, clips), NONE)
    assert not found["computed"]
    assert found["measures"]["busy"]["why"].startswith("needs held-out audio")
    assert found["measures"]["mono"]["why"].startswith("every clip is mono")
    wide = [heard(90.0, onset_rate_hz=5.0, side_share=0.3)]
    found = measure_obedience(prompts, Compared(None, clips), references(["808"], wide))["measures"]
    for name in ("busy", "sparse"):
        assert (found[name]["adapter"]["hits"], found[name]["adapter"]["n"]) == (1, 1)
        assert found[name]["others"]["hits"] == 0
    assert (found["mono"]["adapter"]["hits"], found["mono"]["reference"]) == (2, None)


def test_shares_have_their_n_and_intervals() -> None:
    prompts = ["140 bpm"] * 10 + ["808 beat"]
    base, adapter = [heard(100.0)] * 11, [heard(140.0)] * 8 + [heard(100.0)] * 3
    held_out = references(["100 bpm"] * 3, [heard(100.0)] * 3)
    found = measure_obedience(prompts, Compared(base, adapter), held_out)
    tempo = found["measures"]["tempo"]
    assert (tempo["adapter"]["hits"], tempo["adapter"]["n"]) == (8, 10)
    assert tempo["adapter"]["ci_low"] == pytest.approx(0.490, abs=0.001)
    assert tempo["base"]["hits"] == 0
    assert tempo["reference"]["share"] == 1.0
    # Eight pairs gained, none lost.
    assert tempo["p_value"] == pytest.approx(2 / 2**8)
    assert found["measures"]["key"]["adapter"] is None
    nothing = measure_obedience(["808"], Compared(None, [heard(90.0)]), NONE)
    assert (nothing["computed"], nothing["why"]) == (
        False,
        "no prompt asks for anything that can be measured",
    )


def test_shares_stand_between_chance_and_held_out_clips() -> None:
    prompts = ["140 bpm", "140 bpm", "100 bpm", "100 bpm"]
    adapter = [heard(bpm) for bpm in (140.0, 100.0, 100.0, 140.0)]
    base = [heard(90.0)] * 4
    held_out = references(
        ["100 bpm", "84 bpm"],
        [heard(100.0), heard(84.0)],
        recorded={1: heard(84.0)},
        other_music={0: heard(100.0), 3: heard(55.0)},
        noise={},
    )
    tempo = measure_obedience(prompts, Compared(base, adapter), held_out)["measures"]["tempo"]
    # By its own caption; by 140 and by 100 in turn; and nothing was heard.
    assert tempo["anchors"] == {
        "recorded": {"hits": 1, "n": 1, "share": 1.0},
        "other_music": {"hits": 1, "n": 4, "share": 0.25},
        "noise": None,
    }
    assert (tempo["others"]["share"], tempo["reference"]["share"]) == (0.5, 1.0)
    assert tempo["position"] == {"base": -1.0, "adapter": 0.0}
