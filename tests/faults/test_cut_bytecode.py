"""Bytecode that a full disk has cut short: Python keeps it, and no command that imports the module
starts again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def musicgen_lora(cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-m", "musicgen_lora.cli", *words],
        env=env | {"PYTHONPYCACHEPREFIX": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_line_names_the_file_and_what_to_delete(tmp_path: Path) -> None:
    words = ["prepare", "--input_dir", str(tmp_path / "none"), "--output_dir", str(tmp_path / "o")]
    said = musicgen_lora(tmp_path, *words).stderr
    assert said.count("\n") == 1
    (cut,) = tmp_path.rglob("_argparse.*.pyc")
    cut.write_bytes(cut.read_bytes()[:20_000])
    done = musicgen_lora(tmp_path, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"{cut}: is cut short" in done.stderr
    assert f"delete the __pycache__ folders in {tmp_path}" in done.stderr
