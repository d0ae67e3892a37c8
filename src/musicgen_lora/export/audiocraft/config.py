"""audiocraft's configurations of a language model and its codec, and transformers' of the same.

audiocraft takes a field that is missing for something else, often in silence (8 heads, ReLU, not
causal, reflecting padding), so every field that decides anything is written, and asked for on the
way back.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from musicgen_lora.errors import UserError
from musicgen_lora.export.audiocraft.names import Places
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.model.base.facts import FIELD, RANGES

TEXT_ENCODERS = {512: "t5-small", 768: "t5-base", 1024: "t5-large"}
"""Names that audiocraft knows, by the width that it takes each to have."""
DEFAULT_TEXT_ENCODER = "t5-base"
MIN_WINDOW_S = 18.5
"""audiocraft goes on every 18 s past its window, which has to be longer."""
WINDOW_S = 30.0
MISSING: Any = object()


def places_of(config: Any) -> Places:
    """Of a model's configuration in transformers."""
    decoder = config.decoder
    return Places(
        n_layers=decoder.num_hidden_layers,
        n_codebooks=decoder.num_codebooks,
        is_melody=config.model_type == "musicgen_melody",
    )


def text_encoder_name(config: Any) -> str:
    """What audiocraft calls a text encoder of this width."""
    return TEXT_ENCODERS.get(config.text_encoder.d_model, DEFAULT_TEXT_ENCODER)


def _check_decoder(decoder: Any) -> None:
    """Raises a ValueError where audiocraft has no such decoder."""
    if decoder.scale_embedding or decoder.activation_function not in ("gelu", "relu"):
        raise ValueError(
            f"audiocraft scales no embeddings and has gelu and relu (scale_embedding = "
            f"{decoder.scale_embedding}, activation_function = {decoder.activation_function})"
        )
    if decoder.pad_token_id != decoder.vocab_size:
        raise ValueError(
            f"pad_token_id = {decoder.pad_token_id}: audiocraft's special token is "
            f"{decoder.vocab_size}"
        )


def _transformer_config(decoder: Any, *, has_cross_attention: bool) -> dict[str, Any]:
    """What audiocraft's `transformer_lm` is made with; all but the sizes is every MusicGen's."""
    return {
        "dim": decoder.hidden_size,
        "num_heads": decoder.num_attention_heads,
        "num_layers": decoder.num_hidden_layers,
        "hidden_scale": _whole(decoder.ffn_dim / decoder.hidden_size),
        "n_q": decoder.num_codebooks,
        "card": decoder.vocab_size,
        "dropout": 0.0,
        "emb_lr": None,
        "activation": decoder.activation_function,
        "norm_first": True,
        "bias_ff": False,
        "bias_attn": False,
        "bias_proj": False,
        "past_context": None,
        "causal": True,
        "custom": False,
        "memory_efficient": True,
        "attention_as_float32": False,
        "layer_scale": None,
        "positional_embedding": "sin",
        "xpos": False,
        "checkpointing": "none",
        "norm": "layer_norm",
        "cross_attention": has_cross_attention,
        "qk_layer_norm": False,
        "qk_layer_norm_cross": False,
    }


