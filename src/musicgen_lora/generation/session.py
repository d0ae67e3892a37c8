"""What one request plays: batches of clips, takes of each, or new music in a recording.

`MusicGen` makes a session from the settings; the command and Python play it. Clips that differ only
in texts and seeds are batched; each is yielded as soon as it is done, so that an interrupted
command has written what was finished.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.prompts import ClipOrder
from musicgen_lora.dataset.caption_words import stated_bpm
from musicgen_lora.generation.clips.clip import GeneratedClip, identity_of
from musicgen_lora.generation.clips.keeping import Draw, draw_best
from musicgen_lora.generation.clips.takes import JudgedTake, draw_takes, judge_clip
from musicgen_lora.generation.decoding.decode import window_bar, window_frames, windows_sentence
from musicgen_lora.generation.decoding.sampling import Sampling, sampling_of
from musicgen_lora.generation.decoding.stream import decodes_in_parts
from musicgen_lora.generation.outlets import Live
from musicgen_lora.generation.player import ClipTexts, Length, Player
from musicgen_lora.generation.recordings.continuation import HOLE_DB
from musicgen_lora.generation.recordings.recording import Extending, tempo_sentence
from musicgen_lora.generation.wanted import Wanted, read_as, take_s, unused_sentence, wanted_of
from musicgen_lora.listening.pitch.key_names import normalise_key
from musicgen_lora.model.text.wording import english_of

IsThere = Callable[[int, str], bool]
"""Whether a clip exists already, by its place in the request and its identity."""
PlacedSettings = tuple[int, GenerateSettings]
"""A clip's place in the request, and its settings."""


def alike(orders: Sequence[ClipOrder]) -> Iterator[list[ClipOrder]]:
    """Group consecutive clips that differ only in texts and seeds."""

    def but_texts(order: ClipOrder) -> tuple[Any, ...]:
        plain = dataclasses.replace(
            order.settings, prompts=[], change_at=[], negative_prompt="", seed=0
        )
        return plain, tuple(order.settings.change_at)

    for _, some in itertools.groupby(orders, but_texts):
        yield list(some)


