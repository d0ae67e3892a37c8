"""A MusicGen in Hugging Face's format: loading it, its shapes, and its forward pass from codes.

Any hub id or folder that `MusicgenForConditionalGeneration.from_pretrained` or
`MusicgenMelodyForConditionalGeneration.from_pretrained` reads will do, mono or stereo. The two have
the same parts and are typed as the first throughout; `melody.is_melody` tells them apart. Weights
are read from safetensors alone; no code of a repository is run.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    MusicgenForConditionalGeneration,
    MusicgenMelodyForConditionalGeneration,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.initialization import no_init_weights

from musicgen_lora.errors import UserError
from musicgen_lora.model import melody
from musicgen_lora.model.base_facts import read_base_facts
from musicgen_lora.model.base_folder import (
    base_folder,
    check_shapes,
    check_tokenizer_files,
    read_base_config,
    read_base_shapes,
)
from musicgen_lora.model.delays import codebook_delays, delay_codes

UNLOADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
)
"""What transformers raises at a damaged folder."""
ATTENTION = {"": "sdpa", "decoder": "sdpa", "text_encoder": "sdpa", "audio_encoder": "eager"}
"""Given explicitly: a config may name a kernel of a stranger's, which would be fetched and run."""
MODEL_CLASSES = {
    "musicgen": MusicgenForConditionalGeneration,
    melody.MODEL_TYPE: MusicgenMelodyForConditionalGeneration,
}


@dataclass(frozen=True)
class Shape:
    """The numbers of a MusicGen that the data path needs.

    Args:
        n_codebooks: K; 8 for the stereo models.
        n_channels: of the audio, 1 or 2.
        delays: K delays in steps.
        special: the token of start and padding, also the number of codes a codebook has (V).
        sample_rate: of the codec in Hz.
        frame_rate: codec frames a second.
    """

    n_codebooks: int
    n_channels: int
    delays: list[int]
    special: int
    sample_rate: int
    frame_rate: float


def model_shape(model: MusicgenForConditionalGeneration) -> Shape:
    """Reads a model's `Shape` off its configuration."""
    # transformers types its sub-configurations as optional dictionaries; they are objects.
    config: Any = model.config
    decoder, codec = config.decoder, config.audio_encoder
    n_channels = getattr(decoder, "audio_channels", 1)
    return Shape(
        n_codebooks=decoder.num_codebooks,
        n_channels=n_channels,
        delays=codebook_delays(decoder.num_codebooks, n_channels),
        special=decoder.vocab_size,
        sample_rate=codec.sampling_rate,
        frame_rate=codec.sampling_rate / codec.hop_length,
    )


