"""Steps per second and peak memory of LoRA training: the plain path of a public script against
ours, on the same model and clips, in one run.

    python benchmarks/training_speed.py                   # musicgen-small's shape, some minutes
    python benchmarks/training_speed.py --shape tiny
    python benchmarks/training_speed.py --scaling         # ours by length, batch and rank
    python benchmarks/training_speed.py --shape tiny --spread 0.15 --n_steps 30
    python benchmarks/training_speed.py --n_layers 6 --n_steps 2 --n_turns 1
    python benchmarks/training_speed.py --device cuda --batch_size 8
    python benchmarks/training_speed.py --device cuda --shape large --duration_s 30

`--json_path` writes the figures as JSON as well.

Plain: transformers' forward with labels, T5 in the loop, PEFT, AdamW; on a CPU in fp32, on a GPU
under autocast to the precision that ours uses there. Ours: what `musicgen-lora train` does in a
step. Weights are random, which doesn't affect times. Each side runs in a process of its own, in
turns, so that peak memory is its own (the process's on a CPU, the tensors' on a GPU) and a slow
minute of the machine hits both. All steps have clips of one length, unless `--spread` gives each
step another one, as clips have that were cut at their bars. The floor is the step's FLOP divided by
the rate that one large product reaches here in the precision that ours uses on this device.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoTokenizer,
    MusicgenForConditionalGeneration,
    T5Config,
)

from musicgen_lora.dataset.batches import Batch
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.configs import codec_config, musicgen_config
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.lora.spec import LoraSpec
from musicgen_lora.model.lora.trainable import TrainableLora
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.runtime.precision import DTYPES, choose_training_precision
from musicgen_lora.runtime.threads import bounded_spinning
from musicgen_lora.training.memory import peak_memory_bytes
from musicgen_lora.training.step import Learner, optimise_step

SPECIAL = 2048
CPU = torch.device("cpu")
SHAPES = {
    "toy": (64, 2, 4),
    "small": (1024, 24, 16),
    "medium": (1536, 48, 24),
    "large": (2048, 48, 32),
}
"""Width, layers and heads of the decoders; the feed-forward is four times as wide."""
SCALING = [
    *({"duration_s": seconds} for seconds in (5.0, 10.0, 20.0, 30.0)),
    *({"batch_size": size} for size in (1, 4)),
    *({"rank": rank} for rank in (4, 64)),
]
"""What `--scaling` varies, one thing at a time."""
CAPTIONS = [
    "dark trap beat with long gliding 808 bass, rolling hi-hats and claps, 140 bpm, C# minor",
    "hip hop 808 beat with boom bap drums and swing, 84 bpm",
]


def make_model(
    shape: str, n_layers: int | None, device: torch.device = CPU
) -> MusicgenForConditionalGeneration:
    """tiny-beats, or random weights in the shape of one of Meta's models with `n_layers` of its
    layers or all (without a full codec, which neither side runs)."""
    if shape == "tiny":
        model: Any = load_base("tiny-beats")
        return model.to(device)
    width, all_layers, n_heads = SHAPES[shape]
    torch.manual_seed(0)
    text_width, text_layers = (32, 1) if shape == "toy" else (768, 12)
    text = T5Config(
        vocab_size=32_128,
        d_model=text_width,
        d_kv=64,
        d_ff=4 * text_width,
        num_layers=text_layers,
        num_heads=text_width // 64 or 1,
    )
    config: Any = musicgen_config(
        codec_config(num_filters=4),
        text,
        hidden_size=width,
        ffn_dim=4 * width,
        num_hidden_layers=n_layers or all_layers,
        num_attention_heads=n_heads,
    )
    config.decoder.decoder_start_token_id = SPECIAL
    with device:
        model = MusicgenForConditionalGeneration(config)
    model.requires_grad_(False)
    return model.eval()


def clips(batch_size: int, duration_s: float, spread: float = 0.0, step: int = 0) -> Batch:
    """A step's clips: with a spread, up to that share of the duration shorter or longer."""
    generator = torch.Generator().manual_seed(step)
    off = 2.0 * float(torch.rand((), generator=generator)) - 1.0
    n_frames = round(50 * duration_s * (1.0 + spread * off))
    codes = torch.randint(0, SPECIAL, (batch_size, 4, n_frames), generator=generator)
    captions = [CAPTIONS[index % len(CAPTIONS)] for index in range(batch_size)]
    return Batch(codes, torch.full((batch_size,), n_frames), list(captions))


