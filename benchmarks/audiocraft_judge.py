"""Whether audiocraft's own code gives the same results for an export as transformers for the model.

    python -m venv acv && acv/bin/pip install torch==2.13.0 numpy safetensors transformers==5.23.0
    acv/bin/pip install --no-deps audiocraft==1.3.0 flashy==0.0.2 dora-search==0.1.13 \\
        omegaconf==2.3.0 antlr4-python3-runtime==4.9.3 hydra-core==1.3.2 einops==0.8.2 \\
        julius==0.2.8 num2words==0.5.14 treetable==0.2.6 colorlog==6.12.0 retrying==1.4.2 \\
        submitit==1.5.4 cloudpickle==3.1.2 sentencepiece==0.2.3
    musicgen-lora merge --lora_model_path A --output_dir merged
    musicgen-lora export --format audiocraft --lora_model_path A --output_dir exported
    acv/bin/python benchmarks/audiocraft_judge.py merged exported

It needs an environment of its own, since audiocraft's pins are old. Both sides get the same random
codes and captions, clip by clip: in a batch audiocraft attends to padded text, and transformers
doesn't. audiocraft loads the two files with its own loaders, and the text encoder from the exported
folder; modules that it imports but a loss doesn't need (xformers, spacy, torchaudio, demucs) are
replaced by stubs. For a melody model the tune is given as pitch classes: what audiocraft hears in
audio is not compared. Prints one JSON object; exits with 1 if loss, decoded audio or codes differ
by more than --tolerance.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    MusicgenForConditionalGeneration,
    MusicgenMelodyForConditionalGeneration,
)
from transformers.audio_utils import chroma_filter_bank

HEAVY = ("xformers", "spacy", "torchaudio", "torchmetrics", "librosa", "av", "soundfile", "demucs")
CAPTIONS = ("140 bpm hip hop 808 beat with trap drums", "hip hop 808 beat", "dark trap")
SEED = 0


class _Stub(types.ModuleType):
    """Every attribute is an empty class, which is enough for `from x import Y`, `class Z(x.Y)`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, type(name, (torch.nn.Module,), {}))
        return getattr(self, name)


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports stubs for modules that are not installed."""

    def __init__(self) -> None:
        self._names = {name for name in HEAVY if importlib.util.find_spec(name) is None}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname.split(".")[0] not in self._names:
            return None
        # xformers is not a package here, so that importing its profiler fails, as audiocraft
        # expects.
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname != "xformers")

    def create_module(self, spec: Any) -> Any:
        return _Stub(spec.name)

    def exec_module(self, module: Any) -> None:
        if module.__name__ == "xformers":
            ops: Any = _Stub("xformers.ops")
            ops.unbind = torch.unbind
            module.ops = sys.modules["xformers.ops"] = ops


class _Stems(torch.nn.Module):
    """Replaces demucs, as far as a conditioner needs it at its construction."""

    sources = ("drums", "bass", "other", "vocals")


class _Spectrogram(torch.nn.Module):
    """Replaces torchaudio's, whose window is among the weights and whose frames are counted."""

    def __init__(self, n_fft: int, win_length: int, hop_length: int, **_: Any) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(win_length))
        self._hop = hop_length
        self._n_bins = n_fft // 2 + 1

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        n_frames = waveform.shape[-1] // self._hop + 1
        return torch.zeros(*waveform.shape[:-1], self._n_bins, n_frames)


def stub_heavy_imports() -> None:
    """Installs stubs for audiocraft's imports."""
    sys.meta_path.append(_Stubs())
    pretrained: Any = importlib.import_module("demucs.pretrained")
    transforms: Any = importlib.import_module("torchaudio.transforms")
    filters: Any = importlib.import_module("librosa.filters")

    def chroma(sr: int, n_fft: int, tuning: float, n_chroma: int) -> np.ndarray:
        return chroma_filter_bank(n_fft, n_chroma, sr, tuning=tuning).astype(np.float32)

    pretrained.get_model = lambda name: _Stems()
    transforms.Spectrogram = _Spectrogram
    filters.chroma = chroma


