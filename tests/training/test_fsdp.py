"""Weights shared among processes: a full training as in one, saved whole, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from made_datasets import make_dataset, read_rows, tiny_settings
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from trainer import step_number, train_together
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.config import TrainSettings
from musicgen_lora.dataset.batches import Batch
from musicgen_lora.errors import UserError
from musicgen_lora.runtime import processes
from musicgen_lora.training.step import Learner, StepResult, optimise_step
from musicgen_lora.training.train import train_lora

RTOL, ATOL = 1e-4, 1e-5
"""Sums in another order, in fp32, over a few steps of Adam."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", [0.5, 0.8, 0.6, 0.4, 0.7, 0.5, 0.9, 0.6])


def settings_of(model: Path, data: Path, output_dir: Path, **changes: Any) -> TrainSettings:
    """Six clips a step, of which each process has two batches."""
    values: dict[str, Any] = {
        "trainable": "full",
        "batch_size": 2,
        "gradient_accumulation_steps": 5,
        "max_steps": 4,
        "num_epochs": 4,
        "learning_rate": 1e-3,
        "validation_fraction": 0.25,
        "condition_dropout": 0.3,
        "save_every": 2,
    }
    return tiny_settings(model, data, output_dir, **values | changes)


def check_parts(
    learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
) -> StepResult | None:
    """Every trained weight is in parts."""
    held = 0
    for parameter in learner.parameters:
        assert isinstance(parameter, DTensor)
        held += parameter.to_local().numel()
    assert held <= 0.6 * sum(parameter.numel() for parameter in learner.parameters)
    return optimise_step(learner, batches, totals, where)


def assert_same_training(one: Path, other: Path) -> None:
    rows, others = read_rows(one), read_rows(other)
    assert [(row["event"], row["step"]) for row in rows] == [
        (row["event"], row["step"]) for row in others
    ]
    for row, found in zip(rows, others, strict=True):
        for name in {"loss", "grad_norm", "codebooks", "learning_rate"} & set(row):
            assert found[name] == pytest.approx(row[name], rel=RTOL, abs=ATOL), (row["step"], name)
    for file in ("model.safetensors", "optimizer.safetensors"):
        tensors, others = (
            load_file(folder / "checkpoints" / "step-000004" / file) for folder in (one, other)
        )
        assert tensors.keys() == others.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"ema_decay": 0.5, "gradient_checkpointing": True},
        # Steps of four clips and one, and three to validate on: the second process has fewer
        # batches, or none.
        {
            "trainable": "full_with_text",
            "batch_size": 1,
            "gradient_accumulation_steps": 4,
            "validation_fraction": 0.375,
        },
    ],
    ids=["full", "full_with_text"],
)
def test_two_processes_share_the_weights_and_train_as_one(
    changes: dict[str, Any], tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    one = settings_of(tiny_model_dir, data, tmp_path / "one", **changes)
    two = settings_of(tiny_model_dir, data, tmp_path / "two", fsdp=True, **changes)
    train_lora(one)
    log = tmp_path / "log"
    assert train_together(two, log, check_parts) == [0, 0], log.read_text()
    assert_same_training(one.output_dir, two.output_dir)
    best = two.output_dir / "best_model"
    found: Any = MusicgenForConditionalGeneration.from_pretrained(best, output_loading_info=True)
    model, loaded = found
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    expected = load_file(one.output_dir / "best_model" / "model.safetensors")
    state = model.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-4)


class SecondBatchLost:
    """Text states of a step whose second batch finds no memory."""

    def __init__(self, text: Any) -> None:
        self._text, self._n_batches = text, 0

    def batch(self, captions: Sequence[str | None], device: Any) -> Any:
        self._n_batches += 1
        if self._n_batches == 2:
            raise torch.OutOfMemoryError("a fault")
        return self._text.batch(captions, device)


def exhaust_second_process(
    learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
) -> StepResult | None:
    """Memory of the second process runs out in its third step, while the first waits for it."""
    if processes.rank() == 1 and step_number(where) == 3:
        model: Any = learner.model
        model.text = SecondBatchLost(model.text)
    return optimise_step(learner, batches, totals, where)


@pytest.mark.slow
def test_a_lost_process_ends_all_and_the_run_goes_on_in_parts_or_whole(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    whole = settings_of(tiny_model_dir, data, tmp_path / "whole")
    train_lora(whole)
    for name, fsdp in (("parts", True), ("one", False)):
        parts = settings_of(tiny_model_dir, data, tmp_path / name, fsdp=True)
        log = tmp_path / f"log-{name}"
        assert train_together(parts, log, exhaust_second_process) == [1, 1], log.read_text()
        assert json.loads((parts.output_dir / "run.json").read_text())["status"] == "failed"
        assert log.read_text().count("Out of memory at step 3") == 1
        assert "Traceback" not in log.read_text()
        if fsdp:
            assert train_together(parts, log) == [0, 0], log.read_text()
            assert "Resuming after step 2" in log.read_text()
        else:
            train_lora(settings_of(tiny_model_dir, data, tmp_path / name))
        assert_same_training(whole.output_dir, parts.output_dir)


def test_fsdp_is_refused_for_a_single_process(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = settings_of(tiny_model_dir, data, tmp_path / "out", fsdp=True)
    with pytest.raises(UserError, match="there is only one; start them with torchrun"):
        train_lora(settings)
    assert not (settings.output_dir / "run.json").exists()


def test_fsdp_is_refused_for_a_melody_model(
    tmp_path: Path, data: Path, tiny_melody_dir: Path
) -> None:
    settings = settings_of(tiny_melody_dir, data, tmp_path / "out", fsdp=True)
    with pytest.raises(UserError, match="melody"):
        train_lora(settings)
