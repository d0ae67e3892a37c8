"""Steps of transformers' `generate` in a process of its own, as its users start it: with torch's
default for waiting threads, which our commands change before torch loads.

`Transformers` starts it; it then answers requests in turn and sleeps between them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from musicgen_lora.runtime.threads import DECIDED_BY


class Transformers:
    """The process.

    Args:
        shape: of the model, as in `training_speed.make_model`, and how many of its layers.
        n_threads: of torch; None leaves its default.
        cpu_time: whether times are the thread's CPU time.
    """

    def __init__(
        self, shape: str, n_layers: int | None, n_threads: int | None, *, cpu_time: bool
    ) -> None:
        values = {"shape": shape, "n_layers": n_layers, "n_threads": n_threads}
        flags = [f"--{name}={value}" for name, value in values.items() if value is not None]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *flags, *["--cpu_time"] * cpu_time],
            env={name: value for name, value in os.environ.items() if name not in DECIDED_BY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def steps(self, n_clips: int, n: int) -> list[float]:
        """Milliseconds of n steps of a batch of clips."""
        process: Any = self._process
        print(json.dumps([n_clips, n]), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit("The process with transformers ended.")
        return json.loads(answer)

    def end(self) -> None:
        """Ends the process."""
        self._process.communicate()


def intervals(marks: list[float]) -> list[float]:
    """Milliseconds between marks, without the first few, which fetch memory."""
    steps = [1e3 * (after - before) for before, after in itertools.pairwise(marks)]
    return steps[len(steps) // 4 :]


def _serve(options: argparse.Namespace) -> None:
    import torch
    from training_speed import CAPTIONS, make_model
    from transformers import AutoTokenizer, LogitsProcessor, LogitsProcessorList

    from musicgen_lora.generation.decoding.decoder import threads_for
    from musicgen_lora.given import EMBEDDED
    from musicgen_lora.model.base_model import BaseModel

    clock: Callable[[], float] = time.thread_time if options.cpu_time else time.perf_counter
    if options.n_threads or options.cpu_time:
        torch.set_num_threads(1 if options.cpu_time else options.n_threads)
    model = make_model(options.shape, options.n_layers)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    marks: list[float] = []

    class Clock(LogitsProcessor):
        """Records when transformers has its logits, once per step."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            marks.append(clock())
            return scores

    for line in sys.stdin:
        n_clips, n = json.loads(line)
        marks.clear()
        with threads_for(BaseModel(model)):
            model.generate(
                **tokenizer([CAPTIONS[0]] * n_clips, return_tensors="pt"),
                do_sample=True,
                guidance_scale=3.0,
                top_k=250,
                max_new_tokens=n,
                logits_processor=LogitsProcessorList([Clock()]),
            )
        print(json.dumps(intervals(marks)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--n_layers", type=int, default=None)
    parser.add_argument("--n_threads", type=int, default=None)
    parser.add_argument("--cpu_time", action="store_true")
    _serve(parser.parse_args())
