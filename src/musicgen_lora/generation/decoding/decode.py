"""The decode loop: text states in, codes out, one delayed step at a time.

Equal to `MusicgenForConditionalGeneration.generate` token by token where both are greedy; apart
from it in that each clip has its own seed, and on a CPU is the same whatever batch it is in. Past
the length that a base was trained on, a clip goes on in windows, as audiocraft's do: each begins
with the end of the one before. Where the clip's bars are known a window begins on a bar line, as
those of training do: its positions then say where in the bar a frame is. Clips of one batch may
therefore be at different frames; each goes through the windows that it would go through alone.

Nothing that is computed for a clip on a CPU has a shape that the batch decides, but for products,
whose rows come out the same in any number (`products`). A GPU has too much to lose by it, and a
clip may differ there with the number of clips in its batch, and with how many windows they have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from musicgen_lora.dataset.bar_lines import Lines, nearest_bar_line
from musicgen_lora.generation.decoding.decoder import Decoder, threads_for
from musicgen_lora.generation.decoding.request import Conditions, Passage, Request, WindowRequest
from musicgen_lora.generation.decoding.sampling import Noise
from musicgen_lora.generation.decoding.window import DecodingWindow, window_kind
from musicgen_lora.model.base_model import BaseModel

VERSION = 3
"""Raised where a seed comes to give other codes: what was kept of earlier ones is played anew.
Where windows of a clip begin on bars, what it is kept by says so besides: `window_bar`."""
STRIDE_SHARE = 0.6
"""Share of a window that is new music; what is before is heard. audiocraft: 18 of 30 s."""


def depends_on_batch(device: torch.device) -> bool:
    """Whether a clip that is decoded there may differ with the number of clips in its batch."""
    return device.type != "cpu"


def window_frames(base: BaseModel) -> tuple[int, int]:
    """Frames of a window, in which the base plays, and how many of them are new."""
    window = base.shape.frames(base.facts.window_s)
    return window, max(1, round(STRIDE_SHARE * window))


def window_start(n_known: int, sizes: tuple[int, int], lines: Lines) -> int:
    """The frame of a clip at which the window begins that goes on after `n_known` frames, at least
    a window's: on the bar line nearest to where what is heard has its usual length.

    Args:
        n_known: frames that are there.
        sizes: of a window, and how many of its frames are usually new. Bars longer than these
            don't count, as too little would be new or heard.
        lines: of the clip.
    """
    window, stride = sizes
    start = n_known - (window - stride)
    first, bar = lines
    if not bar <= stride:
        return start
    return nearest_bar_line(start, n_known - 1, (first % bar, bar))


def window_bar(base: BaseModel, n_frames: int, lines: Lines) -> float | None:
    """Frames of a bar, where windows of a clip begin on bars; None where it has a single one, or
    they begin anywhere."""
    window, stride = window_frames(base)
    return lines[1] if n_frames > window and lines[1] <= stride else None


def windows_sentence(base: BaseModel, n_frames: int) -> str:
    """What to tell the user of clips longer than a window; empty where they aren't."""
    window, stride = window_frames(base)
    if n_frames <= window:
        return ""
    rate = base.shape.frame_rate
    window_s, heard_s = window / rate, (window - stride) / rate
    slowest = math.ceil(240.0 * rate / stride - 1e-9)
    return (
        f"The base plays {window_s:g} s at a time: {n_frames / rate:g} s are played in windows of "
        f"{window_s:g} s, each of which goes on from the last {heard_s:g} s of the one before (or "
        f"from the bar line nearest to there, where the tempo is known, {slowest} bpm or more) and "
        "knows nothing of what was earlier."
    )


