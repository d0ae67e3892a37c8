"""A command's messages about its flags name the fields of the page by their labels."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

import gradio as gr

from musicgen_lora.language.choice import Language
from musicgen_lora.webui.app import build_page
from musicgen_lora.webui.forms import check
from musicgen_lora.webui.labels import LABELS, with_labels
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace


def told(folder: Path, language: Language, command: str, **values: Any) -> str:
    """What the page says of settings that its command refuses."""
    with gr.Blocks():
        work = Workspace(folder / "w", start=lambda place: None)
        page = Page(work, Words(language), gr.Timer(1), folder)
    with pytest.raises(gr.Error) as caught:
        page.guarded(lambda: check(command, values), command)()
    return caught.value.message


PLAYED = {"prompts": ["trap"]}
TRAINED = {"data_dir": "/tmp"}


@pytest.mark.parametrize(
    ("command", "values", "english", "chinese"),
    [
        (
            "generate",
            PLAYED | {"bars": 2},
            '"Loop length in bars" 2: a loop needs its tempo; give "Tempo (BPM)", or state one '
            "in 'trap'.",
            "“循环的小节数” 2：循环要有速度；请填写 “速度（BPM）”，或在 'trap' 里写明。",
        ),
        (
            "generate",
            PLAYED | {"bpm": 999},
            '"Tempo (BPM)" = 999: Input should be less than or equal to 400.',
            "“速度（BPM）” = 999：应当小于或等于 400。",
        ),
        (
            "generate",
            PLAYED | {"regenerate": __file__, "from_bar": 3, "to_bar": 1},
            '"From bar" 3 is after "To bar" 1; swap them.',
            "“从第几小节” 3 在 “到第几小节” 1 之后；请对调。",
        ),
        (
            "train",
            TRAINED | {"previews": "off", "preview_prompts": ["trap"]},
            '"previews" off makes none: leave "preview_prompts" out.',
            "“previews” off 不生成试听：请去掉 “preview_prompts”。",
        ),
        # No field of the page: what it is called by the command alone.
        (
            "prepare",
            {"tagger": "clap"},
            '"tagger" clap needs --clap_path, a folder with a CLAP model.',
            "“tagger” clap 需要 --clap_path，即一个 CLAP 模型的文件夹。",
        ),
    ],
)
def test_flags_are_named_as_the_page_labels_them(
    tmp_path: Path, command: str, values: dict[str, Any], english: str, chinese: str
) -> None:
    lines = [told(tmp_path, language, command, **values) for language in ("en", "zh")]
    assert [html.unescape(line) for line in lines] == [english, chinese]


def test_what_is_no_flag_stays() -> None:
    say = Words("en")
    for line in ("beats: has no adapter yet.", "--no_bpm and --bpm_x", "key is none", "a -- b"):
        assert with_labels(line, "generate", say) == line


def test_labels_are_those_of_the_page(tmp_path: Path) -> None:
    work = Workspace(tmp_path / "w", start=lambda place: None)
    built = build_page(work, "en", tmp_path)
    shown = {getattr(block, "label", None) for block in built.blocks.values()}
    assert {label for names in LABELS.values() for label in names.values()} - shown == set()
