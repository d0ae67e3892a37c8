"""Writes a MusicGen for Meta's audiocraft: two files, and the text encoder, which they lack.

audiocraft downloads T5 by one of its known names, but first looks for a folder of that name in the
working directory: so the text encoder goes into such a folder beside the files, and the card shows
how to load it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, hann_window, nn

from musicgen_lora.errors import UserError
from musicgen_lora.export.audiocraft.config import (
    compression_config,
    lm_config,
    places_of,
    text_encoder_name,
)
from musicgen_lora.export.audiocraft.files import CODEC_FILE, LM_FILE, write_state
from musicgen_lora.export.audiocraft.names import (
    CHROMA_WINDOW,
    codec_to_audiocraft,
    lm_to_audiocraft,
)
from musicgen_lora.export.checkpoint import copy_present
from musicgen_lora.export.sources import Source
from musicgen_lora.formats.documents import LARGE, read_json
from musicgen_lora.model.base.facts import FIELD
from musicgen_lora.model.base.folder import TOKENIZER
from musicgen_lora.model.chroma import extractor_settings


def check_exportable(source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configurations of language model and codec, checked before anything is written.

    Raises:
        UserError: audiocraft has no such model, or the codec belongs to another model.
    """
    config: Any = source.model.hf.config
    chroma = extractor_settings(source.base) if source.model.is_melody else {}
    stated = getattr(config, FIELD, {})
    try:
        window_s = source.model.facts.trained_duration_s
        lm = lm_config(config, window_s, stated, chroma)
        codec = compression_config(config.audio_encoder)
    except ValueError as error:
        raise UserError(f"{source.base}: can't be exported for audiocraft: {error}.") from error
    n_used, n_held = lm["compression_model_n_q"], codec["rvq"]["n_q"]
    if n_used != n_held:
        raise UserError(
            f"{source.base}: its codec has {n_held} codebooks, but its decoder reads {n_used}: "
            "they don't belong together."
        )
    return lm, codec


def reads_as_t5(source: Source) -> bool:
    """Whether the base's tokenizer is a T5 tokenizer, the only kind that audiocraft loads. True if
    the files don't tell: then audiocraft decides."""
    path = source.folder / "tokenizer.json"
    if not path.is_file():
        return True
    model = read_json(path, max_bytes=LARGE).get("model")
    return isinstance(model, dict) and model.get("type") == "Unigram"


def write_audiocraft(source: Source, folder: Path) -> None:
    """Writes the two files and the text encoder's folder.

    Args:
        folder: exists and is empty.

    Raises:
        UserError: audiocraft has no such model.
    """
    lm, codec = check_exportable(source)
    config: Any = source.model.hf.config
    tensors = source.tensors()
    try:
        state = lm_to_audiocraft(tensors, places_of(config))
        codec_state = codec_to_audiocraft(_within(tensors, "audio_encoder."), _transposed(source))
    except ValueError as error:
        raise UserError(f"{source.base}: {error}.") from error
    if source.model.is_melody:
        state[CHROMA_WINDOW] = hann_window(
            2 ** lm["conditioners"]["self_wav"]["chroma_stem"]["radix2_exp"]
        )
    write_state(folder / LM_FILE, state, lm)
    write_state(folder / CODEC_FILE, codec_state, codec)
    _write_text_encoder(source, folder / text_encoder_name(config))


def _within(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)
    }


def _transposed(source: Source) -> set[str]:
    codec: Any = source.model.hf.audio_encoder
    return {
        name.removesuffix(".conv")
        for name, module in codec.named_modules()
        if isinstance(module, nn.ConvTranspose1d)
    }


def _write_text_encoder(source: Source, folder: Path) -> None:
    encoder: Any = source.model.hf.text_encoder
    encoder.save_pretrained(folder, state_dict=_within(source.tensors(), "text_encoder."))
    copy_present(source.folder, folder, TOKENIZER)
