"""What one command plays: batches of clips, takes of each, or music onto a recording.

Clips that are alike but for their texts and seeds are played together; each is written as soon as
it is there, so that an interrupted command has kept what was finished.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.prompts import ClipOrder
from musicgen_lora.generation.clips import (
    TakePlayer,
    Wanted,
    draw_best,
    onto_sentence,
    read_as,
    take_s,
    takes_sentence,
    wanted_of,
    write_clip,
)
from musicgen_lora.generation.continuation import HOLE_DB
from musicgen_lora.generation.decode import window_frames, windows_sentence
from musicgen_lora.generation.outlets import Live
from musicgen_lora.generation.player import Length, Part, Player
from musicgen_lora.generation.recording import Asked
from musicgen_lora.generation.sampling import Sampling
from musicgen_lora.generation.stream import decodes_in_parts
from musicgen_lora.generation.takes import Judged, draw_takes, judge_clip
from musicgen_lora.model.codec import Codec


def alike(orders: Sequence[ClipOrder]) -> Iterator[list[ClipOrder]]:
    """Clips in their order, together as far as they are alike."""

    def but_texts(order: ClipOrder) -> tuple[Any, ...]:
        plain = dataclasses.replace(
            order.settings, prompts=[], change_at=[], negative_prompt="", seed=0
        )
        return plain, tuple(order.settings.change_at)

    for _, some in itertools.groupby(orders, but_texts):
        yield list(some)


def sampling_of(settings: GenerateSettings) -> Sampling:
    """How tokens are drawn."""
    return Sampling(
        guidance_scale=settings.guidance_scale,
        top_k=settings.top_k,
        top_p=settings.top_p,
        temperature=settings.temperature,
        guidance_end=settings.guidance_end,
    )


@dataclass(frozen=True)
class Writer:
    """Writes clips and says so.

    Args:
        folder: where to.
        sample_rate: Hz.
        console: where it is said.
    """

    folder: Path
    sample_rate: int
    console: Console

    def __call__(
        self,
        made: dict[str, Any],
        waveform: np.ndarray,
        wanted: Wanted,
        takes: Sequence[Judged] = (),
        said: str = "",
    ) -> Path:
        """Writes a clip `[C, N]`, the best of its takes where there are some."""
        path = write_clip(self.folder, made, waveform, self.sample_rate, wanted, takes)
        self.console.print(str(path))
        if said:
            self.console.print(f"{path.name}: {said}", style="yellow")
        return path


class Session:
    """Plays what is asked for, and writes it.

    Args:
        player: plays.
        writer: writes.
        live: hears what is played at once.
        facts: who plays, for the JSON.
        asked: what is played onto a recording; None where there is none.
    """

    def __init__(
        self,
        player: Player,
        writer: Writer,
        live: Live,
        facts: dict[str, Any],
        asked: Asked | None = None,
    ) -> None:
        self._player, self._writer, self._live = player, writer, live
        self._facts, self._asked = facts, asked
        self._said: set[str] = set()

    def play(self, orders: Sequence[ClipOrder]) -> list[Path]:
        """Plays clips that are alike.

        Returns:
            The paths of their sounds.
        """
        settings = orders[0].settings
        wanted = wanted_of(settings)
        if not sampling_of(settings).is_guided and any(o.settings.negative_prompt for o in orders):
            self._say(
                "--negative_prompt has no effect where --guidance_scale is 1; raise it above 1."
            )
        if self._asked is not None:
            return [self._play_onto(order.settings, self._asked) for order in orders]
        if wanted.is_plain:
            return self._play_clips([order.settings for order in orders], wanted)
        return [self._play_takes(order.settings, wanted) for order in orders]

    def _say(self, line: str) -> None:
        """Says a line once."""
        if line and line not in self._said:
            self._said.add(line)
            self._writer.console.print(line, style="yellow")

    def _made(
        self, settings: GenerateSettings, wanted: Wanted, duration_s: float
    ) -> dict[str, Any]:
        """How a clip is made, which decides its name."""
        prompt = settings.prompts[0]
        text = read_as(prompt, wanted)
        made: dict[str, Any] = {"prompt": prompt}
        if text != prompt:
            made["read_as"] = text
        if settings.change_at:
            times = (0.0, *settings.change_at)
            made["prompts"] = [
                {"at": at, "prompt": one} for at, one in zip(times, settings.prompts, strict=True)
            ]
        if settings.negative_prompt:
            made["negative_prompt"] = settings.negative_prompt
        made |= {
            "seed": settings.seed,
            "duration_s": duration_s,
            "guidance_scale": settings.guidance_scale,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "temperature": settings.temperature,
        }
        if settings.guidance_end is not None:
            made["guidance_end"] = settings.guidance_end
        window_s = self._window_s
        if duration_s > window_s:
            made["window_s"] = window_s
        return made | wanted.facts() | self._facts

    @property
    def _window_s(self) -> float:
        decoder = self._player.decoder
        return window_frames(decoder.model)[0] / decoder.shape.frame_rate

    def _part(self, settings: GenerateSettings, wanted: Wanted, seed: int | None = None) -> Part:
        texts = tuple(read_as(prompt, wanted) for prompt in settings.prompts)
        seed = settings.seed if seed is None else seed
        return Part(texts, seed, settings.negative_prompt)

    def _play_clips(self, clips: Sequence[GenerateSettings], wanted: Wanted) -> list[Path]:
        """A take of each, `batch_size` together; alone where it is heard while it is made."""
        player, first = self._player, clips[0]
        length = player.length(first.duration, first.change_at)
        self._say(windows_sentence(player.decoder.model, length.n_frames))
        paths, is_live = [], bool(self._live)
        while_made = is_live and decodes_in_parts(player.decoder.model)
        size = 1 if is_live else first.batch_size
        for start in range(0, len(clips), size):
            some = clips[start : start + size]
            player.what = f"clips {start + 1}-{start + len(some)} of {len(clips)}, frames"
            self._live.begin_clip()
            parts = [self._part(clip, wanted) for clip in some]
            waveforms = player.play(
                parts, length, sampling_of(first), self._live if while_made else None
            )
            for clip, waveform in zip(some, waveforms, strict=True):
                made = self._made(clip, wanted, length.n_samples / self._writer.sample_rate)
                if player.depends_on_batch:
                    made["batch"] = len(some)
                paths.append(self._writer(made, waveform, wanted))
                if not while_made:
                    self._live(waveform)
        return paths

    def _play_takes(self, settings: GenerateSettings, wanted: Wanted) -> Path:
        """Takes of a clip, of which the best is kept."""
        player = self._player
        seconds = take_s(wanted, settings.duration, self._window_s)
        length = player.length(seconds, settings.change_at)
        self._say(windows_sentence(player.decoder.model, length.n_frames))
        player.what = f"takes of {settings.prompts[0][:40]}, frames"

        def play(_: Sequence[str], seeds: Sequence[int], __: float) -> list[np.ndarray]:
            parts = [self._part(settings, wanted, seed) for seed in seeds]
            return player.play(parts, length, sampling_of(settings))

        rate = self._writer.sample_rate
        takes_of = TakePlayer(play, rate, seconds, settings.batch_size)
        takes = draw_best(takes_of, settings.prompts[0], settings.seed, wanted)
        made = self._made(settings, wanted, length.n_samples / rate)
        return self._write_best(made, takes, wanted, settings, takes_sentence(takes, wanted))

    def _write_best(
        self,
        made: dict[str, Any],
        takes: Sequence[Judged],
        wanted: Wanted,
        settings: GenerateSettings,
        said: str,
    ) -> Path:
        if self._player.depends_on_batch:
            made["batch"] = settings.batch_size
        path = self._writer(made, takes[0].waveform, wanted, takes, said)
        self._live.begin_clip()
        self._live(takes[0].waveform)
        return path

    def _play_onto(self, settings: GenerateSettings, asked: Asked) -> Path:
        """Takes of what is played onto a recording, until one meets it well."""
        player, extension = self._player, asked.extension
        shape, model = player.decoder.shape, player.decoder.model
        given = extension.codes(Codec(model), shape)
        n_given = 0 if given is None else given.shape[-1]
        new = player.length(extension.seconds, settings.change_at)
        # A frame more, as the recording's rate may be another.
        n_frames = n_given + new.n_frames + 1
        changes = tuple(n_given + at for at in new.changes)
        length = Length(n_frames, n_frames * player.hop, changes, given)
        self._say(windows_sentence(model, n_frames))
        player.what = f"takes of {settings.prompts[0][:40]}, frames"
        wanted = _wanted_onto(wanted_of(settings), asked)
        asking = dataclasses.replace(wanted, bpm=asked.told_bpm)

        def draw(seeds: Sequence[int]) -> list[np.ndarray]:
            parts = [self._part(settings, asking, seed) for seed in seeds]
            return player.play(parts, length, sampling_of(settings))

        def judge(seed: int, take: np.ndarray) -> Judged:
            done = extension.finish(take, shape)
            judged = judge_clip(seed, done.new, done.sample_rate)
            holes = sum(max(0.0, seam.hole_db / HOLE_DB) for seam in done.seams.values())
            return dataclasses.replace(
                judged,
                waveform=done.waveform,
                faults=(*judged.faults, *done.faults),
                penalty=judged.penalty + holes,
                figures={**judged.figures, **done.facts()},
            )

        takes = draw_takes(
            draw,
            judge,
            settings.seed,
            at_least=settings.best_of,
            at_most=max(settings.best_of, settings.loop_tries),
            batch_size=settings.batch_size,
        )
        n_samples = takes[0].waveform.shape[1]
        made = self._made(settings, asking, n_samples / extension.sample_rate)
        made |= wanted.facts() | asked.facts
        path = self._write_best(made, takes, wanted, settings, onto_sentence(takes))
        self._writer.console.print(f"{path.name}: {_seams_sentence(takes[0])}")
        return path


def _wanted_onto(wanted: Wanted, asked: Asked) -> Wanted:
    """What is asked of a recording with new music; a loop stays one."""
    grid = asked.grid
    wanted = dataclasses.replace(wanted, keeps_level=True)
    if grid is None or not grid.is_loop:
        return wanted
    return dataclasses.replace(wanted, bpm=round(grid.bpm, 3), n_bars=grid.n_bars)


def _seams_sentence(take: Judged) -> str:
    """Where new music meets the recording, and how loud it is before and after."""
    seams = {
        name: (*seam["fade_s"], *seam["levels_db"]) for name, seam in take.figures["seams"].items()
    }
    if not seams:
        return "there is nothing that it passes into."
    parts = [
        f"{begin_s:.3f} to {end_s:.3f} s ({before:.1f} dB before, {after:.1f} after)"
        for begin_s, end_s, before, after in seams.values()
    ]
    return f"crossfades at {' and '.join(parts)}."
