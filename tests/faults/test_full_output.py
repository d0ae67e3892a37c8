"""A disk without room for what a command prints: one line says what could not be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs Linux's full device")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [
        *("--version", "--help", "train --help", "doctor"),
        "generate --base_model_path {base} --prompts 808 --output_dir {out}",
        "generate --base_model_path {base} --prompts 808 --output_dir {out} --stdout wav",
    ],
)
def test_it_is_one_line_that_names_the_output(
    words: str, unbuffered: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    given = words.format(base=tiny_model_dir, out=tmp_path / "out").split()
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "musicgen_lora.cli", *given],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            text=True,
            check=False,
        )
    # Where the sound goes to standard output, messages go to standard error.
    line = done.stderr.splitlines()[-1]
    assert "stdout" in words or done.stderr.count("\n") == 1, done.stderr
    assert "what it prints cannot be written (No space left on device); make room" in line
    assert done.returncode == 1
