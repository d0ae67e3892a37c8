"""The clips of a request as tasks for an engine.

A task plays the clips that this process would play together, so that they are the same to the bit
wherever it runs. Each process loads base and adapters once. The sound comes back, and the caller
writes it as it arrives; loops, whose names are numbered, in the order of the request.
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
"""A clip and its place in the request."""


@dataclass(frozen=True)
class BatchTask:
    """Clips to play together.

    Args:
        settings: of the request: the models that play, and the recording to continue, if any.
        rows: clips with the same settings but for texts and seeds.
        there: for each clip, the identities that the output folder has already.
        facts: the models that play, as the requesting process knows them.
        copies: local copies that the requesting process uses for URLs.
    """

    settings: GenerateSettings
    rows: list[PlacedOrder]
    there: list[frozenset[str]]
    facts: dict[str, Any]
    device: str
    copies: tuple[Copied, ...] = ()


@dataclass(frozen=True)
class PlayedBatch:
    """The result of a task.

    Args:
        clips: the clips that were played, with their places in the request.
        kept: identities of those that existed already, by place.
        said: remarks to print.
    """

    clips: list[tuple[int, GeneratedClip]] = field(default_factory=list)
    kept: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    played_s: float = 0.0

    @classmethod
    def joined(cls, parts: Sequence[PlayedBatch]) -> PlayedBatch:
        """The results of the parts of a batch, in order, as one."""
        return cls(
            [pair for part in parts for pair in part.clips],
            {place: identity for part in parts for place, identity in part.kept.items()},
            [line for part in parts for line in part.said],
            sum(part.played_s for part in parts),
        )


def plan_batches(orders: Sequence[ClipOrder]) -> list[list[PlacedOrder]]:
    """Group the clips into batches as `Session` does."""
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
    """Has an engine play a request, and yields the results; loops in the request's order.

    Args:
        session: made from the settings; it has the clips and the models that play.
        written: clips that the folder has already, which are not played again.

    Yields:
        The outcome of one or more clips; its `found` is a `PlayedBatch`.
    """
    device = processes.device().type

    def task_of(rows: list[PlacedOrder]) -> BatchTask:
        there = [written.identities(place) for place, _ in rows]
        return BatchTask(settings, rows, there, session.facts, device, copies())

    batches = plan_batches(session.orders)
    # Each loop is a batch of its own.
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
        RunError: base or adapters are missing here, or differ from those of the request.
    """
    with copied(*task.copies):
        return _play(task, alive)


def _play(task: BatchTask, alive: Callable[[], None]) -> PlayedBatch:
    asked = task.settings
    # What `auto` chose by measuring holds for one kind of device.
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
                f"{asked.base_model_path}: a machine of the cluster has a different {name} under "
                "the same path; put the same files on all of them."
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
    """The model that tasks play with, silent, loaded once per process until the base, the precision
    or the adapters change; `adapters` is their facts as JSON."""
    model = MusicGen(BaseModel.load(path), precision, Console(quiet=True))
    for adapter in json.loads(adapters):
        model.add_adapter(copy_of(adapter["path"]), adapter["strength"])
    return model
