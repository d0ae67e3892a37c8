"""Tokenising as a step of its own. Training does it by itself for what is missing; on its own it
can run beforehand, on another machine, or while captions are being written."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from musicgen_lora.config import TokeniseSettings
from musicgen_lora.console import plain_console
from musicgen_lora.data.metadata import load_dataset
from musicgen_lora.data.tokens import clip_ids, tokenise_clips
from musicgen_lora.model.codec import codec_fingerprint
from musicgen_lora.model.musicgen import load_base


def tokenise_dataset(settings: TokeniseSettings) -> Path:
    """Encodes the clips of a dataset that no shard holds yet.

    Returns:
        Folder of the shards.

    Raises:
        UserError: no such dataset or model, or audio that cannot be used.
    """
    console = plain_console()
    clips = load_dataset(settings.data_dir, settings.metadata_file)
    model = load_base(settings.model_path)
    ids = clip_ids(clips, settings.data_dir)
    n_new = 0
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("tokenising", total=None)

        def on_clip(done: int, total: int) -> None:
            nonlocal n_new
            n_new = done
            progress.update(task, completed=done, total=total)

        codes = tokenise_clips(clips, ids, model, settings.data_dir, on_clip)
    folder = settings.data_dir / "tokens" / codec_fingerprint(model)
    console.print(
        f"{n_new} clips encoded, {len(clips) - n_new} were there; "
        f"{len(clips)} clips, {codes.n_frames.sum()} frames: {folder}"
    )
    return folder