@torch.inference_mode()
def generate_codes(
    model: BaseModel | Decoder,
    request: Request,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """Generates codes for B clips.

    Args:
        model: in eval mode, with or without an adapter; it stays as it is. A `Decoder` of it spares
            taking its weights over again, where there are several batches.
        on_step: called with (steps done, steps in all).

    Returns:
        `[B, K, T]` int64 on the CPU.
    """
    decoder = model if isinstance(model, Decoder) else Decoder(model)
    with threads_for(decoder.base):
        return torch.cat(list(play_frames(decoder, request, on_step=on_step)), dim=-1)


@torch.inference_mode()
def play_frames(
    decoder: Decoder,
    request: Request,
    *,
    chunk: int | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[torch.Tensor]:
    """Codes `[B, K, n]`, part after part as they are made: the prompt first, if there is one, then
    `chunk` frames at a time, or a window's. Where conditions change a window ends, and what was
    played so far is read anew, by the new ones. See `generate_codes` for the rest."""
    base, shape, n_frames = decoder.base, decoder.shape, request.n_frames
    noise = Noise(request.seeds, (shape.n_codebooks, shape.special))
    played = _Played(request, shape.n_codebooks)
    n_steps = shape.delays.n_steps(n_frames)
    if played.n_ready:
        yield played.send()
    while played.n_sent < n_frames:
        for clips, conditions, until in _together(request, played.codes):
            passages = [
                _next_passage(played.codes[clip], conditions.bars_of(row), until, base)
                for row, clip in enumerate(clips)
            ]
            gone_on = [passage.begin / window_frames(base)[0] for passage in passages]
            asked = WindowRequest(
                conditions.shifted(gone_on, base.melody_length),
                passages,
                request.sampling,
                n_frames,
            )
            part = window_kind(decoder)(decoder, asked, noise.rows(clips))
            played.begin(clips, part)
            while part.step < part.n_steps:
                part.advance()
                on_step(min(*part.steps_of_clips, n_steps), n_steps)
                if chunk is not None and played.n_ready - played.n_sent >= chunk:
                    yield played.send()
            played.end()
        if played.n_ready > played.n_sent:
            yield played.send()


def _together(
    request: Request, codes: Sequence[torch.Tensor]
) -> list[tuple[list[int], Conditions, int]]:
    """The clips that aren't played to their end, by their conditions now: numbers of clips, what
    they are to be like, and the frame before which they are."""
    groups: dict[int, list[int]] = {}
    scenes: dict[int, Conditions] = {}
    for clip, own in enumerate(codes):
        if own.shape[-1] < request.n_frames:
            conditions, until = request.scene_at(own.shape[-1])
            groups.setdefault(until, []).append(clip)
            scenes[until] = conditions
    return [
        (clips, scenes[until] if len(clips) == len(codes) else scenes[until].rows(clips), until)
        for until, clips in groups.items()
    ]


def _next_passage(known: torch.Tensor, lines: Lines, until: int, base: BaseModel) -> Passage:
    """What the next window plays of a clip of which `[K, n]` is known, before a frame of it."""
    sizes, n_known = window_frames(base), known.shape[-1]
    start = 0 if n_known < sizes[0] else window_start(n_known, sizes, lines)
    return Passage(known[:, start:], min(sizes[0], until - start), start)


class _Played:
    """Clips as far as they are played, each as far as it has come."""

    def __init__(self, request: Request, n_codebooks: int) -> None:
        given = request.prompt_codes
        if given is None:
            given = torch.empty(len(request.seeds), n_codebooks, 0, dtype=torch.long)
        self.codes = list(given)
        """Codes of each clip, `[K, n]`, without what a window is playing."""
        self.n_sent = 0
        """Frames of all clips that have been given away."""
        self._rows: dict[int, int] = {}
        self._part: DecodingWindow | None = None

    def begin(self, clips: Sequence[int], part: DecodingWindow) -> None:
        """A window plays some clips."""
        self._rows, self._part = {clip: row for row, clip in enumerate(clips)}, part

    def end(self) -> None:
        """It has played them."""
        if self._part is not None:
            for clip, row in self._rows.items():
                new = self._part.frames(
                    row, self.codes[clip].shape[-1], self._part.passages[row].end
                )
                self.codes[clip] = torch.cat([self.codes[clip], new], dim=-1)
        self._rows, self._part = {}, None

    @property
    def n_ready(self) -> int:
        """Frames that are there of all clips."""
        return min(
            own.shape[-1]
            if self._part is None or clip not in self._rows
            else self._part.n_ready(self._rows[clip])
            for clip, own in enumerate(self.codes)
        )

    def send(self) -> torch.Tensor:
        """What is there of all clips and hasn't been given away, `[B, K, n]`; now it is."""
        begin, self.n_sent = self.n_sent, self.n_ready
        return torch.stack([self._codes_of(clip, begin) for clip in range(len(self.codes))])

    def _codes_of(self, clip: int, begin: int) -> torch.Tensor:
        """A clip's codes from a frame on as far as they are sent, `[K, n]`."""
        own = self.codes[clip][:, begin : self.n_sent]
        there = begin + own.shape[-1]
        if self._part is None or there == self.n_sent:
            return own
        return torch.cat([own, self._part.frames(self._rows[clip], there, self.n_sent)], dim=-1)