def plain_step(model: MusicgenForConditionalGeneration, rank: int) -> Callable[[Batch], float]:
    """A step of the plain path, ready to be called with any of `clips`."""
    device, dtype = model.decoder.device, DTYPES[our_precision(model)]
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    names = r"decoder\.model.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
    plain: Any = model
    adapted: Any = get_peft_model(
        plain, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=names)
    )
    adapted.config.decoder_start_token_id = adapted.config.pad_token_id = SPECIAL
    parameters = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-4)
    adapted.train()

    def step(batch: Batch) -> float:
        # Delayed by hand: transformers doesn't do it, but shifts the labels itself.
        following = torch.cat([batch.codes, batch.codes[..., -1:]], dim=-1)
        labels = Delays.of(4, 1).delay(following, SPECIAL)[..., 1:].transpose(1, 2).to(device)
        text = tokenizer(list(batch.captions), padding=True, return_tensors="pt").to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=device.type != "cpu"):
            loss = adapted(
                input_ids=text["input_ids"], attention_mask=text["attention_mask"], labels=labels
            ).loss
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def our_precision(model: MusicgenForConditionalGeneration) -> str:
    """The choice of `--precision auto` here."""
    n_parameters = sum(p.numel() for p in model.decoder.parameters())
    return choose_training_precision("auto", False, model.decoder.device, n_parameters)[0]


def our_step(
    model: MusicgenForConditionalGeneration, shape: str, rank: int
) -> Callable[[Batch], float]:
    """A step of `musicgen-lora train` at its default precision, ready to be called with any of
    `clips`. The model is placed and adapted."""
    base, precision = BaseModel(model, shape), our_precision(model)
    base.text = TextStates(model, AutoTokenizer.from_pretrained(EMBEDDED))
    base.text.prepare(CAPTIONS)
    base.to(base.device, precision)
    enable(model, precision)
    parameters = TrainableLora(base, LoraSpec(rank=rank, alpha=2 * rank)).parameters
    optimizer = torch.optim.AdamW(parameters, lr=3e-4, fused=True)
    learner = Learner(base, parameters, [optimizer])

    def step(batch: Batch) -> float:
        totals = base.delays.n_predicted(batch.n_frames).sum(0)
        result = optimise_step(learner, [batch], totals, "")
        assert result is not None
        return result.loss

    return step


def wait_for(device: torch.device) -> None:
    """Waits until the device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def step_flop(model: MusicgenForConditionalGeneration, batch: Batch) -> float:
    """FLOP of a LoRA step: forward and the gradient of the activations (the frozen weights have
    none; in attention, both factors of a product have one)."""
    config: Any = model.config.decoder
    width, ffn, layers = config.hidden_size, config.ffn_dim, config.num_hidden_layers
    n_frames = batch.codes.shape[0] * batch.codes.shape[-1]
    a_frame = layers * (6 * width**2 + 2 * width * ffn) + 4 * SPECIAL * width
    attention = layers * batch.codes.shape[-1] * width
    return 2 * n_frames * (2 * a_frame + 3 * attention)


def floor_s(model: MusicgenForConditionalGeneration, batch: Batch) -> float:
    """Seconds that a step's FLOP take at the measured rate of a product in our precision."""
    device, dtype = model.decoder.device, DTYPES[our_precision(model)]
    n_rows, inner, n_columns = (1024, 1024, 4096) if device.type == "cpu" else (8192, 8192, 8192)
    left = torch.randn(n_rows, inner, dtype=dtype, device=device)
    right = torch.randn(inner, n_columns, dtype=dtype, device=device)
    times = []
    for _ in range(20):
        wait_for(device)
        began = time.perf_counter()
        torch.mm(left, right)
        wait_for(device)
        times.append(time.perf_counter() - began)
    return step_flop(model, batch) / (2 * n_rows * inner * n_columns / statistics.median(times))


