"""What a training refuses or breaks off, with what it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import read_rows, tiny_settings
from trainer import file_hashes

from musicgen_lora import atomic
from musicgen_lora.data.metadata import load_dataset
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.model.musicgen import load_base, load_tokenizer
from musicgen_lora.training import optimise
from musicgen_lora.training.train import train_lora


def test_the_gate_refuses_a_random_base(tmp_path: Path, data: Path, tiny_model_dir: Path) -> None:
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", allow_random_base=False, max_steps=1
    )
    with pytest.raises(UserError, match=r"no better than chance \(ln 64 = 4\.16\)") as raised:
        train_lora(settings)
    assert raised.value.exit_code == 2
    assert "--allow_random_base" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (settings.output_dir / "best_model").exists()
    settings.allow_random_base = True
    assert train_lora(settings)["status"] == "finished"


def test_the_gate_refuses_broken_weights_whatever_is_allowed(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    base = load_base(tiny_model_dir)
    with torch.no_grad():
        base.decoder.lm_heads[0].weight[0, 0] = torch.nan
    base.save_pretrained(tmp_path / "base")
    load_tokenizer(tiny_model_dir).save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match="its weights are broken"):
        train_lora(tiny_settings(tmp_path / "base", data, tmp_path / "out"))


def test_an_adapter_without_effect_is_an_error(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", max_steps=2, learning_rate=1e-30
    )
    for _ in range(2):  # The same command again is no way around it.
        with pytest.raises(RunError, match="changes nothing") as raised:
            train_lora(settings)
        assert raised.value.exit_code == 1
        run = json.loads((settings.output_dir / "run.json").read_text())
        assert run["status"] != "finished"


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_nan_stops_before_the_step(
    what: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", num_epochs=2, validate_every=1, save_every=1
    )
    names = {clip.name for clip in load_dataset(data)}
    original, calls, before = optimise.codebook_cross_entropies, [], {}

    def broken(*arguments):
        calls.append(1)
        sums, counts = original(*arguments)
        if len(calls) == 3:
            before.update(file_hashes(settings.output_dir))
            sums = sums * torch.nan if what == "loss" else NanGradient.apply(sums)
        return sums, counts

    monkeypatch.setattr(optimise, "codebook_cross_entropies", broken)
    with pytest.raises(RunError, match=rf"The {what} is not finite at step 3") as raised:
        train_lora(settings)
    assert raised.value.exit_code == 1
    named = str(raised.value).split("clips: ")[1].split(")")[0].split(", ")
    assert len(named) == 2
    assert set(named) <= names
    after = file_hashes(settings.output_dir)
    assert after.pop("run.json") != before.pop("run.json")
    assert after == before
    assert json.loads((settings.output_dir / "run.json").read_text())["status"] == "failed"
    assert not atomic.manifest_faults(settings.output_dir / "best_model")
    assert [row["step"] for row in read_rows(settings.output_dir, "train")] == [1, 2]
    # The weights of step 2 are sound: the run goes on from there.
    monkeypatch.setattr(optimise, "codebook_cross_entropies", original)
    assert train_lora(settings)["status"] == "finished"


class NanGradient(torch.autograd.Function):
    """Values pass; their gradient does not."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * torch.nan
