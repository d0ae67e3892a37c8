"""Checks of a base model's folder before anything in it is loaded.

A folder is untrusted. transformers reads whatever files its index names, even pickles, loads code
that its config names, and allocates what its config asks for; so config, index, names and the
shapes in the weights' headers are checked first, and the model is loaded from the checked config.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import AN_OBJECT, LARGE, read_json
from musicgen_lora.formats.kinds import (
    check_kind,
    fields,
    integer,
    many,
    named,
    one_of,
    or_null,
    real,
    shortened,
)
from musicgen_lora.formats.tensors import Shapes, read_shapes
from musicgen_lora.given import local_model
from musicgen_lora.model.base.bounds import (
    CHANNELS,
    CODES,
    KERNEL,
    LAYERS,
    NAME,
    PITCH_CLASSES,
    SAMPLE_RATE,
    WIDTH,
    WORDS,
)
from musicgen_lora.model.base.hub import conversion, hub_folder

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIGS = ("generation_config.json", "preprocessor_config.json", "processor_config.json")
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    "spiece.model",
)
"""All that transformers reads of a MusicGen besides config.json and the weights."""
DOORS = {
    "auto_map",
    "quantization_config",
    "transformers_weights",
    "fusion_config",
    "per_layer_config",
    "distributed_config",
}
"""Fields of a config that make transformers load code, other files or other layers."""
OURS = {"attn_implementation", "experts_implementation", "dtype", "torch_dtype", "name_or_path"}
"""Fields that a folder may not set, with or without an underscore in front."""
MAX_SETTING = 10_000_000
MAX_QUANTIZERS = 64
MAX_EXTRA = 1 << 20
"""Most weights that may be missing from a model's files because they are computed, such as
sinusoidal positions."""

_CHROMA = {"num_chroma": PITCH_CLASSES, "chroma_length": integer(1, 100_000)}
_TEXT_ENCODER = fields(
    {"model_type": one_of("t5")},
    {
        "num_layers": LAYERS,
        "num_decoder_layers": or_null(LAYERS),
        **dict.fromkeys(("d_model", "d_kv", "d_ff", "num_heads"), WIDTH),
        "vocab_size": WORDS,
        "relative_attention_num_buckets": WIDTH,
        "relative_attention_max_distance": WORDS,
    },
)
_CODEC = fields(
    {"model_type": one_of("encodec")},
    {
        "sampling_rate": SAMPLE_RATE,
        "audio_channels": CHANNELS,
        **dict.fromkeys(("hidden_size", "num_filters"), WIDTH),
        "num_residual_layers": integer(1, 16),
        "num_lstm_layers": integer(0, 16),
        "upsampling_ratios": many(KERNEL, 1, 12),
        "target_bandwidths": many(real(0.001, 1000.0), 1, 16),
        **dict.fromkeys(("kernel_size", "last_kernel_size", "residual_kernel_size"), KERNEL),
        "dilation_growth_rate": integer(1, 16),
        "compress": integer(1, 64),
        "codebook_size": CODES,
        "codebook_dim": or_null(WIDTH),
    },
)
_DECODER = fields(
    optional={
        "num_hidden_layers": LAYERS,
        **dict.fromkeys(("hidden_size", "ffn_dim"), WIDTH),
        "num_attention_heads": integer(1, 1024),
        "vocab_size": CODES,
        "num_codebooks": integer(1, MAX_QUANTIZERS),
        "audio_channels": CHANNELS,
        "max_position_embeddings": WORDS,
        **_CHROMA,
    }
)
_BASE = fields(
    {"text_encoder": _TEXT_ENCODER, "audio_encoder": _CODEC, "decoder": _DECODER}, _CHROMA
)
_INDEX = fields({"metadata": AN_OBJECT, "weight_map": named(NAME)})


@lru_cache
def base_folder(model_path: str) -> Path:
    """Finds the folder that a model path names; a hub id is downloaded.

    Raises:
        UserError: there is none, or something in it that would be read is not a regular file.
    """
    folder = local_model(model_path) or hub_folder(model_path)
    for path in folder.iterdir():
        if path.suffix in (".json", ".safetensors", ".model") and not path.is_file():
            raise UserError(f"{path}: is not a regular file.")
    return folder


def read_base_config(folder: Path, model_types: tuple[str, ...]) -> dict[str, Any]:
    """Reads the config of a MusicGen and checks that its values are within bounds.

    Raises:
        UserError: missing, not JSON, of another kind of model, or with a value out of bounds.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: has no config.json, so it is not a MusicGen's folder.")
    config = read_json(path)
    model_type = config.get("model_type")
    if model_type not in model_types:
        raise UserError(
            f"{folder}: its model_type is {shortened(model_type)}, not "
            f"{' or '.join(map(repr, model_types))}."
        )
    check_bounds(config, path)
    check_kind(config, _BASE, path)
    _check_codec(config["audio_encoder"], config["decoder"], path)
    return without_ours(config)


def check_bounds(config: dict[str, Any], path: Path) -> None:
    """Raises a UserError if a config would load code or other files, or has a value that is far too
    large."""
    for name, part in _settings(config):
        if name.rsplit(".", 1)[-1] in DOORS and part:
            raise UserError(f"{path}: {name} is not supported; save the model without it.")
        if isinstance(part, (int, float)) and abs(part) > MAX_SETTING:
            raise UserError(f"{path}: {name} = {part}: is out of bounds.")
        if isinstance(part, (str, list)) and len(part) > 10_000:
            raise UserError(f"{path}: {name}: is too long.")


