"""Clips that an adapter was trained on: what it knows by heart is looked for among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from musicgen_lora.config import EvaluateSettings
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.tokens import TokenStore, open_tokens, tokenise_clips
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.model.base_model import BaseModel

MAX_TRAINED = 64
"""Clips that are looked at, evenly spaced over them all."""


@dataclass(frozen=True)
class TrainedClips:
    """Training clips with their codes."""

    clips: Sequence[Clip] = ()
    codes: TokenStore | None = None
    n_all: int = 0
    """Training clips of which these were chosen."""
    why_none: str = ""


def open_trained(settings: EvaluateSettings, held_out: HeldOut, model: BaseModel) -> TrainedClips:
    """Up to 64 training clips of the dataset that the held-out clips are from.

    They only stand beside the held-out figures: where one cannot be read there are none,
    for the reason that is given.
    """
    if held_out.data_dir is None:
        return TrainedClips(why_none=held_out.why_none)
    if not held_out.trained:
        return TrainedClips(why_none=held_out.why_not_trained)
    clips = list(held_out.trained[:: -(-len(held_out.trained) // MAX_TRAINED)])
    try:
        if settings.from_tokens:
            codes = open_tokens(clips, model, held_out.data_dir)[1]
        else:
            ids = clip_ids(clips, held_out.data_dir)
            codes = tokenise_clips(clips, ids, model, held_out.data_dir)
    except UserError as error:
        return TrainedClips(why_none=f"training clips cannot be read: {str(error).rstrip('.')}")
    except OSError as error:
        return TrainedClips(
            why_none=f"training clips cannot be encoded: {held_out.data_dir / 'tokens'} "
            f"({error.strerror})"
        )
    return TrainedClips(clips, codes, len(held_out.trained))
