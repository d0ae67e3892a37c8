"""The decode loop: text states in, codes out, one delayed step at a time.

Equal to `MusicgenForConditionalGeneration.generate` token by token where both are greedy; apart
from it in that each clip has its own seed, whatever batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache, EncoderDecoderCache, MusicgenForConditionalGeneration

from musicgen_lora.generation.sampling import guide, sample
from musicgen_lora.model.musicgen import model_shape, project_text


@torch.inference_mode()
def generate_codes(
    model: MusicgenForConditionalGeneration,
    text_states: torch.Tensor,
    text_mask: torch.Tensor,
    *,
    n_frames: int,
    seeds: Sequence[int],
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
    if guided:
        text_states = torch.cat([text_states, torch.zeros_like(text_states)])
        text_mask = torch.cat([text_mask, torch.zeros_like(text_mask)])
    text_mask = text_mask.to(device)
    memory = project_text(model, text_states.to(device), text_mask)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    delays = torch.tensor(shape.delays)
    n_steps = n_frames + max(shape.delays)
    tokens = torch.full((n_clips, shape.n_codebooks, n_steps + 1), shape.special)
    config = model.decoder.config
    cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
    for step in range(n_steps):
        column = tokens[:, :, step].to(device)
        if guided:
            column = torch.cat([column, column])
        logits = model.decoder(
            input_ids=column.reshape(-1, 1),
            encoder_hidden_states=memory,
            encoder_attention_mask=text_mask,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        logits = logits.view(-1, shape.n_codebooks, shape.special).float()
        if guided:
            logits = guide(logits, guidance_scale)
        drawn = sample(logits.cpu(), top_k=top_k, temperature=temperature, generators=generators)
        frame = step - delays
        spoken = (frame >= 0) & (frame < n_frames)
        tokens[:, :, step + 1] = torch.where(spoken, drawn, shape.special)
        on_step(step + 1, n_steps)
    return torch.stack(
        [
            tokens[:, codebook, 1 + delay : 1 + delay + n_frames]
            for codebook, delay in enumerate(shape.delays)
        ],
        dim=1,
    )
