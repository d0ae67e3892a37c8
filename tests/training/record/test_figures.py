"""One training, and where its figures stand: rows, run.json, terminal, card and weights' header."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_datasets import make_dataset, read_rows, tiny_settings
from safetensors import safe_open

from musicgen_lora.config import TrainSettings
from musicgen_lora.training.train import train_lora

N_STEPS = 8


@dataclass(frozen=True)
class Trained:
    """What a training gave back, wrote and printed."""

    settings: TrainSettings
    returned: dict[str, Any]
    said: str

    @property
    def run(self) -> dict[str, Any]:
        return json.loads((self.settings.output_dir / "run.json").read_text())

    @property
    def adapter(self) -> Path:
        return self.settings.output_dir / "best_model"

    def rows(self, event: str) -> list[dict[str, Any]]:
        return read_rows(self.settings.output_dir, event)

    @property
    def best(self) -> dict[str, Any]:
        return min(self.rows("validation"), key=lambda row: row["loss"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Trained:
    folder = tmp_path_factory.mktemp("figures")
    data = make_dataset(folder / "data", [0.3 + 0.1 * index for index in range(8)])
    settings = tiny_settings(tiny_model_dir, data, folder / "out", num_epochs=2)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        returned = train_lora(settings)
    return Trained(settings, returned, printed.getvalue())


def test_what_is_returned_is_what_is_written(trained: Trained) -> None:
    assert trained.run == json.loads(json.dumps(trained.returned))


def test_the_bases_loss_comes_before_the_first_step(trained: Trained) -> None:
    base = read_rows(trained.settings.output_dir)[0]
    assert (base["event"], base["step"], base["held_out"]) == ("base", 0, True)
    assert len(base["codebooks"]) == 4
    assert base["loss"] == pytest.approx(np.mean(base["codebooks"]))
    assert trained.run["base_loss"]["loss"] == base["loss"]
    assert f"loss {base['loss']:.4f}" in trained.said
    assert ", ".join(f"{value:.3f}" for value in base["codebooks"]) in trained.said


def test_each_step_has_a_row(trained: Trained) -> None:
    steps = trained.rows("train")
    assert [row["step"] for row in steps] == list(range(1, N_STEPS + 1))
    assert trained.run["steps"] == N_STEPS
    for row in steps:
        assert row["loss"] == pytest.approx(np.mean(row["codebooks"]))
        assert math.isfinite(row["grad_norm"])


@pytest.mark.parametrize("step", [1, N_STEPS])
def test_a_step_is_printed_as_its_row_has_it(trained: Trained, step: int) -> None:
    row = trained.rows("train")[step - 1]
    shown = f"step {step}/{N_STEPS}  epoch {row['epoch']:.2f}  loss {row['loss']:.3f}"
    assert f"{shown}  rate {row['learning_rate']:.2e}" in trained.said


def test_each_validation_has_a_row_and_a_line(trained: Trained) -> None:
    rows = trained.rows("validation")
    assert [row["step"] for row in rows] == [N_STEPS // 2, N_STEPS]
    for row in rows:
        assert f"step {row['step']}: validation loss {row['loss']:.4f}" in trained.said


def test_the_best_is_the_validation_of_the_lowest_loss(trained: Trained) -> None:
    best = trained.best
    assert trained.run["best"] == {name: best[name] for name in ("step", "loss", "codebooks")}
    before = trained.run["base_loss"]["loss"]
    assert f"held-out loss {before:.4f} -> {best['loss']:.4f}" in trained.said


def test_the_effect_comes_last(trained: Trained) -> None:
    effect = read_rows(trained.settings.output_dir)[-1]
    assert effect["event"] == "effect"
    assert trained.run["effect"]["mean_kl"] == effect["mean_kl"] > 0.0
    assert f"KL {effect['mean_kl']:.2g}" in trained.said
    assert f"change {effect['max_logit_change']:.2f}" in trained.said


def test_a_finished_run_says_how_it_was_made(trained: Trained) -> None:
    run = trained.run
    assert run["status"] == "finished"
    assert run["settings"]["lora_rank"] == trained.settings.lora_rank
    assert set(run["versions"]) >= {"torch", "transformers", "peft", "python", "musicgen_lora"}


def test_the_adapters_facts_are_those_of_the_run(trained: Trained) -> None:
    facts = json.loads((trained.adapter / "musicgen_lora.json").read_text())
    assert facts["best"] == trained.run["best"]
    assert facts["data"]["validation"] == trained.run["data"]["validation"]


def test_the_card_has_the_losses_before_and_after(trained: Trained) -> None:
    card = (trained.adapter / "README.md").read_text()
    base, best = trained.rows("base")[0], trained.best
    rows = [("mean", base["loss"], best["loss"])]
    for k, pair in enumerate(zip(base["codebooks"], best["codebooks"], strict=True)):
        rows.append((f"codebook {k + 1}", *pair))
    for name, before, after in rows:
        assert f"| {name} | {before:.4f} | {after:.4f} |" in card


def test_the_weights_header_names_base_best_and_settings(trained: Trained) -> None:
    with safe_open(trained.adapter / "adapter_model.safetensors", "pt") as file:
        header = json.loads(file.metadata()["musicgen_lora"])
    assert header["base"] == trained.run["base"]
    assert header["best"] == trained.run["best"]
    assert header["settings"]["lora_rank"] == trained.settings.lora_rank
