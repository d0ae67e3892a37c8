"""The decode loop: text states in, codes out, one delayed step at a time.

Equal to `MusicgenForConditionalGeneration.generate` token by token where both are greedy; apart
from it in that each clip has its own seed, and on a CPU is the same whatever batch it is in. Past
the length that a base was trained on, a clip goes on in windows, as audiocraft's do: each begins
with the end of the one before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache, EncoderDecoderCache, MusicgenForConditionalGeneration

from musicgen_lora.generation.independent import clip_by_clip
from musicgen_lora.generation.sampling import Sampling, clip_generator, guide, sample
from musicgen_lora.model.base_facts import base_facts
from musicgen_lora.model.melody import is_melody, project_melodies, text_lengths
from musicgen_lora.model.musicgen import model_shape, project_text

ONE_THREAD_UP_TO = 30_000_000
"""Parameters of a decoder that decodes on one thread of a CPU: its products for a single frame are
so small that a second thread is waited for as long as it works, and much longer where another
program has its core."""
STRIDE_SHARE = 0.6
"""Of a window is new music; what is before is heard. audiocraft: 18 of 30 s."""


def window_frames(model: MusicgenForConditionalGeneration) -> tuple[int, int]:
    """Frames of a window, as many as the base was trained on, and how many of them are new."""
    window = max(1, round(base_facts(model).trained_duration_s * model_shape(model).frame_rate))
    return window, max(1, round(STRIDE_SHARE * window))


def windows_sentence(model: MusicgenForConditionalGeneration, n_frames: int) -> str:
    """What to tell the user of clips longer than a window; empty where they aren't."""
    window, stride = window_frames(model)
    if n_frames <= window:
        return ""
    rate = model_shape(model).frame_rate
    window_s, heard_s = window / rate, (window - stride) / rate
    return (
        f"The base was trained on {window_s:g} s: {n_frames / rate:g} s are played in windows of "
        f"{window_s:g} s, each of which goes on from the last {heard_s:g} s of the one before and "
        "knows nothing of what was earlier."
    )


@torch.inference_mode()
@clip_by_clip
def generate_codes(
    model: MusicgenForConditionalGeneration,
    text_states: torch.Tensor,
    text_mask: torch.Tensor,
    *,
    n_frames: int,
    seeds: Sequence[int],
    sampling: Sampling = Sampling(),  # noqa: B008
    prompt_codes: torch.Tensor | None = None,
    melodies: torch.Tensor | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """Generates codes for B prompts.

    Args:
        model: in eval mode, with or without an adapter.
        text_states: `[B, L, D_text]`.
        text_mask: `[B, L]`.
        n_frames: T, codec frames of each clip; more than `window_frames` go on in windows.
        seeds: B of them.
        sampling: how tokens are drawn.
        prompt_codes: `[B, K, P]` with P < T, what the clips begin with; None begins from nothing.
        melodies: `[B, M]` pitch classes for a melody model; None plays without a tune.
        on_step: called with (steps done, steps in all).

    Returns:
        `[B, K, T]` int64 on the CPU.
    """
    shape = model_shape(model)
    window, stride = window_frames(model)
    draw = _Draw([clip_generator(seed) for seed in seeds], sampling)
    n_steps = n_frames + max(shape.delays)
    codes = prompt_codes
    if codes is None:
        codes = torch.empty(len(text_states), shape.n_codebooks, 0, dtype=torch.long)
    with _threads_for(model):
        while codes.shape[-1] < n_frames:
            n_known = codes.shape[-1]
            start = 0 if n_known < window else n_known - (window - stride)
            # A tune goes on with the music, and begins again after a window, as in audiocraft.
            shift = 0 if melodies is None else round(start / window * melodies.shape[-1])
            last = _generate_window(
                model,
                text_states,
                text_mask,
                given=codes[..., start:],
                n_frames=min(window, n_frames - start),
                melodies=None if melodies is None else melodies.roll(-shift, dims=-1),
                draw=draw,
                on_step=lambda step: on_step(start + step, n_steps),  # noqa: B023
            )
            codes = torch.cat([codes[..., :start], last], dim=-1)
    return codes


@contextmanager
def _threads_for(model: MusicgenForConditionalGeneration) -> Iterator[None]:
    """One thread for a small decoder on a CPU, unless the user says how many. By a rule, not by the
    clock: how products are shared among threads may change their last bits, and a seed should give
    the same clip on a busy day."""
    n_before = torch.get_num_threads()
    n_parameters = sum(parameter.numel() for parameter in model.decoder.parameters())
    is_small = model.decoder.device.type == "cpu" and n_parameters <= ONE_THREAD_UP_TO
    if is_small and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_before)


