"""The output folder: earlier runs put aside whole, whose run it is, and a terminal that closes."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harm.kills import Killed, contents, kill_at

from musicgen_lora import atomic
from musicgen_lora.runtime import locks
from musicgen_lora.training.record import run_folder
from musicgen_lora.training.record.run import Run, is_own_run

RUN = Run("finished", "abc", data={"data_dir": "/music"})


def make_run(output_dir: Path, link: bool = False) -> dict[str, str]:
    """A finished run with what was made of it. Returns its files."""
    names = ["checkpoints/step-000001/a", "best_model/a", "previews/base/a", "metrics.jsonl"]
    names += ["generated/a.wav", "evaluation/report.html", "mine/a"]
    for name in names:
        (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (output_dir / name).write_text(name)
    replace(RUN, output_dir=str(output_dir.resolve())).write(output_dir)
    if link:
        os.rename(output_dir / "best_model", output_dir.parent / "elsewhere")
        (output_dir / "best_model").symlink_to("../elsewhere")
    return contents(output_dir)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("call", range(12))
def test_an_earlier_run_is_put_aside_whole_wherever_it_is_killed(
    call: int, link: bool, tmp_path: Path
) -> None:
    output_dir = tmp_path / "out"
    before = make_run(output_dir, link)
    moved = {name for name in before if name != "mine/a"}
    with run_folder.held(output_dir), pytest.MonkeyPatch.context() as patch:
        kill_at(call, patch)
        with contextlib.suppress(Killed):
            run_folder.put_aside(output_dir, lambda line: None)
    with run_folder.held(output_dir):
        pass
    previous = list((output_dir / "previous").iterdir())
    if previous:
        assert {*contents(previous[0])} == moved
        assert {path.name for path in output_dir.iterdir()} == {"mine", "previous", ".lock"}
        assert (previous[0] / "best_model" / "a").read_text() == "best_model/a"
    else:
        there = contents(output_dir)
        there.pop(".lock", None)
        assert there == before
        assert (output_dir / "best_model" / "a").read_text() == "best_model/a"
    # Seven names and the last one, a link takes a change more; then it is done.
    assert bool(previous) == (call >= 8 + link)


def test_what_is_being_written_stays_and_is_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    said: list[str] = []
    with locks.locked(tmp_path / "generated"):
        aside = run_folder.put_aside(tmp_path, said.append)
    assert aside is not None
    assert (tmp_path / "generated" / "a.wav").is_file()
    assert (aside / "evaluation" / "report.html").is_file()
    assert [line.split(":")[0] for line in said] == [str(tmp_path / "generated")]


def test_without_a_run_there_is_nothing_to_put_aside(tmp_path: Path) -> None:
    (tmp_path / "generated").mkdir()
    assert run_folder.put_aside(tmp_path, print) is None
    assert (tmp_path / "generated").is_dir()


def test_whose_run_it_is(tmp_path: Path) -> None:
    output_dir = tmp_path / "out"
    make_run(output_dir)
    facts: dict[str, Any] = {"identity": "abc", "data": {"data_dir": "/music"}}
    best = output_dir / "best_model"
    assert is_own_run(best, facts)
    assert not is_own_run(best, facts | {"identity": "other"})
    assert not is_own_run(best, facts | {"data": {"data_dir": "/secret"}})
    assert not is_own_run(best, facts | {"data": None})
    # A whole run folder that came from elsewhere says where it was made.
    moved = tmp_path / "downloaded"
    os.rename(output_dir, moved)
    assert not is_own_run(moved / "best_model", facts)
    assert not is_own_run(tmp_path / "nowhere" / "best_model", facts)
    os.rename(moved, output_dir)
    aside = run_folder.put_aside(output_dir, print)
    assert aside is not None
    assert is_own_run(aside / "best_model", facts)


def test_a_best_model_that_is_gone_or_altered_is_found_and_an_edited_card_is_none(
    tmp_path: Path,
) -> None:
    def fill(staging: Path) -> None:
        for name in ("adapter_model.safetensors", "README.md"):
            (staging / name).write_text("x")

    assert run_folder.best_model_faults(tmp_path) == ["best_model"]
    best = tmp_path / "best_model"
    atomic.publish_folder(best, fill)
    (best / "README.md").write_text("my best beats")
    assert run_folder.best_model_faults(tmp_path) == []
    (best / "adapter_model.safetensors").write_text("y")
    assert run_folder.best_model_faults(tmp_path) == ["adapter_model.safetensors"]


CLOSING = """
import sys, time
from dataclasses import replace
from pathlib import Path
from musicgen_lora.training.signals import StopSignals
with StopSignals() as stop:
    print("ready", flush=True)
    end = time.monotonic() + 50
    while not stop.received and time.monotonic() < end:
        time.sleep(0.01)
    print("what nobody sees any more", flush=True)
    print("nor this", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text(str(stop.received))
"""


def test_a_terminal_that_closes_is_a_request_to_stop(tmp_path: Path) -> None:
    """And a line printed after it no error, which would end the save."""
    pid, terminal = pty.fork()
    if pid == 0:
        words = [sys.executable, "-c", CLOSING, str(tmp_path / "received")]
        os.execv(sys.executable, words)
    assert os.read(terminal, 100).startswith(b"ready")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "received").read_text() == str(int(signal.SIGHUP))


HELD = """
import os, signal
from musicgen_lora.training.signals import StopSignals
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with StopSignals() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    print(stop.received)
"""


def test_under_nohup_it_goes_on() -> None:
    run = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0"]
