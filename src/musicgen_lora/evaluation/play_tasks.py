"""The clips of an evaluation as tasks for an engine: one task plays a batch of prompts, and gives
its codes. Each process loads the base once and puts on one adapter after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from musicgen_lora.cluster.batches import BatchWork, run_batches
from musicgen_lora.cluster.engine import Engine
from musicgen_lora.dataset.bar_lines import stated_bar_lines
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.evaluation.performers import Performer, base_performer, place, variant_performers
from musicgen_lora.evaluation.store import Store
from musicgen_lora.evaluation.variants import ALONE, Variant, read_variant
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.plural import count

SeededPrompt = tuple[str, int]
"""A prompt and its seed."""


@dataclass(frozen=True)
class ClipKind:
    """What clips are like, whatever their prompts."""

    n_frames: int
    sampling: Sampling


@dataclass(frozen=True)
class PlayTask:
    """A batch to play.

    Args:
        adapter: folder of the one that is on; None is the base.
        identity: of the weights that both come to.
        precision: of the weights while they play.
        device: kind of device that they are kept as played on.
    """

    base_path: str
    base_fingerprint: str
    adapter: Path | None
    strength: float
    identity: str
    rows: list[SeededPrompt]
    playing: ClipKind
    precision: str
    device: str


def play_batches_by(
    engine: Engine, performer: Performer, batches: Sequence[list[SeededPrompt]], playing: ClipKind
) -> Iterator[tuple[list[SeededPrompt], np.ndarray]]:
    """Has an engine play batches.

    Yields:
        A batch and its codes `[B, K, T]`, as they end.

    Raises:
        RunError: a prompt costs its workers their lives; all others have been played by then.
    """
    adapter = None if performer.adapter is None else performer.adapter.absolute()

    def task_of(rows: list[SeededPrompt]) -> PlayTask:
        return PlayTask(
            base_path=performer.model.path,
            base_fingerprint=performer.model.fingerprint,
            adapter=adapter,
            strength=performer.strength,
            identity=performer.identity,
            rows=rows,
            playing=playing,
            precision=performer.precision,
            device=performer.model.device.type,
        )

    reasons, job = [], BatchWork(play_batch, task_of)
    for made in run_batches(engine, batches, job, job, np.concatenate):
        for (prompt, seed), why in made.faults:
            reasons.append(f'The prompt "{prompt[:40]}" with seed {seed}: {why.reason}')
        if made.rows:
            yield made.rows, made.found
    if reasons:
        raise RunError(
            f"{count(len(reasons), 'prompt')} can't be played, all others are kept for the next "
            f"run. The first: {reasons[0]}"
        )


def play_batch(task: PlayTask, alive: Callable[[], None]) -> np.ndarray:
    """Plays a batch: codes `[B, K, T]`.

    Raises:
        RunError: base or adapter are not here, or others have their names here.
    """
    try:
        model = _model(task.base_path, task.base_fingerprint)
        performer = _performer(model, task.adapter, task.strength, task.identity)
    except UserError as error:
        raise RunError(f"A machine of the cluster can't play: {error}") from error
    own_device = performer.model.device.type
    if own_device != task.device:
        raise RunError(
            f"A machine of the cluster plays on {own_device}, this one measures on {task.device}: "
            "run the command on a machine like those of the cluster."
        )
    if performer.identity != task.identity:
        raise RunError(
            f"{task.adapter or task.base_path}: a machine of the cluster has other weights under "
            "this name; give all the same files."
        )
    alive()
    with performer.worn():
        asked = request_of(performer.model, task.rows, task.playing)
        decoder = Decoder(performer.model, task.precision)
        return generate_codes(decoder, asked, lambda done, of: alive()).numpy()


def request_of(model: BaseModel, rows: Sequence[SeededPrompt], playing: ClipKind) -> Request:
    """What is asked of a decoder of the model as it is: prompts and their seeds."""
    prompts = [prompt for prompt, _ in rows]
    bars = [stated_bar_lines(prompt, model.shape.frame_rate) for prompt in prompts]
    return Request(
        Conditions(model.text.each_alone(prompts), bars=bars),
        n_frames=playing.n_frames,
        seeds=[seed for _, seed in rows],
        sampling=playing.sampling,
    )


@lru_cache(1)
def _performer(model: BaseModel, adapter: Path | None, strength: float, identity: str) -> Performer:
    """The performer of tasks; of another identity, which other files have, it is made anew."""
    base = base_performer(model, Store())
    if adapter is None:
        return base
    (performer,) = variant_performers(base, [Variant(ALONE, "", read_variant(adapter), strength)])
    return performer


@lru_cache(1)
def _model(path: str, fingerprint: str) -> BaseModel:
    """The base of tasks, loaded once in each process as long as it is the same."""
    model = BaseModel.load(path)
    place(model)
    return model
