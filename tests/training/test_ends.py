"""How a command ends when somebody stops it or nobody listens any more."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_datasets import RATE, beat

from musicgen_lora.audio.files import write_wav
from musicgen_lora.cli import main

COMMAND = [sys.executable, "-m", "musicgen_lora.cli", "prepare"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A preparation of a few loops."""
    for index in range(4):
        write_wav(tmp_path / "in" / f"{index}.wav", beat(index, 2.0), RATE)
    places = ["--input_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")]
    return [*COMMAND, *places]


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def has_begun(process: int) -> bool:
    """Whether the command has a say over signals: python itself takes a moment to get there."""
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "term")])
def test_a_stop_is_one_word_whenever_it_comes(
    number: int, code: int, word: str, words: list[str], tmp_path: Path
) -> None:
    """While the libraries load, while the workers start, while they work."""
    out = tmp_path / "out"
    signs = [lambda: True, lambda: (out / ".lock").exists(), lambda: any(out.rglob("*.npy"))]
    for sign in signs:
        process = start(words)
        while process.poll() is None and not (has_begun(process.pid) and sign()):
            time.sleep(0.005)
        os.killpg(process.pid, number)
        _, said = process.communicate()
        (line,) = said.splitlines()
        assert line.startswith(f"musicgen-lora prepare: {word}")
        # An interpreter that saw a SIGINT while it loaded a library may end by it.
        assert process.returncode in (code, -signal.SIGINT)


def test_the_command_loads_no_library_before_it_can_be_stopped() -> None:
    script = "import sys, musicgen_lora.cli; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    packages = {name.split(".")[0] for name in re.findall(r"'([^']+)'", loaded.stdout)}
    assert not packages & {"tyro", "pydantic", "yaml", "rich", "numpy", "pyarrow", "torch"}


def test_output_that_nobody_reads_ends_it_with_a_word(words: list[str]) -> None:
    process = start(words)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    (line,) = process.stderr.read().splitlines()
    assert line.startswith("musicgen-lora prepare: stopped: nothing reads its output")
    assert process.wait() == 141
    process.stderr.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "data/train"),
            "data/train: Permission denied; give yourself access (chmod u+rwX), or use "
            "another folder.",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "data/train"),
            "data/train: Read-only file system; use another folder.",
        ),
    ],
)
def test_a_missing_right_is_said_with_what_to_do(
    error: OSError,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr("musicgen_lora.prepare.prepare.prepare_dataset", refuse)
    assert main(["prepare", "--input_dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"musicgen-lora prepare: {said}\n"


def test_help_that_is_cut_short_says_nothing() -> None:
    process = start([sys.executable, "-m", "musicgen_lora.cli", "--help"])
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()
