"""Adapters that start from the base's own weights: PiSSA and OLoRA.

Such an initialisation moves a part of each weight into the adapter and leaves the residual in the
base: W = W_res + s B0 A0. The change made by training is s (B A - B0 A0) =
s [B, -B0] [A; A0], so a plain LoRA of twice the rank on the plain base holds it exactly.
That is what is saved, and it also holds everything that resuming needs.

Sources: Meng et al., PiSSA (2024); Büyükakyüz, OLoRA (2024); the conversion is PEFT's
(`LoraModel.subtract_mutated_init`).
"""

from __future__ import annotations

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

FROM_BASE = ("pissa", "olora")
"""Initialisations that change the base's weights."""
Tensors = dict[str, torch.Tensor]


def adapter_tensors(adapted: PeftModel) -> Tensors:
    """Copies of an adapter's tensors, by the names under which PEFT saves them."""
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def as_plain_lora(trained: Tensors, start: Tensors) -> Tensors:
    """The change since `start`, as a LoRA of twice the rank for the plain base.

    A `[r, in]` and B `[out, r]` become `[2r, in]` and `[out, 2r]`; DoRA's magnitudes stay.
    """
    joined = dict(trained)
    for name, tensor in trained.items():
        if "lora_A" in name:
            joined[name] = torch.cat([tensor, start[name]], dim=0)
        elif "lora_B" in name:
            joined[name] = torch.cat([tensor, -start[name]], dim=1)
    return joined


def split_plain_lora(joined: Tensors) -> tuple[Tensors, Tensors]:
    """Undoes `as_plain_lora`: returns `(trained, start)`; magnitudes are only in the former."""
    trained, start = dict(joined), {}
    for name, tensor in joined.items():
        if "lora_A" in name:
            trained[name], start[name] = (part.contiguous() for part in tensor.chunk(2, dim=0))
        elif "lora_B" in name:
            now, then = tensor.chunk(2, dim=1)
            trained[name], start[name] = now.contiguous(), -then.contiguous()
    return trained, start


@torch.no_grad()
def move_start(adapted: PeftModel, old: Tensors, new: Tensors) -> None:
    """Changes the base from the residual that `old` left to the one that `new` leaves. On the same
    machine the decompositions give equal tensors and nothing changes, but on another machine they
    may differ."""
    for name, layer in adapted.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        pair = [f"{name}.lora_A.weight", f"{name}.lora_B.weight"]
        if all(torch.equal(old[key], new[key]) for key in pair):
            continue
        weight = layer.get_base_layer().weight
        assert isinstance(weight, torch.Tensor)
        (old_a, old_b), (new_a, new_b) = ([t[key] for key in pair] for t in (old, new))
        moved = (old_b.double() @ old_a.double() - new_b.double() @ new_a.double()).to(
            weight.device
        )
        weight.copy_(weight.double() + layer.scaling["default"] * moved)


def put_tensors(adapted: PeftModel, tensors: Tensors) -> None:
    """Restores tensors from `adapter_tensors`, in place."""
    set_peft_model_state_dict(adapted, dict(tensors))
