"""Training on a quantised base; where bitsandbytes is not installed, the message."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from adapters import add_lora
from made_datasets import make_dataset, tiny_settings

from musicgen_lora.config import GenerateSettings
from musicgen_lora.errors import UserError
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora import quantise
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.text.states import EncodedText
from musicgen_lora.training.train import train_lora

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'musicgen-lora[quantise]'",
)


def logits(model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 64, (2, 4, 20), generator=generator)
    states = torch.randn(2, 5, 24, generator=generator)
    texts = EncodedText(states, torch.ones(2, 5, dtype=torch.long))
    with torch.no_grad():
        return BaseModel(model).logits(codes, texts).nan_to_num()


@needs_library
@pytest.mark.parametrize(("bits", "error"), [("8bit", 0.02), ("4bit", 0.3)])
def test_a_quantised_decoder_predicts_nearly_the_same(bits, error, tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir)
    before = logits(model)
    quantise.quantise_decoder(model, bits, device=torch.device("cpu"), dtype=torch.float32)
    moved = (logits(model) - before).pow(2).mean().sqrt() / before.std()
    assert 0.0 < moved < error
    layer = model.decoder.model.decoder.layers[0]
    assert layer.fc1.weight.dtype in (torch.int8, torch.uint8)
    assert layer.self_attn.q_proj.weight.dtype in (torch.int8, torch.uint8)
    assert model.decoder.lm_heads[0].weight.dtype == torch.float32


@needs_library
@pytest.mark.parametrize(("bits", "kind"), [("8bit", "lora"), ("4bit", "lora"), ("4bit", "dora")])
def test_an_adapter_of_a_quantised_base_goes_on_the_plain_one(
    bits: str, kind: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    data = make_dataset(tmp_path / "data", [0.4] * 4)
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", max_steps=8, quantise=bits, adapter=kind
    )
    run = train_lora(settings)
    assert run["best"]["loss"] < run["base_loss"]["loss"]
    best = settings.output_dir / "best_model"
    assert json.loads((best / "musicgen_lora.json").read_text())["settings"]["quantise"] == bits
    assert f"held in {bits[0]} bits" in (best / "README.md").read_text()
    model = load_base(tiny_model_dir)
    before = logits(model)
    load_adapter(BaseModel(model), best)
    assert (logits(model) - before).abs().max() > 0.01
    played = GenerateSettings(
        base_model_path=str(tiny_model_dir),
        lora_model_path=best,
        prompts=["hip hop 808 beat"],
        output_dir=tmp_path / "generated",
        duration=0.2,
    )
    assert generate_audio(played)[0].is_file()


@needs_library
def test_dora_on_a_quantised_base_leaves_out_rows_of_zeros(tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir)
    dead = "decoder.model.decoder.layers.0.fc1"
    model.get_submodule(dead).weight[5] = 0.0
    quantise.quantise_decoder(model, "4bit", device=torch.device("cpu"), dtype=torch.float32)
    adapted = add_lora(model, base_name="x", rank=4, alpha=8, kind="dora")
    assert adapted.peft_config["default"].exclude_modules == {dead}
    assert bool(logits(model).isfinite().all())


def test_8_bits_under_dora_need_a_gpu() -> None:
    with pytest.raises(UserError, match="use quantise 4bit, or another adapter"):
        quantise.check_quantise("8bit", adapter="dora", device=torch.device("cpu"))
    quantise.check_quantise("4bit", adapter="dora", device=torch.device("cpu"))
    quantise.check_quantise("8bit", adapter="dora", device=torch.device("cuda"))
