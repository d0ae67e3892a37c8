"""Milliseconds per decoding step, for ours and for transformers' `generate` on the same weights and
settings, compared with the floor, in one run.

    python benchmarks/decode_speed.py                     # all sections, ten minutes
    python benchmarks/decode_speed.py --sections tiny small --n_threads 2
    python benchmarks/decode_speed.py --sections small --n_layers 6 --n_steps 10
    python benchmarks/decode_speed.py --sections tiny --cpu_time      # beside other programs

`tiny` is tiny-beats, `small` musicgen-small's shape with random weights, which don't affect times.
Both sides play with guidance, top-k and a temperature of 1, transformers in a process of its own
(`transformers_steps`). They take turns, so that a slow minute of the machine hits both, and a
figure is the median of all steps; the fastest is `ms_least`. With `--cpu_time` it is the CPU time
of the only thread, which other programs don't lengthen except by their use of caches and memory
bandwidth.
The floor is the bytes of the weights, and of the cache at that length, divided by the rate at which
the same threads read memory here, measured in the same turns.

`length` compares a step at 1,500 positions with one at 50; `memory` is what the process holds after
10 and after 100 generations; `loss` is what each precision costs on the bundled clips of other
styles, each token predicted from the recorded ones before it; `stream` is the time to the first
sound of a stream.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from musicgen_lora.runtime.threads import bounded_spinning, is_alone

# Before torch loads, as the commands do it.
os.environ.update(bounded_spinning(alone=is_alone()))

import torch
from training_speed import CAPTIONS, make_model
from transformers import AutoTokenizer
from transformers_steps import Transformers, intervals

from musicgen_lora.dataset.batches import Window
from musicgen_lora.evaluation.losses.forgetting import BUNDLED, other_style_windows
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.decoder import (
    PRECISIONS,
    Decoder,
    threads_for,
)
from musicgen_lora.generation.decoding.playing import Playing
from musicgen_lora.generation.decoding.products import BYTES
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.stream import stream_audio
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import EncodedText, TextStates

Row = dict[str, Any]
SHORT, LONG = 50, 1_500
"""Positions at which a step's time is compared."""
N_TURNS = 3


def use_cpu_time() -> None:
    """Measures steps in the thread's CPU time."""
    torch.set_num_threads(1)
    global _clock
    _clock = time.thread_time


_clock: Callable[[], float] = time.perf_counter


def our_steps(decoder: Decoder, texts: EncodedText, n: int) -> list[float]:
    """Milliseconds of n of our steps."""
    marks: list[float] = []
    generate_codes(
        decoder,
        Request(Conditions(texts), n_frames=n, seeds=range(len(texts.mask))),
        on_step=lambda done, total: marks.append(_clock()),
    )
    return intervals(marks)


class Memory:
    """Measures how fast this process reads memory, by summing more than any cache holds."""

    def __init__(self) -> None:
        self._stretch = torch.ones(1 << 26)

    def gb_s(self) -> float:
        """Gigabytes per second, the best of three."""
        best = float("inf")
        for _ in range(3):
            began = _clock()
            self._stretch.sum()
            best = min(best, _clock() - began)
        return self._stretch.nbytes / best / 1e9


def read_bytes(decoder: Decoder, n_clips: int, n_positions: int) -> float:
    """Bytes that a step must read: the weights of its products once, and the filled cache."""
    stack: Any = decoder.base.hf.decoder.model.decoder
    weights = sum(
        p.numel()
        for name, p in decoder.base.hf.decoder.named_parameters()
        if p.dim() == 2
        and "embed" not in name
        and "encoder_attn.k_proj" not in name
        and "encoder_attn.v_proj" not in name
    )
    cache = 2 * n_clips * len(stack.layers) * 2 * n_positions * decoder.width
    return weights * BYTES[decoder.precision] + float(decoder.cache_dtype.itemsize * cache)