def run_side(options: argparse.Namespace) -> dict[str, float]:
    """Times `--side` in this process."""
    device = torch.device(options.device)
    batch = clips(options.batch_size, options.duration_s)
    model = make_model(options.shape, options.n_layers, device)
    if options.side == "floor":
        return {"step_s": floor_s(model, batch), "peak_gb": 0.0, "loss": 0.0}
    if options.side == "plain":
        step = plain_step(model, options.rank)
    else:
        step = our_step(model, options.shape, options.rank)
    step(batch)
    times, loss = [], 0.0
    for number in range(1, options.n_steps + 1):
        batch = clips(options.batch_size, options.duration_s, options.spread, number)
        wait_for(device)
        began = time.perf_counter()
        loss = step(batch)
        wait_for(device)
        times.append(time.perf_counter() - began)
    peak = peak_memory_bytes(device) / 2**30
    return {"step_s": statistics.median(times), "peak_gb": peak, "loss": loss}


def run_apart(options: argparse.Namespace, **changes: Any) -> dict[str, float]:
    """`run_side` in a process of its own."""
    names = ("device", "shape", "n_layers", "rank", "batch_size", "duration_s", "spread", "n_steps")
    values = {name: getattr(options, name) for name in names} | changes
    flags = [f"--{name}={value}" for name, value in values.items() if value is not None]
    command = [sys.executable, __file__, *flags]
    environment = os.environ | bounded_spinning()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measures plain, ours and the floor, in turns; returns medians."""
    found: dict[str, list[dict[str, float]]] = {"plain": [], "ours": [], "floor": []}
    for _ in range(options.n_turns):
        for side, results in found.items():
            results.append(run_apart(options, side=side))
    middle = {s: {k: statistics.median(r[k] for r in rs) for k in rs[0]} for s, rs in found.items()}
    for side, figures in middle.items():
        print(f"{side:6}" + "".join(f"  {k} {v:8.3f}" for k, v in figures.items()))
    plain, ours = middle["plain"], middle["ours"]
    ratios = {
        "speed": plain["step_s"] / ours["step_s"],
        "memory": ours["peak_gb"] / plain["peak_gb"],
        "times_floor": ours["step_s"] / middle["floor"]["step_s"],
    }
    print(f"ours is {ratios['speed']:.2f} times as fast as the plain path")
    print(f"and peaks at {ratios['memory']:.2f} of its memory;")
    print(f"a step takes {ratios['times_floor']:.2f} times the floor, which uses")
    print(f"{100 / ratios['times_floor']:.0f} % of the device's rate.")
    return {"sides": middle, "ratios": ratios}


def scale(options: argparse.Namespace) -> list[dict[str, float]]:
    """Measures our step by clip length, batch and rank, each changed alone from the defaults."""
    rows = []
    for changes in SCALING:
        values = {
            "duration_s": options.duration_s,
            "batch_size": options.batch_size,
            "rank": options.rank,
        }
        rows.append(values | changes | run_apart(options, side="ours", **changes))
        print("".join(f"  {k} {v:8.3f}" for k, v in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=["tiny", *SHAPES], default="small")
    parser.add_argument("--n_layers", type=int, help="of the decoder (default: the shape's own)")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--duration_s", type=float, default=10.0)
    parser.add_argument(
        "--spread", type=float, default=0.0, help="share by which steps' lengths differ"
    )
    parser.add_argument("--rank", type=int, default=12)
    parser.add_argument("--n_steps", type=int, default=5, help="timed steps of each turn")
    parser.add_argument("--n_turns", type=int, default=2)
    parser.add_argument("--scaling", action="store_true", help="ours by length, batch and rank")
    parser.add_argument("--json_path", type=Path, help="where the figures go as JSON")
    parser.add_argument("--side", choices=["plain", "ours", "floor"], help="one side, here")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options)))
        return
    figures: Any = scale(options) if options.scaling else compare(options)
    if options.json_path:
        settings = {name: value for name, value in vars(options).items() if name != "json_path"}
        content = {"settings": settings, "threads": torch.get_num_threads(), "figures": figures}
        options.json_path.write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
