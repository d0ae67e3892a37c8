"""What is refused before the libraries load, and what a command says before loading them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from adapters import draw_adapter

from musicgen_lora import cli, extras
from musicgen_lora.cli import main
from musicgen_lora.commands.flags import parse_settings
from musicgen_lora.config import SETTINGS
from musicgen_lora.errors import UserError
from musicgen_lora.given import check_adapter_folder
from musicgen_lora.model.lora.fitting import check_fits

IS_FILE = "{file}: is a file, not a folder; give the folder that it is in"


def no_load(place: str) -> Any:
    """Stands in for loading a command's function when nothing should be loaded."""
    return pytest.fail(f"it has loaded {place}")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Places that exist, one of which is a file."""
    for name in ("data", "audio", "adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "metadata.json").write_text("[]")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).touch()
    (tmp_path / "file").touch()
    (tmp_path / "rows.json").write_text('["x", {"prompt": "x", "key": "H"}]')
    names = ("data", "audio", "adapter", "file", "rows.json", "out", "mistyped")
    return {name.partition(".")[0]: tmp_path / name for name in names}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prepare", "Give --input_dir"),
        ("prepare --input_dir {mistyped}", "{mistyped}: no such folder"),
        (
            "prepare --input_dir {file}",
            IS_FILE,
        ),
        ("prepare --input_dir {audio} --output_dir {file}/x", "cannot be written"),
        ("tokenise --data_dir {mistyped}", "{mistyped}: no such data folder"),
        ("tokenise --data_dir {audio}", "{audio}/metadata.json: no such metadata file"),
        ("train --data_dir {mistyped}", "{mistyped}: no such data folder"),
        ("train --data_dir {data} --model_path {mistyped}", "{mistyped}: no such model folder"),
        *[
            (
                f"train --data_dir {{data}} --model_path {name}",
                f"{name}: no such model folder; did you mean tiny-beats?",
            )
            for name in ("tiny-beat", "tiny", "tinybeats", "Tiny-Beats")
        ],
        ("train --data_dir {data} --output_dir {file}", "{file}: cannot be written"),
        ("generate", "--prompts is empty"),
        ("generate --prompts x --lora_model_path {mistyped}", "no such adapter folder"),
        ("generate --prompts x --lora_model_path {audio}", "no adapter_config.json in it"),
        ("generate --prompts x --lora_model_path {adapter} {mistyped}", "no such adapter folder"),
        (
            "generate --prompts x --lora_model_path {adapter} {adapter}/../adapter --strength 2 1",
            "strength = 3: must be from 0",
        ),
        ("evaluate --lora_model_path {adapter} {adapter}/../adapter", "is given twice"),
        (
            "generate --prompts x --lora_model_path {adapter} {adapter} --strength 1",
            "--strength has 1 value for 2 adapters",
        ),
        ("generate --prompts x --strength 0.5", "--strength has 1 value for 0 adapters"),
        (
            "generate --prompts x --lora_model_path {adapter} --strength 2.5",
            "strength = 2.5: Input should be less than or equal to 2",
        ),
        ("generate --prompts x --key H", 'no such key; give one such as "C# minor"'),
        ("generate --prompts x --bars 4", "a loop needs its tempo; give --bpm"),
        ("generate --prompts x --bpm 60 --bars 8", "make 32.0 s, but a loop is at most 30 s long"),
        ("generate --prompts_file {rows}", '{rows}, entry 2: --key "H": no such key'),
        ("generate --prompts_file {mistyped}", "{mistyped}: cannot be read"),
        ("generate --prompts 90bpm --bpm 140", 'the prompt "90bpm" says 90 bpm'),
        (
            "generate --prompts x --base_model_path {file}",
            IS_FILE,
        ),
        ("generate --prompts x --melody {mistyped}", "--melody {mistyped}: no such file"),
        ("generate --prompts x --output_dir {file}/a/b", "{file} is not a folder"),
        ("evaluate --lora_model_path {mistyped}", "no such adapter folder"),
        ("evaluate --lora_model_path {adapter} --data_dir {mistyped}", "no such data folder"),
        (
            "evaluate --lora_model_path {adapter} --other_data_dir {file}",
            IS_FILE,
        ),
        (
            "evaluate --lora_model_path {file}",
            IS_FILE,
        ),
        (
            "train --data_dir {file}",
            IS_FILE,
        ),
        (
            "import --input_dir {file} --output_dir {out}",
            IS_FILE,
        ),
        *[
            (f"generate --prompts x {flag} {{data}}", "{data}: is a folder, not a file; give")
            for flag in (
                *("--melody", "--prompts_file", "--config", "--continue_from"),
                "--from_bar 1 --to_bar 1 --regenerate",
            )
        ],
        ("train --data_dir {data} --metadata_file .", "is a folder, not a file"),
        ("evaluate --lora_model_path {adapter} --output_dir {file}", "cannot be written"),
        ("evaluate --lora_model_path --output_dir {out}", "--lora_model_path is empty"),
        ("merge --output_dir {out}", "--lora_model_path is empty"),
        *[
            (
                f"{command} --lora_model_path {{adapter}} --output_dir {{adapter}}/x/y",
                "lies in {adapter}",
            )
            for command in ("generate --prompts x", "evaluate", "merge", "export")
        ],
        ("import --input_dir {audio} --output_dir {audio}/x", "lies in {audio}"),
    ],
)
def test_it_is_refused_before_the_libraries_load(
    words: str,
    said: str,
    places: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(places["audio"])
    assert main([word.format(**places) for word in words.split()], load=no_load) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said.format(**places) in line
    assert not places["out"].exists()


@pytest.mark.parametrize(
    ("words", "meant"),
    [("generat --promts x", "generate"), ("tokenize", "tokenise"), ("docter", "doctor")],
)
def test_a_mistyped_command_is_told_the_nearest(
    words: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words.split()[0]
    assert main(words.split(), load=no_load) == 2
    said = capsys.readouterr().err
    assert said == f"musicgen-lora {given}: no such command; did you mean {meant}?\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--format aiff",
            "--format aiff: must be one of auto, flac, mp3, ogg, wav, wav24, wav_float.",
        ),
        ("--stdout aiff", "--stdout aiff: must be one of f32, s16, wav, None."),
        ("--promts x", "--promts: no such flag; did you mean --prompts?"),
        ("--prompt x", "--prompt: no such flag; did you mean --prompts?"),
        ("--prompt x --dry", "--prompt: no such flag; did you mean --prompts?"),
        ("--lora-model=x", "--lora-model: no such flag; did you mean --lora_model_path?"),
        ("--nonsense", "--nonsense: no such flag; --help lists them."),
        ("--key C# minor", "minor: doesn't belong to a flag; put text of several words in quotes."),
        ("--bpm", "--bpm needs a value."),
        ("--bpm fast", "--bpm fast: must be a number."),
        ("--duration long", "--duration long: must be a number."),
        ("--seed x", "--seed x: must be a whole number."),
        ("--bars 2.5", "--bars 2.5: must be a whole number."),
        ("--strength 1 x", "--strength 1 x: must be a number."),
        ("--prompts b", "--prompts is given twice; list all values after one: --prompts A B."),
        (
            "--prompts_file a --prompts-file=b",
            "--prompts_file is given twice but takes one value; run once for each.",
        ),
        ("--prompts=b", "--prompts is given twice; list all values after one: --prompts A B."),
    ],
)
def test_a_wrong_flag_is_one_line(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--prompts", "a", *words.split()], load=no_load) == 2
    assert capsys.readouterr().err == f"musicgen-lora generate: {said}\n"


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="this system tells of no read-only disk")
def test_a_read_only_disk_is_no_matter_of_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    out = tmp_path / "out"
    assert main(["generate", "--prompts", "x", "--output_dir", str(out)], load=no_load) == 2
    assert f"{out}: cannot be written (its disk is read-only)" in capsys.readouterr().err


def test_an_adapter_of_a_base_of_another_size_is_refused_before_the_libraries_load(
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = draw_adapter(tiny_model_dir, tmp_path / "adapter")
    words = ["generate", "--prompts", "x", "--lora_model_path", str(adapter)]
    assert main(words, load=no_load) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"adapter: this adapter was trained on another base ({tiny_model_dir})" in line
    assert "is 32 wide, but that of tiny-beats" in line
    check_fits(adapter, str(tiny_model_dir))
    check_fits(adapter, "facebook/musicgen-small")


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("train --optimizer prodigy", "prodigy"),
        ("train --optimizer adamw8bit", "adamw8bit"),
        ("train --quantise 8bit", "quantise"),
        ("train --report_to tensorboard wandb", "tensorboard"),
        ("prepare --vocals flag", "vocals"),
    ],
)
def test_a_library_that_is_missing_is_named_before_the_others_load(
    words: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    assert main(words.split(), load=no_load) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"needs {extras.LIBRARIES[extra]}: pip install 'musicgen-lora[{extra}]'")


@pytest.mark.parametrize("command", list(SETTINGS))
def test_the_first_line_says_what_is_about_to_be_done(
    command: str,
    places: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: list[str] = []

    def load(_: str) -> Any:
        told.append(capsys.readouterr().out)
        return lambda *_, **__: None

    monkeypatch.setattr("musicgen_lora.dataset.metadata.load_dataset", lambda *_, **__: None)
    given = {
        "prepare": "--input_dir {audio} --output_dir {out}",
        "tokenise": "--data_dir {data}",
        "train": "--data_dir {data} --output_dir {out}",
        "generate": "--prompts x y --lora_model_path {adapter} --output_dir {out}",
        "evaluate": "--lora_model_path {adapter} --output_dir {out}",
        "merge": "--lora_model_path {adapter} --output_dir {out}",
        "ui": "--workspace {out}",
        "export": "--lora_model_path {adapter} --output_dir {out}",
        "import": "--input_dir {data} --output_dir {out}",
        "prefetch": "--models facebook/musicgen-small",
    }[command]
    assert main([command, *(word.format(**places) for word in given.split())], load=load) == 0
    (line,) = told[0].splitlines()
    assert line.endswith(f"; {cli.LOADING}")
    named = [place for name, place in places.items() if f"{{{name}}}" in given]
    assert all(str(place) in line for place in named)


def test_of_several_processes_one_speaks(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    words = ["tokenise", "--data_dir", str(places["data"])]
    assert main(words, load=lambda _: lambda *_, **__: None) == 0
    assert capsys.readouterr().out == ""


def test_the_questions_need_no_library() -> None:
    script = "import sys, musicgen_lora.given, musicgen_lora.model.base.hub; print(*sys.modules)"
    assert not {"torch", "transformers", "numpy", "scipy"} & loaded_by(script)
    script = (
        "import sys, musicgen_lora.generation.wanted, musicgen_lora.model.lora.fitting; "
        "print(*sys.modules)"
    )
    assert not {"torch", "transformers", "scipy", "soundfile", "peft"} & loaded_by(script)


def loaded_by(script: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return set(done.stdout.split())


def test_the_folder_of_a_run_is_told_from_what_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "run" / "best_model").mkdir(parents=True)
    with pytest.raises(UserError, match="this is not a LoRA adapter"):
        check_adapter_folder(tmp_path / "run")
    (tmp_path / "run" / "best_model" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="run: is a run's folder; its adapter is "):
        check_adapter_folder(tmp_path / "run")


def test_variables_are_replaced_and_a_misspelt_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder called `$HOME` used to be made."""
    monkeypatch.setenv("BEATS", str(tmp_path))
    monkeypatch.delenv("BEAST", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text("evaluate: {output_dir: $BEATS/out, lora_model_path: ['a/${BEATS}']}")
    settings = parse_settings("evaluate", ["--base_model_path=$BEATS/m"], path)
    assert settings.output_dir == tmp_path / "out"
    assert settings.lora_model_path == [Path(f"a/{tmp_path}")]
    assert settings.base_model_path == str(tmp_path / "m")
    for place, name in (("$BEAST/out", "$BEAST"), ("a/${BEAST}", "${BEAST}")):
        with pytest.raises(UserError, match=re.escape(f"{place}: the variable {name} is not set;")):
            parse_settings("evaluate", [f"--output_dir={place}"], path)
    # Money, and folders that are called so.
    (tmp_path / "$BEAST").mkdir()
    for place in ("for $5", "a$BEAST", "$BEAST/out"):
        found = parse_settings("evaluate", [f"--output_dir={place}"], path).output_dir
        assert found == Path(place)
