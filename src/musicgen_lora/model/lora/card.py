"""The model card of an adapter."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicgen_lora import EMBEDDED_NAME

EXAMPLES = "With this project:"
"""The line before which figures are inserted."""


def adapter_card(facts: Mapping[str, Any], folder_name: str, evaluation: str = "") -> str:
    """Markdown with Hugging Face front matter.

    Args:
        facts: the content of `musicgen_lora.json`.
        folder_name: the adapter's folder in the examples.
        evaluation: from `evaluated.read_evaluation`; empty if there is none.
    """
    base, data, settings = facts["base"]["path"], facts["data"], facts["settings"]
    # Facts from before melody models were supported don't name it.
    model_class = facts["base"].get("class", "MusicgenForConditionalGeneration")
    dropped = f"captions dropped {settings['condition_dropout']:g}"
    if "Melody" in model_class:
        dropped += f", melodies dropped {settings['melody_dropout']:g}"
    where = settings["lora_modules"] or ", ".join(settings["lora_targets"])
    if settings["lora_layers"]:
        where += f" (layers {settings['lora_layers']})"
    held = "" if settings["quantise"] == "none" else f", held in {settings['quantise'][0]} bits"
    section = f"{evaluation}\n" if evaluation else ""
    return f"""---
{_front_matter(base)}
---
# LoRA adapter for MusicGen

- Base: `{base}` (fingerprint `{facts["base"]["fingerprint"]}`){held}
- Adapter: {settings["adapter"]}, rank {settings["lora_rank"]}, alpha {settings["lora_alpha"]}, \
initialisation {settings["lora_init"]}, on {where}
- Data: {data["n_train"]} training clips, {data["n_validation"]} held out, split by source \
(fingerprint `{data["fingerprint"]}`)
- Training: learning rate {settings["learning_rate"]:g}, {settings["lr_schedule"]}, batches of \
{settings["batch_size"]} x {settings["gradient_accumulation_steps"]}, {_length(facts)}, windows \
of up to {settings["max_duration"]:g} s, {dropped}, \
seed {settings["seed"]}
- Licence: {licence(base)[1]}

{_figures(facts)}

{section}{EXAMPLES}

```sh
musicgen-lora generate --base_model_path {shlex.quote(base)} \\
    --lora_model_path {shlex.quote(folder_name)} \\
    --prompts "hip hop 808 beat with trap drums"
```

With bare PEFT:

```python
{_bare_code(base, model_class, folder_name)}
```

All settings, versions and the held-out clips are in `musicgen_lora.json`.
"""


def _front_matter(base: str) -> str:
    tag, _ = licence(base)
    lines = ["library_name: peft", "pipeline_tag: text-to-audio"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists():
        lines.append(f"base_model: {base}")
    if tag:
        lines.append(f"license: {tag}")
    lines.append("tags: [musicgen, lora, text-to-audio]")
    return "\n".join(lines)


def _bare_code(base: str, model_class: str, folder_name: str) -> str:
    """Code that loads the adapter with PEFT alone."""
    imports, loaded = "", repr(base)
    if base == EMBEDDED_NAME:
        imports = "from importlib.resources import files\n"
        loaded = 'str(files("musicgen_lora") / "assets" / "tiny_beats")'
    return f"""{imports}from peft import PeftModel
from transformers import {model_class}

model = {model_class}.from_pretrained({loaded})
model = PeftModel.from_pretrained(model, {folder_name!r}).eval()"""


def licence(base: str) -> tuple[str | None, str]:
    """Hugging Face's tag of the licence, if the base's name tells it, and a sentence."""
    if base == EMBEDDED_NAME:
        sentence = "The embedded tiny-beats base is MIT-licensed"
        return None, f"{sentence}; you are responsible for the rights in your own audio."
    sentence = (
        "Meta's MusicGen weights are CC-BY-NC 4.0: if the base is one of them, everything "
        "derived from it, including this adapter, is for non-commercial use only."
    )
    return ("cc-by-nc-4.0" if base.startswith("facebook/musicgen-") else None), sentence


def _length(facts: Mapping[str, Any]) -> str:
    settings, best = facts["settings"], facts.get("best")
    asked = f"{settings['num_epochs']} epochs"
    if settings["max_steps"] is not None:
        asked += f", at most {settings['max_steps']} steps"
    return asked if best is None else f"{asked} (these weights are from step {best['step']})"


def _figures(facts: Mapping[str, Any]) -> str:
    base_loss, best = facts["base_loss"], facts.get("best")
    if best is None:
        return "No source was held out, so there is no held-out loss."
    rows = [("mean", base_loss["loss"], best["loss"])]
    pairs = zip(base_loss["codebooks"], best["codebooks"], strict=True)
    rows += [(f"codebook {number}", *pair) for number, pair in enumerate(pairs, 1)]
    table = "\n".join(
        f"| {name} | {before:.4f} | {after:.4f} | {100 * (after - before) / before:+.1f} % |"
        for name, before, after in rows
    )
    return f"""Held-out loss in nats per token at step {best["step"]}, the step with the lowest \
mean (held-out clips: {facts["data"]["n_validation"]}).

| | base | with adapter | change |
| --- | --- | --- | --- |
{table}"""
