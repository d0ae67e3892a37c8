"""Windows and macOS: what only some systems have is asked for in guarded places alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cluster_tasks import Odd, work_oddly

import musicgen_lora
from musicgen_lora.runtime import processes, workers
from musicgen_lora.runtime.workers import run_tasks
from musicgen_lora.training.memory import peak_memory_bytes

SOURCE = Path(musicgen_lora.__file__).resolve().parent
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix"}
POSIX_NAMES = {
    "os": {
        *("fork", "forkpty", "killpg", "getpgid", "setsid", "setpgid", "getuid", "geteuid"),
        *("getgid", "uname", "sysconf", "mkfifo", "nice", "wait", "WNOHANG", "O_DIRECTORY"),
        *("sched_getaffinity", "chown", "statvfs", "getloadavg"),
    },
    "signal": {
        *("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGALRM", "alarm"),
        *("setitimer", "pthread_sigmask", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK"),
    },
}
GUARDED = {
    # Each asks first whether the system has it; the name says how.
    "runtime/memory.py": ("resource", "sysconf"),
    "runtime/workers.py": ("pthread_sigmask", "SIG_BLOCK", "SIG_SETMASK"),
    "training/memory.py": ("resource",),
    "training/record/run.py": ("getuid",),
    "training/signals.py": ("SIGHUP",),
    "webui/work/processes.py": ("getpgid", "killpg"),
}
"""What may be asked for where."""


def posix_uses(path: Path) -> set[str]:
    """What a module asks for that Windows lacks. An import at a module's head counts as unguarded
    whatever it is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            at_head = node in tree.body
            found |= {
                f"{name} at the head" if at_head else name for name in POSIX_MODULES & {*names}
            }
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= POSIX_NAMES.get(node.value.id, set()) & {node.attr}
    return found


def test_what_only_posix_has_is_asked_for_where_it_is_guarded() -> None:
    found = {
        path.relative_to(SOURCE).as_posix(): uses
        for path in SOURCE.rglob("*.py")
        if (uses := posix_uses(path))
    }
    assert found == {place: set(names) for place, names in GUARDED.items()}


def test_memory_is_told_where_there_is_no_resource_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = peak_memory_bytes(torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "resource", None)
    assert before // 4 < peak_memory_bytes(torch.device("cpu")) < 4 * before


def test_workers_are_spawned_where_nothing_forks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(workers.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    monkeypatch.setattr(workers, "signal", SimpleNamespace())
    tasks = [Odd("plain", tmp_path, number) for number in range(3)]
    assert dict(run_tasks(work_oddly, tasks, 1)) == {0: 0, 1: 1, 2: 2}


def test_a_macs_accelerator_is_chosen_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import state

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(state, "is_mps_available", lambda *_, **__: True)
    monkeypatch.setattr(state.PartialState, "_shared_state", {})
    processes._state.cache_clear()
    try:
        assert processes.device() == torch.device("mps")
    finally:
        processes._state.cache_clear()
