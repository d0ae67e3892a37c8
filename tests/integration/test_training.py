"""Whole trainings of a tiny model on real audio."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import make_dataset, read_metadata, read_rows, tiny_settings, write_metadata
from safetensors import safe_open
from safetensors.torch import load_file

from musicgen_lora import atomic
from musicgen_lora.config import EvaluateSettings, GenerateSettings
from musicgen_lora.data.batches import collate
from musicgen_lora.data.metadata import load_dataset
from musicgen_lora.data.tokens import clip_ids, tokenise_clips
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.generation.decode import generate_codes
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.model.adapter import add_lora, load_adapter
from musicgen_lora.model.musicgen import load_base, load_tokenizer
from musicgen_lora.model.text import TextStates
from musicgen_lora.training import loop, optimise
from musicgen_lora.training.optimise import optimise_step
from musicgen_lora.training.train import train_lora

DELAYS = [0, 1, 2, 3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight ragged clips of 0.3 to 1 s."""
    return make_dataset(tmp_path / "data", [0.3 + 0.1 * index for index in range(8)])


def file_hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives while `step` is being recorded."""
    original = loop.run_folder.append_metrics

    def append(output_dir: Path, row: dict[str, Any]) -> None:
        original(output_dir, row)
        if row["event"] == "train" and row["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.run_folder, "append_metrics", append)


def test_four_clips_are_learned_by_heart_and_played_back(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    data_dir = make_dataset(tmp_path / "data", [0.8] * 4)
    settings = tiny_settings(
        tiny_model_dir,
        data_dir,
        tmp_path / "out",
        trainable="full",
        batch_size=4,
        learning_rate=1e-2,
        num_epochs=120,
        save_every=1000,
        condition_dropout=0.0,
        validation_fraction=0.0,
        weight_decay=0.0,
    )
    train_lora(settings)
    assert read_rows(settings.output_dir, "train")[-1]["loss"] < 0.1
    clips = load_dataset(data_dir)
    ids = clip_ids(clips, data_dir)
    store = tokenise_clips(clips, ids, load_base(tiny_model_dir), data_dir)
    best = settings.output_dir / "best_model"
    model = load_base(best)
    states, mask = TextStates(model, load_tokenizer(best)).batch([c.texts[0] for c in clips])
    played = generate_codes(
        model, states, mask, n_frames=40, seeds=[0] * 4, guidance_scale=1.0, top_k=1
    )
    for index, clip_id in enumerate(ids):
        expected = torch.from_numpy(store.codes(clip_id).T.astype(np.int64))
        assert len(expected.unique()) > 20
        for k, delay in enumerate(DELAYS):
            # The loss never sees the last `delay` frames of a codebook.
            seen = slice(0, 40 - delay)
            assert torch.equal(played[index, k, seen], expected[k, seen]), (index, k)


def gradients(model, batches, text, parameters) -> tuple[float, float, list[torch.Tensor]]:
    """Loss, gradient norm and gradients of a step that changes nothing."""
    found: list[torch.Tensor] = []
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    optimizer.register_step_pre_hook(
        lambda *_: found.extend(p.grad.clone() for p in parameters if p.grad is not None)
    )
    result = optimise_step(
        model, batches, text, optimizer, parameters, max_grad_norm=1e9, scaler=None, where="here"
    )
    return result.loss, result.grad_norm, found


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_accumulation_equals_one_big_batch_on_ragged_clips(
    batch_size: int, tiny_model_dir: Path
) -> None:
    model = load_base(tiny_model_dir)
    adapted = add_lora(model, base_name="x", rank=4, alpha=8)
    parameters = [p for p in adapted.parameters() if p.requires_grad]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, 0.1)
    rng = np.random.default_rng(0)
    windows = [rng.integers(0, 64, (n, 4)) for n in (5, 60, 9, 33, 4, 47, 12, 21)]
    captions = ["hip hop", None, "808 beat", "trap drums with bass", None, "dark", "808", "beat"]
    text = TextStates(model, load_tokenizer(tiny_model_dir))
    whole = gradients(model, [collate(windows, captions)], text, parameters)
    parts = [
        collate(windows[i : i + batch_size], captions[i : i + batch_size])
        for i in range(0, 8, batch_size)
    ]
    split = gradients(model, parts, text, parameters)
    assert split[0] == pytest.approx(whole[0], rel=1e-6)
    assert split[1] == pytest.approx(whole[1], rel=1e-4)
    assert len(whole[2]) == len(parameters)
    for ours, theirs in zip(split[2], whole[2], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)
    means = [gradients(model, [part], text, parameters)[0] for part in parts]
    assert abs(sum(means) / len(means) - whole[0]) > 1e-3, "these clips tell a mean of means apart"


def test_every_figure_reported_is_recorded(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", num_epochs=2)
    returned = train_lora(settings)
    said = capsys.readouterr().out
    run = json.loads((settings.output_dir / "run.json").read_text())
    assert run == json.loads(json.dumps(returned))
    rows = read_rows(settings.output_dir)
    base, effect = rows[0], rows[-1]
    # The base's held-out loss comes before the first step.
    assert (base["event"], base["step"], base["held_out"]) == ("base", 0, True)
    assert base["loss"] == run["base_loss"]["loss"] == pytest.approx(np.mean(base["codebooks"]))
    assert len(base["codebooks"]) == 4
    assert f"loss {base['loss']:.4f}" in said
    assert ", ".join(f"{value:.3f}" for value in base["codebooks"]) in said
    steps = [row for row in rows if row["event"] == "train"]
    assert [row["step"] for row in steps] == list(range(1, 9))
    assert run["steps"] == 8
    for row in steps:
        assert row["loss"] == pytest.approx(np.mean(row["codebooks"]))
        assert math.isfinite(row["grad_norm"])
    for step in (1, 8):
        row = steps[step - 1]
        shown = f"step {step}/8  epoch {row['epoch']:.2f}  loss {row['loss']:.3f}"
        assert f"{shown}  rate {row['learning_rate']:.2e}" in said
    found = [row for row in rows if row["event"] == "validation"]
    assert [row["step"] for row in found] == [4, 8]
    for row in found:
        assert f"step {row['step']}: validation loss {row['loss']:.4f}" in said
    best = min(found, key=lambda row: row["loss"])
    assert run["best"] == {name: best[name] for name in ("step", "loss", "codebooks")}
    assert f"Held-out loss {base['loss']:.4f} -> {best['loss']:.4f}" in said
    assert effect["event"] == "effect"
    assert run["effect"]["mean_kl"] == effect["mean_kl"] > 0.0
    assert f"KL {effect['mean_kl']:.2g}" in said
    assert f"change {effect['max_logit_change']:.2f}" in said
    assert run["status"] == "finished"
    assert run["settings"]["lora_rank"] == settings.lora_rank
    assert set(run["versions"]) >= {"torch", "transformers", "peft", "python", "musicgen_lora"}
    facts = json.loads((settings.output_dir / "best_model" / "musicgen_lora.json").read_text())
    assert facts["best"] == run["best"]
    assert facts["data"]["validation"] == run["data"]["validation"]
    card = (settings.output_dir / "best_model" / "README.md").read_text()
    for name, before, after in [
        ("mean", base["loss"], best["loss"]),
        *zip(
            [f"codebook {k + 1}" for k in range(4)],
            base["codebooks"],
            best["codebooks"],
            strict=True,
        ),
    ]:
        assert f"| {name} | {before:.4f} | {after:.4f} |" in card
    with safe_open(settings.output_dir / "best_model" / "adapter_model.safetensors", "pt") as file:
        header = json.loads(file.metadata()["musicgen_lora"])
    assert header["base"] == run["base"]
    assert header["best"] == run["best"]
    assert header["settings"]["lora_rank"] == settings.lora_rank


def test_the_trained_adapter_is_the_one_that_was_measured(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    """The held-out loss of best_model, by hand, is what run.json says."""
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", num_epochs=3, learning_rate=1e-2
    )
    run = train_lora(settings)
    model = load_base(tiny_model_dir)
    held = {entry["name"] for entry in run["data"]["validation"]}
    clips = [clip for clip in load_dataset(data) if clip.name in held]
    assert len(clips) == 1
    ids = clip_ids(clips, data)
    store = tokenise_clips(clips, ids, model, data)
    load_adapter(model, settings.output_dir / "best_model")
    codes = torch.from_numpy(store.codes(ids[0]).T.astype(np.int64))
    tokens = load_tokenizer(tiny_model_dir)(clips[0].texts[0], return_tensors="pt")
    delayed = torch.full_like(codes, 64)
    labels = torch.full_like(codes, -100)
    for k, delay in enumerate(DELAYS):
        delayed[k, delay + 1 :] = codes[k, : codes.shape[1] - 1 - delay]
        labels[k, delay:] = codes[k, : codes.shape[1] - delay]
    with torch.no_grad():
        loss = model(**tokens, decoder_input_ids=delayed, labels=labels.T[None]).loss.item()
    assert loss == pytest.approx(run["best"]["loss"], abs=1e-5)
    assert loss < run["base_loss"]["loss"]


@pytest.mark.parametrize(
    "trained",
    [
        {"trainable": "lora"},
        {"trainable": "full"},
        {"lora_init": "pissa", "lora_targets": ["attention", "heads"]},
        {"adapter": "dora", "lora_targets": ["feed_forward", "embeddings", "text_encoder"]},
    ],
    ids=["lora", "full", "pissa", "dora"],
)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    trained: dict[str, Any],
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def settings(name: str):
        return tiny_settings(
            tiny_model_dir,
            data,
            tmp_path / name,
            num_epochs=10,
            max_steps=6,
            lora_dropout=0.3,
            validate_every=2,
            condition_dropout=0.3,
            **trained,
        )

    train_lora(settings("whole"))
    with monkeypatch.context() as patch:
        # Four steps are an epoch, so step 3 is inside the first.
        interrupt_after(3, patch)
        with pytest.raises(SystemExit) as raised:
            train_lora(settings("parts"))
    assert raised.value.code == 130
    saved = [path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()]
    assert saved == ["step-000003"]
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["status"] == "interrupted"
    capsys.readouterr()
    torch.manual_seed(99)
    train_lora(settings("parts"))
    assert "Resuming after step 3" in capsys.readouterr().out
    timeless = [
        [
            {k: v for k, v in row.items() if k not in ("elapsed_s", "audio_s_per_s")}
            for row in read_rows(tmp_path / name)
        ]
        for name in ("whole", "parts")
    ]
    assert timeless[0] == timeless[1]
    full = trained.get("trainable") == "full"
    weights = "model.safetensors" if full else "adapter_model.safetensors"
    for part in ("best_model", "checkpoints/step-000006"):
        whole, parts = (load_file(tmp_path / n / part / weights) for n in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not (tmp_path / "parts" / "previous").exists()


def test_dropout_on_the_adapter_is_really_on(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    """Or the comparison above would say less than it seems to."""
    for share in (0.0, 0.3):
        train_lora(
            tiny_settings(
                tiny_model_dir, data, tmp_path / str(share), max_steps=2, lora_dropout=share
            )
        )
    first, second = (read_rows(tmp_path / str(share), "train") for share in (0.0, 0.3))
    assert first[0]["loss"] == second[0]["loss"], "B is zero at the first step"
    assert first[1]["loss"] != second[1]["loss"]


def test_a_finished_run_again_changes_nothing(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=2)
    first = train_lora(settings)
    before = file_hashes(settings.output_dir)
    capsys.readouterr()
    again = train_lora(settings)
    assert "already finished" in capsys.readouterr().out
    assert file_hashes(settings.output_dir) == before
    assert json.loads(json.dumps(first)) == again


@pytest.mark.parametrize("change", ["settings", "captions", "base"])
def test_another_run_puts_the_earlier_one_aside(
    change: str, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    output_dir = tmp_path / "out"
    train_lora(tiny_settings(tiny_model_dir, data, output_dir, max_steps=2))
    (output_dir / "generated").mkdir()
    earlier = {name: h for name, h in file_hashes(output_dir).items() if name != ".lock"}
    changes: dict[str, Any] = {}
    model = tiny_model_dir
    if change == "settings":
        changes = {"lora_rank": 3}
    elif change == "captions":
        entries = read_metadata(data)
        entries[0]["text"] = "another caption"
        write_metadata(data, entries)
    else:
        model = tmp_path / "base"
        base = load_base(tiny_model_dir)
        with torch.no_grad():
            base.decoder.lm_heads[0].weight[0, 0] += 1.0
        base.save_pretrained(model)
        load_tokenizer(tiny_model_dir).save_pretrained(model)
    train_lora(tiny_settings(model, data, output_dir, max_steps=2, **changes))
    (aside,) = (output_dir / "previous").iterdir()
    assert file_hashes(aside) == earlier
    assert (output_dir / "generated").is_dir()
    assert len(read_rows(output_dir, "base")) == 1


def test_two_runs_in_the_same_second_are_both_kept(
    tmp_path: Path, data: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20260101-000000")
    for rank in (2, 3, 4):
        train_lora(
            tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=1, lora_rank=rank)
        )
    ranks = {
        json.loads((path / "run.json").read_text())["settings"]["lora_rank"]
        for path in (tmp_path / "out" / "previous").iterdir()
    }
    assert ranks == {2, 3}


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


@pytest.mark.parametrize("sources", ["one source", "no fraction"])
def test_too_few_sources_to_split_are_said(
    sources: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if sources == "one source":
        write_metadata(data, [entry | {"source": "one"} for entry in read_metadata(data)])
    settings = tiny_settings(
        tiny_model_dir,
        data,
        tmp_path / "out",
        max_steps=2,
        validation_fraction=0.1 if sources == "one source" else 0.0,
    )
    run = train_lora(settings)
    said = capsys.readouterr().out
    assert "0 held out" in said
    assert "Too few sources" in said
    assert run["best"] is None
    assert run["base_loss"]["held_out"] is False
    assert (settings.output_dir / "best_model" / "adapter_model.safetensors").is_file()
    last = settings.output_dir / "checkpoints" / "step-000002" / "adapter_model.safetensors"
    published = settings.output_dir / "best_model" / "adapter_model.safetensors"
    # The published file's header says more; the tensors are the checkpoint's.
    ours, theirs = load_file(published), load_file(last)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_held_out_clips_are_never_trained_on(
    tmp_path: Path, data: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_metadata(
        data,
        [entry | {"source": f"pack{i % 4}"} for i, entry in enumerate(read_metadata(data))],
    )
    trained: set[str] = set()
    original = loop.optimise_step

    def watching(*arguments, where: str, **named):
        trained.update(where.split("clips: ")[1].rstrip(")").split(", "))
        return original(*arguments, where=where, **named)

    monkeypatch.setattr(loop, "optimise_step", watching)
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", num_epochs=2, validation_fraction=0.25
    )
    run = train_lora(settings)
    held = {entry["name"] for entry in run["data"]["validation"]}
    assert len(held) == 2
    assert len({entry["source"] for entry in run["data"]["validation"]}) == 1
    assert trained | held == {clip.name for clip in load_dataset(data)}
    assert not trained & held


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


def test_clips_too_short_to_predict_are_left_out_and_named(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = make_dataset(tmp_path / "data", [0.5, 0.05, 0.6, 0.02])
    run = train_lora(tiny_settings(tiny_model_dir, data_dir, tmp_path / "out", max_steps=1))
    said = capsys.readouterr().out
    assert "train/beat1.wav: shorter than 4 frames" in said
    assert "train/beat3.wav: shorter than 4 frames" in said
    assert run["data"]["n_train"] + run["data"]["n_validation"] == 2
    write_metadata(data_dir, [read_metadata(data_dir)[3]])
    with pytest.raises(UserError, match="nothing is left to train on"):
        train_lora(tiny_settings(tiny_model_dir, data_dir, tmp_path / "out2"))


def test_stereo_trains_too(tmp_path: Path, data: Path, tiny_stereo_dir: Path) -> None:
    run = train_lora(
        tiny_settings(tiny_stereo_dir, data, tmp_path / "out", num_epochs=3, learning_rate=1e-2)
    )
    assert len(run["base_loss"]["codebooks"]) == 8
    assert run["best"]["loss"] < run["base_loss"]["loss"]


def test_frozen_parts_stay_in_eval_and_unchanged(
    tmp_path: Path, data: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EnCodec and T5 do not run in the loop, and nothing but the adapter has dropout on."""
    seen: list[bool] = []
    original = loop.optimise_step

    def watching(model, *arguments, **named):
        on = {name for name, module in model.named_modules() if module.training}
        wrapped = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
        assert {name for name in on if "lora_" not in name} <= wrapped
        for part in (model.audio_encoder, model.text_encoder):
            part.forward = part.encode = refuse
        seen.append(any(name.endswith("lora_dropout.default") for name in on))
        return original(model, *arguments, **named)

    def refuse(*_, **__):
        raise AssertionError("a frozen encoder ran in the loop")

    monkeypatch.setattr(loop, "optimise_step", watching)
    train_lora(tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=3, lora_dropout=0.1))
    assert seen == [True] * 3


def test_paths_with_brackets_are_printed_not_interpreted(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """[/x] would be markup that closes nothing."""
    data_dir = make_dataset(tmp_path / "[/data]", [0.5, 0.5, 0.02])
    output_dir = tmp_path / "[/out]"
    train_lora(tiny_settings(tiny_model_dir, data_dir, output_dir, max_steps=1))
    train_lora(tiny_settings(tiny_model_dir, data_dir, output_dir, max_steps=1))
    train_lora(tiny_settings(tiny_model_dir, data_dir, output_dir, max_steps=1, lora_rank=2))
    said = capsys.readouterr().out
    assert str(output_dir / "best_model") in said
    assert str(output_dir / "previous") in said
    common: dict[str, Any] = {
        "base_model_path": str(tiny_model_dir),
        "lora_model_path": output_dir / "best_model",
        "prompts": ["[/b] beat"],
        "duration": 0.5,
    }
    generate_audio(GenerateSettings(**common, output_dir=output_dir / "generated"))
    assert str(output_dir / "generated") in capsys.readouterr().out
    evaluate_adapter(EvaluateSettings(**common, output_dir=output_dir / "evaluation"))
    assert str(output_dir / "evaluation") in capsys.readouterr().out
