"""Lines come out in Chinese with the same values, or as they were."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import check_kind, fields, integer
from musicgen_lora.language import catalogue
from musicgen_lora.language.choice import choose
from musicgen_lora.language.templates import Template
from musicgen_lora.language.translate import filled, translated, word

CHINESE = catalogue.read(catalogue.path_of("zh"))
AWKWARD = (
    "/tmp/my beats/鼓 组 (1).wav",
    'it\'s "{0}" and {name} %s',
    "C:\\Musik\\808.flac",
    "-3.5",
    "trap & drill; vol. 3",
    "train/日本語.mp3",
    "held not audio missing",
    "⟨x|y⟩",
)
"""Values that look like other things: names, figures, markup, words of messages."""
FIGURES = ("-3.5", "鼓 a/b c.wav", "12,345", "x (1).flac")


@pytest.fixture(autouse=True)
def in_chinese() -> Iterator[None]:
    choose("zh")
    yield
    choose(None)


def made_of(template: Template, values: list[str], at: int) -> str:
    """A text of a template, in the `at`-th of its wordings."""
    wordings = [piece[at % len(piece)] for piece in template.pieces]
    return "".join(itertools.chain(*itertools.zip_longest(wordings, values, fillvalue="")))


def values_for(template: Template, at: int) -> list[str]:
    """Values that don't hold what the template itself has between them."""
    between = {wording for piece in template.pieces[1:] for wording in piece if wording}
    pool = FIGURES if template.is_weak else AWKWARD
    fitting = [v for v in pool if not any(piece.strip(" .") in v for piece in between)] or ["77"]
    numbers = ("1", "3", "1,200")
    values = []
    for index, noun in enumerate(template.nouns):
        number = numbers[(at + index) % len(numbers)]
        counted = f"{number} {noun}" + ("" if number == "1" else "s")
        values.append(counted if noun else fitting[(at + index) % len(fitting)])
    return values


def bare(text: str) -> str:
    """Without the spaces between Chinese and other letters."""
    return text.replace(" ", "")


def expected_of(template: Template, values: list[str]) -> str:
    """The translation with these values."""
    said = [
        CHINESE[f"{{0:{noun}}}"].replace("{0}", value.split()[0]) if noun else value
        for value, noun in zip(values, template.nouns, strict=True)
    ]
    return re.sub(r"\{(\d+)(!w)?\}", lambda slot: said[int(slot[1])], CHINESE[template.text])


@pytest.mark.parametrize("at", range(len(AWKWARD)))
def test_a_message_keeps_its_values(at: int) -> None:
    wrong = []
    for english in CHINESE:
        # Those of signs alone are filled in where they are known; a noun's is part of others.
        if not re.search(r"\{\d", english) or not re.search(
            "[A-Za-z]", re.sub(r"\{.*?\}", "", english)
        ):
            continue
        template = Template.of(english)
        values = values_for(template, at)
        said = translated(made_of(template, values, at))
        if bare(said) != bare(expected_of(template, values)):
            wrong.append((english, said))
    assert wrong == []


