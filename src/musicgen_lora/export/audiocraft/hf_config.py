"""transformers' configurations of a language model and its codec, from audiocraft's.

Every field that matters is checked: a missing one has audiocraft's own default, and a value that no
MusicGen in transformers can have is refused.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.model.base.facts import FIELD, RANGES

MISSING: Any = object()


class ConfigReader:
    """Reads an audiocraft configuration field by field.

    Args:
        path: of the file, for messages.
    """

    def __init__(self, config: dict[str, Any], path: Path) -> None:
        self._config, self.path = config, path

    def __call__(self, name: str, kind: Any, default: Any = MISSING) -> Any:
        """The value of a field.

        Args:
            name: dotted path.
            kind: a type, or several, that the value must have.
            default: audiocraft's own, for a missing field.

        Raises:
            UserError: missing, or of another type.
        """
        value = self._at(name)
        if isinstance(value, str) and (link := re.fullmatch(r"\$\{([\w.]+)\}", value)):
            value = self._at(link[1])
        if value is MISSING:
            value = default
        is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not is_kind:
            said = "is missing" if value is MISSING else f"= {shortened(value)}: is not usable"
            raise UserError(f"{self.path}: xp.cfg: {name} {said}.")
        return value

    def must_be(self, name: str, wanted: Any, default: Any = MISSING) -> None:
        """Raises a UserError unless a field is as in every MusicGen in transformers."""
        value = self._at(name)
        value = default if value is MISSING else value
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            said = "is missing" if value is MISSING else f"= {shortened(value)}"
            raise UserError(
                f"{self.path}: xp.cfg: {name} {said}: a MusicGen in Hugging Face's format has "
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


def hf_decoder(ask: ConfigReader, *, is_melody: bool) -> dict[str, Any]:
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


def hf_codec(ask: ConfigReader) -> dict[str, Any]:
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
        raise UserError("xp.cfg: seanet.ratios and rvq.bins don't describe a valid codec.")
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
    """The bandwidth in kbit/s that gives that many quantisers in transformers."""
    frame_bits = math.ceil(rate / math.prod(ratios)) * math.ceil(math.log2(n_entries))
    kbits = n_quantizers * frame_bits / 1000
    while 1000 * kbits // frame_bits < n_quantizers:
        kbits = math.nextafter(kbits, math.inf)
    return kbits


def our_facts(ask: ConfigReader) -> dict[str, float]:
    """The base's facts, if the export is this project's; otherwise its training window."""
    found = {
        name: float(ask(f"{FIELD}.{name}", NUMBER)) for name in RANGES if ask.has(f"{FIELD}.{name}")
    }
    return found or {"trained_duration_s": float(ask("dataset.segment_duration", NUMBER))}
