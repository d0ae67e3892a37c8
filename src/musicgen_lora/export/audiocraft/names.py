"""audiocraft's names for the tensors of a MusicGen, and transformers' for the same.

audiocraft has query, key and value of an attention in one matrix, other names for the linear layers
and norms of a block, and EnCodec's convolutions one module deeper, with torch's old weight norm.
Nothing else differs: a tensor that isn't in these tables has no counterpart, which is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
TEXT_PROJECTION = "condition_provider.conditioners.description.output_proj."
TUNE_PROJECTION = "condition_provider.conditioners.self_wav.output_proj."
CHROMA_WINDOW = "condition_provider.conditioners.self_wav.chroma.spec.window"
"""The Hann window for the melody's spectra, which torchaudio keeps among the weights."""
FINETUNED_TEXT = "condition_provider.conditioners.description.t5."


@dataclass(frozen=True)
class LanguageModelNames:
    """Maps the tensor names of a language model of given size.

    Args:
        is_melody: melody and text are prepended, and there is no cross-attention.
    """

    n_layers: int
    n_codebooks: int
    is_melody: bool

    def table(self) -> dict[str, tuple[str, ...]]:
        """audiocraft's names, each with the transformers tensors that are stacked to make it. The
        projections are left out: one side may lack them."""
        base = "decoder.model.decoder."
        found: dict[str, tuple[str, ...]] = {}
        for k in range(self.n_codebooks):
            found[f"emb.{k}.weight"] = (f"{base}embed_tokens.{k}.weight",)
            found[f"linears.{k}.weight"] = (f"decoder.lm_heads.{k}.weight",)
        attentions = {"self_attn": "self_attn", "cross_attention": "encoder_attn"}
        norms = {"norm1": "self_attn", "norm_cross": "encoder_attn", "norm2": "final"}
        if self.is_melody:
            del attentions["cross_attention"], norms["norm_cross"]
        for i in range(self.n_layers):
            theirs, ours = f"transformer.layers.{i}.", f"{base}layers.{i}."
            for name, own in attentions.items():
                found[f"{theirs}{name}.in_proj_weight"] = tuple(
                    f"{ours}{own}.{part}_proj.weight" for part in "qkv"
                )
                found[f"{theirs}{name}.out_proj.weight"] = (f"{ours}{own}.out_proj.weight",)
            for name, own in {"linear1": "fc1", "linear2": "fc2"}.items():
                found[f"{theirs}{name}.weight"] = (f"{ours}{own}.weight",)
            for name, own in norms.items():
                for part in ("weight", "bias"):
                    found[f"{theirs}{name}.{part}"] = (f"{ours}{own}_layer_norm.{part}",)
        for part in ("weight", "bias"):
            found[f"out_norm.{part}"] = (f"{base}layer_norm.{part}",)
        return found


def lm_to_audiocraft(tensors: Mapping[str, Tensor], places: LanguageModelNames) -> Tensors:
    """A language model's tensors by audiocraft's names.

    Args:
        tensors: by transformers' names; all but the decoder's and the projections' are ignored.

    Raises:
        ValueError: audiocraft has no counterpart of one of the decoder's tensors.
    """
    own = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith("decoder.") and "embed_positions" not in name
    }
    found = {
        theirs: torch.cat([own.pop(name) for name in ours])
        for theirs, ours in places.table().items()
    }
    if own:
        raise ValueError(f"audiocraft has no counterpart of {min(own)}")
    sides = {TEXT_PROJECTION: "enc_to_dec_proj."}
    if places.is_melody:
        sides[TUNE_PROJECTION] = "audio_enc_to_dec_proj."
    width = len(found["out_norm.weight"])
    for theirs, ours in sides.items():
        # transformers projects only if the widths differ, audiocraft always.
        found[f"{theirs}weight"] = tensors.get(f"{ours}weight", torch.eye(width))
        found[f"{theirs}bias"] = tensors.get(f"{ours}bias", torch.zeros(width))
    return found