def without_ours(value: Any) -> Any:
    """A config, or a part of it, without the fields that a folder may not set."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key.strip("_") not in OURS}
        return {key: without_ours(part) for key, part in kept.items()}
    return value


def _settings(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, part in items:
        inner = f"{name}.{key}".lstrip(".")
        yield inner, part
        yield from _settings(part, inner)


def _check_codec(codec: dict[str, Any], decoder: dict[str, Any], path: Path) -> None:
    """Raises a UserError if a codec's numbers, with EnCodec's defaults, make no codec that speaks
    what the decoder predicts."""
    rate, ratios = codec.get("sampling_rate", 24_000), codec.get("upsampling_ratios", [8, 5, 4, 2])
    kbits = codec.get("target_bandwidths", [24.0])[-1]
    hop, n_bits = math.prod(ratios), math.ceil(math.log2(codec.get("codebook_size", 1024)))
    n_quantizers = int(1000 * kbits // (math.ceil(rate / hop) * n_bits))
    if hop > rate or not 1 <= n_quantizers <= MAX_QUANTIZERS:
        raise UserError(
            f"{path}: audio_encoder: {rate} Hz, {hop} samples per frame and {kbits} kbit/s don't "
            f"make a codec of 1 to {MAX_QUANTIZERS} codebooks."
        )
    channels, n_entries = decoder.get("audio_channels", 1), codec.get("codebook_size", 1024)
    n_wanted, wanted = decoder.get("num_codebooks", 4) // channels, decoder.get("vocab_size", 2048)
    if n_quantizers < n_wanted or n_entries != wanted:
        raise UserError(
            f"{path}: the codec has {n_quantizers} codebooks of {n_entries} entries, and the "
            f"decoder predicts {n_wanted} of {wanted}; they belong to different models."
        )
    n_filters = codec.get("num_filters", 32)
    if n_filters << len(ratios) > 1 << 16:
        raise UserError(f"{path}: audio_encoder.num_filters = {n_filters}: is too large.")


def read_base_shapes(folder: Path) -> Shapes:
    """Reads the names and shapes of a model's weights from the headers of its files.

    Raises:
        UserError: no safetensors file, a damaged one, or an index that names anything but
            safetensors files in the folder.
    """
    if (folder / WEIGHTS).is_file():
        return read_shapes(folder / WEIGHTS)
    index = folder / INDEX
    if not index.is_file():
        lacking = ".safetensors file"
        if any(folder.glob("*.safetensors")):
            lacking = f"{WEIGHTS} and no {INDEX}"
        raise UserError(
            f"{folder}: has no {lacking}; pickled weights (.bin, .pt) are not read. If you trust "
            "the model, convert it once and use the folder that this makes: "
            f"{conversion(str(folder))}"
        )
    content = read_json(index, _INDEX, max_bytes=LARGE)
    shapes: Shapes = {}
    for name in sorted(set(content["weight_map"].values())):
        if not re.fullmatch(r"[\w][\w.-]*\.safetensors", name):
            raise UserError(
                f"{index}: names {name[:200]!r}; weights are read only from .safetensors files in "
                "the folder."
            )
        if not (folder / name).is_file():
            raise UserError(f"{index}: {name} is not in the folder; copy the whole model.")
        shapes |= read_shapes(folder / name)
    if not shapes:
        raise UserError(f"{index}: lists no weights; save the model again.")
    return shapes


def check_shapes(folder: Path, expected: Shapes, found: Shapes) -> None:
    """Raises a UserError if the files don't hold a model of shapes `expected`, before any memory is
    allocated for it."""
    for name, shape in expected.items():
        if name in found and found[name] != shape:
            raise UserError(
                f"{folder}: config.json and weights don't belong together: {name} is "
                f"{_times(shape)} in the former and {_times(found[name])} in the latter."
            )
    wanted, held = (sum(map(math.prod, shapes.values())) for shapes in (expected, found))
    if wanted > 2 * held + MAX_EXTRA:
        raise UserError(
            f"{folder}: config.json describes a model of {wanted:,} weights, but its files hold "
            f"{held:,}; copy the whole model."
        )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def check_tokenizer_files(folder: Path) -> None:
    """Raises a UserError if a file of a tokenizer or processor is not JSON of bounded size, or has
    a regular expression that may take for ever on a long caption."""
    for name in (*TOKENIZER, *CONFIGS):
        path = folder / name
        if not path.is_file() or path.suffix != ".json":
            continue
        for where, part in _settings(read_json(path, max_bytes=LARGE)):
            if where.endswith("Regex") and not _is_quick(str(part)):
                raise UserError(f"{path}: {where} = {shortened(part)}: is too complex to run.")


def _is_quick(expression: str) -> bool:
    """Whether an expression has at most one repetition in each alternative, and none of a group: a
    backtracking engine then takes at most quadratic time in the text's length."""
    plain = re.sub(r"\\.|\[[^\]]*\]", "x", expression)
    return not re.search(r"\)[*+{?]", plain) and all(
        len(re.findall(r"[*+{]", part)) <= 1 for part in plain.split("|")
    )
