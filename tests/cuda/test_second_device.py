"""Nothing that trains or decodes mixes devices, by a second device that the CPU plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_datasets import make_dataset, tiny_settings
from second_device import MixedDevices, second_device
from test_decoding_on_device import N_FRAMES, PROMPTS
from test_steps_on_device import CPU, Rig, make_batch

from musicgen_lora import EvaluateSettings, MusicGen, evaluate_adapter, train_lora
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.generation.decoding.window import FixedWindow
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.runtime import processes


def test_it_is_as_far_away_as_a_card() -> None:
    with second_device() as card:
        here, there = torch.ones(3), torch.ones(3, device=card)
        assert (here.device.type, there.device.type) == ("cpu", "cuda")
        assert torch.equal(there.cpu(), here)
        for moved in (here.to(card), here.cuda(), here.to(there), there[1:] * 2, there.clone()):
            assert moved.is_cuda
        layer = torch.nn.Linear(3, 3).to(card)
        layer(there).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.is_cuda
        with pytest.raises(MixedDevices, match="add"):
            _ = here + there
        with pytest.raises(MixedDevices):
            layer(here)
        with pytest.raises(MixedDevices, match="index_select"):
            there.index_select(0, torch.tensor([0, 1]))
        with pytest.raises(TypeError, match="cpu"):
            there.numpy()


@pytest.mark.parametrize("trainable", ["lora", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_mixes_no_devices(
    tiny_model_dir: Path, trainable: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Rig(tiny_model_dir, CPU, "fp32", trainable).step([make_batch()])
    own: Any = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda _, **given: own("cpu", **given))
    with second_device() as card:
        found = Rig(tiny_model_dir, card, precision, trainable).step([make_batch()])
    assert found.loss == pytest.approx(reference.loss, rel=1e-5 if precision == "fp32" else 2e-2)


@pytest.mark.parametrize("kind", ["mono", "stereo", "melody"])
def test_decoding_mixes_no_devices(
    kind: str,
    tiny_model_dir: Path,
    tiny_stereo_dir: Path,
    tiny_melody_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FixedWindow, "captured", False)
    folder = {"mono": tiny_model_dir, "stereo": tiny_stereo_dir, "melody": tiny_melody_dir}[kind]
    drawn = torch.Generator().manual_seed(3)
    tunes = torch.randint(0, 12, (2, 11), generator=drawn) if kind == "melody" else None

    def codes(device: torch.device) -> torch.Tensor:
        model: Any = load_base(folder).to(device)
        texts = TextStates(model, load_tokenizer(folder)).batch(PROMPTS, device)
        asked = Request(Conditions(texts, melodies=tunes), N_FRAMES, [0, 1], Sampling())
        return generate_codes(BaseModel(model), asked)

    here = codes(CPU)
    with second_device() as card:
        assert torch.equal(codes(card), here)


@pytest.mark.slow
def test_commands_mix_no_devices(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding, validations, previews, checkpoints, decoding, and all that is measured."""
    own: Any = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda _, **given: own("cpu", **given))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 0)
    monkeypatch.setattr(FixedWindow, "captured", False)
    data = make_dataset(tmp_path / "data", [1.5] * 6)
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "run", validation_fraction=0.5, previews="auto"
    )
    adapter = tmp_path / "run" / "best_model"
    with second_device() as card:
        monkeypatch.setattr(processes, "device", lambda: card)
        train_lora(settings)
        model = MusicGen.load(tiny_model_dir)
        model.add_adapter(adapter)
        (clip,) = model.generate(["808 beat"], duration=1.0)
        report = evaluate_adapter(
            EvaluateSettings(
                base_model_path=str(tiny_model_dir),
                lora_model_path=[adapter],
                output_dir=tmp_path / "evaluation",
                duration=1.0,
                num_prompts=1,
                compare=True,
            )
        )
    assert clip.waveform.shape[-1] == clip.sample_rate
    assert (report["device"], report["generation"]["precision"]) == ("cuda:0", "bf16")
