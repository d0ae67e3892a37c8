"""The merge command: a base and adapters in, a checkpoint for plain transformers out."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.places import at_any_place
from musicgen_lora.config import MergeSettings
from musicgen_lora.console import plain_console
from musicgen_lora.export.card import checkpoint_card
from musicgen_lora.export.checkpoint import copy_checkpoint, left_behind
from musicgen_lora.export.folder import publish
from musicgen_lora.export.hub import Upload
from musicgen_lora.export.sources import MADE_OF_FILE, Source, read_source
from musicgen_lora.formats.documents import read_json
from musicgen_lora.given import check_adapters, check_hub_base, check_is_free, check_strengths
from musicgen_lora.plural import count


@at_any_place("merge")
def merge_adapters(settings: MergeSettings) -> Path:
    """Merges adapters into a base.

    Returns:
        The folder of the checkpoint. Weights that no adapter changes keep their bytes from the
        base's files; merged ones are float32.

    Raises:
        UserError: no adapters, strengths that don't match them, an adapter of another base, or a
            folder that is not usable.
        RunError: the disk is full, and nothing is half written; or the Hub refuses the upload.
    """
    check_adapters(settings.lora_model_path)
    check_strengths(settings.lora_model_path, settings.strength)
    check_is_free(settings.output_dir)
    check_hub_base(settings.model_path, settings.hub_base)
    upload = Upload(settings)
    console = plain_console()
    source = read_source(settings, console)
    made_of = source.made_of()

    def fill(staging: Path) -> None:
        with source.unchanged():
            copy_checkpoint(source.folder, staging, source.changed_tensors())
        atomic.write_json(staging / MADE_OF_FILE, made_of)
        text = checkpoint_card(source, made_of, settings.output_dir.resolve().name)
        (staging / atomic.CARD_FILE).write_text(text, encoding="utf-8")

    publish(settings.output_dir, fill)
    _tell(source, settings.output_dir, console)
    upload.push(settings.output_dir, console)
    return settings.output_dir


def _tell(source: Source, folder: Path, console: Console) -> None:
    others = left_behind(source.folder)
    if others:
        console.print(f"Not copied from the base's folder: {', '.join(others)}.")
    config = read_json(source.folder / "config.json")
    asked = config.get("dtype") or config.get("torch_dtype")
    if source.changed and asked not in (None, "float32"):
        console.print(
            f"The base's config.json sets {asked}: transformers will round the merged weights to "
            "it unless you load them with dtype=torch.float32.",
            style="yellow",
        )
    strengths = ", ".join(f"{part.files.folder} x {part.strength:g}" for part in source.parts)
    console.print(
        f"Merged {strengths} into {source.base}, changing {count(len(source.changed), 'weight')}: "
        f"{folder}"
    )
