"""Adapters with strengths: on the line from base to adapter, and gone without a trace."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import KINDS, draw_adapter, halves, merged_by_peft, rewrite
from safetensors.torch import load_file
from tiny import make_tiny_musicgen

from musicgen_lora.errors import RunError, UserError
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.given import ADAPTER_WEIGHTS
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import read_adapter
from musicgen_lora.model.lora.mixture import (
    MixedAdapter,
    Mixture,
    doubts,
    idle_sentence,
    read_part,
)

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tiny_model_dir: Path) -> BaseModel:
    """Shared, since nothing here may change it."""
    return BaseModel.load(tiny_model_dir)


@pytest.fixture(scope="module")
def golden(base: BaseModel) -> Weights:
    return weights_of(base)


@pytest.fixture(scope="module")
def adapters(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        kind: draw_adapter(tiny_model_dir, folder / kind, seed=number, **how)
        for number, (kind, how) in enumerate(KINDS.items())
    }


@pytest.fixture(autouse=True)
def base_is_golden(base: BaseModel, golden: Weights) -> Any:
    yield
    assert all_equal(weights_of(base), golden), "the base is not what it was"


def weights_of(model: BaseModel) -> Weights:
    return {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}


def all_equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in other)


def mixed(base: BaseModel, *parts: MixedAdapter) -> Weights:
    with Mixture(base, parts).on():
        return weights_of(base)


def play(model: BaseModel, mixture: Mixture | None = None) -> np.ndarray:
    """Codes of two prompts, with text states of the mixture's."""
    mixture = Mixture(model) if mixture is None else mixture
    decoder = Decoder(model, mixture=mixture)
    with mixture.on([model.hf.text_encoder]):
        model.text.frozen = False
        with torch.no_grad():
            texts = model.text.batch(["hip hop 808 beat", "sparse drums"])
    sampling = Sampling(top_k=0)
    return generate_codes(
        decoder, Request(Conditions(texts), n_frames=12, seeds=[3, 4], sampling=sampling)
    ).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_strength_one_is_what_peft_merges_and_zero_the_base(
    kind: str, base: BaseModel, golden: Weights, adapters: dict[str, Path], tiny_model_dir: Path
) -> None:
    part = read_part(base, adapters[kind])
    found, expected = mixed(base, part), merged_by_peft(tiny_model_dir, adapters[kind])
    assert all(torch.equal(found[name], expected[name]) for name in found if name in expected)
    assert not all_equal(found, golden)
    assert all_equal(mixed(base, part.at(0.0)), golden)
    assert not Mixture(base, [part.at(0.0)]).names


@pytest.mark.parametrize("strength", [0.5, 2.0])
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "saved", "bias"])
def test_a_strength_is_a_place_on_the_line_from_base_to_adapter(
    kind: str,
    strength: float,
    base: BaseModel,
    golden: Weights,
    adapters: dict[str, Path],
    tiny_model_dir: Path,
) -> None:
    found = mixed(base, read_part(base, adapters[kind], strength))
    expected = merged_by_peft(tiny_model_dir, adapters[kind])
    for name in expected:
        line = golden[name] + strength * (expected[name] - golden[name])
        assert torch.allclose(found[name], line, atol=1e-6), name


@pytest.mark.parametrize("kind", ["dora", "bias", "saved"])
def test_an_adapter_of_strength_zero_leaves_no_trace_on_the_others(
    kind: str, base: BaseModel, adapters: dict[str, Path]
) -> None:
    other, lora = (read_part(base, adapters[name]) for name in (kind, "lora"))
    assert all_equal(mixed(base, other.at(0.0), lora), mixed(base, lora))


def test_two_halves_of_an_adapter_play_what_the_adapter_plays(
    base: BaseModel, adapters: dict[str, Path], tmp_path: Path
) -> None:
    whole = read_part(base, adapters["lora"])
    parts = [read_part(base, f) for f in halves(adapters["lora"], tmp_path / "a", tmp_path / "b")]
    one, both = mixed(base, whole), mixed(base, *parts)
    assert all(torch.allclose(both[name], one[name], atol=1e-7) for name in one)
    twice = mixed(base, whole.at(0.5), whole.at(0.5))
    assert all_equal(twice, one), "half and half of the same adapter, to the bit"
    played = play(base, Mixture(base, parts))
    assert np.array_equal(played, play(base, Mixture(base, [whole])))
    assert not np.array_equal(played, play(base, Mixture(base, parts[:1])))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "bias", "saved"])
