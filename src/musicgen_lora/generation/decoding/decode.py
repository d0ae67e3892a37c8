"""The decode loop: text states in, codes out, one delayed step at a time.

Equal to `MusicgenForConditionalGeneration.generate` token by token where both are greedy; apart
from it in that each clip has its own seed, and on a CPU is the same whatever batch it is in. Past
the length that a base was trained on, a clip goes on in windows, as audiocraft's do: each begins
with the end of the one before.

Nothing that is computed for a clip on a CPU has a shape that the batch decides, but for products,
whose rows come out the same in any number (`products`). A GPU has too much to lose by it, and a
clip may differ there with the number of clips in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from musicgen_lora.generation.decoding.decoder import Decoder, threads_for
from musicgen_lora.generation.decoding.request import Request, WindowRequest
from musicgen_lora.generation.decoding.sampling import Noise
from musicgen_lora.generation.decoding.window import window_kind
from musicgen_lora.model.musicgen import MusicGen

VERSION = 1
"""Raised where a seed comes to give other codes: what was kept of earlier ones is played anew."""
STRIDE_SHARE = 0.6
"""Share of a window that is new music; what is before is heard. audiocraft: 18 of 30 s."""


def depends_on_batch(device: torch.device) -> bool:
    """Whether a clip that is decoded there may differ with the number of clips in its batch."""
    return device.type != "cpu"


def window_frames(base: MusicGen) -> tuple[int, int]:
    """Frames of a window, as many as the base was trained on, and how many of them are new."""
    window = base.shape.frames(base.facts.trained_duration_s)
    return window, max(1, round(STRIDE_SHARE * window))


def windows_sentence(base: MusicGen, n_frames: int) -> str:
    """What to tell the user of clips longer than a window; empty where they aren't."""
    window, stride = window_frames(base)
    if n_frames <= window:
        return ""
    rate = base.shape.frame_rate
    window_s, heard_s = window / rate, (window - stride) / rate
    return (
        f"The base was trained on {window_s:g} s: {n_frames / rate:g} s are played in windows of "
        f"{window_s:g} s, each of which goes on from the last {heard_s:g} s of the one before and "
        "knows nothing of what was earlier."
    )


@torch.inference_mode()
def generate_codes(
    model: MusicGen | Decoder,
    request: Request,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """Generates codes for B clips.

    Args:
        model: in eval mode, with or without an adapter; it stays as it is. A `Decoder` of it spares
            taking its weights over again, where there are several batches.
        request: the clips.
        on_step: called with (steps done, steps in all).

    Returns:
        `[B, K, T]` int64 on the CPU.
    """
    decoder = model if isinstance(model, Decoder) else Decoder(model)
    with threads_for(decoder.base):
        return torch.cat(list(play_frames(decoder, request, on_step=on_step)), dim=-1)


@torch.inference_mode()
def play_frames(
    decoder: Decoder,
    request: Request,
    *,
    chunk: int | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[torch.Tensor]:
    """Codes `[B, K, n]`, part after part as they are made: the prompt first, if there is one, then
    `chunk` frames at a time, or a window's. Where conditions change a window ends, and what was
    played so far is read anew, by the new ones. See `generate_codes` for the rest.
    """
    shape, n_frames = decoder.shape, request.n_frames
    window, stride = window_frames(decoder.base)
    noise = Noise(request.seeds, (shape.n_codebooks, shape.special))
    n_steps = shape.delays.n_steps(n_frames)
    codes = request.prompt_codes
    if codes is None:
        codes = torch.empty(len(request.seeds), shape.n_codebooks, 0, dtype=torch.long)
    else:
        yield codes
    while codes.shape[-1] < n_frames:
        n_known = codes.shape[-1]
        start = 0 if n_known < window else n_known - (window - stride)
        conditions, until = request.scene_at(n_known)
        asked = WindowRequest(
            conditions.shifted(start / window),
            codes[..., start:],
            min(window, until - start),
            request.sampling,
            (start, n_frames),
        )
        part = window_kind(decoder)(decoder, asked, noise)
        n_sent = part.n_given
        while part.step < part.n_steps:
            part.advance()
            on_step(start + part.step, n_steps)
            if chunk is not None and part.n_ready - n_sent >= chunk:
                yield part.frames(n_sent, part.n_ready)
                n_sent = part.n_ready
        if n_sent < part.n_frames:
            yield part.frames(n_sent, part.n_frames)
        codes = torch.cat([codes[..., :start], part.frames(0, part.n_frames)], dim=-1)
