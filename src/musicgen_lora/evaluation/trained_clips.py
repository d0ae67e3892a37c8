"""Clips that an adapter was trained on, to find out whether it memorised any."""

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
"""Number of training clips to look at, evenly spaced."""


@dataclass(frozen=True)
class TrainedClips:
    """Training clips with their codes."""

    clips: Sequence[Clip] = ()
    codes: TokenStore | None = None
    n_all: int = 0
    """Number of training clips that these were chosen from."""
    why_none: str = ""


def open_trained(settings: EvaluateSettings, held_out: HeldOut, model: BaseModel) -> TrainedClips:
    """Open up to 64 training clips of the dataset that the held-out clips are from.

    They are only for comparison with the held-out figures: if one cannot be read, none are used,
    and `why_none` gives the reason.
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