@dataclass(frozen=True)
class _Draw:
    """How tokens are drawn, with a generator for each clip."""

    generators: Sequence[torch.Generator]
    sampling: Sampling

    def of(self, rows: Sequence[int]) -> _Draw:
        """The same for some of the clips."""
        return replace(self, generators=[self.generators[row] for row in rows])

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        if self.sampling.is_guided:
            logits = guide(logits, self.sampling.guidance_scale)
        return sample(logits.cpu(), self.sampling, generators=self.generators)


def _generate_window(
    model: MusicgenForConditionalGeneration,
    text_states: torch.Tensor,
    text_mask: torch.Tensor,
    *,
    given: torch.Tensor,
    n_frames: int,
    melodies: torch.Tensor | None,
    draw: _Draw,
    on_step: Callable[[int], None],
) -> torch.Tensor:
    """Codes `[B, K, n_frames]` that begin with `given`, `[B, K, P]` with P < n_frames."""
    if not is_melody(model):
        return _decode(
            model,
            _conditions(model, text_states, text_mask, None, draw.sampling.is_guided),
            given=given,
            n_frames=n_frames,
            draw=draw,
            on_step=on_step,
        )
    # The codes follow the caption, so clips share a cache only where it has one length.
    lengths = text_lengths(text_mask)
    kinds = lengths.unique().tolist()
    codes = torch.zeros(*given.shape[:2], n_frames, dtype=torch.long)
    for number, length in enumerate(kinds):
        rows = (lengths == length).nonzero().flatten().cpu()
        states, mask = text_states[rows, :length], text_mask[rows, :length]
        tunes = None if melodies is None else melodies[rows]
        codes[rows] = _decode(
            model,
            _conditions(model, states, mask, tunes, draw.sampling.is_guided),
            given=given[rows],
            n_frames=n_frames,
            draw=draw.of(rows.tolist()),
            on_step=lambda step: on_step((number * n_frames + step) // len(kinds)),  # noqa: B023
        )
    return codes


def _conditions(
    model: MusicgenForConditionalGeneration,
    text_states: torch.Tensor,
    text_mask: torch.Tensor,
    melodies: torch.Tensor | None,
    guided: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the decoder attends to, `[B, L, D]`, and its mask; guided, `[2B, L, D]`."""
    n_clips = len(text_states)
    if guided:
        text_states = torch.cat([text_states, torch.zeros_like(text_states)])
        text_mask = torch.cat([text_mask, torch.zeros_like(text_mask)])
    device = model.decoder.device
    text_mask = text_mask.to(device)
    memory = project_text(model, text_states.to(device), text_mask)
    if is_melody(model):
        tune = project_melodies(model, melodies, n_clips)
        if guided:
            tune = torch.cat([tune, project_melodies(model, None, n_clips)])
        memory = torch.cat([tune, memory], dim=1)
    return memory, text_mask


def _decode(
    model: MusicgenForConditionalGeneration,
    conditions: tuple[torch.Tensor, torch.Tensor],
    *,
    given: torch.Tensor,
    n_frames: int,
    draw: _Draw,
    on_step: Callable[[int], None],
) -> torch.Tensor:
    """The loop itself: `[B, K, n_frames]`, a column of the delayed sequence at a time."""
    shape = model_shape(model)
    memory, text_mask = conditions
    takes_tune = is_melody(model)
    delays = torch.tensor(shape.delays)
    n_steps = n_frames + max(shape.delays)
    n_clips, n_given = len(given), given.shape[-1]
    tokens = torch.full((n_clips, shape.n_codebooks, n_steps + 1), shape.special)
    for codebook, delay in enumerate(shape.delays):
        tokens[:, codebook, 1 + delay : 1 + delay + n_given] = given[:, codebook]
    config = model.decoder.config
    cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
    for step in range(n_given, n_steps):
        # What is given is read at once.
        columns = tokens[:, :, 0 if step == n_given else step : step + 1].to(model.decoder.device)
        if draw.sampling.is_guided:
            columns = torch.cat([columns, columns])
        logits = model.decoder(
            input_ids=columns.flatten(0, 1),
            # A melody model reads its conditions once, as the beginning of its sequence.
            encoder_hidden_states=None if takes_tune and step > n_given else memory,
            encoder_attention_mask=None if takes_tune else text_mask,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        drawn = draw(logits.view(-1, shape.n_codebooks, shape.special).float())
        frame = step - delays
        spoken = (frame >= n_given) & (frame < n_frames)
        tokens[:, :, step + 1] = torch.where(spoken, drawn, tokens[:, :, step + 1])
        on_step(step + 1)
    return torch.stack(
        [
            tokens[:, codebook, 1 + delay : 1 + delay + n_frames]
            for codebook, delay in enumerate(shape.delays)
        ],
        dim=1,
    )
