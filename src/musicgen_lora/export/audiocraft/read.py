"""Reads an audiocraft export as a MusicGen in Hugging Face's format.

An export only names its text encoder, and in Meta's own releases its codec. They are taken from a
folder of that name beside the files, as in this project's exports, or from a MusicGen with the same
parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import EncodecFeatureExtractor, MusicgenProcessor

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.export.audiocraft.files import (
    CODEC_FILE,
    LM_FILE,
    config_of,
    read_package,
    state_of,
)
from musicgen_lora.export.audiocraft.hf_config import ConfigReader, hf_codec, hf_decoder, our_facts
from musicgen_lora.export.audiocraft.names import (
    LanguageModelNames,
    codec_from_audiocraft,
    lm_from_audiocraft,
)
from musicgen_lora.export.checkpoint import copy_present, weight_files
from musicgen_lora.formats.documents import read_json
from musicgen_lora.formats.tensors import read_tensors
from musicgen_lora.model.base.facts import FIELD
from musicgen_lora.model.base.folder import TOKENIZER, WEIGHTS, base_folder
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.chroma import SETTINGS_FILE

MAX_PARTS = 512
"""Most layers or codebooks that a configuration may have."""
T5_PARTS = ("shared.", "encoder.")
ModelPart = tuple[dict[str, Any], dict[str, Tensor]]
"""Configuration and tensors of a text encoder or a codec."""


@dataclass(frozen=True)
class Import:
    """The model that an import has read.

    Args:
        config: of the whole model, in transformers.
        tensors: by transformers' names.
        words: folder of the tokenizer.
        chroma: settings of a melody model's feature extractor.
        taken: for each part that was not in the export, a sentence that says where it is from.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    words: Path
    chroma: dict[str, Any]
    taken: list[str]


