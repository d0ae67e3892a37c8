"""The melody models' conditions: melody and text are prepended to the codes, so that the decoder's
self-attention sees them, whereas the other models have cross-attention layers for the text.

Reference: transformers' `MusicgenMelodyForConditionalGeneration.forward`, and audiocraft's
`ConditionFuser` with `prepend: [self_wav, description]`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

MODEL_TYPE = "musicgen_melody"


def is_melody(model: nn.Module) -> bool:
    """Whether a MusicGen takes a melody."""
    config: Any = model.config
    return config.model_type == MODEL_TYPE


def project_melodies(model: Any, melodies: torch.Tensor | None, n_clips: int) -> torch.Tensor:
    """Projects melodies to states for the decoder, `[B, M, D]`.

    Args:
        melodies: `[B, M]` pitch classes, from `Chroma`; None is the null condition for all: a
            melody that stays on C, as in transformers and audiocraft.
        n_clips: B.
    """
    decoder, config = model.decoder, model.config
    if melodies is None:
        melodies = torch.zeros(n_clips, config.chroma_length, dtype=torch.long)
    classes = nn.functional.one_hot(melodies.to(decoder.device).long(), config.num_chroma)
    states = classes.to(decoder.dtype)
    return (
        model.audio_enc_to_dec_proj(states) if hasattr(model, "audio_enc_to_dec_proj") else states
    )


def melody_decoder_states(
    model: Any,
    delayed: torch.Tensor,
    text: torch.Tensor,
    text_mask: torch.Tensor,
    melodies: torch.Tensor | None,
) -> torch.Tensor:
    """The decoder's last states, for each clip as if it were alone.

    transformers pads captions to the longest of a batch, and the decoder attends to the padding and
    counts its positions: a clip's states would depend on its neighbours. Here the codes directly
    follow the clip's own caption, and the padding comes last, where no code attends to it.

    Args:
        delayed: `[B, K, T]`, from `Delays.delay`.
        text: `[B, L, D]`, projected.
        text_mask: `[B, L]`.
        melodies: `[B, M]` or None, see `project_melodies`.

    Returns:
        `[B, T, D]`.
    """
    decoder = model.decoder.model.decoder
    embedded: Any = sum(table(delayed[:, k]) for k, table in enumerate(decoder.embed_tokens))
    front = project_melodies(model, melodies, len(delayed))
    # The null condition gets one state of zeros.
    lengths = text_mask.sum(dim=1).clamp(min=1).tolist()
    rows = [
        torch.cat([front[i], text[i, :length], embedded[i]]) for i, length in enumerate(lengths)
    ]
    hidden = decoder(
        inputs_embeds=pad_sequence(rows, batch_first=True), use_cache=False
    ).last_hidden_state
    begins = [front.shape[1] + length for length in lengths]
    n_steps = delayed.shape[-1]
    return torch.stack([hidden[i, at : at + n_steps] for i, at in enumerate(begins)])
