"""The generate command: from prompts to sound files, each with a JSON that says how it was made."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.engine import Engine, open_engine
from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import free_stdout, plain_console, progress
from musicgen_lora.errors import RunError
from musicgen_lora.generation.captions import check_captions
from musicgen_lora.generation.clip_tasks import play_by
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
from musicgen_lora.generation.session import Session
from musicgen_lora.generation.wanted import check_request
from musicgen_lora.model.lora.adapter import read_adapter
from musicgen_lora.plural import count
from musicgen_lora.runtime.locks import locked
from musicgen_lora.runtime.workers import Failure


def generate_audio(settings: GenerateSettings) -> list[Path]:
    """Generates a clip or a loop for each prompt.

    Returns:
        Paths of the sound files. A clip whose prompt, seed, models and settings are those of an
        existing file has its name and its samples; nothing else is ever overwritten.

    Raises:
        UserError: no prompts, an empty one, a loop that can't be, strengths that don't match the
            adapters, a recording that can't be gone on with, or a model, adapter or output folder
            that is not usable.
        RunError: the disk is full, or a clip costs the machines of a cluster their workers; the
            other clips are whole, and nothing is half written.
    """
    with free_stdout(settings.stdout is not None):
        return _generate(settings)


def _generate(settings: GenerateSettings) -> list[Path]:
    check_request(settings)
    console = plain_console()
    # Damaged ones, and those that keep no captions, are refused before a base of gigabytes is read.
    adapters = [read_adapter(path) for path in settings.lora_model_path]
    if settings.from_captions:
        check_captions(adapters)
    model = MusicGen.load(settings.base_model_path, precision=settings.precision)
    strengths = settings.strength or [1.0] * len(adapters)
    for files, strength in zip(adapters, strengths, strict=True):
        model.add_adapter(files, strength)
    session = model.session(settings)
    # What a killed run has left there; files are only made while the folder is held.
    with locked(settings.output_dir, wait_s=WAIT_S):
        atomic.sweep(settings.output_dir)
    began = time.monotonic()
    if settings.ray is None:
        paths, total_s = _play_here(settings, session, console)
    else:
        with open_engine(settings.ray) as engine:
            paths, total_s = _play_there(settings, session, engine, console)
    elapsed = time.monotonic() - began
    console.print(
        f"{total_s:.0f} s of audio in {elapsed:.1f} s ({total_s / elapsed:.1f} times real time)."
    )
    return paths


def _play_here(
    settings: GenerateSettings, session: Session, console: Console
) -> tuple[list[Path], float]:
    """Paths of the clips, and seconds that were played."""
    rate, n_channels, paths = session.sample_rate, session.n_channels, list[Path]()
    with open_live(settings.play, settings.stdout, rate, n_channels) as live:
        if settings.stdout is not None:
            console.print(f"Standard output: {settings.stdout}, {rate} Hz, {n_channels} channels.")
        for clip in session.clips(live):
            paths.append(path := write_clip(settings.output_dir, clip))
            _say_of(clip, path, console)
    return paths, session.played_s


def _play_there(
    settings: GenerateSettings, session: Session, engine: Engine, console: Console
) -> tuple[list[Path], float]:
    """The same by an engine."""
    paths, reasons, said, played_s = dict[int, Path](), list[str](), set[str](), 0.0
    n_clips = len(session.orders)
    with progress(console, "clips played", n_clips) as on_clip:
        for rows, found in play_by(engine, settings, session):
            if isinstance(found, Failure):
                prompt, seed = rows[0][1].settings.prompts[0], rows[0][1].settings.seed
                reasons.append(f'The prompt "{prompt[:40]}" with seed {seed}: {found.reason}')
                console.print(reasons[-1], style="yellow")
                continue
            for line in (new for new in found.said if new not in said):
                said.add(line)
                console.print(line, style="yellow")
            for (number, _), clip in zip(rows, found.clips, strict=True):
                paths[number] = write_clip(settings.output_dir, clip)
                _say_of(clip, paths[number], console)
            played_s += found.played_s
            on_clip(len(paths) + len(reasons), n_clips)
    if reasons:
        raise RunError(
            f"{len(reasons)} of {count(n_clips, 'clip')} can't be played, all others are written. "
            f"The first: {reasons[0]}"
        )
    return [paths[number] for number in sorted(paths)], played_s


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
