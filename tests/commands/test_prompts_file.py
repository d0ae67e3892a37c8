"""Prompts from a file: what each format says, and how errors are reported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from musicgen_lora.config import GenerateSettings, prompts
from musicgen_lora.config.prompts import clip_orders, read_prompts
from musicgen_lora.errors import UserError


def orders_of(path: Path, content: Any, **values: Any) -> list[GenerateSettings]:
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    settings = GenerateSettings(**({"prompts_file": path} | values))
    return [order.settings for order in clip_orders(settings)]


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    found = orders_of(
        tmp_path / "a.txt", "\ufeffdark trap\r\n\n  lo-fi, 80 bpm \n", prompts=["first"]
    )
    assert [one.prompts for one in found] == [["first"], ["dark trap"], ["lo-fi, 80 bpm"]]
    assert [one.seed for one in found] == [0, 1, 2]


def test_json_lines_have_a_prompt_a_line(tmp_path: Path) -> None:
    found = orders_of(tmp_path / "a.jsonl", '{"prompt": "trap", "bpm": 140}\n\n"lo-fi"\n')
    assert [(one.prompts, one.bpm) for one in found] == [(["trap"], 140.0), (["lo-fi"], None)]


def test_brackets_may_begin_a_prompt(tmp_path: Path) -> None:
    found = orders_of(tmp_path / "a.txt", "[intro] dark pads\n{808}\nprompt drums\n")
    assert len(found) == 3


def test_a_row_of_json_and_csv_has_settings_of_its_own(tmp_path: Path) -> None:
    table = (
        "prompt;negative_prompt;Duration;seed;bpm;bars;key;top_k;variations;midi\n"
        '"dark; trap";vocals;4.5;7;140;4;Am;50;2;true\n'
        "plain;;;;;;;;;\n"
    )
    rows = [
        {
            "prompt": "dark; trap",
            "negative_prompt": "vocals",
            "duration": 4.5,
            "seed": 7,
            "bpm": 140,
            "bars": 4,
            "key": "Am",
            "top_k": 50,
            "variations": 2,
            "midi": True,
        },
        "plain",
    ]
    given = {"temperature": 0.5, "variations": 3, "negative_prompt": "drums"}
    by_json = orders_of(tmp_path / "a.json", rows, **given)
    assert orders_of(tmp_path / "a.csv", table, **given) == by_json
    assert [one.seed for one in by_json] == [7, 8, 2, 3, 4]
    first, *_, last = by_json
    assert (first.duration, first.bpm, first.bars, first.key, first.top_k) == (
        4.5,
        140,
        4,
        "Am",
        50,
    )
    assert (first.negative_prompt, last.negative_prompt) == ("vocals", "drums")
    assert (last.duration, last.bpm, last.midi) == (10.0, None, False)
    assert {one.temperature for one in by_json} == {0.5}
    assert {one.variations for one in by_json} == {1}


def test_a_chinese_table_names_its_columns_in_chinese(tmp_path: Path) -> None:
    table = "提示词,反向提示词,时长,速度,种子\n暗黑陷阱,人声,4.5,140,7\n"
    rows = [{"提示词": "暗黑陷阱", "负面提示词": "人声", "时长": 4.5, "bpm": 140, "种子": 7}]
    (found,) = orders_of(tmp_path / "a.csv", table)
    assert (found.prompts, found.negative_prompt) == (["暗黑陷阱"], "人声")
    assert (found.duration, found.bpm, found.seed) == (4.5, 140.0, 7)
    (same,) = orders_of(tmp_path / "a.json", rows)
    assert same.bpm == found.bpm
    assert same.negative_prompt == found.negative_prompt


def test_what_spreadsheets_add_to_a_table_is_passed_over(tmp_path: Path) -> None:
    """A line that names the separator, lines without a cell, and cells beyond the last column."""
    table = "sep=;\r\n\r\nprompt;bpm;\r\na, b;90;;\r\n;;;\r\nc;80\r\n"
    found = orders_of(tmp_path / "a.csv", table)
    assert [(one.prompts, one.bpm) for one in found] == [(["a, b"], 90), (["c"], 80)]
    with pytest.raises(UserError, match="line 6: bpm = 'x'"):
        orders_of(tmp_path / "a.csv", table.replace("80", "x"))


@pytest.mark.parametrize("mark", ["\u2028", "\x0b", "\x85", "\x0c"])
def test_only_line_breaks_end_a_prompt(mark: str, tmp_path: Path) -> None:
    text = f"dark{mark}trap"
    found = orders_of(tmp_path / "a.txt", f"{text}\rdrill\r\nboom bap\n")
    assert [one.prompts for one in found] == [[text], ["drill"], ["boom bap"]]
    if mark == "\u2028":
        line = json.dumps({"prompt": text}, ensure_ascii=False)
        assert orders_of(tmp_path / "a.jsonl", line)[0].prompts == [text]


def test_prompts_follow_each_other_in_a_clip(tmp_path: Path) -> None:
    parts = [{"at": 0, "prompt": "pads"}, {"at": 20, "prompt": "full beat"}]
    (by_file,) = orders_of(tmp_path / "a.json", [{"prompts": parts, "duration": 40}])
    flags = GenerateSettings(prompts=["pads", "full beat"], change_at=[20.0], duration=40.0)
    (by_flags,) = [order.settings for order in clip_orders(flags)]
    assert by_file == by_flags
    assert by_flags.prompts == ["pads", "full beat"]


def test_another_encoding_is_read_and_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("暗黑的陷阱节拍、有钢琴和808低音。\n".encode("gb18030"))
    (row,), guessed = read_prompts(path)
    assert row.prompts == ("暗黑的陷阱节拍、有钢琴和808低音。",)
    assert guessed == "GB18030"


def test_a_file_is_read_once_unless_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks, counts and clips use the same prompts."""
    path, read = tmp_path / "a.txt", []
    original = prompts.read_bytes
    monkeypatch.setattr(prompts, "read_bytes", lambda *of: read.append(of) or original(*of))
    path.write_text("trap beat\n")
    settings = GenerateSettings(prompts_file=path)
    assert len(read_prompts(path)[0]) == len(clip_orders(settings)) == len(clip_orders(settings))
    assert len(read) == 1
    path.write_text("trap beat\ndrill beat\n")
    assert [order.settings.prompts for order in clip_orders(settings)] == [
        ["trap beat"],
        ["drill beat"],
    ]
    assert len(read) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", " \n\n", "has no prompt"),
        ("a.txt", b"\x00\x01\xff", "line 1: not UTF-8"),
        ("a.txt", "x" * (1 << 20) + "x", "is too large for such a file, over 1024 KiB"),
        ("a.json", [], "has no prompt"),
        ("a.json", {"prompt": "x"}, "must be a list"),
        ("a.json", ["x", 3], "entry 2: 3 is neither a prompt"),
        (
            "a.json",
            ["x", {"prompt": "y", "temprature": 1}],
            "'temprature': no such field; did you mean temperature?",
        ),
        ("a.json", [{"prompt": "y", "duration": 1e9}], "entry 1: duration = 1000000000.0: "),
        ("a.json", [{"prompt": "y", "bpm": "fast"}], "entry 1: bpm = 'fast': "),
        ("a.json", [{"prompt": "y", "output_dir": "/"}], "entry 1: 'output_dir': no such field"),
        ("a.json", [{"bpm": 140}], 'entry 1: needs a "prompt"'),
        ("a.json", [{"prompt": 5}], "entry 1: prompt = 5: must say what to generate"),
        ("a.json", [{"prompts": [{"at": 3, "prompt": "x"}]}], 'the first must have "at": 0'),
        ("a.json", [{"prompts": [{"prompt": "x"}]}], 'must have only "at" (seconds) and "prompt"'),
        (
            "a.json",
            [{"prompts": [{"at": 0, "prompt": "x"}, {"at": 20, "prompt": "y"}]}],
            "entry 1: --change_at 20: times must increase and lie within the clip's 10 s",
        ),
        ("a.json", '["x",', "line 1: not valid JSON"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt"', "line 2: not valid JSON"),
        ("a.jsonl", '{"prompt": "x", "duratoin": 3}', "line 1: 'duratoin': no such field"),
        ("a.txt", 'trap\n{"prompt": "x"}\n', "line 2: is not a prompt but a field of one"),
        ("a.txt", '[\n"x"\n]\n', "line 1: is not a prompt but a field of one"),
        ("a.yaml", "- prompt: x\n  bpm: 140\n", "line 1: is not a prompt but a field of one"),
        ("a.txt", "# night\ntrap\n", "line 1: begins with #, but every line is a prompt"),
        ("a.txt", "trap\n- drill\n", "line 2: begins with -, but every line is a prompt"),
        ("a.txt", "prompt,bpm\ntrap,90\n", "line 1: is not a prompt but the header of a table"),
        ("a", "提示词\t速度\n陷阱\t90\n", "line 1: is not a prompt but the header of a table"),
        ("a.txt", "trap beat\n".encode("utf-16-le"), "line 1: not UTF-8"),
        ("a.txt", "trap beat\n".encode("utf-32"), "line 1: not UTF-8"),
        ("a.json", [{"prompt": "x", "duration": True}], "duration = True: must not be true or"),
        ("a.csv", "prompt,bpm\nx,140\ny,fast\n", "line 3: bpm = 'fast': "),
        ("a.csv", "prompt,tempo\nx,140\n", "line 2: 'tempo': no such field; use one of: prompt"),
        ("a.csv", "prompt,提示词\nx,y\n", "the column 'prompt' occurs twice"),
        ("a.json", [{"prompt": "x", "提示词": "y"}], "'提示词': prompt is given twice"),
        ("a.csv", "prompt,bpm\n,140\n", 'line 2: needs a "prompt"'),
        ("a.csv", "prompt\nx,y\n", "line 2: more columns than the header"),
        ("a.json", [{"prompt": "x", "variations": 1000}] * 11, "more than 10,000 clips"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_row(
    name: str, content: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        orders_of(tmp_path / name, content)
    assert "\n" not in str(caught.value)
    assert said.startswith("more than") or str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"prompts": ["a", "b"], "change_at": [2.0, 4.0]},
            "2 times for 2 prompts; give one for each",
        ),
        ({"prompts": ["a", "b", "c"], "change_at": [4.0, 2.0]}, "times must increase"),
        ({"prompts": ["a", "b"], "change_at": [4.0], "bars": 2}, "take one prompt"),
        ({"from_bar": 1}, "add --regenerate FILE"),
        ({"heard": 2.0}, "--heard needs a recording"),
        ({"continue_at": 2.0}, "--continue_at needs a recording"),
        ({"regenerate": Path("a.wav"), "from_bar": 1}, "needs --from_bar and --to_bar"),
        ({"regenerate": Path("a.wav"), "from_bar": 3, "to_bar": 2}, "is after --to_bar 2"),
        ({"regenerate": Path("a.wav"), "continue_from": Path("a.wav")}, "pass only one of them"),
        ({"continue_from": Path("a.wav"), "bars": 4}, "--bars is for whole clips"),
        ({"continue_from": Path("a.wav"), "loudness": -14.0}, "--loudness is for whole clips"),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        GenerateSettings(**values)


def test_seeds_beyond_the_highest_are_told_by_the_one_that_was_given(tmp_path: Path) -> None:
    highest = 2**63 - 1
    told = f"each further clip takes the next seed, and the highest is {highest}; give a lower one."
    with pytest.raises(UserError) as raised:
        clip_orders(GenerateSettings(prompts=["a", "b"], seed=highest))
    assert str(raised.value) == f"--seed {highest}: {told}"
    file = tmp_path / "a.csv"
    file.write_text(f"prompt,seed,variations\n808,{highest - 1},3\n")
    with pytest.raises(UserError) as raised:
        clip_orders(GenerateSettings(prompts_file=file))
    assert str(raised.value) == f"{file}, line 2: seed = {highest - 1}: {told}"
