"""Full training when no single device can hold the weights, their gradients and AdamW's state: each
process keeps a shard of each (FSDP, Zhao et al., 2023; torch's `fully_shard`).

A layer's weights are gathered only while it computes. That takes all processes, so each must run
the model equally often, and all of them gather what is saved.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.errors import UserError
from musicgen_lora.model.melody import is_melody
from musicgen_lora.runtime import processes

if TYPE_CHECKING:
    from musicgen_lora.config import TrainSettings


def check_sharding(settings: TrainSettings, model: MusicgenForConditionalGeneration) -> None:
    """Raises a UserError if `--fsdp` doesn't fit the base or the number of processes."""
    if not settings.fsdp:
        return
    if is_melody(model):
        raise UserError("--fsdp doesn't support melody models; leave it out.")
    if processes.world_size() == 1:
        raise UserError(
            "--fsdp shards the weights across several processes, and there is only one; start them "
            "with torchrun --nproc_per_node 2 -m musicgen_lora.cli train ..."
        )


def shard_model(model: MusicgenForConditionalGeneration, *, with_text: bool) -> None:
    """Shards the trained weights across the processes, in place.

    Args:
        model: on its device, equal in all processes. Its parameters are replaced.
        with_text: the text encoder is trained too.
    """
    text_encoder: Any = model.text_encoder
    decoder: Any = model.decoder
    # Modules that are called from outside; each includes its submodules that are not listed.
    units = [*decoder.model.decoder.layers, decoder.model, *decoder.lm_heads]
    if hasattr(model, "enc_to_dec_proj"):
        units.append(model.enc_to_dec_proj)
    if with_text:
        units += [*text_encoder.encoder.block, text_encoder]
    # It warns against writing into the heads' outputs, which nothing here does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(processes.device().type, (processes.world_size(),))
    for unit in units:
        fully_shard(unit, mesh=mesh)
        # A process's loss is its part of the step's, so gradients are summed, not averaged. gloo
        # has no reduction but the sum.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard; an unsharded tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Gathers a tensor from the shards of all processes, which must all call this. The first one
    gets it, on the CPU; the others get an empty one, since they write nothing."""
    if not isinstance(tensor, DTensor):
        return tensor
    with processes.as_lost_peer():
        gathered = tensor.full_tensor()
    return gathered.cpu() if processes.rank() == 0 else gathered.new_empty(0)


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's `state_dict` in the first process, each tied weight under one name, as transformers
    saves it. All processes must call this."""
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    again = every - {name for name, _ in model.named_parameters()}
    return {name: whole(t) for name, t in model.state_dict().items() if name not in again}


def part_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's shard of a whole tensor, split like `like`; the tensor as it is if `like` is
    unsharded or has another shape, such as an optimizer's step count."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    # Each process has read the same file, so nothing needs to be sent.
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
