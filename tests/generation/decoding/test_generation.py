"""The decode loop against transformers' own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import add_lora
from peft import LoraConfig, get_peft_model

from musicgen_lora.errors import UserError
from musicgen_lora.generation.decoding import caches, decode, decoder, window
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.merged import merged_weight
from musicgen_lora.generation.decoding.request import Conditions, Passage, Request, WindowRequest
from musicgen_lora.generation.decoding.sampling import GREEDY, Noise, Sampling, clip_generator
from musicgen_lora.generation.decoding.window import DecodingWindow, FixedWindow
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.text.states import EncodedText, TextStates

PROMPTS = ["hip hop 808 beat", "trap drums with bass and the 808 pattern"]


def conditions(model, folder) -> EncodedText:
    return TextStates(model, load_tokenizer(folder)).batch(PROMPTS)


def adapter_on(model, kind, std=0.3):
    """An adapter that does something, on the default targets."""
    adapted = add_lora(model, base_name="x", rank=4, alpha=8, kind=kind)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    adapted.eval().requires_grad_(False)
    return adapted


def generated_by_transformers(model, folder, n_frames, guidance_scale, given=None):
    """Greedy tokens of `generate`, taken where it hands them to the codec."""
    seen = []
    decode = model.audio_encoder.decode
    model.audio_encoder.decode = lambda codes, **kw: seen.append(codes) or decode(codes, **kw)
    inputs = load_tokenizer(folder)(PROMPTS, padding=True, return_tensors="pt")
    n_codebooks = model.config.decoder.num_codebooks
    max_delay, n_given = 3, 0
    if given is not None:
        inputs["decoder_input_ids"], n_given = given.flatten(0, 1), given.shape[-1]
    model.generate(
        **inputs,
        do_sample=False,
        guidance_scale=guidance_scale,
        max_new_tokens=n_frames - n_given + max_delay,
    )
    model.audio_encoder.decode = decode
    if len(seen) == 1:
        return seen[0][0]
    codes = torch.empty(len(PROMPTS), n_codebooks, n_frames, dtype=torch.long)
    codes[:, ::2], codes[:, 1::2] = seen[0][0], seen[1][0]
    return codes


@functools.cache
def generated_by_the_base(folder, n_frames, guidance_scale):
    """Of a base that never had an adapter."""
    return generated_by_transformers(load_base(folder), folder, n_frames, guidance_scale)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["mono", "stereo"])
@pytest.mark.parametrize("adapter", [None, "lora", "rslora", "dora"])
def test_greedy_tokens_equal_transformers(
    kind, guidance_scale, adapter, tiny_model_dir, tiny_stereo_dir
):
    folder = tiny_model_dir if kind == "mono" else tiny_stereo_dir
    model = load_base(folder)
    adapted = None if adapter is None else adapter_on(model, adapter)
    texts = conditions(model, folder)
    how = {"n_frames": 40, "seeds": [0, 1], "sampling": Sampling(guidance_scale, top_k=1)}
    ours = generate_codes(BaseModel(model), Request(Conditions(texts), **how))
    if adapted is None:
        theirs = generated_by_the_base(folder, 40, guidance_scale)
    else:
        theirs = generated_by_transformers(model, folder, 40, guidance_scale)
    assert ours.shape == theirs.shape
    assert torch.equal(ours, theirs)
    assert len(ours.unique()) > 4
    if adapted is not None:
        with adapted.disable_adapter():
            base = generate_codes(BaseModel(model), Request(Conditions(texts), **how))
            assert torch.equal(base, generated_by_the_base(folder, 40, guidance_scale))
        assert not torch.equal(base, ours)
        assert torch.equal(
            generate_codes(BaseModel(model), Request(Conditions(texts), **how)), ours
        )


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_greedy_tokens_after_a_prompt_equal_transformers(kind, tiny_model_dir, tiny_stereo_dir):
    folder = tiny_model_dir if kind == "mono" else tiny_stereo_dir
    model = load_base(folder)
    texts = conditions(model, folder)
    n_codebooks = model.config.decoder.num_codebooks
    given = torch.randint(0, 64, (2, n_codebooks, 13), generator=torch.Generator().manual_seed(0))
    ours = generate_codes(
        BaseModel(model),
        Request(Conditions(texts), n_frames=40, seeds=[0, 1], sampling=GREEDY, prompt_codes=given),
    )
    assert torch.equal(ours, generated_by_transformers(model, folder, 40, 3.0, given))


def test_an_adapter_on_embeddings_and_heads_is_played(tiny_model_dir):
    model = load_base(tiny_model_dir)
    pattern = r"decoder\.(lm_heads\.\d|model\.decoder\.embed_tokens\.\d|.*fc1)|enc_to_dec_proj"
    adapted = add_lora(model, base_name="x", rank=4, alpha=8, pattern=pattern)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.eval().requires_grad_(False)
    assert "lora_embedding_A" in str([name for name, _ in adapted.named_parameters()])
    texts = conditions(model, tiny_model_dir)
    ours = generate_codes(
        BaseModel(model),
        Request(Conditions(texts), n_frames=40, seeds=[0, 1], sampling=GREEDY),
    )
    assert torch.equal(ours, generated_by_transformers(model, tiny_model_dir, 40, 3.0))


def test_whole_modules_that_an_adapter_brings_are_played(tiny_model_dir):
    model = load_base(tiny_model_dir)
    saved = ["lm_heads.0", "final_layer_norm", "embed_tokens.1", "fc1"]
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=saved)
    adapted = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.eval().requires_grad_(False)
    texts = conditions(model, tiny_model_dir)
    how = {"n_frames": 40, "seeds": [0, 1], "sampling": GREEDY}
    ours = generate_codes(BaseModel(model), Request(Conditions(texts), **how))
    assert torch.equal(ours, generated_by_transformers(model, tiny_model_dir, 40, 3.0))
    with adapted.disable_adapter():
        base = generate_codes(BaseModel(model), Request(Conditions(texts), **how))
        assert torch.equal(base, generated_by_transformers(model, tiny_model_dir, 40, 3.0))
    assert not torch.equal(ours, base)


def test_a_base_in_half_precision_does_not_swallow_an_adapter(tiny_model_dir):
    """As in training: a change added to rounded weights would be rounded away."""
    model = load_base(tiny_model_dir)
    adapter_on(model, "lora", std=1e-4)
    BaseModel(model).to(torch.device("cpu"), "bf16")
    enable(model, "bf16")
    texts = conditions(model, tiny_model_dir)
    layer: Any = model.decoder.model.decoder.layers[0].fc1
    weight = merged_weight(layer)
    change = weight - layer.base_layer.weight.float()
    torch.testing.assert_close(change, layer.get_delta_weight("default").float())
    assert bool(change.any())
    codes = generate_codes(BaseModel(model), Request(Conditions(texts), n_frames=10, seeds=[0, 1]))
    assert codes.shape == (2, 4, 10)


def test_a_bias_of_an_adapters_own_is_refused(tiny_model_dir):
    model = load_base(tiny_model_dir)
    config = LoraConfig(r=4, target_modules=["q_proj"], lora_bias=True)
    adapted = get_peft_model(model, config).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    with pytest.raises(UserError, match="lora_bias"):
        Decoder(BaseModel(model))


def test_a_prompt_without_text_is_read_once(tiny_model_dir):
    """Guidance between two equal rows does nothing."""
    model = load_base(tiny_model_dir)
    text = TextStates(model, load_tokenizer(tiny_model_dir))
    texts = text.batch([PROMPTS[0], None])
    how = {"n_frames": 20, "sampling": GREEDY}
    both = generate_codes(BaseModel(model), Request(Conditions(texts), seeds=[0, 1], **how))
    window = DecodingWindow(
        Decoder(BaseModel(model)),
        WindowRequest(Conditions(texts), [Passage(own[:, :0], 20) for own in both], GREEDY, 20),
        Noise([0, 1], (4, 64)),
    )
    assert list(window.playing.rows.guided) == [True, False]
    alone = generate_codes(
        BaseModel(model), Request(Conditions(text.batch([None])), seeds=[1], **how)
    )
    assert torch.equal(both[1:], alone)
    unguided = generate_codes(
        BaseModel(model),
        Request(
            Conditions(text.batch([None])), n_frames=20, seeds=[1], sampling=Sampling(1.0, top_k=1)
        ),
    )
    assert torch.equal(alone, unguided)


@pytest.mark.parametrize("kind", ["mono", "stereo", "melody"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_form_for_cards_decodes_the_same(
    kind, guidance_scale, tiny_model_dir, tiny_stereo_dir, tiny_melody_dir, monkeypatch
):
    """Fixed shapes, masks and buckets; on the CPU nothing is captured."""
    monkeypatch.setattr(caches, "BUCKET", 16)
    folder = {"mono": tiny_model_dir, "stereo": tiny_stereo_dir, "melody": tiny_melody_dir}[kind]
    model = load_base(folder)
    text = TextStates(model, load_tokenizer(folder))
    texts = text.batch([*PROMPTS, None])
    given = torch.randint(0, 64, (3, BaseModel(model).shape.n_codebooks, 5))
    for sampling in (Sampling(guidance_scale, top_k=1), Sampling(guidance_scale)):
        for prompt in (None, given):
            how = {"n_frames": 45, "seeds": [0, 1, 2], "sampling": sampling, "prompt_codes": prompt}
            plain = generate_codes(BaseModel(model), Request(Conditions(texts), **how))
            with monkeypatch.context() as patch:
                patch.setattr(decode, "window_kind", lambda decoder: FixedWindow)
                assert torch.equal(
                    generate_codes(BaseModel(model), Request(Conditions(texts), **how)), plain
                )


def test_a_seed_gives_the_same_clip_in_any_batch(tiny_model_dir: Path):
    model = load_base(tiny_model_dir)
    texts = conditions(model, tiny_model_dir)
    both = generate_codes(BaseModel(model), Request(Conditions(texts), n_frames=30, seeds=[5, 6]))
    alone = generate_codes(
        BaseModel(model), Request(Conditions(texts.rows([1])), n_frames=30, seeds=[6])
    )
    other = generate_codes(
        BaseModel(model), Request(Conditions(texts.rows([1])), n_frames=30, seeds=[7])
    )
    assert torch.equal(both[1:], alone)
    assert not torch.equal(other, alone)


@pytest.mark.parametrize("kind", ["mono", "stereo", "melody"])
def test_what_a_clip_begins_with_is_kept_and_gone_on_with(
    kind, tiny_model_dir, tiny_stereo_dir, tiny_melody_dir
):
    folder = {"mono": tiny_model_dir, "stereo": tiny_stereo_dir, "melody": tiny_melody_dir}[kind]
    model = load_base(folder)
    texts = conditions(model, folder)
    whole = generate_codes(
        BaseModel(model),
        Request(Conditions(texts), n_frames=30, seeds=[0, 1], sampling=GREEDY),
    )
    for n_given in (1, 17):
        again = generate_codes(
            BaseModel(model),
            Request(
                Conditions(texts),
                n_frames=30,
                seeds=[0, 1],
                sampling=GREEDY,
                prompt_codes=whole[..., :n_given],
            ),
        )
        assert torch.equal(again, whole)
    given = (whole[..., :20] + 1) % 64
    other = generate_codes(
        BaseModel(model),
        Request(Conditions(texts), n_frames=30, seeds=[0, 1], sampling=GREEDY, prompt_codes=given),
    )
    assert torch.equal(other[..., :20], given)


def logits_of_each(model, texts, batches, monkeypatch, melodies=None, **named):
    """All that `sample` is given, clip by clip, `[steps, K, V]`, where the clips are decoded in
    these batches."""
    drawn = window.sample
    found = {}
    for rows in batches:
        seen = []

        def recording(logits, *how, seen=seen):
            seen.append(logits.clone())
            return drawn(logits, *how)

        monkeypatch.setattr(window, "sample", recording)
        generate_codes(
            model if isinstance(model, Decoder) else BaseModel(model),
            Request(
                Conditions(texts.rows(rows), None if melodies is None else melodies[rows]),
                n_frames=6,
                seeds=rows,
                **named,
            ),
        )
        monkeypatch.setattr(window, "sample", drawn)
        found |= {row: torch.stack([step[at] for step in seen]) for at, row in enumerate(rows)}
    return found


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["mono", "stereo", "dora"])
def test_no_bit_of_a_clip_depends_on_its_batch(
    kind, guidance_scale, tiny_model_dir, tiny_stereo_dir, monkeypatch
):
    folder = tiny_stereo_dir if kind == "stereo" else tiny_model_dir
    model = load_base(folder)
    if kind == "dora":
        adapter_on(model, "dora")
    prompts = ["808", *PROMPTS, "dark", "sparse 808 beat the a bpm minor major bass drums hip hop"]
    texts = TextStates(model, load_tokenizer(folder)).batch(prompts)
    alone, pairs, uneven, all_at_once = (
        logits_of_each(model, texts, batches, monkeypatch, sampling=Sampling(guidance_scale))
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


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_nor_with_a_cache_in_bf16(precision, tiny_model_dir, monkeypatch):
    if not caches.rows_are_independent(2, 16, torch.bfloat16):
        pytest.skip("this processor's bf16 attention mixes rows, so the cache stays in fp32")
    monkeypatch.setattr(decoder, "half_where_faster", lambda n_heads, width: torch.bfloat16)
    model = load_base(tiny_model_dir)
    playing = Decoder(BaseModel(model), precision)
    assert playing.cache_dtype == torch.bfloat16
    texts = TextStates(model, load_tokenizer(tiny_model_dir)).batch([*PROMPTS, "dark"])
    every = len(texts.mask)
    alone, together = (
        logits_of_each(playing, texts, batches, monkeypatch)
        for batches in ([[row] for row in range(every)], [list(range(every))])
    )
    assert all(torch.equal(alone[row], together[row]) for row in range(every))
    # Of what is played in fp32 no bit is in bf16.
    assert Decoder(BaseModel(model)).cache_dtype == torch.float32


def test_nor_does_a_melody_models(tiny_melody_dir, monkeypatch):
    model = load_base(tiny_melody_dir)
    # Of equal length: others are decoded apart.
    prompts = ["hip hop 808", "dark trap drums", "sparse beat bass"]
    texts = TextStates(model, load_tokenizer(tiny_melody_dir)).batch(prompts)
    melodies = torch.randint(0, 12, (3, 11), generator=torch.Generator().manual_seed(0))
    alone, together = (
        logits_of_each(model, texts, batches, monkeypatch, melodies=melodies)
        for batches in ([[0], [1], [2]], [[0, 1, 2]])
    )
    for row in range(3):
        assert torch.equal(alone[row], together[row])


def test_a_model_is_as_it_was_after_decoding(tiny_model_dir):
    model = load_base(tiny_model_dir)
    adapted = adapter_on(model, "lora")
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    texts = conditions(model, tiny_model_dir)
    with pytest.raises(ZeroDivisionError):
        generate_codes(
            BaseModel(model),
            Request(Conditions(texts), n_frames=4, seeds=[0, 1]),
            on_step=lambda done, total: 1 // 0,
        )
    after = adapted.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
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
