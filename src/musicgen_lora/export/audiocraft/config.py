"""audiocraft's configurations of a language model and its codec, from transformers'.

audiocraft replaces missing fields with its own defaults, often silently (8 heads, ReLU, not causal,
reflection padding), so every field that matters is written.
"""

from __future__ import annotations

from typing import Any

from musicgen_lora.export.audiocraft.names import LanguageModelNames
from musicgen_lora.model.base.facts import FIELD

TEXT_ENCODERS = {512: "t5-small", 768: "t5-base", 1024: "t5-large"}
"""Names that audiocraft knows, by the width that it assumes for each."""
DEFAULT_TEXT_ENCODER = "t5-base"
MIN_WINDOW_S = 18.5
"""Past its window audiocraft continues every 18 s, so the window has to be longer than that."""
WINDOW_S = 30.0


def places_of(config: Any) -> LanguageModelNames:
    """The tensor names of a model with this transformers configuration."""
    decoder = config.decoder
    return LanguageModelNames(
        n_layers=decoder.num_hidden_layers,
        n_codebooks=decoder.num_codebooks,
        is_melody=config.model_type == "musicgen_melody",
    )


def text_encoder_name(config: Any) -> str:
    """audiocraft's name for a text encoder of this width."""
    return TEXT_ENCODERS.get(config.text_encoder.d_model, DEFAULT_TEXT_ENCODER)


def _check_decoder(decoder: Any) -> None:
    """Raises a ValueError if audiocraft has no such decoder."""
    if decoder.scale_embedding or decoder.activation_function not in ("gelu", "relu"):
        raise ValueError(
            f"audiocraft doesn't scale embeddings and only has gelu and relu (scale_embedding = "
            f"{decoder.scale_embedding}, activation_function = {decoder.activation_function})"
        )
    if decoder.pad_token_id != decoder.vocab_size:
        raise ValueError(
            f"pad_token_id = {decoder.pad_token_id}: audiocraft's special token is "
            f"{decoder.vocab_size}"
        )


def _transformer_config(decoder: Any, *, has_cross_attention: bool) -> dict[str, Any]:
    """The arguments of audiocraft's `transformer_lm`; only the sizes differ between MusicGens."""
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


def lm_config(config: Any, window_s: float, facts: dict[str, float], chroma: dict[str, Any]) -> Any:
    """audiocraft's configuration of a language model.

    Args:
        config: of the whole model in transformers.
        window_s: length that it was trained on.
        facts: this project's facts, which audiocraft ignores.
        chroma: settings of a melody model's feature extractor; empty for others.

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
        conditioners = {"self_wav": _chroma_config(config, chroma)} | conditioners
        fuser |= {"prepend": ["self_wav", "description"], "cross": []}
        window_s = _melody_window_s(config, chroma)
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


def _chroma_config(config: Any, chroma: dict[str, Any]) -> dict[str, Any]:
    exponent = int(chroma["n_fft"]).bit_length() - 1
    if chroma["n_fft"] != 1 << exponent or chroma["hop_length"] != chroma["n_fft"] // 4:
        raise ValueError(
            f"audiocraft's melodies need an FFT size that is a power of two and a hop of a quarter "
            f"of it (n_fft = {chroma['n_fft']}, hop_length = {chroma['hop_length']})"
        )
    return {
        "model": "chroma_stem",
        "chroma_stem": {
            "sample_rate": chroma["sampling_rate"],
            "n_chroma": config.num_chroma,
            "radix2_exp": exponent,
            "argmax": True,
            "match_len_on_eval": True,
        },
    }


def _melody_window_s(config: Any, chroma: dict[str, Any]) -> float:
    """The window in which a melody has as many frames as the model reads."""
    hop_s = chroma["hop_length"] / chroma["sampling_rate"]
    if 1 + int(WINDOW_S / hop_s) == config.chroma_length:
        return WINDOW_S
    window_s = round((config.chroma_length - 0.5) * hop_s, 3)
    if window_s <= MIN_WINDOW_S:
        raise ValueError(
            f"chroma_length = {config.chroma_length}: audiocraft needs melodies of more than "
            f"{MIN_WINDOW_S:g} s, {1 + int(MIN_WINDOW_S / hop_s)} frames"
        )
    return window_s


def compression_config(config: Any) -> Any:
    """audiocraft's configuration of a codec.

    Raises:
        ValueError: audiocraft has no such codec.
    """
    if config.norm_type != "weight_norm":
        raise ValueError(f"norm_type = {config.norm_type}: only weight_norm is supported")
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
