"""The whole route of the embedded base, at the size of a toy: each part is killed once midway, and
goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    # part: what shows that it is midway
    "corpus": "corpus/train/*.flac",
    "codec": "codec_waveform_run/step-*",
    "model": "lm_clean/best_model",
    "package": "package/tiny_beats",
    "figures": "codec_check/check_codec.json",
}


def make(part: str, work: Path) -> subprocess.Popen[bytes]:
    command = ["make", "-f", "pretraining/Makefile", part, "TRIAL=1", f"PY={sys.executable}"]
    command.append(f"PRETRAINING_WORK={work}")
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True)


def kill_midway(part: str, work: Path) -> None:
    running = make(part, work)
    while running.poll() is None and not list(work.glob(PARTS[part])):
        time.sleep(0.1)
    assert running.poll() is None, f"{part} ended before it was killed"
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs fluidsynth")
def test_every_part_of_the_route_runs_and_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    for part in PARTS:
        kill_midway(part, tmp_path)
        assert make(part, tmp_path).wait() == 0, part
        done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.done")}
        if part in ("corpus", "codec", "model"):
            assert tmp_path / f"{part}.done" in done
            assert make(part, tmp_path).wait() == 0
            assert done == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.done")}
    codec = load_file(tmp_path / "codec" / "model.safetensors")
    base = load_file(tmp_path / "package" / "tiny_beats" / "model.safetensors")
    trained = [name for name in codec if name.startswith(("encoder.", "decoder."))]
    assert all(codec[name].equal(base["audio_encoder." + name]) for name in trained)
    assert (tmp_path / "base_check" / "check_base.json").is_file()
    assert list((tmp_path / "package" / "other_styles").rglob("*.ogg"))
