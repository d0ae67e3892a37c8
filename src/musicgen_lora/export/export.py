"""The export command: a base, its adapters merged, in the form that another program reads."""

from __future__ import annotations

from pathlib import Path

from musicgen_lora import atomic
from musicgen_lora.config import ExportSettings
from musicgen_lora.console import plain_console
from musicgen_lora.export.audiocraft.write import check_fits, reads_as_t5, write_audiocraft
from musicgen_lora.export.card import audiocraft_card
from musicgen_lora.export.folder import publish
from musicgen_lora.export.sources import FACTS_FILE, read_source
from musicgen_lora.given import check_is_free, check_strengths


def export_model(settings: ExportSettings) -> Path:
    """Writes a MusicGen for audiocraft.

    Returns:
        The folder: `state_dict.bin`, `compression_state_dict.bin`, the text encoder, and a card
        that says how audiocraft loads it.

    Raises:
        UserError: strengths that don't match the adapters, an adapter of another base, a model that
            audiocraft doesn't have, or a folder that is not usable.
        RunError: the disk is full; nothing is half written.
    """
    check_strengths(settings.lora_model_path, settings.strength)
    check_is_free(settings.output_dir)
    console = plain_console()
    source = read_source(settings.model_path, settings.lora_model_path, settings.strength)
    check_fits(source)
    if not reads_as_t5(source):
        console.print(
            f"{source.base}: its tokenizer is none of T5's kind, and audiocraft reads text by T5's "
            "alone: it will refuse this text encoder.",
            style="yellow",
        )
    facts = source.facts()

    def fill(staging: Path) -> None:
        write_audiocraft(source, staging)
        atomic.write_json(staging / FACTS_FILE, facts)
        text = audiocraft_card(source, facts, settings.output_dir.resolve().name)
        (staging / "README.md").write_text(text, encoding="utf-8")

    publish(settings.output_dir, fill)
    console.print(f"For audiocraft: {settings.output_dir}; its README.md says how it is loaded.")
    return settings.output_dir
