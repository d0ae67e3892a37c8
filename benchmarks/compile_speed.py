"""Whether `torch.compile` pays off for a LoRA step on this machine's CPU.

    python benchmarks/compile_speed.py --shape tiny
    python benchmarks/compile_speed.py --shape small    # two layers of musicgen-small's width

The decoder's layers are compiled one by one, as training would do. Times are CPU seconds, which
other work on the machine hardly affects. Clips have three lengths: with ragged data, a step rarely
has the shape of the one before.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

from musicgen_lora.runtime.threads import bounded_spinning

os.environ.update(bounded_spinning())

from training_speed import clips, make_model, our_step

from musicgen_lora.dataset.batches import Batch

DURATIONS_S = (5.0, 3.6, 4.3)
RESOLUTION_S = 0.01
"""Resolution of `os.times`."""


def cpu_s() -> float:
    """CPU seconds so far, including the C++ compiler's processes."""
    return sum(os.times()[:4])


def measure(shape: str, compiled: bool, n_steps: int) -> tuple[float, float, float]:
    """CPU seconds of the first round over the lengths, of a later step (median), and the loss."""
    # Of musicgen-small, the first two layers: what compiling saves is the same in each.
    model = make_model(shape, 2)
    step = our_step(model, shape, 12)
    batches = [clips(2, duration_s) for duration_s in DURATIONS_S]
    if compiled:
        layers: Any = model.decoder.model.decoder.layers
        for layer in layers:
            layer.compile()
    loss = 0.0

    def timed(batch: Batch) -> float:
        nonlocal loss
        began = cpu_s()
        loss = step(batch)
        return cpu_s() - began

    first = sum(timed(batch) for batch in batches)
    later = [timed(batches[index % len(batches)]) for index in range(n_steps)]
    return first, statistics.median(later), loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=["tiny", "small"], default="tiny")
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
    if gain > RESOLUTION_S:
        print(f"compiling is paid back after {cost / gain:.0f} steps")


if __name__ == "__main__":
    main()
