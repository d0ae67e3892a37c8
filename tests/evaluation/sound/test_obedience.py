"""What a prompt asks for, and whether a clip does it."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.evaluation.measures.damage import Damage
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.obedience import judge_clip, measure_obedience, read_prompt


@pytest.mark.parametrize(
    ("prompt", "bpm", "key"),
    [
        ("trap beat with claps, 140 bpm, C# minor", 140.0, (1, True)),
        ("84 bpm busy southern 808 hip hop beat in B minor with swing", 84.0, (11, True)),
        ("drill trap beat at 143.5 bpm in F# minor: gliding bass", 143.5, (6, True)),
        ("hip hop. bpm: 92. key: Bb major.", 92.0, (10, False)),
        ("beat in A-sharp major", None, (10, False)),
        ("hip hop 808 beat with trap drums", None, None),
        ("a minor change of the beat, 808", None, None),
        ("at 00 bpm", None, None),
        ("Dm loop at 90BPM", 90.0, (2, True)),
    ],
)
def test_prompts(prompt: str, bpm: float | None, key: tuple[int, bool] | None) -> None:
    asked = read_prompt(prompt)
    assert (asked.bpm, asked.key) == (bpm, key)


def test_a_clip_is_judged_by_what_was_asked() -> None:
    asked = read_prompt("140 bpm, C# minor")
    assert all(judge_clip(asked, 143.0, "Db minor").values())
    half = judge_clip(asked, 70.0, "E major")
    assert half == {"tempo": False, "tempo_or_octave": True, "key": False, "key_or_relative": True}
    # What isn't heard isn't as it was asked for.
    assert not any(judge_clip(asked, float("nan"), None).values())
    assert set(judge_clip(read_prompt("808"), 140.0, "C minor").values()) == {None}


def heard(bpm: float) -> Heard:
    return Heard({}, {}, Damage(0, 0, 0.0), np.zeros(0, np.uint64), bpm, None)


def test_shares_have_their_n_and_intervals() -> None:
    prompts = ["140 bpm"] * 10 + ["808 beat"]
    base, adapter = [heard(100.0)] * 11, [heard(140.0)] * 8 + [heard(100.0)] * 3
    found = measure_obedience(prompts, base, adapter, ["100 bpm"] * 3, [heard(100.0)] * 3)
    tempo = found["measures"]["tempo"]
    assert (tempo["adapter"]["hits"], tempo["adapter"]["n"]) == (8, 10)
    assert tempo["adapter"]["ci_low"] == pytest.approx(0.490, abs=0.001)
    assert tempo["base"]["hits"] == 0
    assert tempo["reference"]["share"] == 1.0
    # Eight pairs gained, none lost.
    assert tempo["p_value"] == pytest.approx(2 / 2**8)
    assert found["measures"]["key"]["adapter"] is None
    nothing = measure_obedience(["808"], None, [heard(90.0)], [], [])
    assert (nothing["computed"], nothing["why"]) == (False, "no prompt names a tempo or a key")