def speed(
    model: Any, name: str, batches: list[int], n_steps: int, theirs: Transformers
) -> Iterator[Row]:
    """Steps of transformers in fp32 and of ours in each precision, in turns."""
    text = TextStates(model, AutoTokenizer.from_pretrained(EMBEDDED))
    decoders = {precision: Decoder(BaseModel(model), precision) for precision in PRECISIONS}
    memory = Memory()
    alone: float | None = None
    for n_clips in batches:
        texts = text.batch([CAPTIONS[0]] * n_clips)
        sides: dict[str, Callable[[], list[float]]] = {
            "transformers": lambda n=n_clips: theirs.steps(n, n_steps)
        }
        for precision, decoder in decoders.items():
            sides[precision] = lambda d=decoder, t=texts: our_steps(d, t, n_steps)
        times: dict[str, list[float]] = {side: [] for side in sides}
        rates: list[float] = []
        for _ in range(N_TURNS):
            for side, run in sides.items():
                times[side] += run()
            with threads_for(BaseModel(model)):
                rates.append(memory.gb_s())
        rate = statistics.median(rates)
        peer = times["transformers"]
        alone = statistics.median(peer) if alone is None else alone
        for side, found in times.items():
            row: Row = {"model": name, "prompts": n_clips, "side": side} | spread(found)
            row["times_transformers"] = statistics.median(peer) / row["ms"]
            row["times_quickest"] = min(peer) / row["ms_least"]
            if n_clips > 1:
                row["times_one_by_one"] = n_clips * alone / row["ms"]
            if side in decoders:
                n_bytes = read_bytes(decoders[side], n_clips, n_steps // 2)
                row["floor_ms"] = n_bytes / rate / 1e6
                row["times_floor"] = row["ms_least"] / (n_bytes / max(rates) / 1e6)
            yield row
    theirs.end()


def spread(times: list[float]) -> Row:
    """Median and least."""
    return {"ms": statistics.median(times), "ms_least": min(times)}


@torch.inference_mode()
def length(model: Any, name: str, n_steps: int) -> Iterator[Row]:
    """Compares a step far into a clip with one near its beginning, in turns."""
    text = TextStates(model, AutoTokenizer.from_pretrained(EMBEDDED))
    conditions = Conditions(text.batch([CAPTIONS[0]]))
    for precision in PRECISIONS:
        decoder = Decoder(BaseModel(model), precision)
        column = torch.zeros(1, decoder.shape.n_codebooks, dtype=torch.long)
        nothing = column[..., None][..., :0]
        times: dict[int, list[float]] = {SHORT: [], LONG: []}
        with threads_for(BaseModel(model)):
            playing = Playing(decoder, conditions, nothing, LONG + n_steps + 1, guided=True)
            for at in [SHORT, LONG] * N_TURNS:
                playing.cache.begin_at([at])
                for _ in range(n_steps):
                    began = time.perf_counter()
                    playing.step(column, 3.0)
                    times[at].append(1e3 * (time.perf_counter() - began))
        row: Row = {"model": name, "precision": precision}
        for at, found in times.items():
            row[f"ms_at_{at}"], row[f"least_at_{at}"] = statistics.median(found), min(found)
        row["late_over_early"] = row[f"ms_at_{LONG}"] / row[f"ms_at_{SHORT}"]
        row["least_late_over_early"] = row[f"least_at_{LONG}"] / row[f"least_at_{SHORT}"]
        floor = [read_bytes(decoder, 1, at) for at in (SHORT, LONG)]
        yield row | {"bytes_late_over_early": floor[1] / floor[0]}


def memory_held(model: Any) -> Iterator[Row]:
    """Resident megabytes after 10 and after 100 generations."""
    text = TextStates(model, AutoTokenizer.from_pretrained(EMBEDDED))
    texts = text.batch([CAPTIONS[0]] * 2)
    for number in range(1, 101):
        generate_codes(
            BaseModel(model), Request(Conditions(texts), n_frames=30, seeds=[number, number + 1])
        )
        if number in (10, 100):
            yield {"generations": number, "resident_mb": _resident_mb()}


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@torch.inference_mode()
def loss(model: Any) -> Iterator[Row]:
    """Mean cross-entropy on the bundled clips of other styles, each step given the recorded ones
    before it, by the decoder itself in each precision."""
    text = TextStates(model, AutoTokenizer.from_pretrained(EMBEDDED))
    windows, _ = other_style_windows(BaseModel(model), BUNDLED, 10.0)
    first: float | None = None
    for precision in PRECISIONS:
        decoder = Decoder(BaseModel(model), precision)
        with threads_for(BaseModel(model)):
            losses = [_loss_of(decoder, text, window) for window in windows]
        found = statistics.fmean(losses)
        first = found if first is None else first
        yield {
            "precision": precision,
            "clips": len(losses),
            "loss": found,
            "worse": found / first - 1,
        }


def _loss_of(decoder: Decoder, text: TextStates, window: Window) -> float:
    codes = torch.from_numpy(window.codes.T.astype("int64"))[None]
    shape, n_frames = decoder.shape, codes.shape[-1]
    delayed = shape.delays.delay(codes, shape.special, n_frames + 1)
    conditions = Conditions(text.batch([window.caption]))
    playing = Playing(decoder, conditions, codes[..., :0], n_frames, guided=False)
    sums = torch.zeros(shape.n_codebooks)
    for step in range(n_frames):
        predicted = playing.step(delayed[..., step], 1.0)[0].log_softmax(-1)
        for codebook, delay in enumerate(shape.delays):
            if step >= delay:
                sums[codebook] -= predicted[codebook, delayed[0, codebook, step + 1]]
    return float((sums / (n_frames - torch.tensor(shape.delays))).mean())


def first_sound(model: Any) -> Iterator[Row]:
    """Seconds from a loaded model to the first half second of a stream, texts included."""
    times = []
    for seed in range(5):
        began = time.perf_counter()
        texts = TextStates(model, AutoTokenizer.from_pretrained(EMBEDDED)).batch([CAPTIONS[0]])
        next(stream_audio(BaseModel(model), Request(Conditions(texts), n_frames=500, seeds=[seed])))
        times.append(time.perf_counter() - began)
    yield {"seconds": statistics.median(times), "least": min(times)}


def show(row: Row) -> None:
    """Prints one line per row."""
    told = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()]
    print("  " + ", ".join(told), flush=True)


