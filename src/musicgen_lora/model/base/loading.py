"""Loads a MusicGen in Hugging Face's format, its tokenizer and its processor.

Any hub id or folder that `MusicgenForConditionalGeneration.from_pretrained` or
`MusicgenMelodyForConditionalGeneration.from_pretrained` reads will do, mono or stereo. The two have
the same parts and are typed as the first throughout; `melody.is_melody` tells them apart. Weights
are read only from safetensors; no code from a repository is run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    MusicgenForConditionalGeneration,
    MusicgenMelodyForConditionalGeneration,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.initialization import no_init_weights

from musicgen_lora.errors import UserError, first_line
from musicgen_lora.model import melody
from musicgen_lora.model.base.facts import read_base_facts
from musicgen_lora.model.base.folder import (
    base_folder,
    check_shapes,
    check_tokenizer_files,
    read_base_config,
    read_base_shapes,
)
from musicgen_lora.runtime.quiet import quiet_libraries

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
"""What transformers raises for a damaged folder."""
ATTENTION = {"": "sdpa", "decoder": "sdpa", "text_encoder": "sdpa", "audio_encoder": "eager"}
"""Set explicitly, because a config may name an untrusted kernel, which would be fetched and run."""
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
"""One of them holds the vocabulary. Without either, transformers makes a T5 tokenizer that knows no
words, to which all captions are the same."""
MODEL_CLASSES = {
    "musicgen": MusicgenForConditionalGeneration,
    melody.MODEL_TYPE: MusicgenMelodyForConditionalGeneration,
}


def load_base(model_path: str | Path) -> MusicgenForConditionalGeneration:
    """Loads a base model in float32 on the CPU, in eval mode, every weight frozen.

    Args:
        model_path: a folder, a hub id such as `facebook/musicgen-small`, or `tiny-beats`.

    Raises:
        UserError: no such folder or id, not a MusicGen, its weights are not safetensors, or the
            facts in its config are unusable.
    """
    folder = base_folder(str(model_path))
    content = read_base_config(folder, tuple(MODEL_CLASSES))
    shapes = read_base_shapes(folder)
    check_tokenizer_files(folder)
    try:
        model, missing = read_model(folder, content, shapes)
    except UNLOADABLE as error:
        raise UserError(
            f"{model_path}: cannot be loaded as a MusicGen: {first_line(error)[:300]}"
        ) from error
    _check_is_whole(str(model_path), model, missing)
    config: Any = model.config
    read_base_facts(config, str(model_path))
    decoder = config.decoder
    # transformers 5 leaves this unset in its default decoder config, and generate() and forward()
    # then fail.
    if getattr(decoder, "decoder_start_token_id", None) is None:
        decoder.decoder_start_token_id = decoder.vocab_size
    model.requires_grad_(False)
    return model.eval()


def described_shapes(model_class: Any, config: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights of the model that a config describes; nothing is allocated."""
    with torch.device("meta"), no_init_weights():
        skeleton = model_class(config)
    return {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}


@quiet_libraries()
def read_model(
    folder: Path, content: dict[str, Any], shapes: dict[str, tuple[int, ...]]
) -> tuple[MusicgenForConditionalGeneration, Collection[str]]:
    """Makes the model that a config describes, and reads its weights once their shapes fit.

    Args:
        shapes: of the weights in its files.

    Returns:
        The model, and the names of the weights that are in no file.
    """
    model_class: Any = MODEL_CLASSES[content["model_type"]]
    config = model_class.config_class.from_dict(content)
    config._attn_implementation = ATTENTION
    check_shapes(folder, described_shapes(model_class, config), shapes)
    model, loaded = model_class.from_pretrained(
        folder,
        config=config,
        attn_implementation=ATTENTION,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    return model, loaded["missing_keys"]


def load_tokenizer(model_path: str | Path) -> PreTrainedTokenizerBase:
    """Loads a base model's text tokenizer, and tries it on a few words."""
    tokenizer = _loaded(AutoTokenizer, model_path, "tokenizer")
    with _told_in_one_line(model_path, "tokenizer"):
        # Called as for real texts, since some faults in its files show only then.
        words = tokenizer(["808", "beat, 鼓"], padding=True, truncation=True, max_length=8)
        if not all(map(any, words["attention_mask"])):
            raise ValueError("it gives no token for a word")
    return tokenizer


def load_processor(model_path: str | Path) -> ProcessorMixin:
    """Loads the processor (tokenizer and feature extractor) of a base that isn't a melody model."""
    return _loaded(AutoProcessor, model_path, "processor")


def _loaded(kind: Any, model_path: str | Path, what: str) -> Any:
    folder = base_folder(str(model_path))
    check_tokenizer_files(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(
            f"{model_path}: no usable {what}: it has neither {' nor '.join(TOKENIZER_FILES)}; "
            "copy the model's tokenizer files too."
        )
    with _told_in_one_line(model_path, what):
        return kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


@contextlib.contextmanager
def _told_in_one_line(model_path: str | Path, what: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # The Rust code of tokenizers raises plain Exceptions for files that it refuses, and
        # PanicException, which isn't an Exception, for those that it did not expect.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{model_path}: no usable {what}: {first_line(error)[:300]}") from error


def _check_is_whole(
    name: str, model: MusicgenForConditionalGeneration, missing: Collection[str]
) -> None:
    """Raises a UserError if weights are missing, which transformers would initialise at random, or
    not finite. Sinusoidal positions may be missing: they are computed."""
    trained = {key for key, _ in model.named_parameters() if "embed_positions" not in key}
    lost = sorted(trained.intersection(missing))
    if lost:
        raise UserError(
            f"{name}: {len(lost)} of its weights {'is' if len(lost) == 1 else 'are'} missing, "
            f"such as {lost[0]}; copy it again."
        )
    broken = [key for key, weight in model.state_dict().items() if not weight.sum().isfinite()]
    if broken:
        raise UserError(f"{name}: {broken[0]} has values that are not finite; copy it again.")