class Session:
    """Plays a request.

    Args:
        orders: its clips.
        facts: base and adapters, for the JSON.
        asked: how a recording is extended; None if there is none.
    """

    def __init__(
        self,
        player: Player,
        orders: Sequence[ClipOrder],
        facts: dict[str, Any],
        asked: Extending | None = None,
    ) -> None:
        self._player, self.orders = player, list(orders)
        self.facts, self._asked = facts, asked
        self.said: list[str] = []
        """Remarks on settings that work differently than expected, each once."""
        shape = player.decoder.shape
        self.sample_rate, self.n_channels = shape.sample_rate, shape.n_channels
        """Rate and channels of the clips."""
        if asked is not None:
            self.sample_rate = asked.extension.sample_rate
            self.n_channels = len(asked.extension.recording)
        self._live = Live([], self.sample_rate)

    @property
    def played_s(self) -> float:
        """Seconds of all takes so far."""
        return self._player.n_samples / self._player.decoder.shape.sample_rate

    def clips(self, live: Live | None = None) -> Iterator[GeneratedClip]:
        """Plays the request and yields each clip as soon as it is done.

        Args:
            live: plays clips as they are made; a loop, or the best of several takes, once it is
                chosen.
        """
        yield from (clip for _, clip in self.missing(lambda place, identity: False, live))

    def missing(
        self, is_there: IsThere, live: Live | None = None
    ) -> Iterator[tuple[int, GeneratedClip]]:
        """Plays the clips that don't exist yet and yields each with its place in the request; see
        `clips`."""
        if live is not None:
            self._live = live
        place = 0
        for some in alike(self.orders):
            yield from self._alike(some, place, is_there)
            place += len(some)

    def chunks(self, chunk_s: float) -> Iterator[np.ndarray]:
        """Plays the first clip and yields its samples in chunks `[C, n]`."""
        settings = self.orders[0].settings
        player, wanted = self._player, wanted_of(settings)
        self._say_of_guidance(self.orders[:1])
        length = player.length(settings.duration, settings.change_at)
        self._say(windows_sentence(player.decoder.base, length.n_frames))
        part = self._part(settings, wanted)
        yield from player.stream(part, length, self._sampling(settings), chunk_s)

    def _alike(
        self, orders: Sequence[ClipOrder], place: int, is_there: IsThere
    ) -> Iterator[tuple[int, GeneratedClip]]:
        """Plays a group of `alike`, whose first clip has this place in the request."""
        wanted = wanted_of(orders[0].settings)
        rows = [(place + number, order.settings) for number, order in enumerate(orders)]
        self._say_of_guidance(orders)
        self._say(unused_sentence(orders[0].settings))
        if self._asked is None and wanted.is_plain:
            yield from self._play_clips(rows, wanted, is_there)
            return
        for row, settings in rows:
            if self._asked is None:
                played = self._play_takes(settings, wanted, partial(is_there, row))
            else:
                played = self._play_onto(settings, self._asked, partial(is_there, row))
            if played is None:
                continue
            clip, waveform = played
            yield row, clip
            self._live.begin_clip()
            self._live(waveform)

    def _sampling(self, settings: GenerateSettings) -> Sampling:
        """How tokens are drawn."""
        sampling = sampling_of(settings, self._player.decoder.base.facts)
        return dataclasses.replace(sampling, guidance_end=settings.guidance_end)

    def _say_of_guidance(self, orders: Sequence[ClipOrder]) -> None:
        settings = [order.settings for order in orders]
        if not self._sampling(settings[0]).is_guided and any(s.negative_prompt for s in settings):
            self._say(
                "--negative_prompt has no effect while --guidance_scale is 1; raise it above 1."
            )

    def _say(self, line: str) -> None:
        """Prints a line, but only once."""
        if line and line not in self.said:
            self.said.append(line)
            self._player.console.print(line, style="yellow")

    def _made(
        self, settings: GenerateSettings, wanted: Wanted, length: Length, n_together: int
    ) -> dict[str, Any]:
        """How a clip is made, which decides its name; `n_together` is the size of its batch."""
        prompt, sampling = settings.prompts[0], self._sampling(settings)
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
            "duration_s": length.n_samples / self.sample_rate,
            "guidance_scale": sampling.guidance_scale,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "temperature": sampling.temperature,
        }
        if settings.guidance_end is not None:
            made["guidance_end"] = settings.guidance_end
        if length.n_frames > window_frames(self._player.decoder.base)[0]:
            made["window_s"] = self._window_s
        tempi = self._window_tempi(settings, wanted, length)
        if any(tempi):
            made["window_bpm"] = tempi
        if self._player.depends_on_batch:
            made["batch"] = n_together
        return made | wanted.facts() | self.facts

    @property
    def _window_s(self) -> float:
        decoder = self._player.decoder
        return window_frames(decoder.base)[0] / decoder.shape.frame_rate

    def _window_tempi(
        self, settings: GenerateSettings, wanted: Wanted, length: Length
    ) -> list[float | None]:
        """For each prompt, the tempo whose bar lines windows begin on; None where they don't."""
        decoder = self._player.decoder
        lines = self._player.bars(self._part(settings, wanted).texts, length)
        bars = [window_bar(decoder.base, length.n_frames, own) for own in lines]
        per_minute = 240.0 * decoder.shape.frame_rate
        return [None if bar is None else round(per_minute / bar, 3) for bar in bars]

    def _part(
        self, settings: GenerateSettings, wanted: Wanted, seed: int | None = None
    ) -> ClipTexts:
        texts = tuple(read_as(prompt, wanted) for prompt in settings.prompts)
        seed = settings.seed if seed is None else seed
        return ClipTexts(texts, seed, settings.negative_prompt)

    def _play_clips(
        self, rows: Sequence[PlacedSettings], wanted: Wanted, is_there: IsThere
    ) -> Iterator[tuple[int, GeneratedClip]]:
        """One take of each clip, `batch_size` at a time; one at a time if they are heard live."""
        player, first = self._player, rows[0][1]
        length = player.length(first.duration, first.change_at)
        self._say(windows_sentence(player.decoder.base, length.n_frames))
        is_live = bool(self._live)
        while_made = is_live and decodes_in_parts(player.decoder.base)
        size = 1 if is_live else first.batch_size
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            made = {row: self._made(one, wanted, length, len(some)) for row, one in some}
            tempi = [one.get("window_bpm") for one in made.values()]
            if player.depends_on_batch and any(one != tempi[0] for one in tempi):
                # Some clips take more windows than others, with a smaller batch beside them.
                made = {row: one | {"batch_bpm": tempi} for row, one in made.items()}
            missing = {row for row in made if not is_there(row, identity_of(made[row]))}
            if not missing:
                continue
            if not player.depends_on_batch:
                some = [(row, one) for row, one in some if row in missing]
            player.what = f"clips {start + 1}-{start + len(some)} of {len(rows)}, frames"
            if len(rows) == 1:
                player.what = "the clip, frames"
            self._live.begin_clip()
            parts = [self._part(one, wanted) for _, one in some]
            waveforms = player.play(
                parts, length, self._sampling(first), self._live if while_made else None
            )
            for (row, _), waveform in zip(some, waveforms, strict=True):
                if row in missing:
                    yield row, GeneratedClip.of(made[row], waveform, self.sample_rate, wanted)
                if not while_made:
                    self._live(waveform)

    def _play_takes(
        self, settings: GenerateSettings, wanted: Wanted, is_there: Callable[[str], bool]
    ) -> tuple[GeneratedClip, np.ndarray] | None:
        """The best take of a clip, and its waveform as it was played; None if the clip exists."""
        seconds = take_s(wanted, settings.duration, self._window_s)
        length = self._player.length(seconds, settings.change_at)
        made = self._made(settings, wanted, length, settings.batch_size)
        if is_there(identity_of(made)):
            return None
        takes = draw_best(
            self._draws(settings, wanted, length),
            settings.prompts[0],
            settings.seed,
            wanted,
            sample_rate=self.sample_rate,
            batch_size=settings.batch_size,
        )
        return self._best(made, takes, wanted)

    def _draws(self, settings: GenerateSettings, wanted: Wanted, length: Length) -> Draw:
        """A function that plays takes of a clip by their seeds."""
        player = self._player
        self._say(windows_sentence(player.decoder.base, length.n_frames))
        player.what = f"takes of {settings.prompts[0][:40]}, frames"

        def draw(seeds: Sequence[int]) -> list[np.ndarray]:
            parts = [self._part(settings, wanted, seed) for seed in seeds]
            return player.play(parts, length, self._sampling(settings))

        return draw

    def _best(
        self, made: dict[str, Any], takes: Sequence[JudgedTake], wanted: Wanted
    ) -> tuple[GeneratedClip, np.ndarray]:
        waveform = takes[0].waveform
        return GeneratedClip.of(made, waveform, self.sample_rate, wanted, takes), waveform

    def _play_onto(
        self, settings: GenerateSettings, asked: Extending, is_there: Callable[[str], bool]
    ) -> tuple[GeneratedClip, np.ndarray] | None:
        """The best take of new music in a recording, drawn until one joins it without a fault; None
        if the clip exists."""
        player, extension = self._player, asked.extension
        shape = player.decoder.shape
        wanted = _wanted_onto(wanted_of(settings), asked, settings.prompts[0])
        asking = dataclasses.replace(wanted, bpm=asked.told_bpm)
        length = self._length_onto(settings, asked)
        made = self._made(settings, asking, length, settings.batch_size)
        made |= wanted.facts() | asked.facts
        made["duration_s"] = extension.n_samples / extension.sample_rate
        if is_there(identity_of(made)):
            return None
        for prompt in settings.prompts:
            self._say(tempo_sentence(asked, stated_bpm(english_of(prompt))))
        given = extension.codes(player.decoder.base.codec, shape)
        draw = self._draws(settings, asking, self._length_onto(settings, asked, given))

        def judge(seed: int, take: np.ndarray) -> JudgedTake:
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
        return self._best(made, takes, wanted)

    def _length_onto(
        self, settings: GenerateSettings, asked: Extending, given: torch.Tensor | None = None
    ) -> Length:
        """The length of what is heard of a recording, `given` codes `[1, K, P]` once they are
        known, plus the new music."""
        player, extension = self._player, asked.extension
        n_given = extension.n_frames if given is None else given.shape[-1]
        new = player.length(extension.seconds, settings.change_at)
        n_frames = n_given + new.n_frames
        # One more frame, since the recording may have another rate; but no window for it alone.
        n_frames += n_frames != window_frames(player.decoder.base)[0]
        return Length(
            n_frames,
            n_frames * player.hop,
            changes=tuple(n_given + at for at in new.changes),
            given=given,
            bars=asked.bar_lines(n_given, player.decoder.shape.frame_rate),
        )


def _wanted_onto(wanted: Wanted, asked: Extending, prompt: str) -> Wanted:
    """What is asked of a recording with new music: a loop stays one, and keeps its key if its own
    prompt is played."""
    grid, was = asked.grid, asked.made_by
    key = normalise_key(was.get("key")) if was.get("prompt") == prompt else None
    wanted = dataclasses.replace(wanted, keeps_level=True, key=wanted.key or key)
    if grid is None or not grid.is_loop:
        return wanted
    return dataclasses.replace(wanted, bpm=round(grid.bpm, 3), n_bars=grid.n_bars)