def test_a_mixture_plays_as_a_model_with_its_weights_would(
    kind: str, base: BaseModel, adapters: dict[str, Path], tiny_model_dir: Path
) -> None:
    """Attention, feed-forward, heads, embeddings, text encoder and projection among them."""
    merged, plain = BaseModel.load(tiny_model_dir), play(base)
    parts = [read_part(base, adapters["patterns"], 0.3), read_part(base, adapters[kind], 1.2)]
    Mixture(merged, [read_part(merged, part.files, part.strength) for part in parts]).merge()
    expected = play(merged)
    assert np.array_equal(play(base, Mixture(base, parts)), expected)
    assert not np.array_equal(expected, plain)
    assert np.array_equal(play(base), plain), "the base plays as before"
    switched = Mixture(base, [part.at(0.0) for part in parts])
    assert np.array_equal(play(base, switched), plain), "switched off without a reload"


def test_a_melody_models_projections_are_mixed(tiny_melody_dir: Path, tmp_path: Path) -> None:
    targets = ["audio_enc_to_dec_proj", "enc_to_dec_proj", "q_proj"]
    adapter = draw_adapter(tiny_melody_dir, tmp_path / "lora", target_modules=targets)
    base, merged = BaseModel.load(tiny_melody_dir), BaseModel.load(tiny_melody_dir)
    before = weights_of(base)
    Mixture(merged, [read_part(merged, adapter, 0.6)]).merge()
    assert np.array_equal(play(base, Mixture(base, [read_part(base, adapter, 0.6)])), play(merged))
    assert not np.array_equal(play(base), play(merged))
    assert all_equal(weights_of(base), before)


