"""Streamed chunks are the audio of the whole clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.stream import ChunkDecoder, _frames_around, stream_audio
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.codec import Codec
from musicgen_lora.model.text.states import TextStates


@pytest.fixture(params=["mono", "stereo", "embedded"])
def folder(request, tiny_model_dir, tiny_stereo_dir):
    return {"mono": tiny_model_dir, "stereo": tiny_stereo_dir, "embedded": EMBEDDED}[request.param]


def random_codes(model: Any, n_clips: int, n_frames: int) -> torch.Tensor:
    shape = BaseModel(model).shape
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, shape.special, (n_clips, shape.n_codebooks, n_frames), generator=generator
    )


@pytest.mark.parametrize(
    "parts", [[60], [1] * 20, [25, 25, 10], [4, 1, 30, 2, 3], [2, 2], [1], [7, 0]]
)
def test_parts_are_the_whole(folder, parts):
    model = load_base(folder)
    codes = random_codes(model, 2, sum(parts))
    whole = Codec(model).decode(codes)
    chunks = ChunkDecoder(BaseModel(model))
    pieces = codes.split(parts, dim=-1)
    found = [chunks.push(piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    together = np.concatenate(found, axis=-1)
    assert together.shape == whole.shape
    assert np.abs(whole).max() > 0.01
    # Random codes can be loud.
    np.testing.assert_allclose(together, whole, rtol=1e-6, atol=1e-5)


def test_no_more_is_waited_for_than_is_looked_at(folder):
    """Four frames: three of the first convolution, and one of the layers after it."""
    model = load_base(folder)
    codes = random_codes(model, 1, 40)
    chunks = ChunkDecoder(BaseModel(model))
    n_samples = [chunks.push(codes[..., i : i + 1], last=False).shape[-1] for i in range(40)]
    assert n_samples[:4] == [0] * 4
    assert n_samples[4:] == [640] * 36


def test_what_is_looked_at_is_what_changes_the_sound(tiny_model_dir):
    model = load_base(tiny_model_dir)
    codec: Any = model.audio_encoder
    codec.double()
    rest = codec.decoder.layers[2:]
    x = torch.randn(1, codec.decoder.layers[1].lstm.hidden_size, 20, dtype=torch.float64)
    changed = x.clone()
    changed[..., 10] += 1.0
    sounds = []
    for states in (x, changed):
        for layer in rest:
            states = layer(states)
        sounds.append(states)
    moved = ((sounds[0] - sounds[1])[0, 0].abs() > 0).nonzero().flatten()
    before, after = _frames_around(list(rest), 640)
    assert (before, after) == (1, 1)
    assert 10 - after <= int(moved.min()) // 640 < 10
    assert 10 < int(moved.max()) // 640 <= 10 + before


def test_a_stream_is_the_clip_that_would_be_generated(folder):
    model = load_base(folder)
    prompts = ["hip hop 808 beat", "trap drums"]
    texts = TextStates(model, load_tokenizer(folder)).batch(prompts)
    codes = generate_codes(BaseModel(model), Request(Conditions(texts), n_frames=60, seeds=[1, 2]))
    parts = list(
        stream_audio(
            BaseModel(model),
            Request(Conditions(texts), n_frames=60, seeds=[1, 2]),
            chunk_s=0.2,
        )
    )
    assert len(parts) == 6
    found = np.concatenate(parts, axis=-1)
    np.testing.assert_allclose(found, Codec(model).decode(codes), atol=1e-5)


def test_the_first_part_comes_before_the_clip_is_made(tiny_model_dir):
    model = load_base(tiny_model_dir)
    texts = TextStates(model, load_tokenizer(tiny_model_dir)).batch(["trap"])
    parts = stream_audio(
        BaseModel(model), Request(Conditions(texts), n_frames=1500, seeds=[1]), chunk_s=0.1
    )
    first = next(parts)
    assert first.shape == (1, 1, 640)
    prompt = random_codes(model, 1, 30)
    parts = stream_audio(
        BaseModel(model),
        Request(Conditions(texts), n_frames=1500, seeds=[1], prompt_codes=prompt),
    )
    heard = Codec(model).decode(prompt)
    np.testing.assert_allclose(next(parts)[..., : 24 * 640], heard[..., : 24 * 640], atol=1e-5)
