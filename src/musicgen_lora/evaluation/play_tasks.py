"""The prompts of an evaluation as tasks for an engine: one task plays a batch with the adapter off
or on, and gives the codes that one process would have made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from rich.console import Console

from musicgen_lora.cluster.engine import Engine, open_engine
from musicgen_lora.config import EvaluateSettings
from musicgen_lora.console import progress
from musicgen_lora.errors import RunError
from musicgen_lora.evaluation.generations import play_prompts
from musicgen_lora.generation.sampling import Sampling
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.lora.adapter import has_adapter, load_adapter, read_adapter
from musicgen_lora.model.musicgen import MusicGen
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.workers import Failure

LIMIT_S = 600.0
"""For a step, and for a model to load."""


@dataclass(frozen=True)
class PlayTask:
    """A batch of prompts.

    Args:
        base: path of the base model.
        adapter: folder of the adapter.
        fingerprints: of base and adapter, which must be those of the run.
        side: "base" plays without the adapter, "adapter" with it.
        prompts: to play together.
        seed: of the first.
        duration_s: of each.
        sampling: how they are drawn.
    """

    base: str
    adapter: Path
    fingerprints: tuple[str, str]
    side: str
    prompts: tuple[str, ...]
    seed: int
    duration_s: float
    sampling: Sampling


def place(model: MusicGen) -> torch.device:
    """Readies a model, with the adapter that it carries, on the device that measures."""
    device = processes.device()
    # In fp32 everywhere: differences of a percent are what is looked for.
    model.to(device, "fp32")
    enable(model.hf, "fp32")
    # An adapter on the text encoder gives captions other states than the base has for them.
    model.text.frozen = not has_adapter(model.hf.text_encoder)
    return device


def play_sides(
    settings: EvaluateSettings,
    adapted: PeftModel,
    model: MusicGen,
    prompts: Sequence[str],
    console: Console,
) -> dict[str, list[np.ndarray]]:
    """The codes of each prompt, `[K, T]` int64, with the adapter ("adapter"), and where sides are
    compared without it ("base").

    Raises:
        RunError: a machine of the cluster could not play some.
    """
    sides = ("base", "adapter") if settings.compare else ("adapter",)
    if settings.ray is not None:
        with open_engine(settings.ray) as engine:
            return _play_by(engine, settings, model, sides, prompts, console)
    codes = {}
    for side in sides:
        switched = adapted.disable_adapter() if side == "base" else nullcontext()
        with switched, progress(console, f"{len(prompts)} prompts, {side}, frames") as on_step:
            codes[side] = play_prompts(
                model,
                prompts,
                duration_s=settings.duration,
                seed=settings.seed,
                sampling=_sampling(settings),
                batch_size=settings.batch_size,
                on_step=on_step,
            )
    return codes


def _sampling(settings: EvaluateSettings) -> Sampling:
    return Sampling(
        guidance_scale=settings.guidance_scale,
        top_k=settings.top_k,
        top_p=settings.top_p,
        temperature=settings.temperature,
    )


def _play_by(
    engine: Engine,
    settings: EvaluateSettings,
    model: MusicGen,
    sides: Sequence[str],
    prompts: Sequence[str],
    console: Console,
) -> dict[str, list[np.ndarray]]:
    fingerprints = model.fingerprint, read_adapter(settings.lora_model_path).fingerprint
    tasks = [
        PlayTask(
            settings.base_model_path,
            settings.lora_model_path,
            fingerprints,
            side,
            tuple(prompts[start : start + settings.batch_size]),
            settings.seed + start,
            settings.duration,
            _sampling(settings),
        )
        for side in sides
        for start in range(0, len(prompts), settings.batch_size)
    ]
    found: dict[int, list[np.ndarray]] = {}
    with progress(console, "batches of prompts played", len(tasks)) as on_task:
        for index, result in engine.run(play_batch, tasks, LIMIT_S, on_gpu=True):
            if isinstance(result, Failure):
                raise RunError(f"{', '.join(tasks[index].prompts)}: {result.reason}")
            found[index] = result
            on_task(len(found), len(tasks))
    codes: dict[str, list[np.ndarray]] = {side: [] for side in sides}
    for index, task in enumerate(tasks):
        codes[task.side] += found[index]
    return codes


def play_batch(task: PlayTask, alive: Callable[[], None]) -> list[np.ndarray]:
    """The codes of each prompt, `[K, T]` int64."""
    model, adapted, fingerprints = _models(task.base, task.adapter)
    if fingerprints != task.fingerprints:
        raise RunError(
            "a machine of the cluster has another base or adapter under this name; give all the "
            "same files."
        )
    with adapted.disable_adapter() if task.side == "base" else nullcontext():
        return play_prompts(
            model,
            task.prompts,
            duration_s=task.duration_s,
            seed=task.seed,
            sampling=task.sampling,
            batch_size=len(task.prompts),
            on_step=lambda done, total: alive(),
        )


@lru_cache(1)
def _models(base: str, adapter: Path) -> tuple[MusicGen, PeftModel, tuple[str, str]]:
    files = read_adapter(adapter)
    model = MusicGen.load(base)
    adapted = load_adapter(model, files)
    place(model)
    return model, adapted, (model.fingerprint, files.fingerprint)
