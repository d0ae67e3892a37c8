"""What makes tests quick, and firm, and leaves what they prove: nothing waits for the disk or is
chosen by the clock, a small base whose files stay as they are is read once in a process, libraries
are loaded once for all processes that are forked, and plots drawn and players filled where that is
what matters.

Tests stop processes, not machines: what was written is seen by the next process without fsync.
"""

from __future__ import annotations

import base64
import copy
import functools
import io
import os
import pickle
import sys
import types
import weakref
from collections.abc import Collection
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import parametrize
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.generation.decoding import caches, precision, products
from musicgen_lora.model.base import loading
from musicgen_lora.page import data_uri
from musicgen_lora.runtime.workers import FIRST_LOADED

MAX_BYTES = 4 << 20
"""Largest size of all files of a base that is kept: the embedded one is not."""
KEPT = 12
FORKED = [
    "musicgen_lora.training.train",
    "musicgen_lora.prepare.prepare",
    "musicgen_lora.dataset.shard_tasks",
    "musicgen_lora.evaluation.play_tasks",
    "musicgen_lora.generation.clip_tasks",
]
"""What the processes work on that tests start."""
EMPTY_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)

LEFT_OUT = (
    torch.Tensor,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    weakref.ReferenceType,
)

Found = tuple[MusicgenForConditionalGeneration, Collection[str]]


def make_quick() -> None:
    """For this process, and what is forked from it."""
    os.fsync = lambda fd: None
    loading.read_model = _Bases(loading.read_model)
    # On weights this small the clock tosses a coin, and with it whether two runs play one clip.
    products.fastest = caches.fastest = lambda options: next(iter(options))
    precision.fastest_near_lossless = lambda base, tell=print: precision.PRECISIONS[0]


def load_once() -> None:
    """Processes are forked from one server, which would have loaded what its first caller needs:
    each process of a later caller's would load the rest for itself, five seconds of it for a
    training. Here it loads all that the tests at hand need, whoever comes first."""
    loaded = [name for name in FORKED if name in sys.modules]
    forkserver.set_forkserver_preload([FIRST_LOADED, *loaded])
    forkserver.set_forkserver_preload = lambda modules_names: None


def leave_plots_undrawn() -> None:
    """Figures of evaluations and trainings are made, and an empty picture stands for each: to draw
    them takes half the time of an evaluation on a tiny base. Tests of the report and of the curves
    draw them, and so do the guide's commands."""
    from matplotlib.figure import Figure

    from musicgen_lora.evaluation.report import plots

    @functools.wraps(plots.png_bytes)
    def undrawn(figure: Any) -> bytes:
        return EMPTY_PNG

    plots.png_bytes = undrawn

    @functools.wraps(Figure.savefig)
    def unsaved(figure: Any, path: Any, **how: Any) -> None:
        path.write_bytes(EMPTY_PNG)

    Figure.savefig = unsaved


def leave_players_silent() -> None:
    """The page of a preparation has a player for each clip, with nothing in it: MP3s take a fifth
    of the time of preparing a few clips. A test of the page encodes and decodes them."""
    from musicgen_lora.audio import pictures

    @functools.wraps(pictures.mp3_uri)
    def silent(waveform: Any, sample_rate: int) -> str:
        return data_uri("audio/mpeg", b"")

    pictures.mp3_uri = silent


class _Bases:
    """Bases that were read, by all that is known of their files. Each caller has a copy."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self._kept: dict[tuple[Any, ...], tuple[_Packed, list[str]]] = {}

    def __call__(self, folder: Path, *arguments: Any) -> Found:
        files = sorted((path, path.stat()) for path in Path(folder).iterdir() if path.is_file())
        if sum(state.st_size for _, state in files) > MAX_BYTES:
            return self._read(folder, *arguments)
        key = tuple((str(path), s.st_ino, s.st_size, s.st_mtime_ns) for path, s in files)
        if key not in self._kept:
            model, missing = self._read(folder, *arguments)
            found = (_Packed(model), list(missing))
            self._kept = dict([*self._kept.items(), (key, found)][-KEPT:])
        packed, missing = self._kept[key]
        return packed.copy(), list(missing)


class _Packed:
    """A model of which copies are made, as `copy.deepcopy` makes them, in a sixth of its time."""

    def __init__(self, model: torch.nn.Module) -> None:
        file = io.BytesIO()
        pickler = _Pickler(file)
        pickler.dump(model)
        self._content, self._parts = file.getvalue(), pickler.parts

    def copy(self) -> Any:
        return _Unpickler(self._content, self._parts).load()


class _Pickler(pickle.Pickler):
    """Leaves out what has no content of its own to be copied, and tensors."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.parts: list[Any] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, LEFT_OUT):
            return None
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(self.parts)
            self.parts.append(obj)
        return self._numbers[id(obj)]

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.nn.Module) and parametrize.is_parametrized(obj):
            # It refuses to be pickled, as its class is made on the way.
            return object.__new__, (type(obj),), obj.__dict__
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Puts in what was left out, and copies of the tensors."""

    def __init__(self, content: bytes, parts: list[Any]) -> None:
        super().__init__(io.BytesIO(content))
        self._parts = parts
        self._copied: dict[int, Any] = {}

    def persistent_load(self, pid: int) -> Any:
        part = self._parts[pid]
        return copy.deepcopy(part, self._copied) if isinstance(part, torch.Tensor) else part
