"""Prompts as tasks for an engine: one task plays those that go through the model together.

They are the batches of a run in one process, with the same seeds, and so have the same files. What
an earlier run has made is not played again.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rich.console import Console

from musicgen_lora.cluster.engine import Engine
from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import progress
from musicgen_lora.errors import RunError
from musicgen_lora.generation.session import Session
from musicgen_lora.runtime.workers import Failure

LIMIT_S = 600.0
"""For a step, and for what is measured when a model is loaded."""


@dataclass(frozen=True)
class PromptTask:
    """Prompts to play together.

    Args:
        settings: of the run as JSON, without what differs between its tasks.
        prompts: to play.
        seed: of the first.
        models: fingerprints of base, whole model and adapters.
    """

    settings: str
    prompts: tuple[str, ...]
    seed: int
    models: str


@dataclass(frozen=True)
class Played:
    """What a task has made: files, how many takes were played for them, and lines to print."""

    paths: list[Path]
    n_takes: int
    said: str


def play_by(
    engine: Engine, settings: GenerateSettings, session: Session, console: Console
) -> tuple[list[Path], int]:
    """Has an engine play the prompts of a run.

    Returns:
        The files in the prompts' order, and how many takes were played.

    Raises:
        RunError: some could not be played; the others are there.
    """
    # Measured once, here: a machine that chose another would make other clips.
    common = dataclasses.replace(settings, prompts=[], seed=0, precision=session.precision)
    text = json.dumps(dataclasses.asdict(common), default=str)
    is_plain = settings.bars is None and settings.best_of == 1
    together = settings.batch_size if is_plain else 1
    starts = range(0, len(settings.prompts), together)
    tasks = [
        PromptTask(
            text,
            tuple(settings.prompts[start : start + together]),
            settings.seed + start,
            _models(session),
        )
        for start in starts
    ]
    found: dict[int, Played] = {}
    failed: dict[int, str] = {}
    with progress(console, "prompts played", len(tasks)) as on_task:
        for index, result in engine.run(play_prompts, tasks, LIMIT_S, on_gpu=True):
            if isinstance(result, Failure):
                failed[index] = result.reason
                names = ", ".join(tasks[index].prompts)
                console.print(f"not played: {names}: {result.reason}", style="yellow")
            else:
                found[index] = result
                console.print(result.said.rstrip())
            on_task(len(found) + len(failed), len(tasks))
    if failed:
        n_prompts = sum(len(tasks[index].prompts) for index in failed)
        raise RunError(
            f"{n_prompts} prompts were not played, all others are in {settings.output_dir} and "
            f"stay: run it again. The first reason: {failed[min(failed)]}"
        )
    paths = [path for index in range(len(tasks)) for path in found[index].paths]
    return paths, sum(played.n_takes for played in found.values())


def play_prompts(task: PromptTask, alive: Callable[[], None]) -> Played:
    """Plays the prompts of a task, or finds what an earlier run has made of them."""
    session, said = _session(task.settings)
    if _models(session) != task.models:
        raise RunError(
            "a machine of the cluster has another base or adapter under this name; give all the "
            "same files."
        )
    said.seek(0)
    said.truncate()
    paths = session.find(task.prompts, task.seed)
    if paths is not None:
        return Played(paths, 0, "\n".join(f"{path}: was there" for path in paths))
    before = session.player.n_played
    session.player.alive = alive
    paths = session.play(task.prompts, task.seed)
    return Played(paths, session.player.n_played - before, said.getvalue())


def _models(session: Session) -> str:
    how = session.how
    adapters = [[part["fingerprint"], part["strength"]] for part in how["adapters"]]
    return json.dumps([how["base"]["fingerprint"], how["model"], adapters])


@lru_cache(1)
def _session(text: str) -> tuple[Session, io.StringIO]:
    """The model that a run's tasks are played by in this process, and what it says."""
    said = io.StringIO()
    settings = GenerateSettings(**json.loads(text))
    console = Console(file=said, soft_wrap=True, highlight=False, markup=False, emoji=False)
    return Session(settings, console, Console(quiet=True)), said
