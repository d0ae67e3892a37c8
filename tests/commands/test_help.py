"""What --help says about the commands, and about each flag."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from musicgen_lora.cli import main
from musicgen_lora.commands.flags import parse_settings
from musicgen_lora.config import SETTINGS, groups


@pytest.mark.parametrize("command", list(SETTINGS))
def test_each_setting_belongs_to_one_group_of_the_help(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_settings(command, ["--help"], None)
    found: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        # A box has letters for a frame, or none.
        if title := re.fullmatch(r"\W*(\w+) options\W*", line):
            found[title[1]] = []
        elif flag := re.match(r"\W+--(\w+)", line):
            list(found.values())[-1].append(flag[1])
    assert found == {
        title: [field.name for field in dataclasses.fields(group)]
        for title, group in groups(SETTINGS[command]).items()
    }
    every = [name for names in found.values() for name in names]
    assert every == [field.name for field in dataclasses.fields(SETTINGS[command])]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        screen = capsys.readouterr().out
        assert all(command in screen for command in [*SETTINGS, "doctor"])
    assert main(["--version"]) == 0
    for command, settings in SETTINGS.items():
        with pytest.raises(SystemExit) as raised:
            main([command, "--help"])
        assert raised.value.code == 0
        screen = capsys.readouterr().out
        for field in dataclasses.fields(settings):
            assert f"--{field.name}" in screen or f"--{field.name.replace('_', '-')}" in screen


def test_help_flows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However a field's string is broken into lines in the source."""
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    assert "takes the fastest that is nearly lossless" in capsys.readouterr().out


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("command", list(SETTINGS))
def test_help_tells_one_default_of_each_flag(
    command: str,
    language: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a wide terminal the boxes stand side by side.
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help", "--language", language])
    shown = re.sub(r"[│╭╰╮╯─]", " ", capsys.readouterr().out)
    # A line of help that happens to begin with a flag is indented further.
    margin = min(len(spaces) for spaces in re.findall(r"^( *)--\w", shown, re.MULTILINE))
    flags = re.split(rf"^ {{{margin}}}(?=--\w)", shown, flags=re.MULTILINE)[1:]
    names = [field.name for field in dataclasses.fields(SETTINGS[command])]
    assert sorted(re.match(r"--(\w+)", flag)[1] for flag in flags) == sorted(names)  # pyright: ignore
    for flag in flags:
        flag = re.sub(r"\s+", " ", flag)
        found = re.findall(r"[(（]\s*(?:default|默\s*认)[^)）]*[)）]", flag)
        assert len(found) == 1, flag
        assert re.search(r"[:：]\s*[^)）\s]", found[0]), flag


def test_help_tells_the_default_of_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "400")

    def shown(*words: str) -> str:
        with pytest.raises(SystemExit):
            main(["generate", "--help", *words])
        return capsys.readouterr().out

    assert "what comes after it is dropped. (default: its end)" in shown()
    assert "What to generate: one prompt per clip. (default: none)" in shown()
    path = tmp_path / "settings.yaml"
    path.write_text("generate:\n  continue_at: 3\n  prompts: [one, two three]\n")
    from_file = shown("--config", str(path))
    assert "what comes after it is dropped. (default: 3.0)" in from_file
    assert "What to generate: one prompt per clip. (default: one 'two three')" in from_file


def test_doctor_has_help_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    assert "checks the installation" in capsys.readouterr().out


def test_help_whose_reader_has_gone_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout.flush", gone, raising=False)
        patch.setattr("os.dup2", lambda *_: None)
        assert main(["train", "--help"]) == 141
    assert not capsys.readouterr().err
