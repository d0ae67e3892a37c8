"""The sections of `gpu.py`: each yields rows of figures as soon as it has them, so that one that
runs out of time leaves what it found. Toy sizes run the same code anywhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from full_size import full_size_codec
from training_speed import (
    CAPTIONS,
    SHAPES,
    clips,
    make_model,
    our_precision,
    our_step,
    plain_step,
    step_flop,
    wait_for,
)
from transformers import AutoTokenizer

from musicgen_lora.dataset.batches import WindowSampler
from musicgen_lora.dataset.packed import PackedTokens
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.runtime.precision import DTYPES
from musicgen_lora.training.memory import checkpoint_layers
from musicgen_lora.training.packed.captured import CapturedGradients, DeviceData, step_totals
from musicgen_lora.training.packed.draws import Draws
from musicgen_lora.training.step import is_out_of_memory

Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Args:
        shapes: models that are trained.
        decoded: the model that decodes.
        durations_s: lengths of training clips.
        batches: batch sizes of training, tried in this order until memory runs out.
        decode_batches: prompts at once.
        n_steps: timed steps, after one that is not.
        decode_steps: steps of each decoding.
        long_steps: steps of the decoding that shows how a step slows down.
        tokenise_batches: clips at once, and `clip_s` their length.
        packed: batch size, frames of a window, timed steps.
    """

    shapes: tuple[str, ...]
    decoded: str
    durations_s: tuple[float, ...]
    batches: tuple[int, ...]
    decode_batches: tuple[int, ...]
    n_steps: int
    decode_steps: int
    long_steps: int
    tokenise_batches: tuple[int, ...]
    clip_s: float
    packed: tuple[int, int, int]


FULL = Sizes(
    shapes=("small", "medium", "large"),
    decoded="small",
    durations_s=(10.0, 30.0),
    batches=(1, 2, 4, 8, 16, 32, 64),
    decode_batches=(1, 8, 64),
    n_steps=3,
    decode_steps=150,
    long_steps=1_500,
    tokenise_batches=(1, 8, 32),
    clip_s=30.0,
    packed=(64, 1_500, 50),
)
TOY = Sizes(
    shapes=("toy",),
    decoded="toy",
    durations_s=(0.5, 1.0),
    batches=(1, 2),
    decode_batches=(1, 2),
    n_steps=1,
    decode_steps=6,
    long_steps=12,
    tokenise_batches=(1, 2),
    clip_s=0.5,
    packed=(2, 40, 2),
)
SLOW_STEP_S = 4.0
"""Beyond this, larger batches are not tried: they would not give more samples per second."""


