"""The decode loop: text states in, codes out, one delayed step at a time.

Equal to `MusicgenForConditionalGeneration.generate` token by token where both are greedy; apart
from it in that each clip has its own seed, and on a CPU is the same whatever batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache, EncoderDecoderCache, MusicgenForConditionalGeneration

from musicgen_lora.generation.independent import clip_by_clip
from musicgen_lora.generation.sampling import clip_generator, guide, sample
from musicgen_lora.model.melody import is_melody, project_melodies, text_lengths
from musicgen_lora.model.musicgen import model_shape, project_text


@torch.inference_mode()
@clip_by_clip
def generate_codes(
    model: MusicgenForConditionalGeneration,
    text_states: torch.Tensor,
    text_mask: torch.Tensor,
    *,
    n_frames: int,
    seeds: Sequence[int],
    prompt_codes: torch.Tensor | None = None,
    melodies: torch.Tensor | None = None,
    guidance_scale: float = 3.0,
    top_k: int = 250,
    temperature: float = 1.0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """Generates codes for B prompts.

    Args:
        model: in eval mode, with or without an adapter.
        text_states: `[B, L, D_text]`.
        text_mask: `[B, L]`.
        n_frames: T, codec frames of each clip.
        seeds: B of them.
        prompt_codes: `[B, K, P]` with P < T, what the clips begin with; None begins from nothing.
        melodies: `[B, M]` pitch classes for a melody model; None plays without a tune.
        guidance_scale: 1 switches guidance off and halves the work.
        top_k: see `sample`.
        temperature: see `sample`.
        on_step: called with (steps done, steps in all).

    Returns:
        `[B, K, T]` int64 on the CPU.
    """
    shape = model_shape(model)
    device = model.decoder.device
    guided = guidance_scale != 1.0
    n_clips = len(text_states)
    takes_tune = is_melody(model)
    if takes_tune:
        lengths = text_lengths(text_mask)
        kinds = lengths.unique().tolist()
        if len(kinds) > 1:
            # The codes follow the caption, so clips share a cache only where it has one length.
            codes = torch.zeros(n_clips, shape.n_codebooks, n_frames, dtype=torch.long)
            for number, length in enumerate(kinds):
                rows = (lengths == length).nonzero().flatten().cpu()
                codes[rows] = generate_codes(
                    model,
                    text_states[rows],
                    text_mask[rows],
                    n_frames=n_frames,
                    seeds=[seeds[row] for row in rows.tolist()],
                    prompt_codes=None if prompt_codes is None else prompt_codes[rows],
                    melodies=None if melodies is None else melodies[rows],
                    guidance_scale=guidance_scale,
                    top_k=top_k,
                    temperature=temperature,
                    on_step=lambda done, total: on_step(number * total + done, len(kinds) * total),  # noqa: B023
                )
            return codes
        text_states, text_mask = text_states[:, : kinds[0]], text_mask[:, : kinds[0]]
    if guided:
        text_states = torch.cat([text_states, torch.zeros_like(text_states)])
        text_mask = torch.cat([text_mask, torch.zeros_like(text_mask)])
    text_mask = text_mask.to(device)
    memory = project_text(model, text_states.to(device), text_mask)
    if takes_tune:
        tune = project_melodies(model, melodies, n_clips)
        if guided:
            tune = torch.cat([tune, project_melodies(model, None, n_clips)])
        memory = torch.cat([tune, memory], dim=1)
    generators = [clip_generator(seed) for seed in seeds]
    delays = torch.tensor(shape.delays)
    n_steps = n_frames + max(shape.delays)
    tokens = torch.full((n_clips, shape.n_codebooks, n_steps + 1), shape.special)
    n_given = 0
    if prompt_codes is not None:
        n_given = prompt_codes.shape[-1]
        for codebook, delay in enumerate(shape.delays):
            tokens[:, codebook, 1 + delay : 1 + delay + n_given] = prompt_codes[:, codebook]
    config = model.decoder.config
    cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
    for step in range(n_given, n_steps):
        # What is given is read at once.
        columns = tokens[:, :, 0 if step == n_given else step : step + 1].to(device)
        if guided:
            columns = torch.cat([columns, columns])
        logits = model.decoder(
            input_ids=columns.flatten(0, 1),
            # A melody model reads its conditions once, as the beginning of its sequence.
            encoder_hidden_states=None if takes_tune and step > n_given else memory,
            encoder_attention_mask=None if takes_tune else text_mask,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        logits = logits.view(-1, shape.n_codebooks, shape.special).float()
        if guided:
            logits = guide(logits, guidance_scale)
        drawn = sample(logits.cpu(), top_k=top_k, temperature=temperature, generators=generators)
        frame = step - delays
        spoken = (frame >= n_given) & (frame < n_frames)
        tokens[:, :, step + 1] = torch.where(spoken, drawn, tokens[:, :, step + 1])
        on_step(step + 1, n_steps)
    return torch.stack(
        [
            tokens[:, codebook, 1 + delay : 1 + delay + n_frames]
            for codebook, delay in enumerate(shape.delays)
        ],
        dim=1,
    )
