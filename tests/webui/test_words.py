"""Every word of the page has its Chinese, and so does what its functions raise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from musicgen_lora import webui
from musicgen_lora.webui.words import Words, chinese, preferred
from musicgen_lora.webui.work import strip
from musicgen_lora.webui.work.job import PAGE_COMMANDS

SOURCE = Path(webui.__file__).parent
OTHERS = frozenset(strip.SIGNS) | set(PAGE_COMMANDS)
"""Said by the value of a variable."""


def sources() -> list[ast.AST]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")]


def said() -> set[str]:
    """Texts that the page passes through its words, and those of tables and loops."""
    found = set(OTHERS)
    for node in (node for tree in sources() for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = ast.unparse(node.func)
            if name.split(".")[-1] in ("say", "words") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return found


def raised() -> set[str]:
    """Texts of the page's UserErrors, with {} for values; the `ui` command's are in the catalogue
    of all commands."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_error = isinstance(node, ast.Call) and ast.unparse(node.func) == "UserError"
            if is_error and path.name != "ui.py":
                text = node.args[0]
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                found.add("".join(p.value if isinstance(p, ast.Constant) else "7" for p in parts))
    return found


def test_every_word_has_its_chinese() -> None:
    assert said() - set(chinese()) == set()
    assert len(said()) > 70


def test_words_of_tables_have_their_chinese() -> None:
    pytest.importorskip("gradio", reason="the page's library is not installed")
    from musicgen_lora.webui.app import LIBRARY, OF_ONE, TABS
    from musicgen_lora.webui.tabs.clips import HEADERS
    from musicgen_lora.webui.tabs.generate import CHIPS
    from musicgen_lora.webui.tabs.history import ACTS
    from musicgen_lora.webui.tabs.models import HEADS
    from musicgen_lora.webui.tabs.recordings import KINDS
    from musicgen_lora.webui.tabs.train import PRESETS

    words = {*TABS, *HEADERS, *CHIPS, *HEADS, *PRESETS, *ACTS.values(), *KINDS.values(), OF_ONE}
    words |= set(LIBRARY)
    words |= {word for chips in CHIPS.values() for word in chips}
    assert words - set(chinese()) == set()
    everything = "\n".join(ast.unparse(tree) for tree in sources())
    known = words | said()
    plain = {text for text in chinese() if "{" not in text and text not in known}
    assert [text for text in plain if text not in everything] == []


def test_what_the_page_raises_is_chinese() -> None:
    zh = Words("zh")
    # What pydantic and the system say is in the catalogue of all commands.
    lines = raised() - {"7", "7: 7."}
    assert len(lines) > 25
    assert [line for line in lines if not re.search("[\u4e00-\u9fff]", zh.line(line))] == []


def test_translations_have_the_same_values() -> None:
    for english, target in chinese().items():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", target)), english


def test_lines_of_commands_and_of_nobody() -> None:
    zh = Words("zh")
    assert zh.line("my beats: has not ended yet.") == "my beats：尚未结束。"
    line = "Give --input_dir, the folder with your audio, or --create_example."
    assert re.search("[\u4e00-\u9fff]", zh.line(line))
    assert zh.line("qwertyuiop") == "qwertyuiop"
    assert Words("en").line(line) == line


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de-DE,de;q=0.9,en;q=0.8,zh;q=0.7", "en"),
        ("fr, zh-TW", "zh"),
        ("", "en"),
        ("xx" * 10_000, "en"),
    ],
)
def test_the_browsers_first_language_that_the_page_speaks(accepted: str, language: str) -> None:
    assert preferred(accepted) == language