def lm_config(config: Any, window_s: float, facts: dict[str, float], tune: dict[str, Any]) -> Any:
    """audiocraft's configuration of a language model.

    Args:
        config: transformers', of the whole model.
        window_s: that it was trained on.
        facts: ours, which audiocraft passes over.
        tune: settings of a melody model's feature extractor; empty for others.

    Raises:
        ValueError: audiocraft has no such model.
    """
    decoder, codec = config.decoder, config.audio_encoder
    _check_decoder(decoder)
    channels = getattr(decoder, "audio_channels", 1)
    delays = [k // channels for k in range(decoder.num_codebooks)]
    conditioners: dict[str, Any] = {
        "description": {
            "model": "t5",
            "t5": {
                "name": text_encoder_name(config),
                "finetune": False,
                "word_dropout": 0.0,
                "normalize_text": False,
            },
        }
    }
    fuser: dict[str, Any] = {"sum": [], "prepend": [], "cross": ["description"]}
    window_s = max(window_s, MIN_WINDOW_S)
    if config.model_type == "musicgen_melody":
        conditioners = {"self_wav": _tune_config(config, tune)} | conditioners
        fuser |= {"prepend": ["self_wav", "description"], "cross": []}
        window_s = _tune_window_s(config, tune)
    return {
        "solver": "musicgen",
        "sample_rate": codec.sampling_rate,
        "channels": channels,
        "compression_model_n_q": decoder.num_codebooks // channels,
        "lm_model": "transformer_lm",
        "transformer_lm": _transformer_config(
            decoder, has_cross_attention=config.model_type != "musicgen_melody"
        ),
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {"delays": delays, "flatten_first": 0, "empty_initial": 0},
        },
        "classifier_free_guidance": {"training_dropout": 0.0, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            **fuser,
            "input_interpolate": [],
        },
        "conditioners": conditioners,
        "interleave_stereo_codebooks": {"use": channels == 2, "per_timestep": False},
        "dataset": {"segment_duration": window_s},
        FIELD: facts,
    }


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _tune_config(config: Any, tune: dict[str, Any]) -> dict[str, Any]:
    exponent = int(tune["n_fft"]).bit_length() - 1
    if tune["n_fft"] != 1 << exponent or tune["hop_length"] != tune["n_fft"] // 4:
        raise ValueError(
            f"audiocraft hears tunes in spectra of a power of two, a quarter apart (n_fft = "
            f"{tune['n_fft']}, hop_length = {tune['hop_length']})"
        )
    return {
        "model": "chroma_stem",
        "chroma_stem": {
            "sample_rate": tune["sampling_rate"],
            "n_chroma": config.num_chroma,
            "radix2_exp": exponent,
            "argmax": True,
            "match_len_on_eval": True,
        },
    }


def _tune_window_s(config: Any, tune: dict[str, Any]) -> float:
    """The window whose tune has as many frames as the model reads."""
    hop_s = tune["hop_length"] / tune["sampling_rate"]
    if 1 + int(WINDOW_S / hop_s) == config.chroma_length:
        return WINDOW_S
    window_s = round((config.chroma_length - 0.5) * hop_s, 3)
    if window_s <= MIN_WINDOW_S:
        raise ValueError(
            f"chroma_length = {config.chroma_length}: audiocraft reads tunes of more than "
            f"{MIN_WINDOW_S:g} s, {1 + int(MIN_WINDOW_S / hop_s)} frames"
        )
    return window_s


def codec_config(config: Any) -> Any:
    """audiocraft's configuration of a codec.

    Args:
        config: transformers' `EncodecConfig`.

    Raises:
        ValueError: audiocraft has no such codec.
    """
    if config.norm_type != "weight_norm":
        raise ValueError(f"norm_type = {config.norm_type}: only weight_norm is written")
    if config.codebook_dim != config.hidden_size:
        raise ValueError(
            f"codebook_dim = {config.codebook_dim}: audiocraft's codebooks are as wide as the "
            f"codec, {config.hidden_size}"
        )
    return {
        "sample_rate": config.sampling_rate,
        "channels": config.audio_channels,
        "compression_model": "encodec",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": config.sampling_rate,
            "channels": config.audio_channels,
            "causal": config.use_causal_conv,
            "renormalize": config.normalize,
        },
        "seanet": {
            "dimension": config.hidden_size,
            "channels": config.audio_channels,
            "causal": config.use_causal_conv,
            "n_filters": config.num_filters,
            "n_residual_layers": config.num_residual_layers,
            "ratios": list(config.upsampling_ratios),
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": "weight_norm",
            "norm_params": {},
            "kernel_size": config.kernel_size,
            "residual_kernel_size": config.residual_kernel_size,
            "last_kernel_size": config.last_kernel_size,
            "dilation_base": config.dilation_growth_rate,
            "pad_mode": config.pad_mode,
            "true_skip": not config.use_conv_shortcut,
            "compress": config.compress,
            "lstm": config.num_lstm_layers,
            "disable_norm_outer_blocks": 0,
            "encoder": {},
            "decoder": {
                "trim_right_ratio": config.trim_right_ratio,
                "final_activation": None,
                "final_activation_params": None,
            },
        },
        "rvq": {"n_q": config.num_quantizers, "bins": config.codebook_size, "q_dropout": False},
    }


