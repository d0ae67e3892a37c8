"""The import command: an audiocraft export in, a MusicGen in Hugging Face's format out."""

from __future__ import annotations

from pathlib import Path

from musicgen_lora.cluster.places import at_any_place
from musicgen_lora.config import ImportSettings
from musicgen_lora.console import plain_console
from musicgen_lora.export.audiocraft.read import read_audiocraft, write_checkpoint
from musicgen_lora.export.folder import publish
from musicgen_lora.given import check_export_folder, check_is_free


@at_any_place("import")
def import_model(settings: ImportSettings) -> Path:
    """Turns an audiocraft export into a folder that this project, transformers and PEFT read.

    Returns:
        The folder.

    Raises:
        UserError: no export, a damaged one, or one of a model that transformers doesn't support.
        RunError: the disk is full; nothing is half written.
    """
    check_export_folder(settings.input_dir)
    check_is_free(settings.output_dir)
    console = plain_console()
    read = read_audiocraft(settings.input_dir, settings.model_path)
    for line in read.taken:
        console.print(line)
    publish(settings.output_dir, lambda staging: write_checkpoint(read, staging))
    console.print(f"Written in Hugging Face's format: {settings.output_dir}")
    return settings.output_dir
