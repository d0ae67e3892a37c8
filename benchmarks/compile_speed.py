"""Whether `torch.compile` pays for a LoRA step on this machine's CPU.

    python benchmarks/compile_speed.py --shape tiny
    python benchmarks/compile_speed.py --shape slice    # two layers of musicgen-small's width

The decoder's layers are compiled one by one, as training would do it. Times are seconds of
CPU, so that other work on the machine weighs little. Clips of three lengths: with ragged
data a step rarely has the shape of the one before.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

import torch
from training_speed import CAPTIONS, SPECIAL, make_model
from transformers import AutoTokenizer

from musicgen_lora.data.batches import Batch
from musicgen_lora.model.adapter import add_lora
from musicgen_lora.model.delay import n_predicted
from musicgen_lora.model.musicgen import EMBEDDED, model_shape
from musicgen_lora.model.text import TextStates
from musicgen_lora.training.optimise import optimise_step

LENGTHS = (250, 180, 215)


def cpu_s() -> float:
    """Seconds of CPU so far, those of the C++ compiler's processes included."""
    return sum(os.times()[:4])


def measure(shape: str, compiled: bool, n_steps: int) -> tuple[float, float, float]:
    """CPU seconds of the first round over the lengths, of a later step (median), and the loss."""
    # Of musicgen-small, the first two layers: what compiling saves is the same in each.
    model = make_model(shape, 2)
    text = TextStates(model, AutoTokenizer.from_pretrained(EMBEDDED))
    text.prepare(CAPTIONS)
    adapted = add_lora(model, base_name=shape, rank=12, alpha=24)
    parameters = [p for p in adapted.parameters() if p.requires_grad]
    if compiled:
        layers: Any = model.decoder.model.decoder.layers
        for layer in layers:
            layer.compile()
    optimizer = torch.optim.AdamW(parameters, lr=3e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    loss = 0.0

    def step(n_frames: int) -> float:
        nonlocal loss
        codes = torch.randint(0, SPECIAL, (2, 4, n_frames), generator=generator)
        batch = Batch(codes, torch.full((2,), n_frames), list(CAPTIONS))
        began = cpu_s()
        result = optimise_step(
            model,
            [batch],
            text,
            [optimizer],
            parameters,
            totals=n_predicted(batch.n_frames, model_shape(model).delays).sum(0),
            max_grad_norm=1.0,
            scaler=None,
            where="",
        )
        assert result is not None
        loss = result.loss
        return cpu_s() - began

    first = sum(step(n_frames) for n_frames in LENGTHS)
    later = [step(LENGTHS[index % len(LENGTHS)]) for index in range(n_steps)]
    return first, statistics.median(later), loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=["tiny", "slice"], default="tiny")
    parser.add_argument("--n_steps", type=int, default=12)
    options = parser.parse_args()
    # Workers that outlive the compilation would not be counted.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    figures = {}
    for name, compiled in [("eager", False), ("compiled", True)]:
        figures[name] = measure(options.shape, compiled, options.n_steps)
        first, step_s, loss = figures[name]
        print(f"{name:9} first round {first:7.2f} s  step {step_s:.4f} s  loss {loss:.4f}")
    gain = figures["eager"][1] - figures["compiled"][1]
    cost = figures["compiled"][0] - figures["eager"][0]
    ratio = figures["compiled"][1] / figures["eager"][1]
    print(f"a compiled step takes {ratio:.2f} of an eager one")
    if gain > 0:
        print(f"compiling is paid back after {cost / gain:.0f} steps")


if __name__ == "__main__":
    main()
