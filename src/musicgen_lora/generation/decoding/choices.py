"""Remembers choices that were made by timing: a seed must give the same clip on a busy day.

The forms of a product differ in their last bits, and so would clips if each run took the form that
happens to be fastest at the moment. So each choice is measured once per processor, torch version,
number of threads and purpose, and kept in a small file in the user's cache
(`$XDG_CACHE_HOME/musicgen_lora/choices.json`; `~/.cache` by default). If the file is missing or
deleted, the choice is measured again. If it can't be written, nothing is measured and the first
option is taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock

from musicgen_lora import atomic
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats.documents import read_json
from musicgen_lora.formats.kinds import named, text
from musicgen_lora.runtime.cache import cache_root
from musicgen_lora.runtime.processor import processor

FILE = "choices.json"
CLEARLY = 1.06
"""How many times faster another option must be to replace the first one; the best of seven rounds
varies by less."""
ROUNDS = 7
"""Rounds in which the options are timed in turn; the best time of each counts, as other programs
may be running."""
HOPELESS = 2.5
"""An option this many times slower than the best is not timed again."""
LONGEST_WAIT_S = 10.0
"""For another process that is saving its choice."""


def kept_choice(
    what: str,
    options: Sequence[str],
    choose: Callable[[Sequence[str]], str],
    usable: Callable[[], Sequence[str]] | None = None,
) -> str:
    """An earlier choice, or a new one, which is saved. A process stays with what it has chosen,
    whatever happens to the file.

    Args:
        what: purpose of the choice, unique among all choices on this computer.
        options: the candidates.
        choose: chooses one of those that are usable.
        usable: finds the options that work on this computer, if not all do. The first one is taken
            if choices can't be saved.
    """
    place = (cache_root() / FILE, _key(what))
    name = _chosen.get(place) or _read(place[0]).get(place[1])
    if name is None or name not in options:
        names = options if usable is None else usable()
        name = _new_choice(*place, names, choose)
        _unsaved.discard(place)
        if name is None:
            name = names[0]
            _unsaved.add(place)
    _chosen[place] = name
    return name


def is_saved(what: str) -> bool:
    """Whether a choice that this process has made is kept for later ones."""
    return (cache_root() / FILE, _key(what)) not in _unsaved


_chosen: dict[tuple[Path, str], str] = {}
_unsaved: set[tuple[Path, str]] = set()


def _key(what: str) -> str:
    threads = torch.get_num_threads()
    return f"{processor()}, torch {torch.__version__}, {threads} threads, {what}"


def _new_choice(
    path: Path, key: str, names: Sequence[str], choose: Callable[[Sequence[str]], str]
) -> str | None:
    """One of the names, once it is saved; None if that can't be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            return None
        found = names[0] if len(names) == 1 else choose(names)
        with FileLock(path.with_suffix(".lock"), timeout=LONGEST_WAIT_S):
            # Another process may have chosen meanwhile: then its choice stands.
            known = _read(path)
            if known.get(key) not in names:
                known[key] = found
                atomic.write_json(path, known)
    except (OSError, RunError):
        return None
    return known[key]


def _read(path: Path) -> dict[str, str]:
    """The saved choices; none if the file is missing or damaged, which is then written anew."""
    if not path.is_file():
        return {}
    try:
        return read_json(path, named(text(100)))
    except (UserError, OSError):
        return {}


def fastest(options: dict[str, Callable[[], object]]) -> str:
    """The fastest option; the first one unless another is clearly faster."""
    # A single thread's time doesn't depend on other programs, except for their use of caches.
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
