"""Choices that were made by the clock, kept: a seed must give the same clip on a busy day.

The forms of a product differ in their last bits, and so would clips if each run took the form that
happens to be fastest at the moment. So each choice is measured once for a processor, a version of
torch, a number of threads and what it is for, and kept in a small file of the user's cache
(`$XDG_CACHE_HOME/musicgen_lora/choices.json`; `~/.cache` by default). Without the file, as after it
was deleted, the choice is measured again. Where none can be written, nothing is measured and the
first option is taken.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch

from musicgen_lora import atomic
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats.documents import read_json
from musicgen_lora.formats.kinds import named, text
from musicgen_lora.runtime.cache import cache_root

FILE = "choices.json"
CLEARLY = 1.25
"""Times that another option must be faster than the first one, to be taken in its stead."""
ROUNDS = 7
"""Rounds in which the options are timed in turns; the best time of each counts, as the machine may
do other work meanwhile."""
HOPELESS = 2.5
"""Times the best one's time at which an option is timed no more."""


@functools.cache
def processor() -> str:
    """The name of this computer's processor, with what torch makes use of."""
    name = platform.processor() or platform.machine()
    path = Path("/proc/cpuinfo")
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2] for line in lines if "model name" in line), name)
    return f"{name.strip()} {torch.backends.cpu.get_cpu_capability()}"


def recalled(what: str, options: Collection[str]) -> str | None:
    """A choice that was made before; None where none was, or of what is no option any more."""
    found = _read(cache_root() / FILE).get(_key(what))
    return found if found in options else None


def _key(what: str) -> str:
    threads = torch.get_num_threads()
    return f"{processor()}, torch {torch.__version__}, {threads} threads, {what}"


def kept_choice(what: str, options: Sequence[str], choose: Callable[[], str]) -> str:
    """A choice that was made before, or is made and kept now.

    Args:
        what: it is for, in words that tell it from all others on this computer.
        options: that may be chosen; the first one is taken where choices can't be kept.
        choose: chooses one of them.
    """
    before = recalled(what, options)
    if before is not None:
        return before
    key, path = _key(what), cache_root() / FILE
    try:
        cache_root().mkdir(parents=True, exist_ok=True)
        if not os.access(cache_root(), os.W_OK):
            return options[0]
        found = options[0] if len(options) == 1 else choose()
        # Another process may have chosen meanwhile, and its choice stands.
        known = _read(path)
        if known.get(key) not in options:
            known[key] = found
            atomic.write_json(path, known)
    except (OSError, RunError):
        return options[0]
    return known[key]


def _read(path: Path) -> dict[str, str]:
    """What is kept; nothing, where the file is missing or damaged: it is then made again."""
    if not path.is_file():
        return {}
    try:
        return read_json(path, named(text(100)))
    except (UserError, OSError):
        return {}


def fastest(options: dict[str, Callable[[], object]]) -> str:
    """The option that takes the least time; the first one, unless another is clearly faster."""
    # What a single thread takes doesn't depend on other programs, but for what they take of caches.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(options, float("inf"))
    for _ in range(ROUNDS):
        for name, run in options.items():
            if HOPELESS * min(best.values()) < best[name] < float("inf"):
                continue
            began = clock()
            run()
            best[name] = min(best[name], clock() - began)
    first = next(iter(options))
    winner = min(best, key=best.__getitem__)
    return winner if best[winner] * CLEARLY < best[first] else first
