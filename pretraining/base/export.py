"""Puts the trained base model into the package: fp16 on disk, fp32 in memory, a tokenizer file
without white space, the base's facts, and the model card.

    python -m pretraining.base.export --trained_duration_s 30
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, MusicgenForConditionalGeneration

from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.model.base.facts import FIELD, BaseFacts
from pretraining.base import vocabulary
from pretraining.paths import ASSETS, EMBEDDED_BASE, WORK

HERE = Path(__file__).resolve().parent
MAX_BYTES = 32_000_000


def export_base(
    model_dir: Path,
    output_dir: Path,
    captions: Iterable[str],
    facts: BaseFacts,
) -> int:
    """Writes the shipped folder and returns its size in bytes.

    Args:
        model_dir: the result of training.
        output_dir: is replaced.
        captions: those that it was trained on; the vocabulary keeps what they need, unless the
            model has a smaller vocabulary already.
        facts: what the base states about its training and use.

    Raises:
        ValueError: it is too large for the package, or does not load back in fp32.
    """
    model: Any = MusicgenForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32)
    # The quantiser's running means are only needed for training.
    for layer in model.audio_encoder.quantizer.layers:
        layer.codebook.embed_avg.zero_()
        layer.codebook.cluster_size.zero_()
    tokenizer = json.loads((ASSETS / "t5" / "tokenizer.json").read_text(encoding="utf-8"))
    if model.text_encoder.config.vocab_size < len(tokenizer["model"]["vocab"]):
        # Training went on from the package's base.
        own = json.loads((model_dir / "tokenizer.json").read_text(encoding="utf-8"))
        kept = vocabulary.same_pieces(tokenizer, own)
    else:
        kept = vocabulary.kept_pieces(tokenizer, captions)
        vocabulary.keep_rows(model, kept)
    # transformers' own `generate` reads these from another file.
    if facts.advised_guidance_scale is not None:
        model.generation_config.guidance_scale = facts.advised_guidance_scale
    if facts.advised_temperature is not None:
        model.generation_config.temperature = facts.advised_temperature
    text = json.dumps(
        vocabulary.with_pieces(tokenizer, kept), ensure_ascii=False, separators=(",", ":")
    )
    processor = AutoProcessor.from_pretrained(model_dir)

    # What is there is replaced only by a whole base.
    folder = output_dir.with_name(f".{output_dir.name}.new")
    shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    _write_config(folder / "config.json", facts)
    shutil.copy(HERE / "model_card.md", folder / "README.md")
    _check(folder)
    shutil.rmtree(output_dir, ignore_errors=True)
    folder.rename(output_dir)
    return _size(output_dir)


def _write_config(path: Path, facts: BaseFacts) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    _clean(config)
    stated = {name: value for name, value in asdict(facts).items() if value is not None}
    config[FIELD] = dict(sorted(stated.items()))
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _check(folder: Path) -> None:
    loaded = MusicgenForConditionalGeneration.from_pretrained(folder)
    if loaded.dtype != torch.float32:
        raise ValueError(f"{folder} loads as {loaded.dtype}, not float32.")
    if _size(folder) > MAX_BYTES:
        raise ValueError(f"{folder} has {_size(folder):,} bytes, more than {MAX_BYTES:,}.")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _clean(config: dict[str, Any]) -> None:
    """Sets fp32, since fp16 is only for the disk, and removes the paths of the parts."""
    config.pop("_name_or_path", None)
    for name, value in config.items():
        if isinstance(value, dict):
            _clean(value)
        elif name == "dtype":
            config[name] = "float32"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_dir", type=Path, default=WORK / "lm_long" / "best_model")
    parser.add_argument("--output_dir", type=Path, default=EMBEDDED_BASE)
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    parser.add_argument("--trained_duration_s", type=float, required=True)
    parser.add_argument("--advised_window_s", type=float)
    parser.add_argument("--advised_learning_rate", type=float)
    parser.add_argument("--advised_guidance_scale", type=float)
    parser.add_argument("--advised_temperature", type=float)
    options = parser.parse_args()
    size = export_base(
        options.model_dir,
        options.output_dir,
        [text for clip in load_dataset(options.corpus) for text in clip.texts],
        BaseFacts(**{f.name: getattr(options, f.name) for f in fields(BaseFacts)}),
    )
    print(f"{size:,} bytes in {options.output_dir}")
