"""The export command: a model in another program's format, or an adapter for sharing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.places import at_any_place
from musicgen_lora.config import ExportSettings
from musicgen_lora.console import plain_console
from musicgen_lora.errors import UserError, no_folder
from musicgen_lora.export.adapter import find_samples, write_adapter
from musicgen_lora.export.audiocraft.write import check_exportable, reads_as_t5, write_audiocraft
from musicgen_lora.export.card import audiocraft_card
from musicgen_lora.export.folder import publish
from musicgen_lora.export.hub import Upload
from musicgen_lora.export.sources import MADE_OF_FILE, Source, read_source
from musicgen_lora.given import check_hub_base, check_is_free, check_strengths
from musicgen_lora.model.lora.evaluated import read_evaluation


@at_any_place("export")
def export_model(settings: ExportSettings) -> Path:
    """Writes a MusicGen for audiocraft, or an adapter for sharing.

    Returns:
        The folder. For audiocraft: `state_dict.bin`, `compression_state_dict.bin`, the text
        encoder, and a card that shows how to load it. For PEFT: the adapter, its card and samples.

    Raises:
        UserError: strengths that don't match the adapters, an adapter of another base, a model that
            audiocraft doesn't support, or a folder that is not usable.
        RunError: the disk is full, and nothing is half written; or the Hub refuses the upload.
    """
    check_asked(settings)
    check_is_free(settings.output_dir)
    check_hub_base(settings.model_path, settings.hub_base)
    upload = Upload(settings)
    console = plain_console()
    source = read_source(settings, console)
    write = _for_peft if settings.format == "peft" else _for_audiocraft
    publish(settings.output_dir, write(settings, source, console))
    console.print(
        f"Exported for {settings.format}: {settings.output_dir}; README.md shows how to load it."
    )
    upload.push(settings.output_dir, console)
    return settings.output_dir


def check_asked(settings: ExportSettings) -> None:
    """Raises a UserError if settings don't go together."""
    check_strengths(settings.lora_model_path, settings.strength)
    if settings.format == "peft":
        if len(settings.lora_model_path) != 1 or settings.strength not in ([], [1.0]):
            raise UserError(
                "--format peft exports one adapter unchanged: give one --lora_model_path and no "
                "--strength; to combine several into one model, use merge."
            )
    elif settings.previews is not None:
        raise UserError("--previews only works with --format peft, for its card; leave it out.")
    elif settings.evaluation is not None:
        raise UserError("--evaluation only works with --format peft, for its card; leave it out.")
    if settings.previews is not None and not settings.previews.is_dir():
        raise no_folder(settings.previews, f"--previews {settings.previews}: no such folder.")


def _for_audiocraft(
    settings: ExportSettings, source: Source, console: Console
) -> Callable[[Path], None]:
    check_exportable(source)
    if not reads_as_t5(source):
        console.print(
            f"{source.base}: its tokenizer is not a T5 tokenizer, the only kind that audiocraft "
            "reads; audiocraft will refuse this text encoder.",
            style="yellow",
        )
    made_of = source.made_of()

    def fill(staging: Path) -> None:
        with source.unchanged():
            write_audiocraft(source, staging)
        atomic.write_json(staging / MADE_OF_FILE, made_of)
        text = audiocraft_card(source, made_of, settings.output_dir.resolve().name)
        (staging / atomic.CARD_FILE).write_text(text, encoding="utf-8")

    return fill


def _for_peft(settings: ExportSettings, source: Source, console: Console) -> Callable[[Path], None]:
    (part,) = source.parts
    samples, origin = find_samples(part.files, settings.previews)
    for sample in samples:
        console.print(f"Sample for the card: {sample.path} ({sample.prompt})")
    if not samples:
        console.print("No samples for the card: no previews beside the adapter (see --previews).")
    evaluation = ""
    if settings.evaluation is not None:
        evaluation = read_evaluation(settings.evaluation, part.files.fingerprint)
    else:
        console.print("No evaluation results for the card (see --evaluation).")
    if source.hub_id is None:
        console.print(
            f"The card names no base on the Hub, so PEFT will look for {source.name!r} on other "
            "machines; if the base is on the Hub, give --hub_base.",
            style="yellow",
        )
    called = settings.output_dir.resolve().name
    return lambda staging: write_adapter(source, samples, origin, staging, called, evaluation)
