"""Figures go into the card next to the adapter, and none of the user's text is lost."""

from __future__ import annotations

import re

import pytest

from musicgen_lora.evaluation.report.card import BEGIN, END, put_in
from musicgen_lora.model.lora.card import EXAMPLES

OURS = f"# LoRA adapter\n\nFigures.\n\n{EXAMPLES}\n\n```sh\nmusicgen-lora\n```\n"
SECTION = "## Evaluation\n\n| | verdict |\n"


def without_block(card: str) -> str:
    return re.sub(rf"{re.escape(BEGIN)}.*{re.escape(END)}\r?\n(\r?\n)?", "", card, flags=re.DOTALL)


@pytest.mark.parametrize("card", [OURS, "my own words\n", "", OURS.replace("\n", "\r\n")])
def test_the_section_is_added_and_replaced_and_all_else_stays(card: str) -> None:
    first = put_in(card, SECTION)
    assert first is not None
    assert without_block(first).rstrip() == card.rstrip()
    assert first.count("## Evaluation") == 1
    assert ("\r\n" in first) == ("\r\n" in card)
    assert "\n" not in first.replace("\r\n", "") or "\r\n" not in card
    again = put_in(first.replace("Figures.", "Mine."), "## Evaluation\n\nnewer\n")
    assert again is not None
    assert "verdict" not in again
    assert "newer" in again
    assert without_block(again) == without_block(first.replace("Figures.", "Mine."))


def test_it_stands_before_the_examples() -> None:
    told = put_in(OURS, SECTION)
    assert told is not None
    assert told.index("Figures.") < told.index(BEGIN) < told.index(END) < told.index(EXAMPLES)


@pytest.mark.parametrize("marks", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_marks_that_are_no_pair_are_left_alone(marks: str) -> None:
    assert put_in(f"mine\n{marks}\nmine too\n", SECTION) is None
