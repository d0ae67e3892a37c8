"""MusicGen's language model laid out for decoding, one column of the delayed sequence at a time.

It takes the weights of transformers' model once: queries, keys and values are one product, and so
are the heads of all codebooks; an adapter is merged in. Keys and values of the text are computed
once per clip. The KV cache is allocated once per window, and only its filled part is read. For
guidance, a clip with its conditions and without goes through as two rows; without, cross-attention
to the text contributes nothing, and is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN

from musicgen_lora.generation.decoding import products
from musicgen_lora.generation.decoding.caches import ClipCache, attention, half_where_faster
from musicgen_lora.generation.decoding.merged import merged_table, merged_weight, norm_weights
from musicgen_lora.generation.decoding.places import Places
from musicgen_lora.generation.decoding.products import Product
from musicgen_lora.generation.decoding.request import Conditions
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.mixture import Mixture
from musicgen_lora.model.melody import project_melodies
from musicgen_lora.model.text.states import EncodedText
from musicgen_lora.runtime.precision import DTYPES

ONE_THREAD_UP_TO = 30_000_000
"""Decoders with up to this many parameters decode on one CPU thread: their products for a frame are
so small that waiting for a second thread takes as long as it works, and much longer if another
program has its core."""
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def is_small(base: BaseModel) -> bool:
    """Whether a decoder is on a CPU and so small that a step takes hardly longer for many clips
    than for one."""
    n_parameters = sum(parameter.numel() for parameter in base.hf.decoder.parameters())
    return base.device.type == "cpu" and n_parameters <= ONE_THREAD_UP_TO


def decodes_on_one_thread(base: BaseModel) -> bool:
    """Whether a small decoder decodes on one thread, unless the user says how many."""
    return is_small(base) and "OMP_NUM_THREADS" not in os.environ


@contextmanager
def threads_for(base: BaseModel) -> Iterator[None]:
    """One thread for a small decoder, see `decodes_on_one_thread`. By a rule, not by timing: how
    products are split among threads may change their last bits, and a seed should give the same
    clip on a busy day."""
    n_before = torch.get_num_threads()
    if decodes_on_one_thread(base):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_before)


def _gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU of few rows. torch's own calls oneDNN, whose preparations take longer than the work: a
    fifteenth of a step of tiny-beats."""
    return torch.erf(x * 0.5**0.5).add_(1.0).mul_(x).mul_(0.5)


@dataclass(frozen=True)
class _Norm:
    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    @classmethod
    def of(cls, layer: nn.Module, dtype: torch.dtype) -> _Norm:
        weight, bias, eps = norm_weights(layer)
        return cls(weight.to(dtype, copy=True), bias.to(dtype, copy=True), eps)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class _TextAttention:
    """A block's attention to the text."""

    norm: _Norm
    q: Product
    kv: Product
    out: Product


@dataclass(frozen=True)
class _Layer:
    """A block of the decoder; those of a melody model have no cross-attention."""

    norm: _Norm
    qkv: Product
    out: Product
    text: _TextAttention | None
    last_norm: _Norm
    fc1: Product
    fc2: Product


@dataclass(frozen=True)
class _Prefix:
    """The conditions of a clip.

    Args:
        states: `[2, P, D]`, prefix before its codes, with its conditions and without.
        text: `[1, L, D]`, for cross-attention.
        negative: `[1, L', D]`, the same for the negative prompt.
        is_guided: whether the readings with conditions and without differ.
    """

    states: torch.Tensor
    text: torch.Tensor | None
    negative: torch.Tensor | None
    is_guided: bool


