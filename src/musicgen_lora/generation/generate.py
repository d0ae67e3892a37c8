"""The generate command: prompts in, sound files out, each with a JSON that says how it was made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.engine import Engine, open_engine
from musicgen_lora.cluster.places import at_any_place
from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import free_stdout, plain_console, progress
from musicgen_lora.errors import RunError
from musicgen_lora.generation.clip_tasks import PlayedBatch, play_by
from musicgen_lora.generation.clips.clip import GeneratedClip
from musicgen_lora.generation.clips.keeping import (
    WAIT_S,
    level_sentence,
    loudness_sentence,
    seams_sentence,
    takes_sentence,
    write_clip,
)
from musicgen_lora.generation.clips.written import Written
from musicgen_lora.generation.musicgen import MusicGen
from musicgen_lora.generation.orders import check_captions
from musicgen_lora.generation.outlets import open_live
from musicgen_lora.generation.recordings.bar_grid import check_asked_bars
from musicgen_lora.generation.recordings.extension import quieter_sentence
from musicgen_lora.generation.session import Session
from musicgen_lora.generation.wanted import check_request
from musicgen_lora.given import added_sentence, added_strengths
from musicgen_lora.model.lora.adapter import read_adapter
from musicgen_lora.plural import count
from musicgen_lora.runtime.locks import locked, staying


@at_any_place("generate")
def generate_audio(settings: GenerateSettings) -> list[Path]:
    """Generates a clip or a loop for each prompt.

    Returns:
        Paths of the sound files. If a file with the same prompt, seed, models and settings exists,
        it is kept; it is generated again only if it was altered, lacks a file that is asked for
        beside it, or is to be heard. Nothing else is ever overwritten.

    Raises:
        UserError: no prompts, an empty one, an impossible loop, strengths that don't match the
            adapters, a recording that can't be continued, or a model, adapter or output folder
            that is not usable.
        RunError: the disk is full, or a clip crashes the workers of a cluster; the other clips are
            complete, and nothing is half written.
    """
    with free_stdout(settings.stdout is not None):
        return _generate(settings)


def _generate(settings: GenerateSettings) -> list[Path]:
    check_request(settings)
    check_asked_bars(settings)
    console = plain_console()
    # Damaged adapters, and those without captions, are refused before a base of gigabytes is read.
    pairs = added_strengths(settings.lora_model_path, settings.strength)
    adapters = [read_adapter(path) for path, _ in pairs]
    if settings.from_captions:
        check_captions(adapters)
    if line := added_sentence(settings.lora_model_path, settings.strength):
        console.print(line)
    model = MusicGen.load(settings.base_model_path, precision=settings.precision)
    for files, (_, strength) in zip(adapters, pairs, strict=True):
        model.add_adapter(files, strength)
    session = model.session(settings)
    # Remove what a killed run left; files are only made while the folder is locked.
    with locked(settings.output_dir, wait_s=WAIT_S):
        atomic.sweep(settings.output_dir)
    is_heard = settings.play or settings.stdout is not None
    written = Written(settings.output_dir, [] if is_heard else session.orders)
    began = time.monotonic()
    with staying(settings.output_dir):
        if settings.ray is None:
            made = _play_here(settings, session, written, console)
        else:
            with open_engine(settings.ray) as engine:
                made = _play_there(settings, session, written, engine, console)
    elapsed = time.monotonic() - began
    if made.n_kept:
        console.print(f"Kept from before: {made.n_kept} of {count(len(made.paths), 'clip')}.")
    if made.n_kept < len(made.paths):
        console.print(made.sentence(elapsed))
    return [made.paths[place] for place in sorted(made.paths)]


@dataclass
class _Made:
    """The files of a request so far.

    Args:
        paths: of its clips, by place.
        n_kept: how many of them existed already.
        written_s: seconds of the others.
        played_s: seconds of all takes that were played for them.
    """

    paths: dict[int, Path] = field(default_factory=dict)
    n_kept: int = 0
    written_s: float = 0.0
    played_s: float = 0.0

    def keep(self, place: int, path: Path, console: Console) -> None:
        """Keeps a clip that exists already."""
        self.paths[place] = path
        self.n_kept += 1
        console.print(str(path))

    def write(
        self, place: int, clip: GeneratedClip, folder: Path, written: Written, console: Console
    ) -> None:
        """Writes a clip and reports it."""
        self.paths[place] = path = write_clip(folder, clip)
        self.written_s += clip.duration_s
        _say_of(clip, path, written.altered.get((place, clip.identity)), console)

    def sentence(self, elapsed_s: float) -> str:
        """How much was written and how much was played for it: more where takes were dropped or
        cut, less where a recording was continued."""
        speed = f"{self.played_s / elapsed_s:.1f}"
        # Whole seconds, but a short clip isn't nothing.
        written, played = (
            f"{seconds:.0f}" if seconds >= 9.5 else f"{seconds:.1g}"
            for seconds in (self.written_s, self.played_s)
        )
        if written == played:
            return f"{played} s of audio in {elapsed_s:.1f} s ({speed} times real time)."
        return (
            f"{written} s of audio written; {played} s generated for it in {elapsed_s:.1f} s "
            f"({speed} times real time)."
        )


def _play_here(
    settings: GenerateSettings, session: Session, written: Written, console: Console
) -> _Made:
    rate, n_channels, made = session.sample_rate, session.n_channels, _Made()

    def is_there(place: int, identity: str) -> bool:
        if identity not in written.identities(place):
            return False
        made.keep(place, written.path(place, identity), console)
        return True

    with open_live(settings.play, settings.stdout, rate, n_channels) as live:
        if settings.stdout is not None:
            channels = count(n_channels, "channel")
            console.print(f"Standard output: {settings.stdout}, {rate} Hz, {channels}.")
        for place, clip in session.missing(is_there, live):
            made.write(place, clip, settings.output_dir, written, console)
    made.played_s = session.played_s
    return made


def _play_there(
    settings: GenerateSettings, session: Session, written: Written, engine: Engine, console: Console
) -> _Made:
    """As `_play_here`, on an engine."""
    made, reasons, said = _Made(), list[str](), set[str]()
    n_clips = len(session.orders)
    with progress(console, "clips generated", n_clips) as on_clip:
        for outcome in play_by(engine, settings, session, written):
            for (_, order), why in outcome.faults:
                prompt, seed = order.settings.prompts[0], order.settings.seed
                reasons.append(f'The prompt "{prompt[:40]}" with seed {seed}: {why.reason}')
                console.print(reasons[-1], style="yellow")
            found = outcome.found or PlayedBatch()
            for line in (new for new in found.said if new not in said):
                said.add(line)
                console.print(line, style="yellow")
            for place, identity in found.kept.items():
                made.keep(place, written.path(place, identity), console)
            for place, clip in found.clips:
                made.write(place, clip, settings.output_dir, written, console)
            made.played_s += found.played_s
            on_clip(len(made.paths) + len(reasons), n_clips)
    if reasons:
        raise RunError(
            f"{len(reasons)} of {count(n_clips, 'clip')} failed; all others are written. "
            f"The first failure: {reasons[0]}"
        )
    return made


def _say_of(clip: GeneratedClip, path: Path, altered: str | None, console: Console) -> None:
    """Prints where a clip is, whether its old file was altered, and where it misses the request."""
    console.print(str(path))
    if altered is not None:
        console.print(
            f"{altered}: was altered after it was written; the clip was generated again.",
            style="yellow",
        )
    if said := loudness_sentence(clip) or level_sentence(clip):
        console.print(f"{path.name}: {said}", style="yellow")
    if clip.wanted.n_bars is not None and clip.wanted.format == "mp3":
        console.print(
            f"{path.name}: many programs play the silence that MP3 adds at both ends, which is a "
            "gap in a loop; --format flac or ogg has none.",
            style="yellow",
        )
    if clip.takes and (said := takes_sentence(clip.takes, clip.wanted)):
        console.print(f"{path.name}: {said}", style="yellow")
    if clip.takes and clip.wanted.keeps_level:
        console.print(f"{path.name}: {seams_sentence(clip.takes[0])}")
        if said := quieter_sentence(clip.takes[0].figures["onto"]):
            console.print(f"{path.name}: {said}", style="yellow")
