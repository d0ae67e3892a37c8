"""What a stopped command says: what is left of its work, and how to continue."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from adapters import draw_adapter
from made_datasets import make_dataset

from musicgen_lora.cli import main
from musicgen_lora.commands.stops import whole_stops

ON = "rerun the command to continue."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A folder with a dataset, an adapter and another program's folder."""
    root = tmp_path_factory.mktemp("made")
    make_dataset(root / "data", [0.4, 0.4])
    draw_adapter(tiny_model_dir, root / "adapter")
    (root / "other").mkdir()
    return root


CASES = {
    "prepare": ("prepare --input_dir data", f"No clip is listed yet; {ON}"),
    "prepare again": (
        "prepare --input_dir data --output_dir data",
        f"The clips listed in data/metadata.json are kept; {ON}",
    ),
    "examples": (
        "prepare --create_example",
        "No beat is listed yet; rerun the command for all of them.",
    ),
    "more examples": (
        "prepare --create_example --output_dir data",
        "The clips listed in data/metadata.json are kept; rerun the command for the rest.",
    ),
    "tokenise": ("tokenise --data_dir data", f"What is encoded stays in data; {ON}"),
    "train": ("train --data_dir data", f"Encoded audio is kept, and no run is lost; {ON}"),
    "generate": (
        "generate --prompts beat",
        "The finished clips are in OUT; rerun the command for the rest.",
    ),
    "heard": (
        "generate --prompts beat --stdout wav",
        "The finished clips are in OUT; the same command makes all of them again.",
    ),
    "evaluate": (
        "evaluate --lora_model_path adapter",
        f"What was generated and measured stays in OUT/cache; {ON}",
    ),
    "merge": (
        "merge --lora_model_path adapter",
        "Nothing was written; rerun the command to start over.",
    ),
    "export": ("export", "Nothing was written; rerun the command to start over."),
    "import": (
        "import --input_dir other",
        "Nothing was written; rerun the command to start over.",
    ),
    "prefetch": ("prefetch", f"What is downloaded stays in the hub's cache; {ON}"),
    "ui": ("ui", "Running jobs continue; rerun the command to reopen the page."),
}


def stopped_by(number: int, before: Callable[[], None] = lambda: None) -> Callable[[str], Any]:
    """Stands in for a command's function: a signal comes while it works."""

    def work(*_: Any, **__: Any) -> None:
        before()
        os.kill(os.getpid(), number)

    return lambda _: work


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted. "),
        (signal.SIGTERM, 143, "terminated. "),
        (signal.SIGHUP, 129, "the terminal was closed. "),
    ],
    ids=["INT", "TERM", "HUP"],
)
@pytest.mark.parametrize("case", CASES)
def test_a_stopped_command_says_what_is_kept(
    case: str,
    number: int,
    code: int,
    word: str,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(made)
    words, kept = CASES[case]
    command, *flags = words.split()
    if command not in ("tokenise", "prefetch", "ui") and "--output_dir" not in flags:
        flags += ["--output_dir", case]
    assert main([command, *flags], load=stopped_by(number)) == code
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"musicgen-lora {command}: {word}")
    assert said.endswith(". " + kept.replace("OUT", case))


def test_what_was_whole_when_the_upload_was_stopped_is_said(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    out = tmp_path / "out"

    def publish() -> None:
        out.mkdir()
        (out / "README.md").touch()

    words = ["--lora_model_path", str(made / "adapter"), "--output_dir", str(out)]
    words += ["--push_to_hub", "me/x"]
    assert main(["merge", *words], load=stopped_by(signal.SIGINT, publish)) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{out} is complete, the upload may not be; run: hf upload me/x {out}" in said


def test_stopped_before_it_began(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("musicgen_lora.cli._settings", stop)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == (
        "musicgen-lora train: interrupted before anything was done.\n"
    )


LEFT_ALONE = """
import os, signal, sys, time
from pathlib import Path
from musicgen_lora.cli import main
from musicgen_lora.console import plain_console

def work(settings):
    try:
        plain_console().print("at it")
        while os.isatty(1):
            time.sleep(0.01)
    finally:
        plain_console().print("clearing away")
        Path(sys.argv[1]).touch()

if sys.argv[2] == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(main(["ui"], load=lambda _: work))
"""


@pytest.mark.parametrize(("how", "code"), [("told", 129), ("ignored", 0)])
def test_a_terminal_that_closes_breaks_no_clearing_away(
    how: str, code: int, tmp_path: Path
) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, "-c", LEFT_ALONE, "cleared", how])
    said = b""
    while b"at it" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert (tmp_path / "cleared").is_file()


class Destroyed:
    """A signal comes in its destructor, which no exception leaves."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        # The handler runs at the next call.
        time.sleep(0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("loads", [False, True])
def test_a_stop_in_a_destructor_ends_the_command_with_its_word_alone(
    number: int, code: int, loads: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """While a library loads, and while the command works."""
    endless = threading.Event()

    def work(*_: Any, **__: Any) -> None:
        with whole_stops() if loads else nullcontext():
            Destroyed(number)
            # A stop that is sent once more ends it.
            if not loads:
                endless.wait(60)

    words = ["prepare", "--create_example", "--output_dir", str(tmp_path)]
    assert main(words, load=lambda _: work) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert "No beat is listed yet" in line


AT_EXIT = """
import atexit, os, signal, sys
from musicgen_lora.cli import main

def work(settings):
    # As libraries do.
    atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(main(["ui"], load=lambda _: work))
"""


def test_a_second_stop_while_libraries_leave_shows_no_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-c", AT_EXIT]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1


CRASHING = """
import os, signal, sys
from musicgen_lora import cli

class Library:
    def __del__(self, end=os.abort):
        end()

def work(settings):
    sys.modules["library"] = Library()
    os.kill(os.getpid(), signal.SIGTERM)

main = cli.main
cli.main = lambda words, config: main(words, load=lambda _: work)
cli.run(["ui"])
"""


def test_a_library_that_crashes_where_python_ends_hides_no_stop(tmp_path: Path) -> None:
    words = [sys.executable, "-c", CRASHING]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert len(done.stderr.splitlines()) == 1