def load_base(model_path: str | Path) -> MusicgenForConditionalGeneration:
    """Loads a base model in float32 on the CPU, in eval mode, every weight frozen.

    Args:
        model_path: a folder, a hub id such as `facebook/musicgen-small`, or `tiny-beats`.

    Raises:
        UserError: no such folder or id, not a MusicGen, its weights are not safetensors, or the
            facts in its config are not usable.
    """
    folder = base_folder(str(model_path))
    content = read_base_config(folder, tuple(MODEL_CLASSES))
    shapes = read_base_shapes(folder)
    check_tokenizer_files(folder)
    model_class: Any = MODEL_CLASSES[content["model_type"]]
    try:
        config = model_class.config_class.from_dict(content)
        config._attn_implementation = ATTENTION
        with torch.device("meta"), no_init_weights():
            skeleton = model_class(config)
        expected = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
        check_shapes(folder, expected, shapes)
        found: Any = model_class.from_pretrained(
            folder,
            config=config,
            attn_implementation=ATTENTION,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except UNLOADABLE as error:
        raise UserError(
            f"{model_path}: cannot be loaded as a MusicGen: {_first_line(error)}"
        ) from error
    model, loaded = found
    _check_is_whole(str(model_path), model, loaded["missing_keys"])
    config = model.config
    read_base_facts(config, str(model_path))
    decoder = config.decoder
    # transformers 5 leaves this unset in its default decoder config; generate() and forward()
    # then fail on it.
    if getattr(decoder, "decoder_start_token_id", None) is None:
        decoder.decoder_start_token_id = decoder.vocab_size
    model.requires_grad_(False)
    return model.eval()


def load_tokenizer(model_path: str | Path) -> PreTrainedTokenizerBase:
    """The text tokenizer that belongs to a base model."""
    tokenizer = _loaded(AutoTokenizer, model_path, "tokenizer")
    with _told_in_one_line(model_path, "tokenizer"):
        # As texts are read: some faults of its files show only then.
        words = tokenizer(["808", "beat, 鼓"], padding=True, truncation=True, max_length=8)
        if not all(map(any, words["attention_mask"])):
            raise ValueError("it makes no token of a word")
    return tokenizer


def load_processor(model_path: str | Path) -> ProcessorMixin:
    """The processor (tokenizer and feature extractor) that belongs to a base model without
    melody."""
    return _loaded(AutoProcessor, model_path, "processor")


def _loaded(kind: Any, model_path: str | Path, what: str) -> Any:
    folder = base_folder(str(model_path))
    check_tokenizer_files(folder)
    with _told_in_one_line(model_path, what):
        return kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


@contextlib.contextmanager
def _told_in_one_line(model_path: str | Path, what: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # The tokenizers' Rust raises plain exceptions at files that it doesn't take, and what is
        # none at those that it did not expect.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{model_path}: no usable {what}: {_first_line(error)}") from error


def _check_is_whole(
    name: str, model: MusicgenForConditionalGeneration, missing: Collection[str]
) -> None:
    """transformers draws missing weights at random. Sinusoidal positions may be missing: they are
    computed."""
    trained = {key for key, _ in model.named_parameters() if "embed_positions" not in key}
    lost = sorted(trained.intersection(missing))
    if lost:
        raise UserError(f"{name}: {len(lost)} of its weights are missing, {lost[0]} for one.")
    broken = [key for key, weight in model.state_dict().items() if not weight.sum().isfinite()]
    if broken:
        raise UserError(f"{name}: {broken[0]} has values that are not finite; copy it again.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def fingerprint(module: nn.Module, facts: Sequence[object] = ()) -> str:
    """Identity of a module's weights: hex digest over names, shapes and up to 4,096 evenly
    spaced values of each tensor, so that a model of gigabytes is told apart in a second.

    Adapter weights (PEFT's `lora_` tensors) are left out and wrappers' names folded, so that a
    base has the same fingerprint with and without an adapter on it.
    """
    digest = hashlib.sha256(repr(list(facts)).encode())
    tensors = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in module.state_dict().items()
        if "lora_" not in name
    }
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().reshape(-1)
        stride = max(1, flat.numel() // 4096)
        sample = flat[::stride].to(device="cpu", dtype=torch.float32)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def base_fingerprint(model: MusicgenForConditionalGeneration) -> str:
    """Identity of the language model that an adapter belongs to."""
    return fingerprint(model.decoder)


def decoder_states(
    model: MusicgenForConditionalGeneration,
    codes: torch.Tensor,
    text_states: torch.Tensor,
    text_mask: torch.Tensor,
    melodies: torch.Tensor | None = None,
) -> torch.Tensor:
    """Teacher-forced forward pass.

    Args:
        model: with or without an adapter injected.
        codes: `[B, K, T]`, undelayed.
        text_states: `[B, L, D_text]` of the text encoder; zero rows for the null condition.
        text_mask: `[B, L]`, 1 for a real token.
        melodies: `[B, M]` pitch classes, for a melody model; None is the null condition.

    Returns:
        `[B, T, D]`: step s speaks of frame s - delay of each codebook.
    """
    shape = model_shape(model)
    delayed = delay_codes(codes, shape.delays, shape.special)
    memory = project_text(model, text_states, text_mask)
    if melody.is_melody(model):
        return melody.melody_decoder_states(model, delayed, memory, text_mask, melodies)
    output = model.decoder.model(
        input_ids=delayed.reshape(-1, delayed.shape[-1]),
        encoder_hidden_states=memory,
        encoder_attention_mask=text_mask,
        use_cache=False,
    )
    return output.last_hidden_state


def project_text(
    model: MusicgenForConditionalGeneration, text_states: torch.Tensor, text_mask: torch.Tensor
) -> torch.Tensor:
    """Text states as the decoder attends to them, `[B, L, D]`: projected, and zero where the
    mask is (the bias of the projection would otherwise leak into the null condition)."""
    states = text_states.to(model.decoder.dtype)
    if hasattr(model, "enc_to_dec_proj"):
        states = model.enc_to_dec_proj(states)
    return states * text_mask[..., None].to(states.dtype)


def frame_logits(
    model: MusicgenForConditionalGeneration,
    codes: torch.Tensor,
    text_states: torch.Tensor,
    text_mask: torch.Tensor,
    melodies: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits `[B, K, T, V]` in float32, aligned with `codes`; the last `delay` frames of each
    codebook, which the model never predicts, are NaN."""
    shape = model_shape(model)
    hidden = decoder_states(model, codes, text_states, text_mask, melodies)
    n_frames = codes.shape[-1]
    logits = torch.full((*codes.shape, shape.special), torch.nan, device=codes.device)
    for codebook, (head, delay) in enumerate(
        zip(model.decoder.lm_heads, shape.delays, strict=True)
    ):
        logits[:, codebook, : n_frames - delay] = head(hidden[:, delay:]).float()
    return logits
