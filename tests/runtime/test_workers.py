"""Processes that work on untrusted files: what a fault costs, and what they leave alone."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musicgen_lora.errors import RunError
from musicgen_lora.runtime import workers
from musicgen_lora.runtime.workers import Failure, run_tasks

SRC = Path(workers.__file__).resolve().parents[2]


def _fail(task: str, alive) -> str:
    if task == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "data/train/a.wav")
    if task == "locked":
        raise PermissionError(errno.EACCES, "Permission denied", "data/train")
    if task == "told":
        raise RunError("data/x.json: cannot be written (No space left on device).")
    if task == "odd":
        raise OSError("odd")
    return task.upper()


@pytest.mark.parametrize(
    ("task", "error", "said"),
    [
        ("full", OSError, "No space left on device: 'data/train/a.wav'"),
        ("locked", PermissionError, "Permission denied: 'data/train'"),
        ("told", RunError, "data/x.json: cannot be written"),
    ],
)
def test_a_fault_of_the_disk_ends_the_run(task: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        list(run_tasks(_fail, ["a", task, "b"], 1))


def test_a_fault_of_a_file_costs_the_file() -> None:
    results = dict(run_tasks(_fail, ["odd", "a"], 1))
    assert results == {0: Failure("could not be processed (OSError: odd)."), 1: "A"}


def _garbage_of(task: str, alive) -> tuple[bool, bool, bool]:
    return workers.FIRST_LOADED in sys.modules, gc.isenabled(), gc.get_freeze_count() > 10_000


def test_garbage_is_looked_for_in_what_a_worker_makes_alone() -> None:
    """But not while its server loads the libraries, which takes a quarter of that time."""
    assert list(run_tasks(_garbage_of, ["a"], 1)) == [(0, (True, True, True))]


def _read_environment(task: str, alive) -> str | None:
    return os.environ.get(task)


def test_a_process_has_the_environment_of_whoever_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not that of the first caller of the server that forks it: with another cache folder, it made
    choices of its own there, and played a seed otherwise."""
    for value in ("first", "second"):
        monkeypatch.setenv("MUSICGEN_LORA_TEST", value)
        assert list(run_tasks(_read_environment, ["MUSICGEN_LORA_TEST"], 1)) == [(0, value)]
    monkeypatch.delenv("MUSICGEN_LORA_TEST")
    assert list(run_tasks(_read_environment, ["MUSICGEN_LORA_TEST"], 1)) == [(0, None)]


def _in_parts(task: str, alive) -> str:
    for share in (0.25, 0.5):
        alive(share)
        alive()
    return task


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_task_says_how_far_it_is(n_workers: int) -> None:
    told = []
    results = run_tasks(
        _in_parts, ["a", "b"], n_workers, on_share=lambda index, share: told.append((index, share))
    )
    assert dict(results) == {0: "a", 1: "b"}
    assert told == [(0, 0.25), (0, 0.5), (1, 0.25), (1, 0.5)]


def test_a_long_temporary_folder_is_no_obstacle(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(SRC)!r}, {str(Path(__file__).parent)!r}]\n"
        "from test_workers import _fail\n"
        "from musicgen_lora.runtime.workers import run_tasks\n"
        "print(sorted(run_tasks(_fail, ['a', 'b'], 2)))\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"TMPDIR": str(long)},
        capture_output=True,
        text=True,
        check=False,
    )
    # Nothing guards the script either: had a worker run it, it would have said so.
    assert (done.stdout, done.stderr) == ("[(0, 'A'), (1, 'B')]\n", "")


SLOW = """
import sys, time
sys.path[:0] = {path!r}
from test_workers import _slow
from musicgen_lora.runtime.workers import run_tasks
for result in run_tasks(_slow, {tasks!r}, 2):
    print(result, flush=True)
"""


def _slow(task: str, alive) -> int:
    Path(task).write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)
        alive()


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent_without_a_word(number: int, tmp_path: Path) -> None:
    tasks = [str(tmp_path / name) for name in ("a", "b")]
    words = SLOW.format(path=[str(SRC), str(Path(__file__).parent)], tasks=tasks)
    with subprocess.Popen(
        [sys.executable, "-c", words], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        while not all(Path(task).is_file() and Path(task).read_text() for task in tasks):
            time.sleep(0.02)
        processes = [int(Path(task).read_text()) for task in tasks]
        # As a terminal or a service manager sends it: to the parent and to all that it started.
        os.killpg(parent.pid, number)
        said = parent.communicate()[1]
    while any(map(is_running, processes)):
        time.sleep(0.02)
    if number == signal.SIGINT:
        # The script's own.
        assert said.count("Traceback") == 1
        assert "test_workers" not in said.split("KeyboardInterrupt")[-1]
    else:
        assert said == ""
