"""A LoRA layer's forward and backward pass in few products, in the precision of its base.

PEFT casts a layer's input to the adapter's fp32, multiplies, scales and adds there and casts back:
each is a pass over whole activations, and autograd keeps several of them. Here A and B are cast
instead, which are small, their product is added in place, and the input alone is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import nn
from torch.nn import functional


class _LoraProduct(torch.autograd.Function):
    """`x W^T + b + s (d A^T) B^T` with frozen W and b.

    Shapes: x and d `[..., in]`, W `[out, in]`, b `[out]`, A and B
    `[r, in]` and `[out, r]`, in float32. d is x after dropout, or None for x itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.flatten(0, -2)
        read = rows if dropped is None else dropped.flatten(0, -2)
        down, up = a.to(x.dtype), (b * scaling).to(x.dtype)
        # Of few rows: products with few columns take longer.
        low = down @ read.T
        out = functional.linear(rows, weight, bias)
        out.addmm_(low.T, up.T)
        ctx.save_for_backward(read, low, weight, down, up)
        ctx.has_dropout, ctx.scaling, ctx.shape = dropped is not None, scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        read, low, weight, down, up = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)
        grad_low = up.T @ grad.T
        grad_a = (grad_low @ read).float()
        grad_b = (low @ grad).float().T.contiguous().mul_(ctx.scaling)
        grad_x = grad_dropped = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            if not ctx.has_dropout:
                grad_x.addmm_(grad_low.T, down)
            grad_x = grad_x.view(ctx.shape)
        if ctx.needs_input_grad[1]:
            grad_dropped = (grad_low.T @ down).view(ctx.shape)
        return grad_x, grad_dropped, None, None, grad_a, grad_b, None


class LoraLinear(Linear):
    """PEFT's layer: the same parameters, and the same result up to rounding."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        base: Any = self.get_base_layer()
        alone = not (self.disable_adapters or self.merged or args or kwargs)
        # In fp16 a scaled loss could overflow the adapter's gradients, which PEFT has in fp32.
        fits = x.dtype == base.weight.dtype and x.dtype in (torch.float32, torch.bfloat16)
        if not (alone and fits and self.active_adapters == ["default"]):
            return super().forward(x, *args, **kwargs)
        dropout: Any = self.lora_dropout["default"]
        product: Any = _LoraProduct.apply(
            x,
            dropout(x) if isinstance(dropout, nn.Dropout) and dropout.training else None,
            base.weight,
            base.bias,
            self.lora_A["default"].weight,
            self.lora_B["default"].weight,
            self.scaling["default"],
        )
        return product


def use_few_products(adapted: PeftModel) -> None:
    """Gives the plain LoRA layers of an adapter, on linear layers that are not quantised, the
    forward pass of this module. Parameters and their names stay."""
    for module in adapted.modules():
        # Quantised layers have classes of their own, and DoRA is a variant of this one.
        if type(module) is Linear and not module.lora_variant:
            module.__class__ = LoraLinear