class Asked:
    """A configuration of audiocraft's, asked for one field after another.

    Args:
        config: what the file holds.
        path: of the file, for messages.
    """

    def __init__(self, config: dict[str, Any], path: Path) -> None:
        self._config, self._path = config, path

    def __call__(self, name: str, kind: Any, default: Any = MISSING) -> Any:
        """The value of a field.

        Args:
            name: with dots.
            kind: a type, or some, that it has to be of.
            default: where it is missing: audiocraft's own.

        Raises:
            UserError: missing, or of another kind.
        """
        value = self._at(name)
        if isinstance(value, str) and (link := re.fullmatch(r"\$\{([\w.]+)\}", value)):
            value = self._at(link[1])
        if value is MISSING:
            value = default
        is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not is_kind:
            said = "is missing" if value is MISSING else f"= {shortened(value)}: is not usable"
            raise UserError(f"{self._path}: xp.cfg: {name} {said}.")
        return value

    def must_be(self, name: str, wanted: Any, default: Any = MISSING) -> None:
        """Raises a UserError where a field is not as in every MusicGen of transformers."""
        value = self._at(name)
        value = default if value is MISSING else value
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            said = "is missing" if value is MISSING else f"= {shortened(value)}"
            raise UserError(
                f"{self._path}: xp.cfg: {name} {said}: a MusicGen in Hugging Face's format has "
                f"{wanted!r}."
            )

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return self._at(name) is not MISSING

    def _at(self, name: str) -> Any:
        value: Any = self._config
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                return MISSING
            value = value[part]
        return value


NUMBER = (int, float)


def hf_decoder(ask: Asked, *, is_melody: bool) -> dict[str, Any]:
    """The decoder's configuration in transformers."""
    ask.must_be("lm_model", "transformer_lm")
    for name, wanted, default in (
        ("norm_first", True, False),
        ("bias_ff", False, True),
        ("bias_attn", False, True),
        ("bias_proj", False, True),
        ("causal", True, False),
        ("layer_scale", None, None),
        ("positional_embedding", "sin", "sin"),
        ("xpos", False, False),
        ("qk_layer_norm", False, False),
        ("norm", "layer_norm", "layer_norm"),
    ):
        ask.must_be(f"transformer_lm.{name}", wanted, default)
    ask.must_be("codebooks_pattern.modeling", "delay")
    n_codebooks = ask("transformer_lm.n_q", int)
    is_stereo = ask("interleave_stereo_codebooks.use", bool, default=False)
    if is_stereo:
        ask.must_be("interleave_stereo_codebooks.per_timestep", False, False)
    channels = 2 if is_stereo else 1
    ask.must_be(
        "codebooks_pattern.delay.delays",
        [k // channels for k in range(n_codebooks)],
        default=list(range(n_codebooks)),
    )
    width, special = ask("transformer_lm.dim", int), ask("transformer_lm.card", int)
    return {
        "model_type": "musicgen_melody_decoder" if is_melody else "musicgen_decoder",
        "vocab_size": special,
        "hidden_size": width,
        "ffn_dim": int(ask("transformer_lm.hidden_scale", NUMBER, default=4) * width),
        "num_hidden_layers": ask("transformer_lm.num_layers", int, default=8),
        "num_attention_heads": ask("transformer_lm.num_heads", int, default=8),
        "activation_function": ask("transformer_lm.activation", str, default="relu"),
        "num_codebooks": n_codebooks,
        "audio_channels": channels,
        "scale_embedding": False,
        "tie_word_embeddings": False,
        "dropout": 0.0,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "decoder_start_token_id"), special),
        "eos_token_id": None,
    }


