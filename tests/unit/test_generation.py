"""The decode loop against transformers' own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musicgen_lora.generation.decode import generate_codes
from musicgen_lora.generation.sampling import sample
from musicgen_lora.model.musicgen import load_base, load_tokenizer
from musicgen_lora.model.text import TextStates

PROMPTS = ["hip hop 808 beat", "trap drums with bass and the 808 pattern"]


def conditions(model, folder):
    return TextStates(model, load_tokenizer(folder)).batch(PROMPTS)


def generated_by_transformers(model, folder, n_frames, guidance_scale):
    """Greedy tokens of `generate`, taken where it hands them to the codec."""
    seen = []
    decode = model.audio_encoder.decode
    model.audio_encoder.decode = lambda codes, **kw: seen.append(codes) or decode(codes, **kw)
    inputs = load_tokenizer(folder)(PROMPTS, padding=True, return_tensors="pt")
    n_codebooks = model.config.decoder.num_codebooks
    max_delay = 3
    model.generate(
        **inputs,
        do_sample=False,
        guidance_scale=guidance_scale,
        max_new_tokens=n_frames + max_delay,
    )
    model.audio_encoder.decode = decode
    if len(seen) == 1:
        return seen[0][0]
    codes = torch.empty(len(PROMPTS), n_codebooks, n_frames, dtype=torch.long)
    codes[:, ::2], codes[:, 1::2] = seen[0][0], seen[1][0]
    return codes


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_greedy_tokens_equal_transformers(kind, guidance_scale, tiny_model_dir, tiny_stereo_dir):
    folder = tiny_model_dir if kind == "mono" else tiny_stereo_dir
    model = load_base(folder)
    states, mask = conditions(model, folder)
    ours = generate_codes(
        model, states, mask, n_frames=40, seeds=[0, 1], guidance_scale=guidance_scale, top_k=1
    )
    theirs = generated_by_transformers(model, folder, 40, guidance_scale)
    assert ours.shape == theirs.shape
    assert torch.equal(ours, theirs)
    assert len(ours.unique()) > 4


def test_a_seed_gives_the_same_clip_in_any_batch(tiny_model_dir: Path):
    model = load_base(tiny_model_dir)
    states, mask = conditions(model, tiny_model_dir)
    both = generate_codes(model, states, mask, n_frames=30, seeds=[5, 6])
    alone = generate_codes(model, states[1:], mask[1:], n_frames=30, seeds=[6])
    other = generate_codes(model, states[1:], mask[1:], n_frames=30, seeds=[7])
    assert torch.equal(both[1:], alone)
    assert not torch.equal(other, alone)


@pytest.mark.parametrize("kind", ["mono", "stereo", "melody"])
def test_what_a_clip_begins_with_is_kept_and_gone_on_with(
    kind, tiny_model_dir, tiny_stereo_dir, tiny_melody_dir
):
    folder = {"mono": tiny_model_dir, "stereo": tiny_stereo_dir, "melody": tiny_melody_dir}[kind]
    model = load_base(folder)
    states, mask = conditions(model, folder)
    whole = generate_codes(model, states, mask, n_frames=30, seeds=[0, 1], top_k=1)
    for n_given in (1, 17):
        again = generate_codes(
            model,
            states,
            mask,
            n_frames=30,
            seeds=[0, 1],
            prompt_codes=whole[..., :n_given],
            top_k=1,
        )
        assert torch.equal(again, whole)
    given = (whole[..., :20] + 1) % 64
    other = generate_codes(
        model, states, mask, n_frames=30, seeds=[0, 1], prompt_codes=given, top_k=1
    )
    assert torch.equal(other[..., :20], given)


def test_sampling_follows_the_probabilities_and_keeps_to_top_k():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).repeat(1, 4000, 1)
    generators = [torch.Generator().manual_seed(0)]
    drawn = sample(logits, top_k=0, temperature=1.0, generators=generators)
    shares = torch.bincount(drawn.flatten(), minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03)
    drawn = sample(logits, top_k=2, temperature=1.0, generators=generators)
    shares = torch.bincount(drawn.flatten(), minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.03)
    assert (sample(logits, top_k=0, temperature=0.0, generators=generators) == 0).all()
