"""Windows and macOS: anything that only some systems have is used only in guarded places."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cluster_tasks import Odd, work_oddly

import musicgen_lora
from musicgen_lora.atomic import RESERVED_NAME
from musicgen_lora.prepare.clips.cut import clip_paths
from musicgen_lora.runtime import processes, workers
from musicgen_lora.runtime.workers import run_tasks
from musicgen_lora.training.memory import peak_memory_bytes

SOURCE = Path(musicgen_lora.__file__).resolve().parent
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "crypt"}
POSIX_NAMES = {
    "os": {
        *("fork", "forkpty", "posix_spawn", "killpg", "getpgid", "getpgrp", "setsid", "setpgid"),
        *("getuid", "geteuid", "getgid", "getegid", "getgroups", "setuid", "setgid", "umask"),
        *("uname", "sysconf", "confstr", "mkfifo", "mknod", "nice", "wait", "waitid", "wait3"),
        *("WNOHANG", "O_DIRECTORY", "O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_SYNC"),
        *("sched_getaffinity", "sched_setaffinity", "getpriority", "setpriority"),
        *("chown", "fchown", "lchown", "fchmod", "chroot", "statvfs", "getloadavg", "fdatasync"),
        *("pread", "pwrite", "sendfile", "posix_fadvise", "lockf", "ttyname", "openpty", "sync"),
        # There for privileged users alone, or not on every drive.
        *("link", "symlink", "set_blocking", "getxattr", "setxattr"),
    },
    "signal": {
        *("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGALRM", "SIGQUIT"),
        *("SIGTSTP", "SIGCONT", "SIGSTOP", "SIGWINCH", "alarm", "setitimer", "pause", "sigwait"),
        *("pthread_sigmask", "pthread_kill", "siginterrupt", "set_wakeup_fd"),
        *("SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK"),
    },
    "time": {"tzset", "clock_gettime", "pthread_getcpuclockid"},
    "socket": {"AF_UNIX", "socketpair", "SO_REUSEPORT"},
    "multiprocessing": {"set_start_method"},
    "select": {"poll", "epoll", "kqueue"},
}
POSIX_ARGUMENTS = {"preexec_fn", "pass_fds", "dir_fd", "start_new_session"}
POSIX_METHODS = {"hardlink_to", "symlink_to", "owner", "group", "lchmod", "is_mount"}
OVER_WHAT_IS_THERE = {"rename"}
"""On Windows it fails where the target exists, unlike `replace`."""
POSIX_PLACES = ("/proc", "/dev/", "/tmp", "/etc/", "/sys/", "/var/", "/usr/", "/bin/", "/run/")
START_METHODS = {"fork", "forkserver"}

GUARDED = {
    # Each asks first whether the system has it; the name says how.
    "formats/arrays.py": ("os.pread",),
    "runtime/processor.py": ("/proc/cpuinfo",),
    "given.py": ("os.statvfs",),
    "runtime/memory.py": ("resource", "os.sysconf", "/proc/self/statm"),
    "runtime/workers.py": (
        *("signal.pthread_sigmask", "signal.SIG_BLOCK", "signal.SIG_SETMASK", "signal.SIGHUP"),
        *("/tmp", "start method forkserver"),
    ),
    "runtime/threads.py": ("/proc/loadavg",),
    "training/memory.py": ("resource",),
    "training/record/run.py": ("os.getuid",),
    "webui/work/processes.py": ("os.getpgid", "os.killpg", "/proc"),
    # Windows passes over it, and has no sessions that a closed terminal would end.
    "webui/work/jobs.py": ("start_new_session=",),
    "webui/work/supervisor.py": ("start_new_session=", "/proc/"),
    # Of a link that is there already, on a system that has them.
    "training/record/run_folder.py": ("os.symlink", "rename"),
    # The target is a name that is free, or was made free just before.
    "atomic.py": ("rename",),
    "webui/renames.py": ("rename",),
}
"""What may be used where."""


def docstrings(tree: ast.AST) -> set[ast.AST]:
    """Texts that are statements of their own."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def posix_uses(tree: ast.Module) -> dict[str, int]:
    """What a module uses that not all systems have, with the first line that does. An import at the
    top of a module counts as unguarded in any case."""
    found: dict[str, int] = {}
    prose = docstrings(tree)
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                known = POSIX_NAMES.get(node.module or "", set())
                names += [f"{node.module}.{name}" for name in modules if name in known]
                modules = [node.module or ""]
            head = " at the head" if node in tree.body else ""
            names += [f"{name}{head}" for name in modules if name in POSIX_MODULES]
        elif isinstance(node, ast.Attribute):
            where = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in POSIX_NAMES.get(where, ()):
                names.append(f"{where}.{node.attr}")
        elif isinstance(node, ast.Call):
            names += [f"{k.arg}=" for k in node.keywords if k.arg in POSIX_ARGUMENTS]
            if isinstance(node.func, ast.Attribute):
                methods = POSIX_METHODS | OVER_WHAT_IS_THERE
                names += [node.func.attr] if node.func.attr in methods else []
                if node.func.attr == "get_context":
                    texts = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
                    names += [f"start method {name}" for name in START_METHODS & texts]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            names += [node.value] if f"{node.value}/".startswith(POSIX_PLACES) else []
        for name in names:
            found.setdefault(name, getattr(node, "lineno", 0))
    return found


