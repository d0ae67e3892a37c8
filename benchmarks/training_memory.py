"""GPU memory of a LoRA step, counted without a GPU: which model can be trained on which GPU, at
which batch size and clip length.

    python benchmarks/training_memory.py                  # small, medium, large; some minutes
    python benchmarks/training_memory.py --shape small

A step of `musicgen-lora train` runs here, in bf16 and with the attention that a GPU would use, and
every tensor that it makes is counted from allocation to release. A layer's or clip's need is the
difference between one and two of them, and a whole model's is the sum, which `check` compares with
a count of more layers and clips at once. A GPU holds the frozen decoder in bf16, the adapter and
its optimizer's states in fp32, and what the backward pass keeps; T5 and EnCodec stay in the
computer's memory. The memory of CUDA, its libraries and the allocator's gaps can't be seen here;
`OVERHEAD_GB` is reserved for it. `gpu.py` measures the same on a GPU.
"""

from __future__ import annotations

import argparse
import json
import weakref
from pathlib import Path
from typing import Any

import torch
import training_speed
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training_speed import SHAPES, clips, make_model, our_step

from musicgen_lora.model.cpu.lora_linear import fuse_products
from musicgen_lora.training.memory import checkpoint_layers

CARDS_GB = (8, 12, 16, 24)
OVERHEAD_GB = 1.2
RANK = 12
DURATIONS_S = (10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class CountedTensors(TorchDispatchMode):
    """Counts the bytes of a module's tensors, and of all that are made while it is active, rounded
    up to the 512 of CUDA's allocator."""

    def __init__(self, there: nn.Module) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.now = self.peak = 0
        # An operation gives views of weights too.
        for tensor in (*there.parameters(), *there.buffers()):
            self._add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        size = -(-storage.nbytes() // 512) * 512
        self._sizes[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def step_bytes(shape: str, n_layers: int, duration_s: float, batch_size: int, twice: bool) -> int:
    """Peak bytes on a GPU: the decoder, and everything that two steps allocate.

    Args:
        shape: one of `SHAPES`.
        n_layers: number of its layers.
        duration_s: length of each clip.
        batch_size: number of clips.
        twice: with `--gradient_checkpointing`.
    """
    model = make_model(shape, n_layers)
    step = our_step(model, shape, RANK)
    if twice:
        checkpoint_layers(model)
    batch = clips(batch_size, duration_s)
    with CountedTensors(model.decoder) as counted:
        step(batch)
        step(batch)
    return counted.peak


def on_a_card(model: str, duration_s: float, twice: bool) -> tuple[float, float]:
    """A model's bytes that don't depend on the batch, and its bytes per clip."""
    layers = SHAPES[model][1]
    one = [step_bytes(model, 1, duration_s, b, twice) for b in (1, 2)]
    two = [step_bytes(model, 2, duration_s, b, twice) for b in (1, 2)]
    layer_clip = (two[1] - two[0]) - (one[1] - one[0])
    clip = (one[1] - one[0]) + (layers - 1) * layer_clip
    first = one[0] + (layers - 1) * (two[0] - one[0])
    return first - clip, clip


def check(model: str, duration_s: float, twice: bool) -> float:
    """The ratio of a count of three clips and four layers to the sum from one and two of them."""
    one = [step_bytes(model, 1, duration_s, b, twice) for b in (1, 2)]
    two = [step_bytes(model, 2, duration_s, b, twice) for b in (1, 2)]
    layer = two[0] - one[0]
    layer_clip = (two[1] - two[0]) - (one[1] - one[0])
    said = one[0] + 3 * layer + 2 * ((one[1] - one[0]) + 3 * layer_clip)
    return step_bytes(model, 4, duration_s, 3, twice) / said


def largest_batch(fixed: float, clip: float, card_gb: float) -> int:
    """The largest of `BATCHES` that fits, 0 if none does."""
    room = (card_gb - OVERHEAD_GB) * 2**30
    return max([b for b in BATCHES if fixed + b * clip <= room], default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SHAPES), action="append")
    parser.add_argument("--json_path", type=Path)
    parser.add_argument("--check", action="store_true", help="check the sum, on small's shape")
    options = parser.parse_args()
    # As on a GPU: bf16, and transformers' attention instead of a CPU's blocked one.
    training_speed.our_precision = lambda model: "bf16"
    training_speed.enable = lambda model, precision: fuse_products(model)
    if options.check:
        for twice in (False, True):
            print(f"counted / summed, layers twice {twice}: {check('small', 10.0, twice):.3f}")
        return
    rows = []
    for shape in options.shape or ("small", "medium", "large"):
        for duration_s in DURATIONS_S:
            for twice in (False, True):
                fixed, clip = on_a_card(shape, duration_s, twice)
                row = {
                    "shape": shape,
                    "clip_s": duration_s,
                    "gradient_checkpointing": twice,
                    "fixed_gb": fixed / 2**30,
                    "a_clip_gb": clip / 2**30,
                    **{f"batch on {c} GB": largest_batch(fixed, clip, c) for c in CARDS_GB},
                }
                rows.append(row)
                print(json.dumps(row), flush=True)
    if options.json_path:
        options.json_path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
