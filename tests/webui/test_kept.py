"""What the browser has kept comes back where it could have been typed, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

import gradio as gr

from musicgen_lora.webui.kept import Kept, fits, wanted
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace

SKIPPED = gr.skip()
NAMES = ("words", "rank", "seed", "midi", "preset", "adapter")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A tab that keeps a field of each kind, the last of them listed from folders."""
    tmp_path = tmp_path_factory.mktemp("kept")
    with gr.Blocks():
        page = Page(Workspace(tmp_path / "w"), Words("en"), gr.Timer(1), tmp_path)
        fields = [
            gr.Textbox("", elem_id="words"),
            gr.Slider(1, 8, elem_id="rank"),
            gr.Number(0, minimum=0, elem_id="seed"),
            gr.Checkbox(False, elem_id="midi"),
            gr.Radio(["quick", "thorough"], elem_id="preset"),
            gr.Dropdown([], elem_id="adapter"),
        ]
        found = Kept(page)
        found.keep(fields, listed=[fields[-1]])
    return found


def values(kept: Kept, saved: Any) -> list[Any]:
    return [None if each == SKIPPED else each["value"] for each in kept.back(saved)]


def test_what_was_typed_comes_back(kept: Kept) -> None:
    saved = {"words": "trap", "rank": 3, "seed": 7, "midi": True, "preset": "thorough"}
    assert values(kept, saved | {"adapter": "x", "older": 1}) == ["trap", 3, 7, True, "thorough"]
    assert wanted(saved | {"adapter": "x"}, "adapter") == "x"
    assert values(kept, {"rank": 3}) == [None, 3, None, None, None]


@pytest.mark.parametrize("saved", [None, "", 3, [], ["words"], {}, {"other": 1}])
def test_nothing_kept_changes_nothing(kept: Kept, saved: Any) -> None:
    assert values(kept, saved) == [None] * 5
    assert wanted(saved, "adapter") is None


@pytest.mark.parametrize(
    "odd",
    [None, {"value": 1}, [1], "x" * 1001, "gone", 10**400, -1, 0.5, True, float("nan"), "../x"],
    ids=lambda odd: repr(odd)[:12],
)
def test_no_field_takes_what_could_not_be_typed_there(kept: Kept, odd: Any) -> None:
    words, rank, seed, midi, preset = values(kept, dict.fromkeys(NAMES, odd))
    assert words is None or isinstance(words, str)
    assert rank is None or 1 <= rank <= 8
    assert seed is None or seed >= 0
    assert midi in (None, True)
    assert preset is None


def test_a_field_of_another_kind_takes_nothing() -> None:
    with gr.Blocks():
        assert not fits(gr.HTML(), "<b>x</b>")