def main() -> None:
    """Runs the sections that are asked for."""
    sections = ["tiny", "small", "length", "memory", "loss", "stream"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sections", nargs="+", choices=sections, default=sections)
    parser.add_argument("--n_steps", type=int, default=40, help="steps of each turn")
    parser.add_argument("--n_layers", type=int, default=None, help="of musicgen-small's 24")
    parser.add_argument("--n_threads", type=int, default=None, help="for musicgen-small's shape")
    parser.add_argument("--json_path", type=Path, default=None)
    parser.add_argument(
        "--cpu_time", action="store_true", help="measure the decoding thread's CPU time"
    )
    options = parser.parse_args()
    if options.cpu_time:
        use_cpu_time()
    if options.n_threads:
        torch.set_num_threads(options.n_threads)
    tiny = make_model("tiny", None)
    peer = functools.partial(Transformers, n_threads=options.n_threads, cpu_time=options.cpu_time)
    runs: dict[str, Callable[[], Iterator[Row]]] = {
        "tiny": lambda: speed(tiny, "tiny-beats", [1, 8], 5 * options.n_steps, peer("tiny", None)),
        "small": lambda: speed(
            make_model("small", options.n_layers),
            *("small", [1], options.n_steps, peer("small", options.n_layers)),
        ),
        "length": lambda: length(
            make_model("small", options.n_layers), "small", max(5, options.n_steps // 4)
        ),
        "memory": lambda: memory_held(tiny),
        "loss": lambda: loss(tiny),
        "stream": lambda: first_sound(tiny),
    }
    results: dict[str, list[Row]] = {}
    for name in options.sections:
        print(name, flush=True)
        results[name] = []
        for row in runs[name]():
            show(row)
            results[name].append(row)
    if options.json_path is not None:
        options.json_path.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
