"""Audio models from a folder or the hub: CLAP, and others with a class in transformers itself.

No repository code is run: a model that comes with its own (MERT, MuQ) is passed in as a function of
the caller's, an `Embedding`. Each model must first pass a self-test on clearly different sounds:
some published checkpoints return nearly the same vector for everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    ClapFeatureExtractor,
    ClapModel,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMModel,
)

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.errors import UserError, first_line
from musicgen_lora.evaluation.measures.distances import mean_of_pairs
from musicgen_lora.evaluation.measures.embeddings import Embedding, mono_at
from musicgen_lora.formats.documents import read_json
from musicgen_lora.formats.kinds import check_kind, fields, integer, one_of, real, shortened
from musicgen_lora.model.base.folder import (
    base_folder,
    check_bounds,
    check_shapes,
    check_tokenizer_files,
    read_base_shapes,
    without_ours,
)
from musicgen_lora.model.base.loading import UNLOADABLE, described_shapes
from musicgen_lora.model.text.wording import english_of
from musicgen_lora.runtime.quiet import quiet_libraries

CLAP = "clap"
SPEECH = {"hubert": HubertModel, "wav2vec2": Wav2Vec2Model, "wavlm": WavLMModel}
"""Models whose input is raw samples; a vector is the mean over time of the last layer."""
SUGGESTED = "laion/larger_clap_general"
COLLAPSED_FROM = 0.95
"""Limit for the mean cosine between unrelated sounds, or texts. laion/larger_clap_music has 0.999
between texts."""
N_WORDS = 77
SELF_TEST_S = 5.0
SELF_TEST_RATE = 48_000
SELF_TEST = {
    "white noise, steady hiss": "noise",
    "a drum machine beat with kick, snare and hi-hats": "beat",
    "a single pure beep, one steady high tone": "tone",
}
UNRELATED = ("a dog barking in a garden", "a man giving a speech", "slow piano music")
FUSION = "fusion"
"""Truncation mode of a model that takes parts of a long clip together with the whole."""
_EXTRACTOR = fields(
    {"sampling_rate": integer(8_000, 192_000)},
    {
        "feature_size": integer(1, 1024),
        "hop_length": integer(16, 65_536),
        "fft_window_size": integer(16, 16_384),
        "max_length_s": integer(1, 60),
        **dict.fromkeys(("frequency_min", "frequency_max"), real(0.0, 96_000.0)),
        "padding_value": real(-1.0, 1.0),
        "truncation": one_of("rand_trunc", FUSION),
        "padding": one_of("repeatpad", "repeat", "pad"),
    },
)
ReadTexts = Callable[[Sequence[str]], np.ndarray]
"""Maps texts to unit vectors `[N, D]`."""


@dataclass(frozen=True)
class Listener:
    """An audio model, with a text encoder if it has one.

    Args:
        embedding: maps audio to a vector; CLAP's have length 1.
        read: maps texts to vectors in the same space; None for a model without text.
        path: folder or hub id.
    """

    embedding: Embedding
    read: ReadTexts | None
    path: str


def load_listener(path: str) -> Listener:
    """Load an audio model and run the self-test.

    Raises:
        UserError: no such folder or id, an unknown kind, an incomplete or a collapsed model.
    """
    folder = base_folder(path)
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    door = (
        "From Python, evaluate_adapter(settings, embeddings=[...]) accepts your own function that "
        "turns audio into a vector."
    )
    if config.get("auto_map"):
        raise UserError(f"{path}: comes with its own code, which is not run. {door}")
    if kind not in (CLAP, *SPEECH):
        known = ", ".join((CLAP, *SPEECH))
        raise UserError(f"{path}: its model_type is {shortened(kind)}, not one of {known}. {door}")
    check_bounds(config, folder / "config.json")
    check_tokenizer_files(folder)
    model_class: Any = ClapModel if kind == CLAP else SPEECH[kind]
    model = _load(path, folder, without_ours(config), model_class)
    settings = _extractor_settings(folder)
    listener = (
        _clap(path, folder, model, settings)
        if kind == CLAP
        else Listener(_speech(path, model, settings), None, path)
    )
    check_listener(listener)
    return listener


@quiet_libraries()
def _load(path: str, folder: Path, content: dict[str, Any], model_class: Any) -> PreTrainedModel:
    try:
        config = model_class.config_class.from_dict(content)
        check_shapes(folder, described_shapes(model_class, config), read_base_shapes(folder))
        model, loaded = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except UNLOADABLE as error:
        line = first_line(error)[:300]
        raise UserError(f"{path}: cannot be loaded as a {model_class.__name__}: {line}") from error
    lost = sorted({name for name, _ in model.named_parameters()} & set(loaded["missing_keys"]))
    if lost:
        raise UserError(
            f"{path}: {len(lost)} of its weights {'is' if len(lost) == 1 else 'are'} missing, "
            f"such as {lost[0]}; copy it again."
        )
    return model.requires_grad_(False).eval()


def _extractor_settings(folder: Path) -> dict[str, Any]:
    """The checked settings of a model's feature extractor. As in transformers, the processor's file
    takes precedence over the file that older releases saved."""
    path = folder / "processor_config.json"
    settings = read_json(path).get("feature_extractor") if path.is_file() else None
    if settings is None:
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            raise UserError(f"{folder}: {path.name} is missing; copy the whole model.")
        settings = read_json(path)
    check_kind(settings, _EXTRACTOR, path)
    return settings


def _clap(path: str, folder: Path, model: Any, settings: dict[str, Any]) -> Listener:
    n_bands = model.config.audio_config.num_mel_bins
    if settings.get("feature_size", 64) != n_bands:
        raise UserError(f"{path}: its preprocessor's feature_size is not the model's, {n_bands}.")
    if (settings.get("truncation", FUSION) == FUSION) != model.config.audio_config.enable_fusion:
        raise UserError(
            f"{path}: its preprocessor's truncation and enable_fusion in its config.json don't "
            "match; copy the whole model."
        )
    # One window of the model's length at a time: the extractor crops longer audio at random.
    extractor: Any = ClapFeatureExtractor.from_dict(settings)
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    rate, n_window = extractor.sampling_rate, int(extractor.nb_max_samples)

    @torch.inference_mode()
    def hear(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        windows = _windows(mono_at(waveform, sample_rate, rate), n_window)
        found = []
        for window in windows:
            features = extractor(window, sampling_rate=rate, return_tensors="pt")
            made = model.get_audio_features(
                input_features=features["input_features"].float(),
                is_longer=torch.zeros_like(features["is_longer"]),
            )
            found.append(_unit(_rows(made)))
        return _unit(np.concatenate(found).mean(axis=0, keepdims=True))[0]

    @torch.inference_mode()
    def read(texts: Sequence[str]) -> np.ndarray:
        tokens = tokenizer(
            list(map(english_of, texts)),
            padding=True,
            truncation=True,
            max_length=N_WORDS,
            return_tensors="pt",
        )
        if int(tokens["input_ids"].max()) >= model.config.text_config.vocab_size:
            raise UserError(f"{path}: tokenizer and model do not match.")
        made = model.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        return _unit(_rows(made))

    return Listener(Embedding(CLAP, "CLAP", hear), read, path)


def _speech(path: str, model: Any, settings: dict[str, Any]) -> Embedding:
    extractor: Any = Wav2Vec2FeatureExtractor.from_dict(settings)
    rate = extractor.sampling_rate

    @torch.inference_mode()
    def hear(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        mono = mono_at(waveform, sample_rate, rate)
        features = extractor(mono, sampling_rate=rate, return_tensors="pt")
        return model(features["input_values"].float()).last_hidden_state[0].mean(dim=0).numpy()

    name = Path(path).name
    return Embedding(name, name, hear)


def _windows(mono: np.ndarray, n_window: int) -> list[np.ndarray]:
    """Evenly spaced windows of the whole audio, the last one reaching the end; audio that is hardly
    longer than a window gets one."""
    if len(mono) <= n_window:
        return [mono]
    n = max(1, int(np.ceil(len(mono) / n_window - 0.1)))
    starts = np.linspace(0, len(mono) - n_window, n).astype(int) if n > 1 else [0]
    return [mono[start : start + n_window] for start in starts]


def _rows(made: Any) -> np.ndarray:
    """The vectors as an array; transformers 5 returns an object."""
    return getattr(made, "pooler_output", made).float().numpy()


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def self_test_sounds() -> dict[str, np.ndarray]:
    """Noise, a beat and a tone, `[1, N]` at `SELF_TEST_RATE`, identical on every machine."""
    n_samples = round(SELF_TEST_S * SELF_TEST_RATE)
    noise = np.random.default_rng(0).normal(0.0, 0.1, (1, n_samples)).astype(np.float32)
    beat = render_beat(make_beat((1, 1), duration_s=SELF_TEST_S), SELF_TEST_RATE, seed=1)
    time_s = np.arange(n_samples) / SELF_TEST_RATE
    tone = (0.3 * np.sin(2.0 * np.pi * 1000.0 * time_s)).astype(np.float32)[None]
    return {"noise": noise, "beat": beat[:, :n_samples], "tone": tone}


def check_listener(listener: Listener) -> None:
    """Raise a UserError if a model cannot distinguish clearly different sounds, or texts, or if it
    matches texts to sounds no better than chance."""
    sounds = self_test_sounds()
    heard = np.stack([listener.embedding.hear(own, SELF_TEST_RATE) for own in sounds.values()])
    where = f"{listener.path}: fails the self-test"
    if not np.isfinite(heard).all():
        raise UserError(f"{where}: its vectors have non-finite values; copy it again.")
    alike = _mean_cosine(heard)
    if alike > COLLAPSED_FROM:
        raise UserError(
            f"{where}: it cannot tell noise, a beat and a tone apart (mean cosine {alike:.3f}); "
            f"use another model, such as {SUGGESTED}."
        )
    if listener.read is None:
        return
    words = listener.read([*SELF_TEST, *UNRELATED])
    alike = _mean_cosine(words)
    if not alike <= COLLAPSED_FROM:
        raise UserError(
            f"{where}: it cannot tell unrelated texts apart (mean cosine {alike:.3f}); use "
            f"another model, such as {SUGGESTED}."
        )
    own = [heard[[*sounds].index(name)] for name in SELF_TEST.values()]
    table = words[: len(SELF_TEST)] @ _unit(np.stack(own)).T
    matched, others = np.diag(table).mean(), mean_of_pairs(table)
    if not matched > others:
        raise UserError(
            f"{where}: texts match their own sounds no better than other sounds (cosine "
            f"{matched:.3f} vs. {others:.3f}); use another model, such as {SUGGESTED}."
        )


def _mean_cosine(rows: np.ndarray) -> float:
    return mean_of_pairs(_unit(rows) @ _unit(rows).T)
