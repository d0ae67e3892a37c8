"""An adapter for sharing: PEFT's format, a base name that others know, a card with samples, and
nothing about the machine that it was trained on.

The record of a run names its owner's folders, audio files and captions; only what is known to be
harmless is exported. The weights are the same to the bit.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.export.card import SAMPLES, adapter_text
from musicgen_lora.export.sources import Source
from musicgen_lora.formats.documents import read_json
from musicgen_lora.given import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from musicgen_lora.model.lora.adapter import AdapterFiles
from musicgen_lora.model.lora.facts import FACTS_FILE, AdapterFacts

TASK = "FEATURE_EXTRACTION"
"""A PEFT task type: there is none for music, but the Hub calls an adapter without one invalid. It
has no effect: as measured, no sample differs."""
MAX_SAMPLES = 6
PREVIEWS = "previews"
WORDS = (
    "adapter",
    "lora_init",
    "lora_targets",
    "lora_layers",
    "lora_modules",
    "trainable",
    "optimizer",
    "lr_schedule",
    "precision",
    "quantise",
)
"""Settings whose text values come from this project, not from its user."""


@dataclass(frozen=True)
class Sample:
    """A sound for the card, with its prompt."""

    path: Path
    prompt: str


def public_facts(facts: Mapping[str, Any], base_name: str) -> dict[str, Any]:
    """The facts of an adapter that reveal nothing of its owner: numbers and known words.

    Args:
        facts: from `musicgen_lora.json`.
        base_name: public name of the base.
    """
    kept = {
        name: facts[name]
        for name in ("format_version", "versions", "precision", "base_loss", "best", "identity")
        if name in facts
    }
    base = {name: value for name, value in facts["base"].items() if name != "path"}
    kept["base"] = {"path": base_name} | base
    if facts.get("data"):
        numbers = ("fingerprint", "n_train", "n_validation")
        kept["data"] = {name: facts["data"][name] for name in numbers if name in facts["data"]}
    if facts.get("settings"):
        kept["settings"] = {
            name: value
            for name, value in facts["settings"].items()
            if name in WORDS or isinstance(value, (int, float, type(None)))
        }
    return kept


def find_samples(adapter: AdapterFiles, previews: Path | None) -> tuple[list[Sample], str]:
    """Samples of an adapter, and the name of the folder that they are from.

    Args:
        previews: a folder of WAV files, each with a JSON that has its prompt, as `generate` writes
            them, or of training previews; None looks for the latter beside the adapter.

    Raises:
        UserError: `previews` is given, but has no WAV file with a known prompt.
    """
    prompts = _preview_prompts(adapter.facts)
    beside = adapter.folder.resolve().parent / PREVIEWS
    folder = previews if previews is not None else _newest(beside)
    if folder is None:
        return [], ""
    found = []
    for path in sorted(folder.glob("*.wav")):
        beside = path.with_suffix(".json")
        number = re.match(r"(\d+)_", path.name)
        if beside.is_file():
            prompt = read_json(beside).get("prompt")
        else:
            prompt = prompts[int(number[1])] if number and int(number[1]) < len(prompts) else None
        if isinstance(prompt, str):
            found.append(Sample(path, prompt))
    if previews is not None and not found:
        raise UserError(
            f"--previews {previews}: has no WAV file with a known prompt; give a folder that "
            "generate wrote, or output_dir/previews/step-N of a training run."
        )
    return found[:MAX_SAMPLES], folder.name


def _newest(folder: Path) -> Path | None:
    steps = [path for path in folder.glob("step-*") if path.is_dir()]
    return max(steps, key=lambda path: path.name, default=None)


def _preview_prompts(facts: AdapterFacts | None) -> Sequence[str]:
    settings = (facts.content.get("settings") if facts else None) or {}
    prompts = settings.get("preview_prompts") or []
    return [prompt for prompt in prompts if isinstance(prompt, str)]


def write_adapter(
    source: Source,
    samples: Sequence[Sample],
    origin: str,
    folder: Path,
    called: str,
    evaluation: str,
) -> None:
    """Writes an adapter's folder.

    Args:
        source: the base, and one adapter of strength 1.
        origin: name of the folder that the samples are from.
        folder: exists and is empty.
        called: name of the folder in the card's examples.
    """
    (part,) = source.parts
    files = part.files
    config = dict(files.config) | {
        "base_model_name_or_path": source.name,
        "task_type": files.config.get("task_type") or TASK,
    }
    atomic.write_json(folder / ADAPTER_CONFIG, config)
    facts, header = None, {"format": "pt"}
    if files.facts is not None:
        facts = public_facts(files.facts.content, source.name)
        atomic.write_json(folder / FACTS_FILE, facts)
        header = {"musicgen_lora": json.dumps(facts, sort_keys=True)}
    tensors = {name: tensor.contiguous() for name, tensor in files.tensors.items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata=header)
    if samples:
        (folder / SAMPLES).mkdir()
    named = []
    for number, sample in enumerate(samples):
        shutil.copyfile(sample.path, folder / SAMPLES / f"{number:02d}.wav")
        named.append((f"{SAMPLES}/{number:02d}.wav", sample.prompt))
    text = adapter_text(source, facts, named, origin, called, evaluation)
    (folder / atomic.CARD_FILE).write_text(text, encoding="utf-8")