def test_the_bases_tensors_come_back_whatever_happens(
    base: BaseModel, adapters: dict[str, Path]
) -> None:
    mixture = Mixture(base, [read_part(base, adapters["rslora"])])
    before = {name: p.data_ptr() for name, p in base.hf.named_parameters()}
    with pytest.raises(KeyboardInterrupt), mixture.on():
        raise KeyboardInterrupt
    assert {name: p.data_ptr() for name, p in base.hf.named_parameters()} == before
    with mixture.on(), pytest.raises(RuntimeError, match="holds a mixture already"):
        mixture.weight(next(iter(mixture.names)))
    with mixture.on([base.layers[0]]), mixture.on([base.layers[1]]):
        assert base.layers[0].fc1.weight.data_ptr() not in before.values()


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan")])
def test_a_strength_out_of_range_is_refused(
    strength: float, base: BaseModel, adapters: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match=r"strength = .*must be from 0"):
        read_part(base, adapters["lora"], strength)
    with pytest.raises(UserError, match=r"strength = .*must be from 0"):
        read_part(base, adapters["lora"]).at(strength)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_bias": True}, r"lora_bias: .*_proj has no bias to which"),
        ({"target_modules": r"text_encoder\.shared"}, r"which shares its weight with text_encoder"),
        (
            {"target_modules": r"audio_encoder\.decoder\.layers\.0\.conv"},
            r"adapts audio_encoder.*whose weight can't be merged",
        ),
    ],
)
def test_what_can_not_be_merged_is_one_line(
    changes: dict[str, Any], said: str, base: BaseModel, tiny_model_dir: Path, tmp_path: Path
) -> None:
    adapter = draw_adapter(tiny_model_dir, tmp_path / "a", **changes)
    with pytest.raises(UserError) as raised:
        read_part(base, adapter)
    assert re.search(said, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_adapter_of_another_base_is_refused(adapters: dict[str, Path], tmp_path: Path) -> None:
    other = BaseModel.load(make_tiny_musicgen(tmp_path / "other", seed=9))
    with pytest.raises(UserError, match="trained on another base"):
        read_part(other, adapters["lora"])


def test_an_adapter_that_does_not_fit_leaves_the_base_as_it_was(
    base: BaseModel, adapters: dict[str, Path]
) -> None:
    before = [name for name, _ in base.hf.named_modules()]
    assert not hasattr(base.hf, "peft_config")
    files = read_adapter(adapters["saved"])
    lacking = {name: t for name, t in files.tensors.items() if "q_proj" not in name}
    wrong = {name: t[:1] if "lora_B" in name else t for name, t in files.tensors.items()}
    for tensors in (lacking, wrong):
        with pytest.raises(UserError):
            read_part(base, dataclasses.replace(files, tensors=tensors))
        assert [name for name, _ in base.hf.named_modules()] == before


def test_weights_that_overflow_are_said_with_their_name(
    base: BaseModel, tiny_model_dir: Path, tmp_path: Path
) -> None:
    files = read_adapter(draw_adapter(tiny_model_dir, tmp_path / "a", lora_alpha=1e4))
    tensors = {name: tensor * 1e18 for name, tensor in files.tensors.items()}
    part = read_part(base, dataclasses.replace(files, tensors=tensors))
    with pytest.raises(RunError, match=r"_proj.weight: is not finite after merging; lower"):
        Decoder(base, mixture=Mixture(base, [part]))


def test_several_adapters_add_up_in_any_order(
    base: BaseModel, golden: Weights, adapters: dict[str, Path]
) -> None:
    parts: Sequence[MixedAdapter] = [
        read_part(base, adapters["lora"], 0.7),
        read_part(base, adapters["dora"], 0.3),
    ]
    one, two = mixed(base, *parts), mixed(base, *reversed(parts))
    alone = [mixed(base, part) for part in parts]
    for name in golden:
        assert torch.allclose(one[name], two[name], atol=1e-7)
        sums = sum(found[name] - golden[name] for found in alone)
        assert torch.allclose(one[name], golden[name] + sums, atol=1e-6)


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_an_adapter_that_changes_nothing_is_told(
    kind: str, base: BaseModel, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """As training begins: one factor of each product is zero."""
    assert idle_sentence(base, read_part(base, adapters[kind])) == ""
    assert idle_sentence(base, read_part(base, adapters[kind], 0.01)) == ""
    weak = idle_sentence(base, read_part(base, adapters[kind], 0.0))
    assert weak.startswith(f"{adapters[kind]}: changes no weight at strength 0")
    tensors = load_file(adapters[kind] / ADAPTER_WEIGHTS)
    start = {
        name: tensor * 0 if "lora_B" in name or "embedding_B" in name else tensor
        for name, tensor in tensors.items()
    }
    weights = dict(base.hf.named_parameters(remove_duplicate=False))
    for name in start:
        if name.endswith("magnitude_vector"):
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_magnitude_vector")
            weight = weights[f"{layer}.weight"].detach()
            axis = 0 if "embed_tokens" in layer else 1
            start[name] = torch.linalg.norm(weight, dim=axis).reshape(start[name].shape)
    folder = rewrite(adapters[kind], tmp_path / "start", start)
    told = idle_sentence(base, read_part(base, folder))
    assert told.startswith(f"{folder}: changes no weight, as before the first step")
    assert "another adapter" in idle_sentence(base, read_part(base, folder, 0.0))


def test_the_same_weights_in_two_folders_are_told(
    base: BaseModel, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """As with a run's best model and the checkpoint that it was."""
    tensors = load_file(adapters["lora"] / ADAPTER_WEIGHTS)
    copy = rewrite(adapters["lora"], tmp_path / "copy", dict(reversed(tensors.items())))
    parts = [read_part(base, adapters["lora"], 0.7), read_part(base, adapters["dora"])]
    assert doubts(base, parts) == []
    assert doubts(base, [*parts, read_part(base, copy)]) == [
        f"{adapters['lora']} and {copy} have the same weights: together they are that adapter at "
        "strength 1.7."
    ]
