"""Training on tokens alone: the audio is not looked at, and may be elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from made_datasets import (
    RATE,
    beat,
    make_dataset,
    read_metadata,
    read_rows,
    tiny_settings,
    write_metadata,
)
from safetensors.torch import load_file

from musicgen_lora.audio.files import write_wav
from musicgen_lora.config import TokeniseSettings, TrainSettings
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.tokenise import tokenise_dataset
from musicgen_lora.dataset.tokens import open_tokens
from musicgen_lora.errors import UserError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.training.train import train_lora


@pytest.fixture
def tokenised(tmp_path: Path, tiny_model_dir: Path) -> Path:
    """A tokenised dataset, one of whose clips is a part of its file."""
    data = make_dataset(tmp_path / "data", [0.6, 0.8, 0.5, 0.7])
    entries = read_metadata(data)
    entries[1] |= {"start_s": 0.1, "duration_s": 0.6}
    write_metadata(data, entries)
    tokenise_dataset(TokeniseSettings(model_path=str(tiny_model_dir), data_dir=data))
    return data


def settings_of(model: Path, data: Path, output_dir: Path) -> TrainSettings:
    return tiny_settings(
        model, data, output_dir, max_steps=4, validation_fraction=0.25, from_tokens=True
    )


def test_the_tokens_alone_give_the_run_that_the_audio_gives(
    tmp_path: Path, tokenised: Path, tiny_model_dir: Path
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(tokenised / "tokens", alone / "tokens")
    shutil.copy(tokenised / "metadata.json", alone)
    with_audio = settings_of(tiny_model_dir, tokenised, tmp_path / "with_audio")
    with_audio.from_tokens = False
    train_lora(with_audio)
    train_lora(settings_of(tiny_model_dir, alone, tmp_path / "without"))
    outputs = [tmp_path / name for name in ("with_audio", "without")]
    losses = [[row["loss"] for row in read_rows(output, "train")] for output in outputs]
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]
    weights = [load_file(output / "best_model" / "adapter_model.safetensors") for output in outputs]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_clip_without_tokens_is_named(
    tmp_path: Path, tokenised: Path, tiny_model_dir: Path, tiny_stereo_dir: Path
) -> None:
    settings = settings_of(tiny_stereo_dir, tokenised, tmp_path / "out")
    with pytest.raises(UserError, match=r"beat0\.wav is not tokenised .*\(4 of 4 clips are not\)"):
        train_lora(settings)
    entries = read_metadata(tokenised)
    write_metadata(tokenised, [*entries, {"audio": "train/new.wav", "text": "808"}])
    settings = settings_of(tiny_model_dir, tokenised, tmp_path / "out")
    with pytest.raises(UserError, match=r"train/new\.wav is not .*\(1 of 5 .*run musicgen-lora"):
        train_lora(settings)
    write_metadata(tokenised, [entries[0], entries[1] | {"start_s": 0.2}])
    with pytest.raises(UserError, match=r"beat1\.wav@0\.2\+0\.6 is not tokenised"):
        train_lora(settings)
    assert not (settings.output_dir / "run.json").exists()


def test_a_file_that_was_replaced_keeps_its_old_codes_until_it_is_looked_at(
    tokenised: Path, tiny_model_dir: Path
) -> None:
    model = BaseModel.load(tiny_model_dir)
    before = clip_ids(load_dataset(tokenised), tokenised)
    write_wav(tokenised / "train" / "beat0.wav", beat(9, 0.6), RATE)
    unseen = load_dataset(tokenised, look_at_files=False)
    assert open_tokens(unseen, model, tokenised)[0] == before
    after = clip_ids(load_dataset(tokenised), tokenised)
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    # Its hash is known by now, its codes are not made yet.
    with pytest.raises(UserError, match=r"beat0\.wav is not tokenised"):
        open_tokens(unseen, model, tokenised)


def test_a_melody_model_needs_the_audio(
    tmp_path: Path, tokenised: Path, tiny_melody_dir: Path
) -> None:
    with pytest.raises(UserError, match="--from_tokens: a melody model needs"):
        train_lora(settings_of(tiny_melody_dir, tokenised, tmp_path / "out"))
