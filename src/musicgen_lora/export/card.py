"""Model cards for exports."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from musicgen_lora.atomic import CARD_FILE
from musicgen_lora.errors import UserError
from musicgen_lora.export.audiocraft.config import TEXT_ENCODERS, text_encoder_name
from musicgen_lora.export.sources import Source
from musicgen_lora.formats.documents import SMALL, read_bytes
from musicgen_lora.model.lora.card import adapter_card, licence

SAMPLES = "samples"
"""Folder of a card's samples."""
EXAMPLE_S = 10.0
"""Seconds of a card's example, or less if the base was trained on less."""


def front_matter(source: Source, *, relation: str, library: str, **more: Any) -> str:
    """The YAML front matter of a card, which the Hub reads.

    Args:
        relation: of the export to its base: "adapter" or "finetune".
    """
    front: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-to-audio"}
    if source.hub_id:
        front |= {"base_model": source.hub_id, "base_model_relation": relation}
    tag, _ = _licence(source)
    if tag:
        front["license"] = tag
    tags = ["musicgen", "text-to-audio", *(["lora"] if relation == "adapter" else [])]
    text = yaml.safe_dump(
        front | {"tags": tags} | more, sort_keys=False, allow_unicode=True, width=1000
    )
    return f"---\n{text}---\n"


