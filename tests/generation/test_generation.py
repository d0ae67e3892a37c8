"""The decode loop against transformers' own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musicgen_lora.generation import decode, independent
from musicgen_lora.generation.decode import generate_codes
from musicgen_lora.generation.sampling import GREEDY, Sampling, clip_generator, sample
from musicgen_lora.model.lora.adapter import add_lora
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
        model, states, mask, n_frames=40, seeds=[0, 1], sampling=Sampling(guidance_scale, top_k=1)
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
    whole = generate_codes(model, states, mask, n_frames=30, seeds=[0, 1], sampling=GREEDY)
    for n_given in (1, 17):
        again = generate_codes(
            model,
            states,
            mask,
            n_frames=30,
            seeds=[0, 1],
            prompt_codes=whole[..., :n_given],
            sampling=GREEDY,
        )
        assert torch.equal(again, whole)
    given = (whole[..., :20] + 1) % 64
    other = generate_codes(
        model, states, mask, n_frames=30, seeds=[0, 1], prompt_codes=given, sampling=GREEDY
    )
    assert torch.equal(other[..., :20], given)


def test_sampling_follows_the_probabilities_and_keeps_to_top_k():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).repeat(1, 4000, 1)
    generators = [torch.Generator().manual_seed(0)]
    drawn = sample(logits, Sampling(top_k=0), generators=generators)
    shares = torch.bincount(drawn.flatten(), minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03)
    drawn = sample(logits, Sampling(top_k=2), generators=generators)
    shares = torch.bincount(drawn.flatten(), minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.03)
    assert (sample(logits, Sampling(temperature=0.0), generators=generators) == 0).all()


def logits_of_each(model, states, mask, batches, monkeypatch, **named):
    """All that `sample` is given, clip by clip, `[steps, K, V]`, where the clips are decoded in
    these batches."""
    drawn = decode.sample
    found = {}
    for rows in batches:
        seen = []

        def recording(logits, *how, seen=seen, **named):
            seen.append(logits.clone())
            return drawn(logits, *how, **named)

        monkeypatch.setattr(decode, "sample", recording)
        generate_codes(
            model,
            states[rows],
            mask[rows],
            n_frames=6,
            seeds=rows,
            **{name: value[rows] for name, value in named.items() if name == "melodies"},
            **{name: value for name, value in named.items() if name != "melodies"},
        )
        monkeypatch.setattr(decode, "sample", drawn)
        found |= {row: torch.stack([step[at] for step in seen]) for at, row in enumerate(rows)}
    return found


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_attention_of_a_row_is_its_own_whatever_the_threads(n_threads):
    """torch shares the work of small batches out by them."""
    shape = (8, 16, 64, 32)
    query, key, value = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(64) < torch.tensor([64, 9, 0, 1, 30, 64, 8, 17])[:, None]
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        arguments = (query[:, :, :1], key, value, mask[:, None, None])
        together, _ = independent._attend(torch.nn.Identity(), *arguments)
        for row in range(8):
            own = [argument[row : row + 1] for argument in arguments]
            assert torch.equal(independent._attend(torch.nn.Identity(), *own)[0][0], together[row])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["mono", "stereo", "dora"])
def test_no_bit_of_a_clip_depends_on_its_batch(
    kind, guidance_scale, tiny_model_dir, tiny_stereo_dir, monkeypatch
):
    folder = tiny_stereo_dir if kind == "stereo" else tiny_model_dir
    model = load_base(folder)
    if kind == "dora":
        adapted = add_lora(model, base_name="x", rank=4, alpha=8, kind="dora")
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.eval().requires_grad_(False)
    prompts = ["808", *PROMPTS, "dark", "sparse 808 beat the a bpm minor major bass drums hip hop"]
    states, mask = TextStates(model, load_tokenizer(folder)).batch(prompts)
    alone, pairs, uneven, all_at_once = (
        logits_of_each(model, states, mask, batches, monkeypatch, sampling=Sampling(guidance_scale))
        for batches in (
            [[row] for row in range(5)],
            [[4, 0], [1, 2], [3]],
            [[3, 1, 4], [0, 2]],
            [[0, 1, 2, 3, 4]],
        )
    )
    for row in range(5):
        for other in (pairs, uneven, all_at_once):
            assert torch.equal(alone[row], other[row]), row
    # What is compared is not all the same.
    assert not torch.equal(alone[0], alone[3])


def test_nor_does_a_melody_models(tiny_melody_dir, monkeypatch):
    model = load_base(tiny_melody_dir)
    # Of equal length: others are decoded apart.
    prompts = ["hip hop 808", "dark trap drums", "sparse beat bass"]
    states, mask = TextStates(model, load_tokenizer(tiny_melody_dir)).batch(prompts)
    melodies = torch.randint(0, 12, (3, 11), generator=torch.Generator().manual_seed(0))
    alone, together = (
        logits_of_each(model, states, mask, batches, monkeypatch, melodies=melodies)
        for batches in ([[0], [1], [2]], [[0, 1, 2]])
    )
    for row in range(3):
        assert torch.equal(alone[row], together[row])


def test_a_model_is_as_it_was_after_decoding(tiny_model_dir):
    model = load_base(tiny_model_dir)
    states, mask = conditions(model, tiny_model_dir)
    with pytest.raises(ZeroDivisionError):
        generate_codes(
            model, states, mask, n_frames=4, seeds=[0, 1], on_step=lambda done, total: 1 // 0
        )
    assert model.decoder.config._attn_implementation == "sdpa"
    assert not any("forward" in vars(module) for module in model.modules())


def draws(seed):
    return torch.rand(64, generator=clip_generator(seed)).tolist()


def test_all_of_a_seed_decides_the_draws():
    seeds = [0, 5, 2**32 - 1, 2**32, 2**32 + 5, 2**33 + 5, 2**64 + 5, 10**20, -1, -5]
    assert len({tuple(draws(seed)) for seed in seeds}) == len(seeds)
    assert draws(10**20) == draws(10**20)
    small = torch.Generator().manual_seed(5)
    assert draws(5) == torch.rand(64, generator=small).tolist()
