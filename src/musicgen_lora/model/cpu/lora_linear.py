"""A LoRA layer's forward and backward pass in few matrix products, in the precision of its base.

PEFT casts a layer's input to the adapter's fp32, multiplies, scales and adds there, and casts back:
each is a pass over whole activations, and autograd keeps several of them. Here the small A and B
are cast instead, the base's product is added to theirs, and only the input is kept.

With blocked attention, those of its layers that read the same states share their products as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer
from torch import nn
from transformers.models.musicgen.modeling_musicgen import MusicgenAttention

from musicgen_lora.model.cpu.attention import NAME, causal_attention, text_attention


class _LoraProduct(torch.autograd.Function):
    """`x W^T + b + s (d A^T) B^T` with frozen W and b; or, for several layers that read the same x,
    their outputs side by side.

    The adapter's product is computed first and the base's added to it, with a single rounding. In
    the other order, bf16 would swallow an adapter's product that is smaller than the spacing of
    numbers around the base's, a 128th of it.

    Shapes: x `[..., in]`, W `[out, in]`, b `[out]`; for each layer A `[r, in]` and
    B `[its out, r]`, in float32, and its s. d is x after a dropout of p.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        p: float,
        scalings: Sequence[float],
        *pairs: torch.Tensor,
    ) -> torch.Tensor:
        # N rows of x, R ranks of all the layers together; r and out are one layer's.
        rows = x.flatten(0, -2)  # [N, in]
        read, mask = torch.native_dropout(rows, p, True) if p else (rows, None)  # [N, in]
        down = torch.cat(pairs[::2]).to(x.dtype)  # [R, in]
        ups = [(b * s).to(x.dtype) for b, s in zip(pairs[1::2], scalings, strict=True)]  # [out, r]
        # Transposed, with few rows: products with few columns are slower.
        low = down @ read.T  # [R, N]
        out = rows.new_empty(len(rows), len(weight))  # [N, out of all]
        for part, part_low, up in _parts(out, low, ups):  # [N, out], [r, N], [out, r]
            torch.mm(part_low.T, up.T, out=part)
        out.addmm_(rows, weight.T)
        if bias is not None:
            out += bias
        ctx.save_for_backward(read, mask, low, weight, down, *ups)
        ctx.p, ctx.scalings, ctx.shape = p, scalings, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        read, mask, low, weight, down, *ups = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)  # [N, out of all]
        grad_low = torch.empty_like(low)  # [R, N]
        grads_b = []
        for (part, part_low, up), part_grad_low, scaling in zip(
            _parts(grad, low, ups), grad_low.split(_ranks(ups)), ctx.scalings, strict=True
        ):
            torch.mm(up.T, part.T, out=part_grad_low)  # [r, N]
            grads_b.append((part_low @ part).float().T.contiguous().mul_(scaling))  # [out, r]
        grads_a = (grad_low @ read).float().split(_ranks(ups))  # [r, in]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_low.T @ down  # [N, in]
            if mask is not None:
                grad_x.mul_(mask).div_(1.0 - ctx.p)
            grad_x = grad_x.addmm_(grad, weight).view(ctx.shape)
        pairs = [grad for pair in zip(grads_a, grads_b, strict=True) for grad in pair]
        return grad_x, None, None, None, None, *pairs


def _parts(
    wide: torch.Tensor, low: torch.Tensor, ups: Sequence[torch.Tensor]
) -> Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Splits by layer: its columns of `wide`, its rows of `low`, and its B."""
    if len(ups) == 1:
        return [(wide, low, ups[0])]
    widths = [len(up) for up in ups]
    return zip(wide.split(widths, dim=1), low.split(_ranks(ups)), ups, strict=True)


def _ranks(ups: Sequence[torch.Tensor]) -> list[int]:
    return [up.shape[1] for up in ups]


class LoraLinear(Linear):
    """PEFT's layer with this module's forward pass: the same parameters, and the same result up to
    rounding."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args or kwargs or not _can_multiply(self, x):
            return super().forward(x, *args, **kwargs)
        base: Any = self.base_layer
        dropout: Any = self.lora_dropout["default"]
        p = dropout.p if _drops(self) else 0.0
        return _product([self], x, base.weight, base.bias, p)


