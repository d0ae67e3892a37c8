"""Full training where no device holds the weights, their gradients and AdamW's state as well: each
process keeps a part of every one of them (FSDP, Zhao et al., 2023; torch's `fully_shard`).

A layer's weights are put together for the moment of its work. That takes all processes, so each
must run the model equally often, and what is saved is gathered by all of them.
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
    """Raises a UserError where `--fsdp` doesn't go with the base or the processes."""
    if not settings.fsdp:
        return
    if is_melody(model):
        raise UserError("--fsdp doesn't train melody models; leave it out.")
    if processes.world_size() == 1:
        raise UserError(
            "--fsdp shares the weights among several processes, and this is one: torchrun "
            "--nproc_per_node 2 -m musicgen_lora.cli train ..."
        )


def shard_model(model: MusicgenForConditionalGeneration, *, with_text: bool) -> None:
    """Leaves each process its part of the trained weights, in place.

    Args:
        model: on its device, equal in all processes. Its parameters become others.
        with_text: the text encoder is trained too.
    """
    text_encoder: Any = model.text_encoder
    decoder: Any = model.decoder
    # Modules that are called from outside; each brings those inside it that are not listed.
    units = [*decoder.model.decoder.layers, decoder.model, *decoder.lm_heads]
    if hasattr(model, "enc_to_dec_proj"):
        units.append(model.enc_to_dec_proj)
    if with_text:
        units += [*text_encoder.encoder.block, text_encoder]
    # It is told to be careful with what the heads return; nothing here writes into that.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(processes.device().type, (processes.world_size(),))
    for unit in units:
        fully_shard(unit, mesh=mesh)
        # A process's loss is its part of the step's: gradients are added, not averaged. gloo
        # knows no other reduction than the sum.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part; a tensor that is in no parts, as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the parts of all processes, which must all ask for it. The first one has it, on
    the CPU; the others have an empty one, since they write nothing."""
    if not isinstance(tensor, DTensor):
        return tensor
    with processes.as_lost_peer():
        gathered = tensor.full_tensor()
    return gathered.cpu() if processes.rank() == 0 else gathered.new_empty(0)


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's `state_dict` in the first process, each tied weight under one name, as transformers
    saves it. All processes must ask for it."""
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    again = every - {name for name, _ in model.named_parameters()}
    return {name: whole(t) for name, t in model.state_dict().items() if name not in again}


def part_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole tensor, split as `like` is; as it is where `like` is whole or
    of another shape, as an optimizer's count of steps."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    # Each process has read the same file: nothing need be sent.
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
