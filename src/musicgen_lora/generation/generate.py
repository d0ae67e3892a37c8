"""From prompts to sound files, each with a JSON that says how it was made."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.engine import open_engine
from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import plain_console
from musicgen_lora.generation.clips import WAIT_S, wanted_of
from musicgen_lora.generation.prompt_tasks import play_by
from musicgen_lora.generation.session import Session
from musicgen_lora.given import check_prompts, check_strengths
from musicgen_lora.model.reading import TextReader, describe_readings
from musicgen_lora.runtime.locks import locked


def generate_audio(settings: GenerateSettings) -> list[Path]:
    """Generates a clip or a loop for each prompt.

    Returns:
        Paths of the sound files. A clip whose prompt, seed, models and settings are those of an
        existing file has its name and its samples; nothing else is ever overwritten.

    Raises:
        UserError: no prompts, an empty one, a loop that can't be, or a model, adapter or output
            folder that is not usable.
        RunError: the disk is full; the clips before are whole, and nothing is half written.
    """
    check_prompts(settings.prompts, needed=True)
    check_strengths(settings.lora_model_path, settings.strength)
    # Before a model is loaded.
    wanted_of(settings)
    console = plain_console()
    session = Session(settings, console, console)
    # What a killed run has left there; files are only made while the folder is held.
    with locked(settings.output_dir, wait_s=WAIT_S):
        atomic.sweep(settings.output_dir)
    for line in describe_readings(
        settings.prompts, lambda: TextReader.of(session.tokenizer), "prompt"
    ):
        console.print(line, style="yellow")
    began = time.monotonic()
    paths, n_takes = _played(settings, session, console)
    elapsed = time.monotonic() - began
    total_s = n_takes * session.how["duration_s"]
    console.print(
        f"{total_s:.0f} s of audio in {elapsed:.1f} s ({total_s / elapsed:.1f} times real time)."
    )
    return paths


def _played(
    settings: GenerateSettings, session: Session, console: Console
) -> tuple[list[Path], int]:
    """The files, and how many takes were played, by whom the settings name."""
    if settings.ray is None:
        paths = session.play(settings.prompts, settings.seed)
        return paths, session.player.n_played
    with open_engine(settings.ray) as engine:
        return play_by(engine, settings, session, console)