def read_audiocraft(folder: Path, model_path: str | None) -> Import:
    """Reads an export.

    Args:
        folder: with audiocraft's two files.
        model_path: a MusicGen in Hugging Face's format, for what the export lacks.

    Raises:
        UserError: a file is missing, damaged, of a model that transformers doesn't support, or
            needs a `model_path`.
    """
    path = folder / LM_FILE
    package, codec_package = read_package(path), read_package(folder / CODEC_FILE)
    ask = ConfigReader(config_of(package, path), path)
    is_melody = ask.has("conditioners.self_wav")
    decoder = hf_decoder(ask, is_melody=is_melody)
    _check_conditions(ask, is_melody=is_melody)
    places = LanguageModelNames(decoder["num_hidden_layers"], decoder["num_codebooks"], is_melody)
    if max(places.n_layers, places.n_codebooks) > MAX_PARTS:
        raise UserError(f"{path}: xp.cfg: transformer_lm: {places.n_layers} layers are too many.")
    taken: list[str] = []
    words, (text_config, text) = _text_encoder(folder, ask, model_path, taken)
    codec_config, codec = _codec(folder / CODEC_FILE, codec_package, model_path, taken)
    _check_sound(ask, codec_config.get("sampling_rate"), decoder["audio_channels"])
    width, chroma = text_config.get("d_model", 0), _chroma(ask) if is_melody else {}
    try:
        tensors, trained_text = lm_from_audiocraft(
            state_of(package, path), places, width, chroma.get("num_chroma", 0)
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from error
    text |= trained_text
    tensors |= {f"text_encoder.{name}": tensor for name, tensor in text.items()}
    tensors |= {f"audio_encoder.{name}": tensor for name, tensor in codec.items()}
    config: dict[str, Any] = {
        "architectures": [f"Musicgen{'Melody' * is_melody}ForConditionalGeneration"],
        "model_type": "musicgen_melody" if is_melody else "musicgen",
        "dtype": "float32",
        "is_encoder_decoder": True,
        "text_encoder": text_config,
        "audio_encoder": codec_config,
        "decoder": decoder,
        FIELD: our_facts(ask),
    }
    if is_melody:
        window_s = ask("dataset.segment_duration", (int, float))
        n_frames = 1 + int(window_s * chroma["sampling_rate"] / chroma["hop_length"])
        config |= {"num_chroma": chroma["num_chroma"], "chroma_length": n_frames}
    return Import(config, tensors, words, chroma, taken)


def _check_conditions(ask: ConfigReader, *, is_melody: bool) -> None:
    ask.must_be("conditioners.description.model", "t5")
    if is_melody:
        ask.must_be("conditioners.self_wav.model", "chroma_stem")
        ask.must_be("fuser.prepend", ["self_wav", "description"])
        ask.must_be("fuser.cross", [])
    else:
        ask.must_be("fuser.cross", ["description"])
        ask.must_be("fuser.prepend", [])
    ask.must_be("fuser.sum", [], [])
    ask.must_be("fuser.input_interpolate", [], [])
    ask.must_be("fuser.cross_attention_pos_emb", False, False)


def _check_sound(ask: ConfigReader, rate: object, channels: int) -> None:
    """Checks that the language model was trained on what the codec makes: any other plays, but at
    another speed or as noise."""
    stated = ask("sample_rate", int, default=rate)
    if stated != rate:
        raise UserError(
            f"{ask.path}: was trained on {stated} Hz, and the codec makes {rate} Hz; they belong "
            "to different models: give the codec that it was trained with."
        )
    stated = ask("channels", int, default=channels)
    if stated != channels:
        raise UserError(
            f"{ask.path}: xp.cfg: channels = {stated}, but its codebooks are those of {channels}; "
            "interleave_stereo_codebooks.use belongs to 2 channels."
        )


def _chroma(ask: ConfigReader) -> dict[str, Any]:
    """Settings of transformers' feature extractor for a melody model."""
    name = "conditioners.self_wav.chroma_stem."
    ask.must_be(f"{name}argmax", True, False)
    exponent, n_chroma = ask(f"{name}radix2_exp", int), ask(f"{name}n_chroma", int)
    if not 4 <= exponent <= 18:
        raise UserError(f"xp.cfg: {name}radix2_exp = {exponent}: is out of range.")
    return {
        "chunk_length": ask("dataset.segment_duration", (int, float)),
        "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
        "feature_size": n_chroma,
        "hop_length": 1 << (exponent - 2),
        "n_fft": 1 << exponent,
        "num_chroma": n_chroma,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": ask(f"{name}sample_rate", int),
        # Stems of demucs: vocals and "other".
        "stem_indices": [3, 2],
    }


def _text_encoder(
    folder: Path, ask: ConfigReader, model_path: str | None, taken: list[str]
) -> tuple[Path, ModelPart]:
    """Folder of the tokenizer, and the encoder."""
    name = ask("conditioners.description.t5.name", str)
    beside = folder / Path(name).name
    if beside.is_dir():
        config = read_json(beside / "config.json")
        # A whole T5 also has a decoder, which MusicGen doesn't use.
        tensors = read_tensors(beside / WEIGHTS)
        return beside, (config, {n: t for n, t in tensors.items() if n.startswith(T5_PARTS)})
    if model_path is None:
        raise UserError(
            f"{folder}: has no text encoder, as audiocraft downloads {name}; give --model_path, a "
            "MusicGen in Hugging Face's format that has it (for Meta's, facebook/musicgen-small)."
        )
    # Loading checks the whole model.
    load_base(model_path)
    base = base_folder(model_path)
    taken.append(f"The text encoder ({name} in the export) is taken from {model_path}.")
    return base, _part_of(base, "text_encoder")


def _codec(
    path: Path, package: dict[str, Any], model_path: str | None, taken: list[str]
) -> ModelPart:
    named = package.get("pretrained")
    if named is None:
        ask = ConfigReader(config_of(package, path), path)
        config = hf_codec(ask)
        try:
            return config, codec_from_audiocraft(state_of(package, path))
        except ValueError as error:
            raise UserError(f"{path}: {error}.") from error
    if model_path is None:
        raise UserError(
            f"{path}: has no codec, only its name ({str(named)[:100]}); give --model_path, a "
            "MusicGen in Hugging Face's format that has it (for Meta's, facebook/musicgen-small)."
        )
    load_base(model_path)
    taken.append(f"The codec ({str(named)[:100]} in the export) is taken from {model_path}.")
    return _part_of(base_folder(model_path), "audio_encoder")


def _part_of(base: Path, part: str) -> ModelPart:
    """Configuration and tensors of one part of a checked base."""
    config = read_json(base / "config.json")[part]
    found = {
        name.removeprefix(f"{part}."): tensor
        for file in weight_files(base)
        for name, tensor in read_tensors(base / file).items()
        if name.startswith(f"{part}.")
    }
    return config, found


def write_checkpoint(read: Import, folder: Path) -> None:
    """Writes a MusicGen in Hugging Face's format, and loads it as a check.

    Args:
        folder: exists and is empty.

    Raises:
        UserError: the model doesn't load.
    """
    atomic.write_json(folder / "config.json", read.config)
    own = {name: tensor.contiguous() for name, tensor in read.tensors.items()}
    save_file(own, folder / WEIGHTS, metadata={"format": "pt"})
    copy_present(read.words, folder, TOKENIZER)
    atomic.write_json(folder / "generation_config.json", _generation(read.config))
    if read.chroma:
        atomic.write_json(folder / SETTINGS_FILE, read.chroma)
    try:
        load_base(folder)
        tokenizer = load_tokenizer(folder)
    except UserError as error:
        said = str(error).replace(str(folder), "the imported model")
        raise UserError(f"The export doesn't make a model that loads: {said}") from error
    if not read.chroma:
        codec, decoder = read.config["audio_encoder"], read.config["decoder"]
        hears = EncodecFeatureExtractor(
            sampling_rate=codec["sampling_rate"], feature_size=decoder["audio_channels"]
        )
        MusicgenProcessor(hears, tokenizer).save_pretrained(str(folder))


def _generation(config: dict[str, Any]) -> dict[str, Any]:
    """The generation config that Meta's releases have."""
    special = config["decoder"]["vocab_size"]
    return {
        **dict.fromkeys(("bos_token_id", "decoder_start_token_id", "pad_token_id"), special),
        "do_sample": True,
        "guidance_scale": 3.0,
        "max_length": 1500,
    }
