"""The commands merge, export and import from the command line, and what they refuse."""

from __future__ import annotations

import ast
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from adapters import draw_adapter

from musicgen_lora import atomic
from musicgen_lora.atomic import LOCK_FILE
from musicgen_lora.cli import main
from musicgen_lora.export.folder import publish
from musicgen_lora.runtime.locks import in_use, locked


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    return draw_adapter(tiny_model_dir, tmp_path_factory.mktemp("commands") / "lora")


def run(command: str, **given: object) -> int:
    words = [command]
    for name, value in given.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return main(words)


def test_what_a_killed_one_left_goes_and_what_another_is_writing_stays(tmp_path: Path) -> None:
    names = ("98-out", "97-another", "99-out", "96-another")
    stale, stale_other, busy, busy_other = (tmp_path / f".staging-{name}" for name in names)
    for staging in (stale, stale_other, busy, busy_other):
        staging.mkdir()
        (staging / LOCK_FILE).touch()
    # What a training is writing has no lock of its own.
    (trained := tmp_path / ".staging-95-best_model").mkdir()
    with locked(busy), locked(busy_other):
        publish(tmp_path / "out", lambda folder: (folder / "model").write_text("whole"))
    left = {"out", busy.name, busy_other.name, trained.name}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model", "manifest.json"}


KILLED = """
import os, signal, sys
from pathlib import Path
from musicgen_lora import atomic
from musicgen_lora.export.folder import publish
atomic.sha256_file = lambda path: os.kill(os.getpid(), signal.SIGKILL)
publish(Path(sys.argv[1]), lambda folder: (folder / "model").write_text("whole"))
"""


def test_one_that_is_killed_while_it_hashes_is_cleared_away_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / "before")]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert [path.name.endswith("-before") for path in tmp_path.iterdir()] == [True]
    busy: list[bool] = []

    def hashed(path: Path) -> str:
        # Another export of this name must not take it for a killed one's.
        busy.append(in_use(path.parent))
        return "0"

    monkeypatch.setattr(atomic, "sha256_file", hashed)
    publish(tmp_path / "out", lambda folder: (folder / "model").write_text("whole"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert busy == [True]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model", "manifest.json"}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == {"model": "0"}


def test_they_follow_one_another(
    tiny_model_dir: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {"model_path": tiny_model_dir, "lora_model_path": [adapter, adapter]}
    merged, exported, back = tmp_path / "merged", tmp_path / "exported", tmp_path / "back"
    assert run("merge", **base, strength=[0.5, 0.5], output_dir=merged) == 0
    said = capsys.readouterr().out
    assert f"{adapter}: is given more than once; its strengths add up to 1." in said
    assert f"Merging {adapter} and {adapter} into {tiny_model_dir}: {merged};" in said
    assert run("export", format="audiocraft", **base, output_dir=exported) == 0
    assert run("import", format="audiocraft", input_dir=exported, output_dir=back) == 0
    assert (
        run(
            "generate",
            base_model_path=back,
            prompts=["808"],
            duration=0.2,
            output_dir=tmp_path / "played",
        )
        == 0
    )
    assert (merged / "model.safetensors").is_file()
    assert len(list((tmp_path / "played").glob("*.wav"))) == 1


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("merge", {"strength": [2.5]}, "strength = 2.5: "),
        ("merge", {"strength": [-0.1]}, "strength = -0.1: "),
        ("merge", {"strength": [1, 1]}, "--strength has 2 values for 1 adapter"),
        ("merge", {"lora_model_path": []}, "--lora_model_path"),
        ("merge", {"lora_model_path": ["ADAPTER", "gone"]}, "gone: no such adapter folder"),
        ("merge", {"lora_model_path": ["EMPTY"]}, "empty: no adapter_config.json in it"),
        ("merge", {"model_path": "OTHER"}, "trained on another base"),
        ("merge", {"output_dir": "ADAPTER"}, "lies in "),
        ("export", {"output_dir": "ADAPTER"}, "lies in "),
        ("export", {"model_path": "OTHER"}, "trained on another base"),
        ("export", {"strength": [0.5, 0.5]}, "--strength has 2 values for 1 adapter"),
        ("import", {"input_dir": "gone"}, "gone: no such folder"),
        ("import", {"input_dir": "EMPTY"}, "state_dict.bin: no such file"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(
    command: str,
    given: dict[str, object],
    said: str,
    adapter: Path,
    tiny_model_dir: Path,
    tiny_stereo_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"ADAPTER": adapter, "EMPTY": tmp_path / "empty", "OTHER": tiny_stereo_dir}
    usual: dict[str, object] = {"output_dir": tmp_path / "out"}
    if command != "import":
        usual |= {"model_path": tiny_model_dir, "lora_model_path": [adapter]}
    asked = {
        name: [places.get(str(v), v) for v in value]
        if isinstance(value, list)
        else places.get(str(value), value)
        for name, value in (usual | given).items()
    }
    before = sorted(path.name for path in adapter.iterdir())
    assert run(command, **asked) == 2
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("musicgen-lora ")
    ]
    assert len(lines) == 1
    assert said in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert sorted(path.name for path in adapter.iterdir()) == before


@pytest.mark.parametrize(("command", "more"), [("merge", {}), ("export", {"format": "peft"})])
def test_a_cards_examples_name_the_folder_whatever_is_in_its_name(
    command: str, more: dict[str, object], adapter: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'My "beats" \'n <b> \\ %'
    asked = {"model_path": tiny_model_dir, "lora_model_path": [adapter], "output_dir": out}
    assert run(command, **asked, **more) == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        texts = [n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant)]
        assert out.name in texts
    for words in re.findall(r"```sh\n(.*?)```", card, re.DOTALL):
        assert out.name in shlex.split(words)
