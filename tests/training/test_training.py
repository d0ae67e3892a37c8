"""Whole trainings of a tiny model on real audio."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_datasets import make_dataset, read_metadata, read_rows, tiny_settings, write_metadata
from safetensors.torch import load_file
from trainer import train_stepping

from musicgen_lora.config import EvaluateSettings, GenerateSettings
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.training.step import Learner, optimise_step
from musicgen_lora.training.train import train_lora

DELAYS = [0, 1, 2, 3]


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
    codes = tokenise_clips(clips, ids, BaseModel.load(tiny_model_dir), data_dir)
    best = settings.output_dir / "best_model"
    model = load_base(best)
    texts = TextStates(model, load_tokenizer(best)).batch([c.texts[0] for c in clips])
    played = generate_codes(
        BaseModel(model),
        Request(Conditions(texts), n_frames=40, seeds=[0] * 4, sampling=Sampling(1.0, top_k=1)),
    )
    for index, own in enumerate(codes):
        expected = torch.from_numpy(own.T.astype(np.int64))
        assert len(expected.unique()) > 20
        for k, delay in enumerate(DELAYS):
            # The loss never sees the last `delay` frames of a codebook.
            seen = slice(0, 40 - delay)
            assert torch.equal(played[index, k, seen], expected[k, seen]), (index, k)


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
    (own,) = tokenise_clips(clips, ids, BaseModel(model), data)
    load_adapter(BaseModel(model), settings.output_dir / "best_model")
    codes = torch.from_numpy(own.T.astype(np.int64))
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


def test_steps_that_the_epochs_do_not_have_are_reported(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    train_lora(tiny_settings(tiny_model_dir, data, out, max_steps=9_000, num_epochs=1))
    said = " ".join(capsys.readouterr().out.split())
    assert "--max_steps 9000 is never reached: --num_epochs 1 makes " in said


def test_held_out_clips_are_never_trained_on(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    write_metadata(
        data,
        [entry | {"source": f"pack{i % 4}"} for i, entry in enumerate(read_metadata(data))],
    )
    trained: set[str] = set()

    def watching(learner: Learner, batches: Any, totals: torch.Tensor, where: str) -> Any:
        trained.update(where.split("clips: ")[1].rstrip(")").split(", "))
        return optimise_step(learner, batches, totals, where)

    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", num_epochs=2, validation_fraction=0.25
    )
    run = train_stepping(settings, watching)
    held = {entry["name"] for entry in run["data"]["validation"]}
    assert len(held) == 2
    assert len({entry["source"] for entry in run["data"]["validation"]}) == 1
    assert trained | held == {clip.name for clip in load_dataset(data)}
    assert not trained & held


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
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    """EnCodec and T5 do not run in the loop, and nothing but the adapter has dropout on."""
    seen: list[bool] = []

    def watching(learner: Learner, *rest: Any) -> Any:
        model: Any = learner.model.hf
        on = {name for name, module in model.named_modules() if module.training}
        wrapped = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
        assert {name for name in on if "lora_" not in name} <= wrapped
        for part in (model.audio_encoder, model.text_encoder):
            part.forward = part.encode = refuse
        seen.append(any(name.endswith("lora_dropout.default") for name in on))
        return optimise_step(learner, *rest)

    def refuse(*_, **__):
        raise AssertionError("a frozen encoder ran in the loop")

    train_stepping(
        tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=3, lora_dropout=0.1),
        watching,
    )
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


def test_frozen_modules_stay_as_they_are_and_the_rest_learns(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = tiny_settings(
        tiny_model_dir,
        data,
        tmp_path / "out",
        trainable="full",
        frozen_modules=r"layers\.0\.encoder_attn|embed_tokens",
        max_steps=2,
    )
    train_lora(settings)
    before = load_base(tiny_model_dir).state_dict()
    after = load_base(settings.output_dir / "best_model").state_dict()
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    decoder = {name for name in before if name.startswith("decoder.")}
    frozen = {n for n in decoder if "layers.0.encoder_attn" in n or "embed_tokens" in n}
    assert len(frozen) > 4
    assert same & decoder == frozen


@pytest.mark.parametrize(
    ("trainable", "pattern", "message"),
    [
        ("full", "text_encoder", "matches none of the trained parameters, such as"),
        ("full", ".", "matches all parameters"),
    ],
)
def test_what_cannot_be_frozen_is_said(
    trainable: str, pattern: str, message: str, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", trainable=trainable, frozen_modules=pattern
    )
    with pytest.raises(UserError, match=re.escape(message)):
        train_lora(settings)


def test_a_rank_above_that_of_the_layers_is_remarked_on(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    width = json.loads((tiny_model_dir / "config.json").read_text())["decoder"]["hidden_size"]
    for rank in (width, width + 1):
        changes = {"max_steps": 1, "lora_rank": rank}
        train_lora(tiny_settings(tiny_model_dir, data, tmp_path / str(rank), **changes))
        said = " ".join(capsys.readouterr().out.split())
        told = f"--lora_rank {rank} is more than"
        assert (told in said) is (rank > width)
    assert f"whose rank is {width} at most): it takes memory and adds nothing there" in said