class Decoder:
    """The current weights of a model, with its active adapter if any, or with a mixture.

    Args:
        base: in eval mode; it isn't changed, and its projections of the conditions are used.
        precision: of the weights, one of `PRECISIONS`, whatever the model's own is: an adapter is
            merged in float32 and both are rounded once, as a base that is rounded already would
            swallow it. On a CPU states and sums stay in float32, and the KV cache of less than
            fp32 is in bf16 where that is faster; other devices have no int8.
        mixture: adapters on this model, merged block by block, so that they never need the memory
            of a second model; None plays the model alone.
    """

    def __init__(
        self, base: BaseModel, precision: str = "fp32", mixture: Mixture | None = None
    ) -> None:
        self.base, self.shape, model = base, base.shape, base.hf
        self._mixture = Mixture(base) if mixture is None else mixture
        stack: Any = model.decoder.model.decoder
        config: Any = model.decoder.config
        self.device = base.device
        self.on_cpu = self.device.type == "cpu"
        self.precision = precision
        self.dtype = torch.float32 if self.on_cpu else DTYPES[precision]
        self.n_heads = config.num_attention_heads
        self.width = config.hidden_size
        self.cache_dtype = self.dtype
        self._activation: Any = ACT2FN[config.activation_function]
        if self.on_cpu and config.activation_function == "gelu":
            self._activation = _gelu
        self._melody = base.is_melody
        self._projections = [m for name, m in model.named_children() if name.endswith("_proj")]
        with self._mixture.on(stack.embed_tokens):
            tables = torch.cat([merged_table(table) for table in stack.embed_tokens])
        self._tables = tables.to(self.dtype)
        self._first_rows = torch.arange(self.shape.n_codebooks, device=self.device) * (
            self.shape.special + 1
        )
        self._positions_of = type(stack.embed_positions).get_embedding
        self._positions = torch.empty(0, self.width, dtype=self.dtype, device=self.device)
        # Forms of products are chosen for the number of threads that will multiply.
        with threads_for(base), torch.inference_mode():
            if self.on_cpu and precision != "fp32":
                self.cache_dtype = half_where_faster(self.n_heads, self.width // self.n_heads)
            self._layers = []
            for block in stack.layers:
                with self._mixture.on([block]):
                    self._layers.append(self._layer(block))
            with self._mixture.on([stack.layer_norm, *model.decoder.lm_heads]):
                self._norm = _Norm.of(stack.layer_norm, self.dtype)
                self._heads = self._product(*model.decoder.lm_heads)

    def _product(self, *layers: nn.Module) -> Product:
        """Layers that read the same states as one product."""
        weight = torch.cat([merged_weight(layer) for layer in layers])
        if not self.on_cpu:
            return products.direct(weight.to(self.dtype))
        return products.product_of(weight, self.precision)

    def _layer(self, block: Any) -> _Layer:
        own = block.self_attn
        text = None
        if not self._melody:
            other = block.encoder_attn
            text = _TextAttention(
                norm=_Norm.of(block.encoder_attn_layer_norm, self.dtype),
                q=self._product(other.q_proj),
                kv=self._product(other.k_proj, other.v_proj),
                out=self._product(other.out_proj),
            )
        return _Layer(
            norm=_Norm.of(block.self_attn_layer_norm, self.dtype),
            qkv=self._product(own.q_proj, own.k_proj, own.v_proj),
            out=self._product(own.out_proj),
            text=text,
            last_norm=_Norm.of(block.final_layer_norm, self.dtype),
            fc1=self._product(block.fc1),
            fc2=self._product(block.fc2),
        )

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, heads, and head width."""
        return len(self._layers), self.n_heads, self.width // self.n_heads

    def prefix(self, conditions: Conditions, clip: int) -> _Prefix:
        """The prefix of a clip's sequence, and the text that it attends to."""
        text_of_clip, melody = conditions.text.alone(clip), conditions.melody_of(clip)
        has_text = bool(text_of_clip.mask.any())
        away = conditions.negative_of(clip)
        with self._mixture.on(self._projections):
            text = self._project(text_of_clip)
            negative = None if away is None else self._project(away)
            melodies = []
            if self._melody:
                melodies = [project_melodies(self.base.hf, one, 1) for one in (melody, None)]
        is_guided = has_text or negative is not None
        if not self._melody:
            nothing = text.new_empty(2, 0, self.width)
            return _Prefix(nothing, text if has_text else None, negative, is_guided)
        # Both get the same length, padded as transformers pads a batch.
        n_text = max(text.shape[1], 0 if negative is None else negative.shape[1])
        texts = text.new_zeros(2, n_text, self.width)
        texts[0, : text.shape[1]] = text[0]
        if negative is not None:
            texts[1, : negative.shape[1]] = negative[0]
        both = torch.cat([torch.cat(melodies).to(self.dtype), texts], dim=1)
        return _Prefix(both, None, None, is_guided or melody is not None)

    def _project(self, text: EncodedText) -> torch.Tensor:
        """A text as the decoder reads it, `[1, L, D]`."""
        return self.base.project_text(text.to(self.device)).to(self.dtype)

    def embed(self, columns: torch.Tensor) -> torch.Tensor:
        """Columns of tokens `[B, K]` as states `[B, D]`."""
        return functional.embedding(columns + self._first_rows, self._tables).sum(dim=1)

    def positions(self, n: int) -> torch.Tensor:
        """Embeddings of at least the first n positions, `[N, D]`."""
        if len(self._positions) < n:
            found = self._positions_of(-(-n // 1024) * 1024, self.width)
            self._positions = found.to(self.device, self.dtype)
        return self._positions

    def read(self, x: torch.Tensor, cache: ClipCache, clip: int) -> None:
        """Prefills the cache with a sequence `[r, P, D]` for the r rows of a clip."""
        x = x + self.positions(x.shape[1])[: x.shape[1]]
        for number, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.norm(x)).unflatten(-1, (3, self.n_heads, -1))
            query, keys, values = qkv.permute(2, 0, 3, 1, 4)
            cache.add_beginning(number, clip, torch.stack([keys, values]))
            found = functional.scaled_dot_product_attention(
                query, keys, values, is_causal=x.shape[1] > 1
            )
            x = x + layer.out(found.transpose(1, 2).flatten(2))
            x = self._hear_texts(x, layer, number, cache, clip)
            hidden = self._activation(layer.fc1(layer.last_norm(x)))
            x = x + layer.fc2(hidden)

    def _hear_texts(
        self, x: torch.Tensor, layer: _Layer, number: int, cache: ClipCache, clip: int
    ) -> torch.Tensor:
        """`[r, P, D]` after each of a clip's rows has attended to its text, if it has one."""
        heard = list(x.split(1))
        for place, row in enumerate(cache.rows_of(clip)):
            text = cache.text_of(number, row)
            if text is not None and layer.text is not None:
                own = heard[place]
                query = layer.text.q(layer.text.norm(own)).unflatten(-1, (self.n_heads, -1))
                found = attention(query.transpose(1, 2), *text)
                heard[place] = own + layer.text.out(found.transpose(1, 2).flatten(2))
        return torch.cat(heard)

    def hear(self, memory: torch.Tensor, cache: ClipCache, row: int) -> None:
        """Computes the keys and values of a row's text `[1, L, D]`."""
        for number, layer in enumerate(self._layers):
            if layer.text is not None:
                kv = layer.text.kv(memory).unflatten(-1, (2, self.n_heads, -1))
                keys, values = kv.permute(2, 0, 3, 1, 4).contiguous()
                cache.add_text(number, row, (keys, values))

    def step(self, x: torch.Tensor, cache: ClipCache, with_text: Places) -> torch.Tensor:
        """Runs a step of all rows.

        Args:
            x: states of the columns to read, `[R, D]`.
            cache: of the rows; one position longer afterwards.
            with_text: the rows that attend to a text.

        Returns:
            States `[R, D]`, which `predict` turns into logits.
        """
        at = cache.positions
        x = x + (
            self._positions[at] if isinstance(at, int) else self._positions.index_select(0, at)
        )
        for number, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.norm(x)).view(-1, 3, self.n_heads, self.width // self.n_heads)
            x.add_(layer.out(cache.attend(number, qkv)))
            if layer.text is not None and with_text.count:
                query = layer.text.q(layer.text.norm(with_text.of(x)))
                heard = cache.attend_to_text(number, query.unflatten(-1, (self.n_heads, -1)))
                with_text.add(x, layer.text.out(heard))
            x.add_(layer.fc2(self._activation(layer.fc1(layer.last_norm(x)))))
        cache.advance()
        return self._norm(x)

    def predict(self, states: torch.Tensor) -> torch.Tensor:
        """Next-token logits `[R, K, V]`, float32, from states `[R, D]`."""
        return self._heads(states).view(len(states), -1, self.shape.special).float()
