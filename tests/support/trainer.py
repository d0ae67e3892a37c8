"""Trainings in processes of their own, which tests may kill.

The processes are forked from a server that has imported everything (`quick.load_once`), so each
starts at once.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from quick import make_quick
from torch import distributed

from musicgen_lora.config import TrainSettings
from musicgen_lora.model.text.states import EncodedText
from musicgen_lora.training import trainer, validation
from musicgen_lora.training.record import run_folder
from musicgen_lora.training.step import Learner, optimise_step

if TYPE_CHECKING:
    # Seconds for those who only train.
    import pytest

_CONTEXT = multiprocessing.get_context("forkserver")
Step = Callable[..., Any]
"""`optimise_step`, or what is tried in its place."""


def _work(
    settings: TrainSettings,
    log: Path,
    environment: dict[str, str],
    prepare: Callable[[], None] | None,
    optimise: Step,
) -> None:
    from musicgen_lora.errors import UserError

    # The server may have been started for `run_tasks`, whose workers never see a signal.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    torch.set_num_threads(1)
    make_quick()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if prepare is not None:
        prepare()
    try:
        train_stepping(settings, optimise)
    except UserError as error:
        print(error)
        sys.exit(error.exit_code)


def train_stepping(settings: TrainSettings, optimise: Step) -> dict[str, Any]:
    """A training whose optimizer steps are others."""
    from musicgen_lora.training.train import train_lora

    with patch.object(trainer, "optimise_step", optimise):
        return train_lora(settings)


def start_training(settings: TrainSettings, log: Path) -> BaseProcess:
    """A training in a process of its own that prints into `log`."""
    process = _CONTEXT.Process(target=_work, args=(settings, log, {}, None, optimise_step))
    process.start()
    return process


def train_together(
    settings: TrainSettings,
    log: Path,
    optimise: Step = optimise_step,
    *,
    prepare: Callable[[], None] | None = None,
    n: int = 2,
) -> list[int | None]:
    """A training by `n` processes that find each other as those of `torchrun` do.

    Args:
        settings: of the run.
        log: what they print.
        optimise: an optimizer step; each process has its own copy.
        prepare: called in each before it trains.
        n: how many.

    Returns:
        Their exit codes.
    """
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    started = []
    for rank in range(n):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = (settings, log, environment, prepare, optimise)
        process = _CONTEXT.Process(target=_work, args=arguments)
        process.start()
        started.append(process)
    try:
        for process in started:
            process.join(150)
        return [process.exitcode for process in started]
    finally:
        for process in started:
            process.kill()


def run_training(settings: TrainSettings, log: Path) -> float:
    """A training to its end, in a process of its own. Returns the seconds it took."""
    began = time.monotonic()
    process = start_training(settings, log)
    process.join(120)
    assert process.exitcode == 0, log.read_text()
    return time.monotonic() - began


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives while `step` is being recorded."""
    original = run_folder.append_metrics

    def append(output_dir: Path, row: dict[str, Any]) -> None:
        original(output_dir, row)
        if row["event"] == "train" and row["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run_folder, "append_metrics", append)


def train_interrupted(settings: TrainSettings, step: int) -> None:
    """Trains until Ctrl-C arrives while `step` is being recorded."""
    import pytest

    from musicgen_lora.training.train import train_lora

    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(step, patch)
        with pytest.raises(SystemExit):
            train_lora(settings)


def find_losses(losses: Iterable[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each validation finds the next of these losses; the base's comes first."""
    found = iter(losses)
    monkeypatch.setattr(validation, "held_out_losses", lambda *_, **__: [next(found)] * 4)


def step_number(where: str) -> int:
    """Number of the step that `where` names in its messages."""
    return int(where.split()[2])


def with_text(learner: Learner, text: Any) -> Learner:
    """The learner, whose model gets its conditions elsewhere."""
    model = copy.copy(learner.model)
    model.__dict__["text"] = text
    return dataclasses.replace(learner, model=model)


class Cramped:
    """Text states for a model whose memory holds `room` clips at once.

    Args:
        text: gives the states.
        room: more clips at once run out of memory.
    """

    def __init__(self, text: Any, room: int) -> None:
        self._text, self._room = text, room
        self.tried: list[int] = []
        """Clips of each try."""

    def batch(self, captions: Sequence[str | None], device: Any) -> Any:
        self.tried.append(len(captions))
        if len(captions) > self._room:
            raise torch.OutOfMemoryError("too much")
        return self._text.batch(captions, device)


class NotANumber:
    """Text states that are none.

    Args:
        text: gives the states.
    """

    def __init__(self, text: Any) -> None:
        self._text = text

    def batch(self, captions: Sequence[str | None], device: Any) -> Any:
        states, mask = self._text.batch(captions, device)
        return EncodedText(states * torch.nan, mask)
