"""Melody models along the whole route."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_datasets import RATE, beat, make_dataset, sine, timeless, tiny_settings
from safetensors.torch import load_file
from trainer import train_interrupted

from musicgen_lora.audio.files import write_wav
from musicgen_lora.cli import main
from musicgen_lora.config import EvaluateSettings, GenerateSettings
from musicgen_lora.config.train import LoraSettings
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.given import check_given
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.training.train import train_lora


def settings_of(folder: Path, data: Path, output_dir: Path, **changes: Any):
    values = {
        "num_epochs": 100,
        "max_steps": 5,
        "batch_size": 1,
        "gradient_accumulation_steps": 2,
        "validation_fraction": 0.25,
        "max_duration": 0.6,
        "save_every": 5,
        "condition_dropout": 0.3,
        "lora_dropout": 0.3,
        "lora_targets": ["attention", "feed_forward", "text_projection", "melody_projection"],
    }
    return tiny_settings(folder, data, output_dir, **values | changes)


def test_trains_resumes_exactly_and_is_evaluated(
    tmp_path: Path, data: Path, tiny_melody_dir: Path
) -> None:
    run = train_lora(settings_of(tiny_melody_dir, data, tmp_path / "whole"))
    train_interrupted(settings_of(tiny_melody_dir, data, tmp_path / "parts"), 2)
    torch.manual_seed(99)
    train_lora(settings_of(tiny_melody_dir, data, tmp_path / "parts"))
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")
    whole, parts = (
        load_file(tmp_path / name / "best_model" / "adapter_model.safetensors")
        for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert any("audio_enc_to_dec_proj.lora_B" in name for name in whole)
    card = (tmp_path / "whole" / "best_model" / "README.md").read_text(encoding="utf-8")
    assert "MusicgenMelodyForConditionalGeneration.from_pretrained" in card
    assert "melodies dropped 0.5" in card
    report = evaluate_adapter(
        EvaluateSettings(
            base_model_path=str(tiny_melody_dir),
            lora_model_path=tmp_path / "whole" / "best_model",
            output_dir=tmp_path / "report",
            duration=0.3,
            num_prompts=1,
        )
    )
    # The same windows with the same tunes as in training's validation.
    for side, losses in (("mean_base", run["base_loss"]), ("mean_adapter", run["best"])):
        measured = [codebook[side] for codebook in report["loss"]["codebooks"]]
        assert measured == pytest.approx(losses["codebooks"], abs=1e-5)


def test_the_whole_model_is_published_with_its_extractor(
    tmp_path: Path, data: Path, tiny_melody_dir: Path
) -> None:
    settings = settings_of(
        tiny_melody_dir,
        data,
        tmp_path / "out",
        trainable="full",
        max_steps=1,
        lora_dropout=0.0,
        lora_targets=LoraSettings().lora_targets,
    )
    train_lora(settings)
    best = tmp_path / "out" / "best_model"
    before, after = load_base(tiny_melody_dir), load_base(best)
    assert not torch.equal(before.audio_enc_to_dec_proj.weight, after.audio_enc_to_dec_proj.weight)
    tune = tmp_path / "tune.wav"
    write_wav(tune, sine(440.0, 1.0, RATE), RATE)
    generate_audio(
        GenerateSettings(
            base_model_path=str(best),
            prompts=["808"],
            melody=tune,
            duration=0.2,
            output_dir=tmp_path / "played",
        )
    )
    assert len(list((tmp_path / "played").glob("*.wav"))) == 1


def test_stereo_melody_trains(tmp_path: Path, tiny_stereo_melody_dir: Path) -> None:
    data = make_dataset(tmp_path / "data", [0.5, 0.6, 0.7])
    run = train_lora(settings_of(tiny_stereo_melody_dir, data, tmp_path / "out", max_steps=1))
    assert len(run["base_loss"]["codebooks"]) == 8


def test_generate_follows_a_tune_and_says_so(tmp_path: Path, tiny_melody_dir: Path) -> None:
    paths: dict[str | None, list[Path]] = {}
    for name, hertz in {"a": 440.0, "e": 659.26, None: 0.0}.items():
        tune = None
        if name is not None:
            tune = tmp_path / f"{name}.wav"
            write_wav(tune, sine(hertz, 1.0, RATE), RATE)
        settings = GenerateSettings(
            base_model_path=str(tiny_melody_dir),
            prompts=["808", "hip hop 808 beat"],
            melody=tune,
            # Long enough for a tune to turn some draws: a model of random weights hardly hears it.
            duration=2.0,
            output_dir=tmp_path / "out",
        )
        paths[name] = generate_audio(settings)
    audio = {name: [path.read_bytes() for path in made] for name, made in paths.items()}
    assert audio["a"] != audio["e"]
    assert audio["a"] != audio[None]
    made = json.loads(paths["a"][0].with_suffix(".json").read_text())
    assert made["melody"]["path"] == str(tmp_path / "a.wav")
    assert "melody" not in json.loads(paths[None][0].with_suffix(".json").read_text())


def test_a_model_that_takes_no_tune_refuses_one(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "tune.wav", beat(0, 1.0), RATE)
    words = ["generate", "--base_model_path", str(tiny_model_dir), "--prompts", "808"]
    words += ["--melody", str(tmp_path / "tune.wav"), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "takes no melody" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_a_silent_melody_is_refused(level: float, tmp_path: Path, tiny_melody_dir: Path) -> None:
    """It would be one that stays on C, which is what the model hears without a melody."""
    write_wav(tmp_path / "silent.wav", sine(440.0, 1.0, RATE, level), RATE)
    settings = GenerateSettings(
        base_model_path=str(tiny_melody_dir),
        prompts=["808"],
        melody=tmp_path / "silent.wav",
        output_dir=tmp_path / "out",
    )
    with pytest.raises(UserError, match=r"silent.wav: is silent"):
        generate_audio(settings)
    with pytest.raises(UserError, match="is a folder, not a file"):
        check_given(dataclasses.replace(settings, melody=tmp_path))
