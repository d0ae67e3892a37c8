"""Who speaks which language, and on which terminals."""

from __future__ import annotations

import ctypes
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from chinese import english_in
from rich.cells import cell_len

from musicgen_lora.cli import main
from musicgen_lora.commands.table import COMMANDS, DOCTOR
from musicgen_lora.errors import UserError
from musicgen_lora.language.choice import VARIABLE, choose, chosen_language, system_language


@pytest.fixture(autouse=True)
def as_before():
    yield
    choose(None)


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.GB18030"}, "zh"),
        ({"LANG": "zh"}, "zh"),
        ({"LANG": "zh-Hans-CN"}, "zh"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_CN.UTF-8", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANGUAGE": "fr:zh_CN:en", "LANG": "fr_FR.UTF-8"}, "zh"),
        ({"LANGUAGE": "en:zh", "LANG": "zh_CN.UTF-8"}, "en"),
        # As scripts ask for output that they read.
        ({"LC_ALL": "C", "LANGUAGE": "zh_CN", "LANG": "zh_CN.UTF-8"}, "en"),
        ({VARIABLE: "zh", "LC_ALL": "C"}, "zh"),
        ({VARIABLE: "en", "LANG": "zh_CN.UTF-8"}, "en"),
    ],
)
def test_the_system_is_asked(environment: dict[str, str], language: str) -> None:
    assert system_language(environment) == language


@pytest.mark.parametrize(("identifier", "language"), [(0x0804, "zh"), (0x0409, "en")])
def test_windows_is_asked_where_the_environment_says_nothing(
    identifier: int, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = SimpleNamespace(GetUserDefaultUILanguage=lambda: identifier)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert system_language({}) == language
    assert system_language({"LANG": "en_US"}) == "en"


@pytest.fixture
def chinese_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")


@pytest.mark.usefixtures("chinese_system")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--data_dir", "/nowhere"], "musicgen-lora train: /nowhere：没有这个数据目录"),
        (["train", "--batch_size", "0"], "musicgen-lora train: batch_size = 0：应当大于"),
        (
            ["train", "--nosuch", "3"],
            "--nosuch：没有这个参数；可用的见 --help。",
        ),
        (["train", "--lora_rnk", "3"], "--lora_rnk：没有这个参数；是不是 --lora_rank"),
        (["train", "stray"], "stray：不属于任何参数；多个词的文字请放在引号里。"),
        (["train", "--precision", "fp8"], "--precision fp8：只能是 auto, bf16, fp16, fp32。"),
        (["train", "--batch_size"], "--batch_size 后面缺少值。"),
        (["train", "--batch_size", "x"], "--batch_size x：应当是整数。"),
        (["train", "--learning_rate", "x"], "--learning_rate x：应当是数。"),
        (["generate", "--config"], "--config 后面要写一个文件。"),
        (["gnerate"], "musicgen-lora gnerate: 没有这条命令；是不是想写 generate"),
        (["fly"], "musicgen-lora fly: 没有这条命令；可用的有：prepare"),
        (["prepare", "--input_dir", "/nowhere"], "/nowhere：没有这个文件夹"),
        (["train", "--language", "en", "--data_dir", "/nowhere"], "no such data folder"),
        (["--language=en", "train", "--data_dir=/nowhere"], "no such data folder"),
        (["train", "--language", "fr"], "'fr'：没有这种语言；可用的有：en, zh"),
        (["train", "--language"], "''：没有这种语言；可用的有：en, zh"),
    ],
)
def test_errors_are_in_the_users_language(arguments: list[str], says: str, capsys) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


def test_the_flag_wins_over_an_english_system(capsys) -> None:
    assert main(["train", "--data_dir", "/nowhere", "--language", "zh"]) == 2
    assert "没有这个数据目录" in capsys.readouterr().err
    # It is of one command, not of those that come later in a notebook.
    assert main(["train", "--data_dir", "/nowhere"]) == 2
    assert "no such data folder" in capsys.readouterr().err


def test_the_overview_is_chinese(capsys) -> None:
    assert main(["--help", "--language", "zh"]) == 0
    said = capsys.readouterr().out
    assert english_in(said, *COMMANDS, DOCTOR, "audiocraft", "zh", "en") == []


@pytest.mark.parametrize("command", ["prepare", "tokenise", "train", "generate", "evaluate"])
def test_the_help_of_flags_is_chinese(command: str, capsys) -> None:
    def shown(*flags: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help", *flags])
        assert stop.value.code == 0
        return capsys.readouterr().out

    before, chinese = shown(), shown("--language", "zh")
    helped = [line for line in chinese.splitlines() if any("\u4e00" <= c <= "\u9fff" for c in line)]
    assert len(helped) > len(before.splitlines()) / 4
    assert "show this help" not in chinese
    assert max(map(cell_len, chinese.splitlines())) <= 80
    for flag in re.findall(r"^[│ ]+(--\w+)", before, re.MULTILINE):
        assert flag in chinese
    # Chinese of one call is not that of the next.
    assert shown() == before


def test_an_unknown_language_of_the_environment_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv(VARIABLE, "klingon")
    assert main(["doctor"]) == 2
    assert "'klingon': is unknown; use one of: en, zh." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("utf-8", "没有这个数据目录"),
        ("gbk", "没有这个数据目录"),
        ("ascii", "no such data folder"),
        ("cp1252", "no such data folder"),
    ],
)
def test_a_terminal_without_chinese_letters_is_told_in_english(
    encoding: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    # A letter that none of them has passes too, spelled out.
    assert main(["train", "--data_dir", "/nowhere/\U0001f941", "--language", "zh"]) == 2
    streams[1].flush()
    said = streams[1].buffer.getvalue().decode(encoding)
    assert says in said
    assert ("has no Chinese characters" in said) is (encoding in ("ascii", "cp1252"))


def test_a_command_speaks_chinese_to_its_end(tmp_path: Path, capsys) -> None:
    out = tmp_path / "data"
    flags = ["--create_example", "--num_samples", "1", "--output_dir", str(out)]
    assert main(["prepare", *flags, "--language", "zh"]) == 0
    said = capsys.readouterr().out
    assert "1 段示例 Beat" in said
    assert english_in(said, str(out)) == []
    # What the text encoder reads, and tools, stays English.
    assert "808" in (out / "metadata.json").read_text()
    assert not any("\u4e00" <= letter <= "\u9fff" for letter in (out / "metadata.json").read_text())


def test_the_language_lasts_until_another_is_chosen() -> None:
    choose("zh")
    assert chosen_language() == "zh"
    choose(None)
    assert chosen_language() == "en"
    with pytest.raises(UserError, match="unknown"):
        choose("fr")
