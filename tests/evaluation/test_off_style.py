"""Prompts in other styles: which are chosen, and what the adapter does to them."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.evaluation.measures.damage import Damage
from musicgen_lora.evaluation.off_style import (
    CAPTION_ORIGIN,
    OFF_STYLE_PROMPTS,
    OWN_ORIGIN,
    choose_off_style,
)
from musicgen_lora.evaluation.report.unasked import off_style_rows, off_style_sentences
from musicgen_lora.evaluation.sound.comparison import SHOWN
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.unasked import find_changed, measure_off_style

KNOWN = ["trap beat with 808 bass and hi-hats, 140 bpm", "southern hip hop beat, drums, claps"]
OTHERS = [
    "busy boom-bap hip hop with drums and bass",
    "62 bpm chillout, choir alone, in F major",
    "chillout with choir, warm pad",
    "jazz trio, saxophone",
]


def test_what_has_least_in_common_is_chosen() -> None:
    chosen = choose_off_style(OTHERS, KNOWN, [], 2)
    assert [item["prompt"] for item in chosen] == [OTHERS[1], OTHERS[3]]
    # The second chillout has what the first one has.
    assert [item["prompt"] for item in choose_off_style(OTHERS, KNOWN, [], 4)][2:] == [
        OTHERS[2],
        OTHERS[0],
    ]
    assert {item["origin"] for item in chosen} == {CAPTION_ORIGIN}


def test_own_prompts_come_where_no_other_music_is_known() -> None:
    piano = ["solo piano, slow and tender", "string quartet", "acoustic guitar, fingerpicking"]
    chosen = choose_off_style([], piano, [OFF_STYLE_PROMPTS[4]], 3)
    assert len({item["prompt"] for item in chosen}) == 3
    assert not {item["prompt"] for item in chosen} & {*OFF_STYLE_PROMPTS[:3], OFF_STYLE_PROMPTS[4]}
    assert {item["origin"] for item in chosen} == {OWN_ORIGIN}
    assert choose_off_style(OTHERS, KNOWN, [], 0) == []
    assert len(choose_off_style(OTHERS, KNOWN, OTHERS, 1000)) == len(OFF_STYLE_PROMPTS)


def heard(level_db: float, **descriptors: float) -> Heard:
    facts = {shown.name: 0.0 for shown in SHOWN} | descriptors
    vectors = {"log_mel": np.full(4, level_db)}
    return Heard(facts, vectors, Damage(0, 0, 0.0), np.zeros(0, np.uint64), np.nan, None)


def test_distances_are_read_between_another_seed_and_another_prompt() -> None:
    base, again = [heard(0.0), heard(10.0)], [heard(1.0), heard(12.0)]
    adapter, own = [heard(4.0), heard(10.0)], [heard(20.0), heard(30.0)]
    found = measure_off_style(base, again, adapter, own, seed=0)
    rows = found["prompts"]
    assert [row["another_seed"] for row in rows] == pytest.approx([1.0, 2.0])
    assert [row["adapter"] for row in rows] == pytest.approx([4.0, 0.0])
    assert [row["base_to_style"] for row in rows] == pytest.approx([25.0, 15.0])
    assert [row["adapter_to_style"] for row in rows] == pytest.approx([21.0, 15.0])
    assert found["another_prompt"] == pytest.approx(10.0)
    assert found["change"]["difference"] == pytest.approx(0.5)
    assert found["towards_style"]["difference"] == pytest.approx(-2.0)
    alone = measure_off_style(base[:1], again[:1], adapter[:1], own, seed=0)
    assert alone["another_prompt"] is None


def test_what_another_seed_changes_too_is_not_told_as_changed() -> None:
    base = [heard(0.0, band_20_60_share=0.1, swing=0.5) for _ in range(2)]
    again = [heard(0.0, band_20_60_share=0.2, swing=0.5), base[1]]
    adapter = [
        heard(0.0, band_20_60_share=0.15, swing=0.6, tempo_bpm=90.0),
        heard(0.0, band_20_60_share=0.5, swing=0.51, sub_f0_hz=np.nan),
    ]
    sides = [[one.descriptors for one in side] for side in (base, again, adapter)]
    # By less than by another seed; by more; by less than is heard.
    assert find_changed(*sides) == [["swing"], ["band_20_60_share"]]


def test_it_is_told_with_its_n_and_anchors() -> None:
    clips = [heard(float(level)) for level in (0, 3, 9, 12)]
    found = measure_off_style(clips, clips[::-1], clips[1:] + clips[:1], clips, seed=0)
    entry = clips[0].played("a.wav")
    part = {
        "computed": True,
        **found,
        "clips": [
            {"prompt": "jazz", "identical": row == 0, "measured": own}
            | dict.fromkeys(("base", "again", "adapter"), entry)
            for row, own in enumerate(found["prompts"])
        ],
    }
    told = off_style_sentences(part)
    assert "another seed alone makes a difference of" in told[0]
    assert all("n = 4 prompts, difference" in said for said in told[:2])
    assert told[2] == "Identical to the base's, token by token: 1 of these clips (n = 4 prompts)."
    assert {row["another_prompt"] for row in off_style_rows(part)} == {"7.0"}
    assert off_style_sentences({"computed": False, "why": "needs --compare"}) == []
