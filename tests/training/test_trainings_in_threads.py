"""Trainings in threads of one process, which share torch's global generator."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from made_datasets import make_dataset, tiny_settings
from safetensors.torch import load_file

from musicgen_lora.training import train, trainer
from musicgen_lora.training.train import train_lora


def test_trainings_in_two_threads_are_those_that_run_alone(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their initial weights and their dropout masks."""
    make_dataset(tmp_path / "data", [1.0] * 4)

    def slowly(function: Any) -> Any:
        def slow(*args: Any) -> Any:
            time.sleep(0.1)
            return function(*args)

        return slow

    def trained(name: str, seed: int) -> dict[str, torch.Tensor]:
        settings = tiny_settings(
            *(tiny_model_dir, tmp_path / "data", tmp_path / name),
            seed=seed,
            max_steps=4,
            lora_dropout=0.3,
        )
        train_lora(settings)
        return load_file(tmp_path / name / "best_model" / "adapter_model.safetensors")

    alone = [trained(f"alone{seed}", seed) for seed in (0, 1)]
    monkeypatch.setattr(trainer, "optimise_step", slowly(trainer.optimise_step))
    monkeypatch.setattr(train, "make_weights", slowly(train.make_weights))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(trained, ("together0", "together1"), (0, 1)))
    for one, other in zip(alone, both, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