def lm_from_audiocraft(
    tensors: Mapping[str, Tensor], places: LanguageModelNames, text_width: int, tune_width: int
) -> tuple[Tensors, Tensors]:
    """A language model's tensors by transformers' names, and those of its text encoder if it was
    trained too.

    Args:
        tensors: by audiocraft's names, from an export or a solver's checkpoint.
        tune_width: pitch classes of a melody model.

    Raises:
        ValueError: a tensor is missing, or transformers has no counterpart of one.
    """
    left = {
        name.replace("_attn.mha.", "_attn.").replace("_attention.mha.", "_attention."): tensor
        for name, tensor in tensors.items()
    }
    left.pop(CHROMA_WINDOW, None)
    found: Tensors = {}
    for theirs, ours in places.table().items():
        parts = _take(left, theirs).chunk(len(ours))
        found |= {name: part.clone() for name, part in zip(ours, parts, strict=True)}
    width = len(found["decoder.model.decoder.layer_norm.weight"])
    sides = {TEXT_PROJECTION: ("enc_to_dec_proj.", text_width)}
    if places.is_melody:
        sides[TUNE_PROJECTION] = ("audio_enc_to_dec_proj.", tune_width)
    for theirs, (ours, given_width) in sides.items():
        weight, bias = _take(left, f"{theirs}weight"), _take(left, f"{theirs}bias")
        if given_width != width:
            found |= {f"{ours}weight": weight, f"{ours}bias": bias}
        elif bias.any() or not torch.equal(weight, torch.eye(width, dtype=weight.dtype)):
            raise ValueError(
                f"{theirs}weight maps {width} to {width} values, which transformers can't hold: it "
                "projects only if the widths differ"
            )
    text = {
        name.removeprefix(FINETUNED_TEXT): left.pop(name)
        for name in list(left)
        if name.startswith(FINETUNED_TEXT)
    }
    if left:
        raise ValueError(f"transformers has no counterpart of {min(left)}")
    return found, text


def _take(left: Tensors, name: str) -> Tensor:
    if name not in left:
        raise ValueError(f"{name} is missing")
    return left.pop(name)


def codec_to_audiocraft(tensors: Mapping[str, Tensor], transposed: Collection[str]) -> Tensors:
    """EnCodec's tensors by audiocraft's names.

    Args:
        tensors: by transformers' names, within the codec.
        transposed: names of its transposed convolutions.

    Raises:
        ValueError: audiocraft has no counterpart of a tensor.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        if book := re.fullmatch(r"quantizer\.layers\.(\d+)\.codebook\.(\w+)", name):
            renamed = f"quantizer.vq.layers.{book[1]}._codebook.{book[2]}"
            # Without it, audiocraft's forward reinitialises the codebook.
            found[renamed] = torch.ones(1) if book[2] == "inited" else tensor
            continue
        layer = re.fullmatch(r"((?:en|de)coder)\.layers\.(\d+)\.(.+)", name)
        if not layer:
            raise ValueError(f"audiocraft has no counterpart of {name}")
        inner = layer[3].replace("parametrizations.weight.original0", "weight_g")
        inner = inner.replace("parametrizations.weight.original1", "weight_v")
        kind = "convtr" if f"{layer[1]}.layers.{layer[2]}" in transposed else "conv"
        inner = re.sub(r"(^|\.)conv\.", rf"\1{kind}.{kind}.", inner)
        found[f"{layer[1]}.model.{layer[2]}.{inner}"] = tensor
    return found


def codec_from_audiocraft(tensors: Mapping[str, Tensor]) -> Tensors:
    """EnCodec's tensors by transformers' names.

    Raises:
        ValueError: transformers has no counterpart of a tensor.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        if book := re.fullmatch(r"quantizer\.vq\.layers\.(\d+)\._codebook\.(\w+)", name):
            found[f"quantizer.layers.{book[1]}.codebook.{book[2]}"] = tensor
            continue
        layer = re.fullmatch(r"((?:en|de)coder)\.model\.(\d+)\.(.+)", name)
        if not layer:
            raise ValueError(f"transformers has no counterpart of {name}")
        inner = re.sub(r"\b(conv|convtr)\.\1\.", "conv.", layer[3])
        inner = re.sub(r"weight_g$", "parametrizations.weight.original0", inner)
        inner = re.sub(r"weight_v$", "parametrizations.weight.original1", inner)
        found[f"{layer[1]}.layers.{layer[2]}.{inner}"] = tensor
    return found