def stated_licence(folder: Path) -> str | None:
    """The licence that a base's own card states; None if it has no card, or no licence in it."""
    path = folder / CARD_FILE
    if not path.is_file():
        return None
    try:
        text = read_bytes(path, SMALL).decode()
        front = re.match(r"---\n(.{1,20000}?)\n---\n", text, re.DOTALL)
        stated = yaml.safe_load(front[1]) if front else None
    except (UserError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        # Anyone may have written the card; if it can't be parsed, it states nothing.
        return None
    found = stated.get("license") if isinstance(stated, dict) else None
    return found if isinstance(found, str) and re.fullmatch(r"[\w.-]{1,60}", found) else None


def _licence(source: Source) -> tuple[str | None, str]:
    """The Hub's licence tag and a sentence. The adapters' training data has rights of its own, so a
    permissive tag of the base isn't applied to a model with adapters."""
    tag, sentence = licence(source.hub_id or source.base)
    stated = None if tag else stated_licence(source.folder)
    if stated is None:
        return tag, sentence
    is_bound = stated.startswith("cc-by-nc")
    said = f"The base's card states {stated}. {sentence}"
    return (stated if is_bound or not source.parts else None), said


def ingredients(made_of: Mapping[str, Any]) -> str:
    """Base and adapters as a list."""
    base = made_of["base"]
    lines = [f"- Base: `{base['name']}` (fingerprint `{base['fingerprint']}`)"]
    lines += [
        f"- Adapter: `{part['name']}` (fingerprint `{part['fingerprint']}`), "
        f"strength {part['strength']:g}"
        for part in made_of["adapters"]
    ]
    return "\n".join(lines)


def code_block(lines: Sequence[str]) -> str:
    """Lines of Python as a Markdown code block."""
    return "\n".join(["```python", *lines, "```"])


def checkpoint_card(source: Source, made_of: Mapping[str, Any], folder_name: str) -> str:
    """The card of a base with adapters merged into it.

    Args:
        made_of: from `Source.made_of`.
        folder_name: name of the checkpoint in the example.
    """
    shape = source.model.shape
    seconds = min(EXAMPLE_S, source.model.facts.trained_duration_s)
    n_tokens = round(seconds * shape.frame_rate) + (shape.n_codebooks - 1) // shape.n_channels
    code = code_block(
        [
            "from transformers import pipeline",
            "",
            f'play = pipeline("text-to-audio", model={folder_name!r})',
            "sound = play(",
            '    "hip hop 808 beat with trap drums",',
            '    forward_params={"do_sample": True, "guidance_scale": 3.0, '
            f'"max_new_tokens": {n_tokens}}},',
            ")",
        ],
    )
    return f"""{front_matter(source, relation="finetune", library="transformers")}\
# MusicGen with LoRA adapters merged in

{ingredients(made_of)}
- Licence: {_licence(source)[1]}

A strength of 1 is an adapter as it was trained, including its alpha; 0 is the base. To play
{seconds:g} s with plain transformers:

{code}
"""


def audiocraft_card(source: Source, made_of: Mapping[str, Any], folder_name: str) -> str:
    """The card of an export for audiocraft.

    Args:
        made_of: from `Source.made_of`.
        folder_name: name of the export in the example.
    """
    config: Any = source.model.hf.config
    name, width = text_encoder_name(config), config.text_encoder.d_model
    seconds = source.model.facts.trained_duration_s
    lines = [
        "import os",
        "",
        "from audiocraft.models import MusicGen",
        *(
            ["from audiocraft.modules.conditioners import T5Conditioner"]
            if TEXT_ENCODERS.get(width) != name
            else []
        ),
        "",
        f"os.chdir({folder_name!r})    # the folder with {name}/, the text encoder",
    ]
    if TEXT_ENCODERS.get(width) != name:
        lines.append(f'T5Conditioner.MODELS_DIMS["{name}"] = {width}    # else taken for another')
    lines += [
        'model = MusicGen.get_pretrained(".")',
        f"model.set_generation_params(duration={min(EXAMPLE_S, seconds):g})",
        'sound = model.generate(["hip hop 808 beat with trap drums"])[0]',
    ]
    melody = ""
    if source.model.is_melody:
        melody = (
            "\nMelodies: audiocraft takes them from stems that demucs separates, this project from "
            "the whole mix;\nthe same audio may give different melodies.\n"
        )
    return f"""{front_matter(source, relation="finetune", library="audiocraft")}\
# MusicGen for audiocraft

{ingredients(made_of)}
- Trained on windows of {seconds:g} s: past that its output is useless, whatever the duration
- Licence: {_licence(source)[1]}

{code_block(lines)}

The folder `{name}` is the text encoder, which audiocraft's files don't contain. audiocraft looks
for it in the working directory first, then on the Hub; with a different one, prompts are misread
without any warning. transformers 4 also needs the tokenizer's `spiece.model` in it.
{melody}"""


def adapter_text(
    source: Source,
    facts: Mapping[str, Any] | None,
    samples: Sequence[tuple[str, str]],
    origin: str,
    folder_name: str,
    evaluation: str,
) -> str:
    """The card of an adapter for sharing.

    Args:
        facts: its public facts; None for an adapter of another tool.
        samples: paths within the folder and prompts of the samples.
        origin: name of the folder that they are from, such as step-000100.
        folder_name: name of the adapter in the examples.
        evaluation: results of an evaluation as Markdown; empty if there is none.
    """
    widget = [{"text": prompt, "output": {"url": path}} for path, prompt in samples]
    more = {"widget": widget} if widget else {}
    front = front_matter(source, relation="adapter", library="peft", **more)
    if facts is not None and {"data", "settings", "base_loss"} <= set(facts):
        body = adapter_card(dict(facts), folder_name, evaluation).split("---\n", 2)[2]
        # The names of the clips are private, and are left out.
        body = body.replace(
            "All settings, versions and the held-out clips are", "Settings and versions are"
        )
    else:
        body = f"""# LoRA adapter for MusicGen

- Base: `{source.name}`
- Licence: {_licence(source)[1]}

```sh
musicgen-lora generate --base_model_path {shlex.quote(source.name)} \\
    --lora_model_path {shlex.quote(folder_name)} \\
    --prompts "hip hop 808 beat with trap drums"
```
"""
        body += "\n" + evaluation if evaluation else ""
    if samples:
        lines = [f"- `{path}`: {prompt}" for path, prompt in samples]
        body += "\n".join(["", f"## Samples ({origin})", "", *lines, ""])
    return front + body
