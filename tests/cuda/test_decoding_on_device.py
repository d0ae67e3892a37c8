"""Codes that the card decodes against transformers' own `generate` on the same card."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from musicgen_lora.generation.decoding import caches, decode
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import GREEDY, Sampling
from musicgen_lora.generation.decoding.window import FixedWindow
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.codec import Codec
from musicgen_lora.model.text.states import TextStates

PROMPTS = ["hip hop 808 beat", "dark trap drums with bass"]
N_FRAMES = 30


def of_transformers(model: Any, folder: Any, prompt: str, tune: torch.Tensor | None) -> Any:
    """Greedy codes `[K, T]`, taken where `generate` hands them to the codec."""
    decode, seen = model.audio_encoder.decode, []
    model.audio_encoder.decode = lambda codes, **kw: seen.append(codes[0]) or decode(codes, **kw)
    inputs = load_tokenizer(folder)([prompt], return_tensors="pt").to(model.device)
    features = {} if tune is None else {"input_features": torch.eye(12, device=model.device)[tune]}
    model.generate(
        **inputs, **features, do_sample=False, guidance_scale=3.0, max_new_tokens=N_FRAMES + 3
    )
    model.audio_encoder.decode = decode
    codes = torch.stack([part[0] for part in seen], dim=1).flatten(0, 1)
    return codes.cpu()


@pytest.mark.parametrize("kind", ["mono", "stereo", "melody"])
def test_greedy_codes_equal_transformers(
    kind, device, tiny_model_dir, tiny_stereo_dir, tiny_melody_dir
):
    folder = {"mono": tiny_model_dir, "stereo": tiny_stereo_dir, "melody": tiny_melody_dir}[kind]
    model: Any = load_base(folder)
    model.to(device)
    texts = TextStates(model, load_tokenizer(folder)).batch(PROMPTS, device)
    tunes = None
    if kind == "melody":
        tunes = torch.randint(0, 12, (2, 11), generator=torch.Generator().manual_seed(3))
    ours = generate_codes(
        BaseModel(model),
        Request(
            Conditions(texts, melodies=tunes),
            n_frames=N_FRAMES,
            seeds=[0, 1],
            sampling=GREEDY,
        ),
    )
    for row, prompt in enumerate(PROMPTS):
        tune = None if tunes is None else tunes[row : row + 1]
        assert torch.equal(ours[row], of_transformers(model, folder, prompt, tune)[:, :N_FRAMES])
    assert len(ours.unique()) > 4


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_captured_steps_are_the_plain_ones(device, tiny_model_dir, monkeypatch, sampling):
    """Through several buckets, after a prompt; on the CPU nothing is captured."""
    monkeypatch.setattr(caches, "BUCKET", 16)
    monkeypatch.setattr(decode, "window_kind", lambda decoder: FixedWindow)
    model: Any = load_base(tiny_model_dir)
    model.to(device)
    texts = TextStates(model, load_tokenizer(tiny_model_dir)).batch([*PROMPTS, None], device)
    given = torch.randint(0, 64, (3, 4, 5), generator=torch.Generator().manual_seed(0))
    how = {"n_frames": 45, "seeds": [0, 1, 2], "sampling": sampling, "prompt_codes": given}
    captured = generate_codes(BaseModel(model), Request(Conditions(texts), **how))
    monkeypatch.setattr(FixedWindow, "captured", False)
    assert torch.equal(
        captured, generate_codes(BaseModel(model), Request(Conditions(texts), **how))
    )


def test_the_codec_hears_and_plays_as_on_the_cpu(device, tiny_model_dir):
    rng = np.random.default_rng(0)
    waveforms = [0.3 * rng.standard_normal((1, n)).astype(np.float32) for n in (32_000, 20_000)]
    reference, model = load_base(tiny_model_dir), load_base(tiny_model_dir)
    codec: Any = model.audio_encoder
    codec.to(device)
    expected, found = (Codec(m).encode(waveforms) for m in (reference, model))
    for theirs, ours in zip(expected, found, strict=True):
        # Two entries may be as near as rounding tells.
        assert (theirs == ours).mean() > 0.98
    codes = torch.from_numpy(expected[0].astype(np.int64))[None]
    heard = Codec(model).decode(codes)
    np.testing.assert_allclose(heard, Codec(reference).decode(codes), atol=1e-3)
