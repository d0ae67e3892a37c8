"""The generate command: from prompts to sound files, each with a JSON that says how it was made."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import free_stdout, plain_console
from musicgen_lora.generation.clips.clip import Clip
from musicgen_lora.generation.clips.keeping import (
    WAIT_S,
    onto_sentence,
    seams_sentence,
    takes_sentence,
    write_clip,
)
from musicgen_lora.generation.musicgen import MusicGen
from musicgen_lora.generation.outlets import open_live
from musicgen_lora.generation.wanted import check_request
from musicgen_lora.runtime.locks import locked


def generate_audio(settings: GenerateSettings) -> list[Path]:
    """Generates a clip or a loop for each prompt.

    Returns:
        Paths of the sound files. A clip whose prompt, seed, models and settings are those of an
        existing file has its name and its samples; nothing else is ever overwritten.

    Raises:
        UserError: no prompts, an empty one, a loop that can't be, strengths that don't match the
            adapters, a recording that can't be gone on with, or a model, adapter or output folder
            that is not usable.
        RunError: the disk is full; the clips before are whole, and nothing is half written.
    """
    with free_stdout(settings.stdout is not None):
        return _generate(settings)


def _generate(settings: GenerateSettings) -> list[Path]:
    check_request(settings)
    console = plain_console()
    model = MusicGen.load(settings.base_model_path, precision=settings.precision)
    strengths = settings.strength or [1.0] * len(settings.lora_model_path)
    for path, strength in zip(settings.lora_model_path, strengths, strict=True):
        model.add_adapter(path, strength)
    session = model.session(settings)
    # What a killed run has left there; files are only made while the folder is held.
    with locked(settings.output_dir, wait_s=WAIT_S):
        atomic.sweep(settings.output_dir)
    rate, n_channels = session.sample_rate, session.n_channels
    began, paths = time.monotonic(), list[Path]()
    with open_live(settings.play, settings.stdout, rate, n_channels) as live:
        if settings.stdout is not None:
            console.print(f"Standard output: {settings.stdout}, {rate} Hz, {n_channels} channels.")
        for clip in session.clips(live):
            paths.append(path := write_clip(settings.output_dir, clip))
            _say_of(clip, path, console)
    elapsed, total_s = time.monotonic() - began, session.played_s
    console.print(
        f"{total_s:.0f} s of audio in {elapsed:.1f} s ({total_s / elapsed:.1f} times real time)."
    )
    return paths


def _say_of(clip: Clip, path: Path, console: Console) -> None:
    """Says where a clip is, and what of it isn't as it was asked for."""
    console.print(str(path))
    takes, is_onto = clip.takes, clip.wanted.keeps_level
    if not takes:
        return
    said = onto_sentence(takes) if is_onto else takes_sentence(takes, clip.wanted)
    if said:
        console.print(f"{path.name}: {said}", style="yellow")
    if is_onto:
        console.print(f"{path.name}: {seams_sentence(takes[0])}")
