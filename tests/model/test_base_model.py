"""A base as one value: what it knows of itself holds whatever is done to its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_datasets import beat
from safetensors import safe_open

from musicgen_lora.errors import UserError
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.fingerprint import base_fingerprint
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.lora.spec import LoraSpec
from musicgen_lora.model.lora.trainable import TrainableLora
from musicgen_lora.model.text.states import EncodedText

CPU = torch.device("cpu")
CAPTIONS = ["hip hop 808 beat", None]


@pytest.mark.parametrize(
    ("kind", "n_codebooks", "is_melody"),
    [("tiny_model_dir", 4, False), ("tiny_stereo_dir", 8, False), ("tiny_melody_dir", 4, True)],
)
def test_it_knows_what_it_is(
    kind: str, n_codebooks: int, is_melody: bool, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    model = BaseModel.load(folder)
    assert model.path == str(folder)
    assert len(model.delays) == len(model.heads) == model.shape.n_codebooks == n_codebooks
    assert model.is_melody is is_melody
    assert (model.chroma is not None) is is_melody
    assert len(model.layers) == 2
    assert model.facts.trained_duration_s == 30.0


def test_its_fingerprint_is_that_of_the_folder_whatever_becomes_of_its_weights(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    model = BaseModel.load(tiny_model_dir)
    plain = base_fingerprint(model.hf)
    TrainableLora(BaseModel.load(tiny_model_dir), LoraSpec(rank=2, alpha=4)).save(tmp_path)
    model.to(CPU, "bf16")
    assert base_fingerprint(model.hf) != plain
    assert model.fingerprint == plain
    load_adapter(model, tmp_path)
    assert model.fingerprint == plain
    assert BaseModel(BaseModel.load(tiny_model_dir).hf).fingerprint == plain


def test_an_adapter_is_moved_and_not_cast(tiny_model_dir: Path) -> None:
    model = BaseModel.load(tiny_model_dir)
    lora = TrainableLora(model, LoraSpec(rank=2, alpha=4))
    with torch.no_grad():
        for parameter in lora.parameters:
            parameter.normal_()
    before = [parameter.detach().clone() for parameter in lora.parameters]
    model.to(CPU, "bf16")
    assert model.hf.decoder.dtype == torch.bfloat16
    assert all(torch.equal(*pair) for pair in zip(before, lora.parameters, strict=True))


@torch.no_grad()
def test_losses_are_those_of_its_logits(tiny_model_dir: Path) -> None:
    model = BaseModel.load(tiny_model_dir)
    codes = torch.randint(0, 64, (2, 4, 12), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([12, 7])
    texts = model.encode_text(CAPTIONS)
    assert not texts.states[1].any()
    sums, counts = model.losses(codes, lengths, texts)
    logits = model.logits(codes, texts)
    for clip, length in enumerate(lengths.tolist()):
        for k, late in enumerate(model.delays):
            valid = length - late
            rows, targets = logits[clip, k, :valid], codes[clip, k, :valid]
            expected = torch.nn.functional.cross_entropy(rows, targets, reduction="sum")
            assert float(sums[clip, k]) == pytest.approx(float(expected), rel=1e-5)
            assert int(counts[clip, k]) == valid
    assert logits[0, 3, -3:].isnan().all()


@pytest.mark.parametrize("kind", ["tiny_model_dir", "tiny_stereo_dir"])
def test_sound_goes_in_and_comes_out(kind: str, request: pytest.FixtureRequest) -> None:
    model = BaseModel.load(request.getfixturevalue(kind))
    waveform = np.random.default_rng(0).normal(0.0, 0.1, (2, 6_400)).astype(np.float32)
    (codes,) = model.encode([waveform])
    assert codes.shape == (model.shape.n_codebooks, 10)
    back = model.decode(torch.from_numpy(codes.astype(np.int64))[None])
    assert back.shape == (1, model.shape.n_channels, 6_400)


@torch.inference_mode()
def test_beats_get_the_codes_that_transformers_gives_them() -> None:
    """And so do several at once, of any length."""
    model = BaseModel.load(EMBEDDED)
    codec: Any = model.codec.module
    for n_samples in (1, 639, 32_000, 160_001):
        beats = [beat(seed, 6.0)[:1, :n_samples] for seed in (3, 4)]
        samples = torch.from_numpy(np.stack(beats))
        expected = codec.encode(samples).audio_codes[0].numpy()
        np.testing.assert_array_equal(model.codec.encode_rows(np.concatenate(beats)), expected)


def test_what_its_folder_lacks_is_missed_when_it_is_asked_for(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(tiny_model_dir / name)
    model = BaseModel.load(tmp_path)
    with pytest.raises(UserError, match="no usable tokenizer") as raised:
        model.encode_text(CAPTIONS)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("init", ["default", "pissa"])
def test_a_saved_adapter_goes_on_where_it_was(
    init: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """And with it off, the plain base speaks, before and after."""

    def logits(model: BaseModel) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(0, 64, (1, 4, 12), generator=generator)
        states = torch.randn(1, 3, 24, generator=generator)
        text = EncodedText(states, torch.ones(1, 3, dtype=torch.long))
        with torch.no_grad():
            return model.logits(codes, text).nan_to_num()

    spec = LoraSpec(rank=4, alpha=8, init=init)
    plain = logits(BaseModel.load(tiny_model_dir))
    first = BaseModel.load(tiny_model_dir)
    lora = TrainableLora(first, spec)
    with torch.no_grad():
        for parameter in lora.parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape))
    lora.save(tmp_path, metadata={"step": 3})

    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"musicgen_lora": '{"step": 3}'}
    second = BaseModel.load(tiny_model_dir)
    again = TrainableLora(second, spec)
    again.load(tmp_path)
    assert torch.allclose(logits(second), logits(first), atol=1e-5)
    assert (logits(second) - plain).abs().max() > 0.01
    config: Any = again.peft.peft_config["default"]
    assert config.base_model_name_or_path == str(tiny_model_dir)
    with again.base_alone():
        assert torch.allclose(logits(second), plain, atol=1e-4)
    assert torch.allclose(logits(second), logits(first), atol=1e-5)
