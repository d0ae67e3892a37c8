"""What a training refuses or breaks off, with what it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_datasets import read_rows, tiny_settings
from safetensors.torch import load_file
from trainer import Cramped, NotANumber, file_hashes, step_number, train_stepping, with_text

from musicgen_lora import atomic
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.training.step import Learner, optimise_step
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
    with pytest.raises(UserError, match="values that are not finite"):
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


@pytest.mark.parametrize("what", ["loss", "gradient", "infinite gradient"])
def test_a_nan_stops_before_the_step(
    what: str, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", num_epochs=2, validate_every=1, save_every=1
    )
    names = {clip.name for clip in load_dataset(data)}
    before: dict[str, str] = {}
    value = torch.inf if what.startswith("infinite") else torch.nan

    def broken(learner: Learner, batches: Any, totals: torch.Tensor, where: str) -> Any:
        if step_number(where) != 3:
            return optimise_step(learner, batches, totals, where)
        before.update(file_hashes(settings.output_dir))
        if what == "loss":
            learner = with_text(learner, NotANumber(learner.model.text))
        else:
            learner.parameters[0].register_hook(lambda gradient: torch.full_like(gradient, value))
        return optimise_step(learner, batches, totals, where)

    with pytest.raises(
        RunError, match=rf"The {what.split()[-1]} is not finite at step 3"
    ) as raised:
        train_stepping(settings, broken)
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
    assert train_lora(settings)["status"] == "finished"


@pytest.mark.parametrize("when", ["before the step", "by the step"])
def test_a_nan_weight_is_neither_stepped_on_nor_saved_nor_best(
    when: str, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", num_epochs=2, validate_every=1, save_every=1
    )
    before: dict[str, str] = {}

    def breaking(learner: Learner, batches: Any, totals: torch.Tensor, where: str) -> Any:
        broken = step_number(where) == 3
        if broken:
            before.update(file_hashes(settings.output_dir))
        if broken and when == "before the step":
            learner.parameters[0].data[0, 0] = torch.nan
        result = optimise_step(learner, batches, totals, where)
        if broken:
            learner.parameters[0].data[0, 0] = torch.nan
        return result

    said = {"before the step": "The loss is not finite at step 3", "by the step": "not finite af"}
    with pytest.raises(RunError, match=said[when]) as raised:
        train_stepping(settings, breaking)
    assert "\n" not in str(raised.value)
    after = file_hashes(settings.output_dir)
    changing = {"run.json", "metrics.jsonl"}
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    assert (settings.output_dir / "checkpoints" / "step-000002").is_dir()
    assert train_lora(settings)["status"] == "finished"
    steps = [row["step"] for row in read_rows(settings.output_dir, "train")]
    assert steps == list(range(1, 9))


def test_memory_that_runs_out_at_8_and_4_ends_at_2_with_every_clip_once(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clips of the fixture have lengths of their own, which tell them apart."""

    def settings(name: str, batch_size: int):
        return tiny_settings(
            tiny_model_dir,
            data,
            tmp_path / name,
            batch_size=batch_size,
            gradient_accumulation_steps=8 // batch_size,
            num_epochs=3,
            lora_dropout=0.2,
            validation_fraction=0.0,
            save_every=1,
        )

    train_lora(settings("small", 2))
    tried: list[int] = []
    stepped: list[list[int]] = []

    def step(learner: Learner, batches: Any, totals: torch.Tensor, where: str) -> Any:
        cramped = Cramped(learner.model.text, 2)
        result = optimise_step(with_text(learner, cramped), batches, totals, where)
        tried.extend(cramped.tried)
        if result is not None:
            stepped.append(sorted(n for batch in batches for n in batch.n_frames.tolist()))
        return result

    train_stepping(settings("large", 8), step)
    assert tried == [8, 4, *[2] * 12]
    assert stepped == [list(range(15, 51, 5))] * 3
    said = capsys.readouterr().out
    for batch_size in (4, 2):
        assert f"Out of memory: batches of {batch_size} from now on" in said
    # The steps are those of a run that had batches of 2 from the start.
    rows = [
        [(row["loss"], row["grad_norm"]) for row in read_rows(tmp_path / name, "train")]
        for name in ("small", "large")
    ]
    assert rows[0] == rows[1]
    newest = tmp_path / "large" / "checkpoints" / "step-000003" / "state.json"
    assert json.loads(newest.read_text())["batch_size"] == 2


def test_memory_that_is_too_small_for_one_clip_is_one_line(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    def step(learner: Learner, *rest: Any) -> Any:
        return optimise_step(with_text(learner, Cramped(learner.model.text, 0)), *rest)

    with pytest.raises(RunError, match="Out of memory with a single clip at step 1") as raised:
        train_stepping(tiny_settings(tiny_model_dir, data, tmp_path / "out"), step)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "best_model").exists()


def test_fp16_scales_the_loss_and_keeps_the_adapter_in_fp32(
    tmp_path: Path, data: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU too, where it is asked for. The first steps overflow and are skipped."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        "torch.amp.GradScaler", lambda device: scaler(device, init_scale=2.0**32, enabled=True)
    )
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", precision="fp16", num_epochs=8, save_every=1
    )
    run = train_lora(settings)
    assert run["precision"] == "fp16"
    norms = [row["grad_norm"] for row in read_rows(settings.output_dir, "train")]
    assert norms[0] is None
    assert all(norm is not None for norm in norms[-8:])
    tensors = load_file(settings.output_dir / "best_model" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    last = settings.output_dir / "checkpoints" / f"step-{run['steps']:06d}" / "state.json"
    state = json.loads(last.read_text())
    assert state["scale"]["scale"] == 2.0 ** (32 - norms.count(None))
    assert run["best"]["loss"] < run["base_loss"]["loss"]


def test_the_text_encoder_can_have_a_rate_of_its_own(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = tiny_settings(
        tiny_model_dir,
        data,
        tmp_path / "out",
        max_steps=2,
        lora_targets=["attention", "text_encoder"],
        text_encoder_learning_rate=1e-30,
    )
    train_lora(settings)
    tensors = load_file(settings.output_dir / "best_model" / "adapter_model.safetensors")
    moved = {
        part: max(float(t.abs().max()) for n, t in tensors.items() if part in n and "lora_B" in n)
        for part in ("text_encoder", "decoder.model")
    }
    assert moved["text_encoder"] < 1e-20
    assert moved["decoder.model"] > 1e-4


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, "the text encoder is not trained"), ({"optimizer": "prodigy"}, "one rate for all")],
)
def test_a_rate_of_a_text_encoder_that_has_none_is_refused(
    changes: dict[str, Any],
    said: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("musicgen_lora.extras.find_spec", lambda name: object())
    if changes:
        changes |= {"learning_rate": 1.0, "lora_targets": ["text_encoder"]}
    out = tmp_path / "out"
    with pytest.raises(UserError, match=said):
        train_lora(
            tiny_settings(tiny_model_dir, data, out, text_encoder_learning_rate=1e-4, **changes)
        )