def test_a_message_without_values_is_said() -> None:
    bare_ones = [text for text in CHINESE if "{" not in text]
    assert [text for text in bare_ones if word(text) != CHINESE[text]] == []


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        # Messages in messages, and lists of them.
        (
            "kick.wav: 140 BPM (from file name), 70 BPM heard; captions say none",
            "kick.wav：140 BPM（文件名），听到 70 BPM；描述里写：无",
        ),
        (
            "28 files kept whole, 11 clips cut at fixed times",
            "28 个文件保持完整，11 个片段按固定时间切分",
        ),
        (
            "The loss is not finite at step 3 (clips: a.wav, b.wav); the step was not taken. "
            "Lower --learning_rate.",
            "第 3 步（片段：a.wav、b.wav）的损失变成了 NaN 或无穷大；这一步没有改动任何权重。"
            "请调低 --learning_rate。",
        ),
        (
            "Warning: the clips have no steady beat. Beat steadiness: 0.04 with the adapter, "
            "0.43 in the held-out audio (n = 8 clips / 1 source).",
            "警告：生成的音频没有稳定的节拍。节拍稳定度：适配器 0.04，留出音频 0.43"
            "（n = 8 个片段 / 1 个来源）。",
        ),
        ("1 file has a DC offset.", "1 个文件有直流偏移。"),
        ("2 files lose their bass in mono: it is out of phase between the channels.", ...),
        ("1 file loses its bass in mono: it is out of phase between the channels.", ...),
        # Behind the name of a file, whose letters stay.
        ("loops/a: b (2).wav: is not a regular file.", "loops/a: b (2).wav：不是普通文件。"),
        ("a.wav (the same bytes as b.wav)", "a.wav（与 b.wav 完全相同）"),
        ("rank = -1: Input should be greater than 0.", "rank = -1：应当大于 0。"),
        (
            "hub_base = 'x': not a Hub name; give OWNER/NAME, such as facebook/musicgen-small.",
            "hub_base = 'x'：不是 Hub 上的名称；请给“所有者/名称”，例如 facebook/musicgen-small。",
        ),
        (
            "temperature = 0.0001: is too small; give 0 (greedy) or at least 0.001.",
            "temperature = 0.0001：太小了；请给 0（即贪心），或至少 0.001。",
        ),
        (
            "ray = 'x': no such cluster; give local, auto or HOST:PORT, such as head:6379.",
            "ray = 'x'：没有这样的集群；请给 local、auto 或 HOST:PORT，例如 head:6379。",
        ),
        ("a.wav, b.wav and 3 more, in the report", ...),
        ("Advice: Lower --loudness.", "建议：请调低 --loudness。"),
        ("metadata.csv, line 12: 速度 '一百四'", "metadata.csv，第 12 行：速度 '一百四'"),
        # Rows of names and figures, and shares, as Chinese has them.
        (
            "Evaluating tiny-beats with out/a and out/b into e; loading the libraries takes a few "
            "seconds ...",
            "正在评测 tiny-beats 加 out/a 和 out/b，结果写入 e；正在载入所需的库，要等几秒……",
        ),
        ("\u221212.9 %", "\u221212.9%"),
        (
            "a.wav: adding 6 s at its end; the model hears the last 6.0 s. Windows begin on its "
            "bars (bar 1 at 0.00 s, 143 bpm: measured).",
            "a.wav：从结尾起再生成 6 秒；模型先听最后 6.0 秒。各窗口从它的小节线开始（第 1 小节始于"
            " 0.00 秒，143 bpm：听出来的）。",
        ),
        (
            "a.wav: crossfades at 5.104 to 5.114 s (-24.6 dB before, -18.9 after); 10.185 to "
            "10.195 s (-21.5 dB before, -20.7 after).",
            "a.wav：交叉淡化在 5.104 到 5.114 秒（之前 -24.6 dB，之后 -18.9 dB）；10.185 到 "
            "10.195 秒（之前 -21.5 dB，之后 -20.7 dB）。",
        ),
        ("50 % off, 2.wav", "50 % off, 2.wav"),
        # What a person wrote is no message, whatever it looks like.
        ("Note: “no clips. key: A minor.”", "提示：“no clips. key: A minor.”"),
        # What it can't say stays, whole.
        (
            "Something quite else: of which nobody knows.",
            "Something quite else: of which nobody knows.",
        ),
        ("base", "base"),
        ("Report", "Report"),
        ("", ""),
        ("output/held out/step-000100", "output/held out/step-000100"),
        ("  ", "  "),
    ],
)
def test_lines_as_commands_print_them(english: str, chinese: str) -> None:
    said = translated(english)
    if chinese is ...:
        assert re.search("[\u4e00-\u9fff]", said)
        assert not re.search("[A-Za-z]{2,}", re.sub(r"\w+\.wav", "", said))
    else:
        assert said == chinese


def test_an_error_of_nested_checks_is_said() -> None:
    with pytest.raises(UserError) as caught:
        check_kind({"a": {"b": 7}}, fields({"a": fields({"b": integer(0, 5)})}), "x.json")
    assert translated(str(caught.value)) == "x.json: a.b = 7：应当是 0 到 5 的整数。"


def test_what_is_known_where_it_is_said_is_filled_in() -> None:
    assert filled("{0}: {1}. {2}", "a {1}", "b", 3) == "a {1}：b。3"
    choose("en")
    assert filled("{0}: {1}. {2}", "a {1}", "b", 3) == "a {1}: b. 3"


def test_english_is_left_alone() -> None:
    choose("en")
    assert translated("1 file is clipped.") == "1 file is clipped."
    assert word("base") == "base"


@pytest.mark.parametrize(
    "name",
    [
        ": " * 3000,
        "; ".join(["3 clips"] * 4000),
        "(" * 5000 + ")" * 5000,
        "kick. Snare. " * 900,
        "is not a regular file. Report: " * 300,
        " with the base, " * 900,
    ],
    ids=lambda name: name[:12],
)
def test_a_name_made_to_hold_up_passes(name: str) -> None:
    """Each ends, since the work for one line is bounded."""
    for line in (name, f"{name}: is not a regular file.", f"Note: 2 clips: {name}"):
        assert translated(line)