def timed(call: Callable[[], Any], device: torch.device, n: int) -> float:
    """Median seconds of `n` calls."""
    times = []
    for _ in range(n):
        wait_for(device)
        began = time.perf_counter()
        call()
        wait_for(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def device_rates(device: torch.device) -> Row:
    """The device's rates: FLOP/s of a large product in bf16, and bytes/s read."""
    size = 8192 if device.type == "cuda" else 512
    left = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    product_s = timed(lambda: torch.mm(left, left), device, 10)
    # Far larger than any cache, and read once.
    many = torch.ones((1 << 30 if device.type == "cuda" else 1 << 24), device=device)
    read_s = timed(many.sum, device, 10)
    return {"flop_s": 2 * size**3 / product_s, "bytes_s": many.nbytes / read_s}


def training(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """LoRA steps of both sides by shape, length and batch: samples per second, share of the
    device's FLOP/s, peak memory."""
    rates = device_rates(device)
    yield {"what": "device", **rates}
    for shape in sizes.shapes:
        for side in ("ours", "ours, layers twice", "plain"):
            yield from _training_side(sizes, device, shape, side, rates["flop_s"])


def _training_side(
    sizes: Sizes, device: torch.device, shape: str, side: str, flop_s: float
) -> Iterator[Row]:
    model = make_model(shape, None, device)
    step = plain_step(model, 12) if side == "plain" else our_step(model, shape, 12)
    if side not in ("plain", "ours"):
        checkpoint_layers(model)
    for duration_s in sizes.durations_s:
        for batch_size in sizes.batches:
            batch = clips(batch_size, duration_s)
            _forget_peak(device)
            try:
                call = partial(step, batch)
                call()
                step_s = timed(call, device, sizes.n_steps)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                torch.cuda.empty_cache()
                yield {"what": shape, "side": side, "clip_s": duration_s, "batch": batch_size,
                       "out_of_memory": True}  # fmt: skip
                break
            yield {
                "what": shape,
                "side": side,
                "clip_s": duration_s,
                "batch": batch_size,
                "step_s": step_s,
                "clips_s": batch_size / step_s,
                "utilisation": step_flop(model, batch) / step_s / flop_s,
                "peak_gb": _peak_gb(device),
                "precision": our_precision(model),
            }
            if step_s > SLOW_STEP_S:
                break


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gb(device: torch.device) -> float | None:
    """The tensors' peak; None on a CPU, where a process has a single peak for all its work."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def decoding(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Milliseconds per step, with guidance: ours, transformers' default and its static cache, and
    the floor, which reads the weights once per step."""
    rates = device_rates(device)
    model: Any = make_model(sizes.decoded, None, device)
    half = device.type == "cuda"
    BaseModel(model).to(device, "bf16" if half else "fp32")
    text = TextStates(model.to(device), AutoTokenizer.from_pretrained(EMBEDDED))
    decoder = Decoder(BaseModel(model), "bf16" if half else "fp32")
    floor_s = sum(p.nbytes for p in model.decoder.parameters()) / rates["bytes_s"]
    yield {"what": "floor", "batch": 1, "ms_step": 1e3 * floor_s}
    for batch in sizes.decode_batches:
        texts = text.batch([CAPTIONS[0]] * batch, device)

        def ours(n: int, texts: Any = texts, batch: int = batch) -> None:
            generate_codes(
                decoder, Request(Conditions(texts), n_frames=n - 3, seeds=list(range(batch)))
            )

        ours(min(20, sizes.decode_steps))
        seconds = timed(lambda: ours(sizes.decode_steps), device, 1)
        yield {"what": "ours", "batch": batch, "ms_step": 1e3 * seconds / sizes.decode_steps}
        for cache in (None, "static"):
            yield _transformers_row(model, batch, sizes.decode_steps, cache, device)
    texts = text.batch([CAPTIONS[0]], device)
    marks: list[float] = []

    def mark(done: int, total: int) -> None:
        if device.type == "cuda":
            # Steps are queued: the host is ahead of the GPU.
            torch.cuda.synchronize(device)
        marks.append(time.perf_counter())

    generate_codes(
        decoder,
        Request(Conditions(texts), n_frames=sizes.long_steps - 3, seeds=[0]),
        on_step=mark,
    )
    n = max(1, len(marks) // 10)
    early, late = (marks[n] - marks[0]) / n, (marks[-1] - marks[-1 - n]) / n
    yield {
        "what": f"ours, {sizes.long_steps} steps",
        "batch": 1,
        "ms_step": 1e3 * (marks[-1] - marks[0]) / (len(marks) - 1),
        "late_over_early": late / early,
    }


def _transformers_row(
    model: Any, batch: int, n_steps: int, cache: str | None, device: torch.device
) -> Row:
    row: Row = {"what": f"transformers{', static cache' if cache else ''}", "batch": batch}
    tokens = AutoTokenizer.from_pretrained(EMBEDDED)([CAPTIONS[0]] * batch, return_tensors="pt")
    options: dict[str, Any] = {"cache_implementation": cache} if cache else {}

    def play(n: int) -> None:
        model.generate(
            **tokens.to(device), do_sample=True, guidance_scale=3.0, max_new_tokens=n, **options
        )

    decode = model.audio_encoder.decode
    model.audio_encoder.decode = lambda codes, *_, **__: _Silence(torch.zeros(batch, 1, 1))
    try:
        play(min(20, n_steps))
        row["ms_step"] = 1e3 * timed(lambda: play(n_steps), device, 1) / n_steps
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        row["not_run"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    finally:
        model.audio_encoder.decode = decode
    return row


@dataclass
class _Silence:
    """The output of a codec that is left out, since its time is not the decoder's."""

    audio_values: torch.Tensor


def tokenising(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Hours of audio per minute through a codec of MusicGen's size."""
    model = BaseModel.load("tiny-beats")
    codec: Any = full_size_codec(64 if device.type == "cuda" else 4)
    model.hf.audio_encoder = codec.to(device)
    rng = np.random.default_rng(0)
    for batch in sizes.tokenise_batches:
        waveform = 0.1 * rng.standard_normal((1, round(32_000 * sizes.clip_s)))
        waveforms = [waveform.astype(np.float32)] * batch
        model.encode(waveforms[:1])
        seconds = timed(lambda: model.encode(waveforms), device, 1)  # noqa: B023
        hours = batch * sizes.clip_s / 3600
        yield {"what": "codec", "batch": batch, "hours_minute": hours / seconds * 60}


def packed(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """Full training of the embedded base on random tokens: seconds of audio per second, with and
    without a captured step."""
    batch_size, n_frames, n_steps = sizes.packed
    for capture in ("captured", "not captured"):
        if capture == "captured" and device.type != "cuda":
            continue
        base = BaseModel.load("tiny-beats")
        model = base.hf
        rng = np.random.default_rng(0)
        lengths = np.full(batch_size, n_frames)
        tokens = PackedTokens(
            codes=rng.integers(0, 2048, (int(lengths.sum()), 4)).astype(np.uint16),
            n_frames=lengths,
            texts=[[CAPTIONS[row % 2]] for row in range(batch_size)],
            held_out=np.zeros(batch_size, bool),
            n_entries=2048,
            frame_rate=50.0,
            codec=base.codec.fingerprint,
        )
        data = DeviceData(tokens, base.text, n_frames, device)
        precision = "bf16" if device.type == "cuda" else "fp32"
        base.to(device, precision, trained=True)
        enable(model, precision)
        model.decoder.requires_grad_(True)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        gradients = CapturedGradients(
            base,
            data,
            batch_size,
            autocast=DTYPES[precision] if precision != "fp32" else None,
            capture=capture == "captured",
        )
        draws = Draws(tokens, data.captions, WindowSampler(n_frames, condition_dropout=0.1))

        def step(draws: Draws = draws, gradients: CapturedGradients = gradients,
                 delays: Delays = base.delays, parameters: Any = parameters,
                 optimizer: Any = optimizer) -> None:  # fmt: skip
            (draw,) = draws.step(0, batch_size, 1)
            gradients.zero_gradients()
            gradients.add(draw, step_totals([draw], delays))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        step()
        step_s = timed(step, device, n_steps)
        yield {
            "what": capture,
            "batch": batch_size,
            "step_s": step_s,
            "audio_s_s": batch_size * n_frames / 50.0 / step_s,
            "peak_gb": _peak_gb(device),
        }


SECTIONS: dict[str, Callable[[Sizes, torch.device], Iterator[Row]]] = {
    "training": training,
    "decoding": decoding,
    "tokenising": tokenising,
    "packed": packed,
}
assert set(FULL.shapes) <= set(SHAPES)