def load_hf(folder: Path) -> Any:
    """Loads a MusicGen with transformers, in float32."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    classes: dict[str, Any] = {
        "musicgen": MusicgenForConditionalGeneration,
        "musicgen_melody": MusicgenMelodyForConditionalGeneration,
    }
    model = classes[kind].from_pretrained(folder, dtype=torch.float32).eval()
    model.config.decoder.decoder_start_token_id = model.config.decoder.pad_token_id
    return model


def load_export(folder: Path, width: int) -> tuple[Any, Any]:
    """Loads language model and codec with audiocraft's loaders, as the folder's card says."""
    loaders = importlib.import_module("audiocraft.models.loaders")
    builders = importlib.import_module("audiocraft.models.builders")
    conditioners = importlib.import_module("audiocraft.modules.conditioners")
    here = Path.cwd()
    os.chdir(folder)
    try:
        named = importlib.import_module("omegaconf").OmegaConf.create(
            loaders.load_lm_model_ckpt(".")["xp.cfg"]
        )
        conditioners.T5Conditioner.MODELS_DIMS[named.conditioners.description.t5.name] = width
        lm = loaders.load_lm_model(".")
        codec = builders.get_wrapped_compression_model(loaders.load_compression_model("."), lm.cfg)
    finally:
        os.chdir(here)
    return lm, codec


@torch.no_grad()
def loss_by_audiocraft(lm: Any, codes: torch.Tensor, caption: str, tune: Any) -> float:
    """The loss by audiocraft's solver for one clip `[1, K, T]`."""
    solver = importlib.import_module("audiocraft.solvers.musicgen").MusicGenSolver
    provider = lm.condition_provider
    words = provider.conditioners["description"]
    conditions = {"description": words(words.tokenize([caption]))}
    if tune is not None:
        hears = provider.conditioners["self_wav"]
        states = hears.output_proj(torch.nn.functional.one_hot(tune, hears.dim).float())
        conditions["self_wav"] = (states, torch.ones(states.shape[:2]))
    out = lm.compute_predictions(codes, [], conditions)
    return solver._compute_cross_entropy(None, out.logits, codes, out.mask)[0].item()


@torch.no_grad()
def loss_by_transformers(model: Any, tokens: Any, codes: torch.Tensor, tune: Any) -> float:
    """The loss by transformers' own forward pass, with labels delayed by hand."""
    decoder = model.config.decoder
    _, n_codebooks, n_frames = codes.shape
    labels = torch.full((1, n_frames, n_codebooks), -100)
    for k in range(n_codebooks):
        delay = k // decoder.audio_channels
        labels[:, delay:, k] = codes[:, k, : n_frames - delay]
    given: dict[str, Any] = {}
    if tune is not None:
        given["input_features"] = torch.nn.functional.one_hot(tune, model.config.num_chroma).float()
    return model(**tokens, labels=labels, **given).loss.item()


@torch.no_grad()
def codec_differences(model: Any, codec: Any, codes: torch.Tensor) -> dict[str, float]:
    """The differences of decoded audio, and the share of codes for noise that differ."""
    own, n_sides = model.audio_encoder, model.config.decoder.audio_channels
    sides = [codes[:, side::n_sides] for side in range(n_sides)]
    audio = torch.cat([own.decode(c[None], [None]).audio_values for c in sides], 1)
    noise = 0.3 * torch.randn(1, n_sides, 32_000, generator=torch.Generator().manual_seed(SEED))
    found = [own.encode(noise[:, side : side + 1]).audio_codes[0] for side in range(n_sides)]
    again = torch.stack(found, 2).flatten(1, 2)
    return {
        "audio": (codec.decode(codes) - audio).abs().max().item(),
        "codes": (codec.encode(noise)[0] != again).float().mean().item(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("hf_dir", type=Path)
    parser.add_argument("export_dir", type=Path)
    parser.add_argument("--n_frames", type=int, default=250)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    stub_heavy_imports()
    model, tokenizer = load_hf(given.hf_dir), AutoTokenizer.from_pretrained(given.hf_dir)
    lm, codec = load_export(given.export_dir.resolve(), model.config.text_encoder.d_model)
    decoder = model.config.decoder
    draw = torch.Generator().manual_seed(SEED)
    rows = []
    for caption in CAPTIONS:
        shape = (1, decoder.num_codebooks, given.n_frames)
        codes, tune = torch.randint(0, decoder.vocab_size, shape, generator=draw), None
        if model.config.model_type == "musicgen_melody":
            length, n_classes = model.config.chroma_length, model.config.num_chroma
            tune = torch.randint(0, n_classes, (1, length), generator=draw)
        tokens = tokenizer([caption], return_tensors="pt")
        tokens.pop("token_type_ids", None)
        pair = (
            loss_by_audiocraft(lm, codes, caption, tune),
            loss_by_transformers(model, tokens, codes, tune),
        )
        rows.append(
            {"audiocraft": pair[0], "transformers": pair[1], "loss": abs(pair[0] - pair[1])}
        )
    differences = {"loss": max(row["loss"] for row in rows)}
    shape = (1, decoder.num_codebooks, given.n_frames)
    codes = torch.randint(0, decoder.vocab_size, shape, generator=draw)
    differences |= codec_differences(model, codec, codes)
    print(json.dumps({"clips": rows, "largest_difference": differences}, indent=1))
    # A NaN fails too.
    return int(not max(differences.values()) <= given.tolerance)


if __name__ == "__main__":
    sys.exit(main())