@cache
def trees() -> dict[str, ast.Module]:
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def test_what_only_some_systems_have_is_asked_for_where_it_is_guarded() -> None:
    unguarded, asked = [], set()
    for place, tree in trees().items():
        for name, line in posix_uses(tree).items():
            asked.add((place, name))
            if name not in GUARDED.get(place, ()):
                unguarded.append(f"{place}:{line}: {name}")
    assert not unguarded, "not on every system; ask first, and list it in GUARDED: " + ", ".join(
        unguarded
    )
    stale = {(place, name) for place, names in GUARDED.items() for name in names} - asked
    assert not stale


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import fcntl", "fcntl at the head"),
        ("def f():\n    import fcntl", "fcntl"),
        ("from os import fork", "os.fork"),
        ("import os\nos.killpg(1, 9)", "os.killpg"),
        ("import signal\nsignal.alarm(3)", "signal.alarm"),
        ("open('/dev/shm/a', 'rb')", "/dev/shm/a"),
        ("from pathlib import Path\nPath('/proc')", "/proc"),
        ("path.rename(other)", "rename"),
        ("path.symlink_to(other)", "symlink_to"),
        ("multiprocessing.get_context('fork')", "start method fork"),
        ("subprocess.Popen([], preexec_fn=f)", "preexec_fn="),
    ],
)
def test_a_use_is_seen(source: str, said: str) -> None:
    assert said in posix_uses(ast.parse(source))


def unencoded_texts(tree: ast.Module) -> list[tuple[int, str]]:
    """Files that are read or written as text in the system's encoding, which on Windows isn't
    UTF-8."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in named or None in named:
            continue
        modes = [a.value for a in [*node.args, *named.values()] if isinstance(a, ast.Constant)]
        is_method = isinstance(node.func, ast.Attribute)
        is_binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
        is_text = name == "open" and not is_binary
        if is_method:
            is_text = (name, len(node.args)) in TEXT_METHODS
        if is_text or (name in STARTERS and {"text", "universal_newlines"} & {*named}):
            found.append((node.lineno, name))
    return found


STARTERS = {"run", "Popen", "check_output"}
TEXT_METHODS = {("read_text", 0), ("write_text", 1)}
"""The number of arguments up to which they don't state the encoding."""


def test_texts_have_an_encoding_whatever_the_system() -> None:
    found = [
        f"{place}:{line}: {name}"
        for place, tree in trees().items()
        for line, name in unencoded_texts(tree)
    ]
    assert not found, "give encoding='utf-8': " + ", ".join(found)
    assert [name for _, name in unencoded_texts(ast.parse("p.read_text()\nopen(p)"))] == [
        "read_text",
        "open",
    ]


@pytest.mark.parametrize("name", ["con.kick.wav", "AUX.wav", "sub/nul.wav", "a:b?*.wav", "x. .wav"])
def test_clips_have_names_that_every_system_takes(name: str) -> None:
    (path,) = clip_paths(name, "0" * 64, [SimpleNamespace(start_s=0, duration_s=1, repeated=1)], {})
    stem = path.removeprefix("train/").removesuffix(".wav")
    assert not RESERVED_NAME.fullmatch(stem.partition(".")[0])
    assert not set(stem) & set('<>:"/\\|?*')
    assert not stem.endswith((" ", "."))


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
