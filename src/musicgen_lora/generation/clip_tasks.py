"""Clips of a request as tasks for an engine: one task plays those that this process would play
together, wherever it is worked on, so that they are the same to the bit.

Each process loads base and adapters once. The sound comes back, and whoever asked writes it as it
comes; loops, whose names are numbered, in the order of the request.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from rich.console import Console

from musicgen_lora.cluster.batches import BatchWork, Outcome, run_batches
from musicgen_lora.cluster.engine import Engine
from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.prompts import ClipOrder
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.generation.clips.clip import GeneratedClip
from musicgen_lora.generation.clips.written import Written
from musicgen_lora.generation.musicgen import MusicGen
from musicgen_lora.generation.session import Session, alike
from musicgen_lora.generation.wanted import wanted_of
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime import processes
from musicgen_lora.urls import Copied, copied, copies, copy_of

PlacedOrder = tuple[int, ClipOrder]
"""A clip with its place in the request."""


@dataclass(frozen=True)
class BatchTask:
    """Clips to play together.

    Args:
        settings: of the request: who plays, what is gone on with.
        rows: clips that are alike.
        there: identities of what the folder has of each.
        facts: who plays, as it is known where the request was made.
        copies: that the request's place works with, in place of what URLs name.
    """

    settings: GenerateSettings
    rows: list[PlacedOrder]
    there: list[frozenset[str]]
    facts: dict[str, Any]
    device: str
    copies: tuple[Copied, ...] = ()


@dataclass(frozen=True)
class PlayedBatch:
    """What came of a task.

    Args:
        clips: that were played, with their places in the request.
        kept: identities of those that were there, by their places.
        said: what is to be said of them.
    """

    clips: list[tuple[int, GeneratedClip]] = field(default_factory=list)
    kept: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    played_s: float = 0.0

    @classmethod
    def joined(cls, parts: Sequence[PlayedBatch]) -> PlayedBatch:
        """What parts of a batch came to, one after the other."""
        return cls(
            [pair for part in parts for pair in part.clips],
            {place: identity for part in parts for place, identity in part.kept.items()},
            [line for part in parts for line in part.said],
            sum(part.played_s for part in parts),
        )


def plan_batches(orders: Sequence[ClipOrder]) -> list[list[PlacedOrder]]:
    """Clips that are played together, as `Session` does it."""
    batches: list[list[PlacedOrder]] = []
    at = 0
    for some in alike(orders):
        first = some[0].settings
        takes_alone = first.continue_from is not None or first.regenerate is not None
        is_alone = takes_alone or not wanted_of(first).is_plain
        size = 1 if is_alone else first.batch_size
        rows = list(enumerate(some, at))
        batches += [rows[start : start + size] for start in range(0, len(rows), size)]
        at += len(some)
    return batches


def play_by(
    engine: Engine, settings: GenerateSettings, session: Session, written: Written
) -> Iterator[Outcome[PlacedOrder]]:
    """Has an engine play a request, and gives what comes of it; loops in the request's order.

    Args:
        session: made of them, which says what is asked for and who plays.
        written: what the folder has of it, which is not played again.

    Yields:
        What came of clips that were asked for; a `PlayedBatch` is found.
    """
    device = processes.device().type

    def task_of(rows: list[PlacedOrder]) -> BatchTask:
        there = [written.identities(place) for place, _ in rows]
        return BatchTask(settings, rows, there, session.facts, device, copies())

    batches = plan_batches(session.orders)
    # Each is a batch of its own.
    loops = deque(rows[0][0] for rows in batches if rows[0][1].settings.bars is not None)
    early: dict[int, Outcome[PlacedOrder]] = {}
    job = BatchWork(play_clips, task_of)
    for outcome in run_batches(engine, batches, job, job, PlayedBatch.joined):
        place, order = [*outcome.rows, *(row for row, _ in outcome.faults)][0]
        if order.settings.bars is None:
            yield outcome
            continue
        early[place] = outcome
        while loops and loops[0] in early:
            yield early.pop(loops.popleft())


def play_clips(task: BatchTask, alive: Callable[[], None]) -> PlayedBatch:
    """Plays the clips of a task.

    Raises:
        RunError: base or adapters are not here, or others have their names here.
    """
    with copied(*task.copies):
        return _play(task, alive)


def _play(task: BatchTask, alive: Callable[[], None]) -> PlayedBatch:
    asked = task.settings
    # What `auto` has chosen by measuring holds for devices of one kind.
    is_alike = processes.device().type == task.device
    precision = task.facts["precision"] if is_alike else asked.precision
    try:
        model = _model(asked.base_model_path, precision, json.dumps(task.facts["adapters"]))
    except UserError as error:
        raise RunError(f"A machine of the cluster can't play: {error}") from error
    alive()
    session = model.session(asked, [order for _, order in task.rows], alive)
    for name in ("base", "model", "adapters", "melody", "musicgen_lora"):
        if session.facts.get(name) != task.facts.get(name):
            raise RunError(
                f"{asked.base_model_path}: a machine of the cluster has another {name} under the "
                "same path; give all the same files."
            )
    played = PlayedBatch()

    def is_there(number: int, identity: str) -> bool:
        if identity not in task.there[number]:
            return False
        played.kept[task.rows[number][0]] = identity
        return True

    for number, clip in session.missing(is_there):
        played.clips.append((task.rows[number][0], clip))
    return replace(played, said=session.said, played_s=session.played_s)


@lru_cache(1)
def _model(path: str, precision: str, adapters: str) -> MusicGen:
    """The model of tasks, loaded once in each process as long as its adapters, of which the facts
    are given as JSON, are the same. It says nothing."""
    model = MusicGen(BaseModel.load(path), precision, Console(quiet=True))
    for adapter in json.loads(adapters):
        model.add_adapter(copy_of(adapter["path"]), adapter["strength"])
    return model
