"""What the package offers to scripts and notebooks, and the lines of the README that use it."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from made_datasets import RATE, beat

import musicgen_lora
from musicgen_lora.audio.files import write_wav
from musicgen_lora.commands.table import COMMANDS
from musicgen_lora.config import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
IMPORT = """
import sys
before = set(sys.modules)
import musicgen_lora
print(*sorted(set(sys.modules) - before))
print(*dir(musicgen_lora))
"""


def python_blocks(name: str) -> list[str]:
    """The blocks of a README that import this package."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "musicgen_lora" in block
    ]


def test_a_home_folder_is_found_from_python_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a folder called `~` is made, which nobody looks for and nobody dares to remove."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    settings = musicgen_lora.GenerateSettings(
        base_model_path="~/base",
        lora_model_path=["~/one", Path("~/two")],
        output_dir=Path("~/clips"),
    )
    assert settings.base_model_path == str(tmp_path / "base")
    assert settings.lora_model_path == [tmp_path / "one", tmp_path / "two"]
    assert settings.output_dir == tmp_path / "clips"
    assert musicgen_lora.TrainSettings(data_dir=Path("~me")).data_dir == Path("~me")
    assert musicgen_lora.TrainSettings(model_path="~me/base").model_path == "~me/base"


def test_a_wrong_setting_is_told_in_one_line_as_by_the_command() -> None:
    """And not in pydantic's many, which name a class, types and a page of its own."""
    cases = [
        (lambda: musicgen_lora.GenerateSettings(duration=900), "duration = 900: Input should be"),
        (lambda: musicgen_lora.TrainSettings(lora_rank=0), "lora_rank = 0: Input should be"),
        (lambda: musicgen_lora.EvaluateSettings(strengths=[1, 3]), "strengths = 3: Input should"),
        (lambda: musicgen_lora.MergeSettings(strength=[3]), "strength = 3: Input should be"),
        (lambda: musicgen_lora.PrepareSettings(input_dirs="x"), "input_dirs: no such setting; did"),
        (lambda: musicgen_lora.UiSettings(zzz=1), "zzz: no such setting; use one of: "),
        (lambda: musicgen_lora.GenerateSettings("x"), "GenerateSettings: give each setting by"),
        (
            lambda: dataclasses.replace(musicgen_lora.TrainSettings(), num_epochs=-1),
            "num_epochs = -1: ",
        ),
    ]
    for make, said in cases:
        with pytest.raises(musicgen_lora.UserError) as raised:
            make()
        assert str(raised.value).startswith(said)
        assert "\n" not in str(raised.value)
    for settings in SETTINGS.values():
        with pytest.raises(musicgen_lora.UserError, match="no such setting"):
            settings(no_setting_at_all=1)


def test_both_readmes_give_the_same_lines() -> None:
    assert python_blocks("README.md") == python_blocks("README.zh-CN.md")
    assert len(python_blocks("README.md")) == 3


RUN_ALL = """
import runpy, sys
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
    print("ran", path, flush=True)
"""


def test_the_lines_of_the_readme_run_as_scripts(tmp_path: Path) -> None:
    """From a folder of beats to new ones. The scripts have no main guard: what a worker ran again
    would print twice, or fail. Each is a `__main__` of its own with its own names; the libraries
    are loaded once."""
    for index in range(3):
        write_wav(tmp_path / "loops" / f"{index}.wav", beat(index, 4.0), RATE)
    paths = []
    for index, script in enumerate(python_blocks("README.md")):
        # What is too large or takes too long to be had here.
        script = script.replace("facebook/musicgen-small", musicgen_lora.EMBEDDED_NAME)
        script = script.replace('Path("output"))', 'Path("output"), max_steps=2, previews="off")')
        script = script.replace("prompts=", "duration=1.0, prompts=")
        script = script.replace("duration=10.0", "duration=0.5")
        paths.append(tmp_path / f"script{index}.py")
        paths[-1].write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *paths],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stdout.split("ran ")
    assert len(said) == len(paths) + 1
    assert [text.count("3 clips (0.2 minutes)") for text in said] == [1, 0, 0, 0]
    (wav,) = tmp_path.glob("finetune/output/generated/*.wav")
    assert soundfile.info(wav).frames == RATE
    assert soundfile.info(tmp_path / "beat.wav").samplerate == RATE


def test_importing_the_package_loads_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    loaded, offered = done.stdout.splitlines()
    ours = [name for name in loaded.split() if name.startswith("musicgen_lora")]
    assert ours == ["musicgen_lora"]
    assert not {"torch", "numpy", "pydantic", "transformers"} & set(loaded.split())
    assert set(musicgen_lora.__all__) <= set(offered.split())


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_looked_for_while_the_libraries_load(
    collects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And afterwards as before."""
    load, seen = importlib.import_module, []
    monkeypatch.setattr(
        importlib, "import_module", lambda name: seen.append(gc.isenabled()) or load(name)
    )
    monkeypatch.delattr(musicgen_lora, "MusicGen", raising=False)
    try:
        if not collects:
            gc.disable()
        assert musicgen_lora.MusicGen.__name__ == "MusicGen"
        assert gc.isenabled() is collects
    finally:
        gc.enable()
    assert seen
    assert not any(seen)


def test_each_command_and_its_settings_are_offered() -> None:
    for name in musicgen_lora.__all__:
        assert getattr(musicgen_lora, name) is not None
    for name, command in COMMANDS.items():
        module, function = command.function.split(":")
        found = getattr(importlib.import_module(module), function)
        assert getattr(musicgen_lora, function) is found
        assert getattr(musicgen_lora, SETTINGS[name].__name__) is SETTINGS[name]
    assert list(COMMANDS) == list(SETTINGS)


def test_what_is_not_there_is_said_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'musicgen_lora' has no attribute 'trian'"):
        musicgen_lora.trian  # noqa: B018  # pyright: ignore
    with pytest.raises(ImportError):
        exec("from musicgen_lora import trian")


def test_a_base_may_be_a_path_and_settings_are_those_of_the_command(tmp_path: Path) -> None:
    assert musicgen_lora.TrainSettings(model_path=tmp_path).model_path == str(tmp_path)  # pyright: ignore[reportArgumentType]
    for given in ({"prompts": ["808"]}, None, musicgen_lora.TrainSettings()):
        with pytest.raises(musicgen_lora.UserError, match="generate takes GenerateSettings"):
            musicgen_lora.generate_audio(given)  # pyright: ignore[reportArgumentType]