def hf_codec(ask: Asked) -> dict[str, Any]:
    """The codec's configuration in transformers."""
    ask.must_be("compression_model", "encodec")
    ask.must_be("encodec.autoencoder", "seanet")
    ask.must_be("encodec.quantizer", "rvq")
    for name, wanted, default in (
        ("seanet.norm", "weight_norm", "none"),
        ("seanet.activation", "ELU", "ELU"),
        ("seanet.disable_norm_outer_blocks", 0, 0),
        ("seanet.decoder.final_activation", None, None),
    ):
        ask.must_be(name, wanted, default)
    rate, ratios = ask("encodec.sample_rate", int), ask("seanet.ratios", list, [8, 5, 4, 2])
    n_quantizers, n_entries = ask("rvq.n_q", int, default=8), ask("rvq.bins", int, default=1024)
    if not ratios or not all(isinstance(r, int) and 0 < r < 1025 for r in ratios) or n_entries < 2:
        raise UserError("xp.cfg: seanet.ratios and rvq.bins describe no codec.")
    is_causal = ask("seanet.causal", bool, default=False)
    return {
        "model_type": "encodec",
        "sampling_rate": rate,
        "audio_channels": ask("encodec.channels", int),
        "normalize": ask("encodec.renormalize", bool, default=False),
        "use_causal_conv": is_causal,
        "hidden_size": ask("seanet.dimension", int, default=128),
        "codebook_dim": ask("seanet.dimension", int, default=128),
        "codebook_size": n_entries,
        "target_bandwidths": [_bandwidth(rate, ratios, n_quantizers, n_entries)],
        "num_filters": ask("seanet.n_filters", int, default=32),
        "num_residual_layers": ask("seanet.n_residual_layers", int, default=3),
        "upsampling_ratios": ratios,
        "norm_type": "weight_norm",
        "kernel_size": ask("seanet.kernel_size", int, default=7),
        "last_kernel_size": ask("seanet.last_kernel_size", int, default=7),
        "residual_kernel_size": ask("seanet.residual_kernel_size", int, default=3),
        "dilation_growth_rate": ask("seanet.dilation_base", int, default=2),
        "pad_mode": ask("seanet.pad_mode", str, default="reflect"),
        "use_conv_shortcut": not ask("seanet.true_skip", bool, default=True),
        "compress": ask("seanet.compress", int, default=2),
        "num_lstm_layers": ask("seanet.lstm", int, default=0),
        "trim_right_ratio": float(ask("seanet.decoder.trim_right_ratio", NUMBER, default=1.0)),
    }


def _bandwidth(rate: int, ratios: list[int], n_quantizers: int, n_entries: int) -> float:
    """The bandwidth in kbit/s from which transformers counts that many quantisers."""
    frame_bits = math.ceil(rate / math.prod(ratios)) * math.ceil(math.log2(n_entries))
    kbits = n_quantizers * frame_bits / 1000
    while 1000 * kbits // frame_bits < n_quantizers:
        kbits = math.nextafter(kbits, math.inf)
    return kbits


def our_facts(ask: Asked) -> dict[str, float]:
    """Facts of a base that an export of ours carries; else its window, as far as it tells."""
    found = {
        name: float(ask(f"{FIELD}.{name}", NUMBER)) for name in RANGES if ask.has(f"{FIELD}.{name}")
    }
    return found or {"trained_duration_s": float(ask("dataset.segment_duration", NUMBER))}
