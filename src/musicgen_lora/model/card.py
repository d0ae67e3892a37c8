"""The model card of an adapter."""

from __future__ import annotations

from typing import Any

from musicgen_lora.config import EMBEDDED_NAME


def adapter_card(facts: dict[str, Any], folder_name: str) -> str:
    """Markdown with Hugging Face front matter.

    Args:
        facts: what `musicgen_lora.json` holds.
        folder_name: how the examples call the adapter's folder.
    """
    base, data, settings = facts["base"]["path"], facts["data"], facts["settings"]
    base_loss, best = facts["base_loss"], facts.get("best")
    embedded = base == EMBEDDED_NAME
    licence = (
        "The embedded tiny-beats base is MIT-licensed; the rights in your own audio stay yours "
        "to mind."
        if embedded
        else "Meta's MusicGen weights are CC-BY-NC 4.0: where the base is one of them, what is "
        "derived from it, this adapter included, is for non-commercial use."
    )
    if best is None:
        figures = "No source was held out, so there is no held-out figure."
    else:
        change = 100 * (best["loss"] - base_loss["loss"]) / base_loss["loss"]
        figures = (
            f"Held-out loss {base_loss['loss']:.4f} (base) -> {best['loss']:.4f} "
            f"({change:+.1f} %) at step {best['step']}, on held-out clips: {data['n_validation']}."
        )
    return f"""---
library_name: peft
base_model: {base}
tags: [musicgen, lora, text-to-audio]
---
# LoRA adapter for MusicGen

- Base: `{base}` (fingerprint `{facts["base"]["fingerprint"]}`)
- Rank {settings["lora_rank"]}, alpha {settings["lora_alpha"]}, on \
{", ".join(settings["lora_targets"])}
- Data: {data["n_train"]} training clips, {data["n_validation"]} held out, apart by source \
(fingerprint `{data["fingerprint"]}`)
- {figures}
- Licence: {licence}

With this project:

    musicgen-lora generate --base_model_path {base} --lora_model_path {folder_name} \\
        --prompts "hip hop 808 beat with trap drums"

With bare PEFT:

    from peft import PeftModel
    from transformers import MusicgenForConditionalGeneration
    model = MusicgenForConditionalGeneration.from_pretrained("{base}")
    model = PeftModel.from_pretrained(model, "{folder_name}")

All settings, versions and the held-out clips are in `musicgen_lora.json`.
"""