class LoraAttention(MusicgenAttention):
    """transformers' attention, computed in blocks (`cpu.attention`); layers that read the same
    states share their products."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        key_value_states: torch.Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        own = key_value_states is None
        states = hidden_states if own else key_value_states
        layers: Any = [self.q_proj, self.k_proj, self.v_proj] if own else [self.k_proj, self.v_proj]
        drops = self.training and bool(self.dropout)
        # With a cache or a mask for its own steps, it is decoding, or asked for something that
        # isn't supported here.
        trains = past_key_values is None and not (own and attention_mask is not None)
        weight = _one_weight(layers, states) if trains and not drops else None
        if weight is None:
            return super().forward(
                hidden_states, key_value_states, past_key_values, attention_mask, *args, **kwargs
            )
        heads = (self.num_heads, self.head_dim)
        made = _product(layers, states, weight)  # [B, T, out of all]
        made = made.unflatten(-1, (len(layers), *heads))  # [B, T, layers, heads, width]
        made = made.permute(2, 0, 3, 1, 4)  # [layers, B, heads, T, width]
        if own:
            attended = causal_attention(made, self.scaling)
        else:
            query = self.q_proj(hidden_states).unflatten(-1, heads).transpose(1, 2)
            attended = text_attention(query, made[0], made[1], attention_mask, self.scaling)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def fuse_products(model: nn.Module) -> None:
    """Makes trained plain LoRA layers on unquantised linear layers use this module's forward pass,
    and blocked attention made of such layers too. Parameters and their names stay the same. Calling
    it again changes nothing.

    It replaces the classes of existing layers: PEFT's own hook for custom layer classes
    (`_register_custom_module`) would affect quantised layers and DoRA's too, and transformers has
    none for attention.
    """
    for module in model.modules():
        # Quantised layers have classes of their own, and DoRA is a variant of this one.
        if (
            type(module) is Linear
            and not module.lora_variant
            and any(part.weight.requires_grad for part in module.lora_A.values())
        ):
            module.__class__ = LoraLinear
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        is_attention = type(module) in (MusicgenAttention, LoraAttention)
        if is_attention and config._attn_implementation == NAME:
            attention: Any = module
            layers = [attention.k_proj, attention.v_proj]
            if attention.is_causal:
                layers = [attention.q_proj, *layers]
            if all(type(layer) is LoraLinear for layer in layers):
                if _common_weight(layers) is None:
                    _stack_weights(layers)
                module.__class__ = LoraAttention


def round_before_adding(adapted: PeftModel) -> list[str]:
    """Names of the adapted layers that round the base's output to half precision before they add
    the adapter's, as PEFT does: DoRA's, quantised ones, embeddings, and in fp16 all of them."""
    found = []
    for name, module in adapted.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            weight: Any = module.get_base_layer().weight
            is_fused = type(module) is LoraLinear and weight.dtype == torch.bfloat16
            if weight.dtype != torch.float32 and not is_fused:
                found.append(name)
    return found


def _can_multiply(layer: nn.Module, x: torch.Tensor) -> bool:
    """Whether a layer's adapter is active and `_LoraProduct` supports its dtypes."""
    if type(layer) is not LoraLinear or layer.disable_adapters or layer.merged:
        return False
    base: Any = layer.base_layer
    # In fp16 a scaled loss could overflow the adapter's gradients, which PEFT keeps in fp32.
    fits = x.dtype == base.weight.dtype and x.dtype in (torch.float32, torch.bfloat16)
    return fits and layer.active_adapters == ["default"]


def _drops(layer: LoraLinear) -> bool:
    dropout = layer.lora_dropout["default"]
    return isinstance(dropout, nn.Dropout) and dropout.training


def _stack_weights(layers: Sequence[Any]) -> None:
    """Stores the layers' frozen weights contiguously, one after another."""
    bases = [layer.base_layer for layer in layers]
    stacked = torch.cat([base.weight.data for base in bases])  # [out of all, in]
    for base, weight in zip(bases, stacked.split([len(b.weight) for b in bases]), strict=True):
        base.weight.data = weight


def _one_weight(layers: Sequence[Any], x: torch.Tensor) -> torch.Tensor | None:
    """The weights, as one `[out of all, in]`, of layers that can multiply x together; None if they
    can't, or are no longer contiguous."""
    if not all(_can_multiply(layer, x) and not _drops(layer) for layer in layers):
        return None
    return _common_weight(layers)


def _common_weight(layers: Sequence[Any]) -> torch.Tensor | None:
    """The layers' frozen weights as one, `[out of all, in]`; None if they aren't contiguous."""
    weights = [layer.base_layer.weight for layer in layers]
    first, at = weights[0], weights[0].data_ptr()
    for weight in weights:
        if weight.data_ptr() != at or not weight.is_contiguous():
            return None
        at += weight.nbytes
    if first.untyped_storage().data_ptr() != weights[-1].untyped_storage().data_ptr():
        return None
    return first.as_strided((sum(map(len, weights)), first.shape[1]), (first.shape[1], 1))


def _product(
    layers: Sequence[LoraLinear],
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    p: float = 0.0,
) -> torch.Tensor:
    pairs = [part["default"].weight for layer in layers for part in (layer.lora_A, layer.lora_B)]
    scalings = [layer.scaling["default"] for layer in layers]
    product: Any = _LoraProduct.apply(x, weight, bias, p, scalings, *pairs)
    return product
