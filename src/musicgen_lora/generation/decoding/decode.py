"""The decode loop: text states in, codes out, one delayed step at a time.

With greedy decoding it equals `MusicgenForConditionalGeneration.generate` token by token; unlike
it, each clip has its own seed, and on a CPU does not depend on its batch. Past the length that a
base was trained on, a clip continues in windows, as in audiocraft: each begins with the end of the
previous one. If the clip's bars are known, a window begins on a bar line, as in training, so that
positions tell where in the bar a frame is. Clips of one batch may therefore be at different frames;
each goes through the windows that it would go through alone.

On a CPU, no shape that is computed for a clip depends on the batch, except in products, whose rows
are the same in any number (`products`). On a GPU that would cost too much: there a clip may depend
on the number of clips in its batch, and on how many windows they have.
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
"""Increased when a seed comes to give other codes: clips cached by earlier versions are played
again. If windows of a clip begin on bars, its cache key says so as well: `window_bar`."""
STRIDE_SHARE = 0.6
"""Share of a window that is new music; the rest is context. audiocraft: 18 of 30 s."""


def depends_on_batch(device: torch.device) -> bool:
    """Whether a clip decoded on the device may depend on the number of clips in its batch."""
    return device.type != "cpu"


def window_frames(base: BaseModel) -> tuple[int, int]:
    """Frames of the base's window, and how many of them are new music."""
    window = base.shape.frames(base.facts.window_s)
    return window, max(1, round(STRIDE_SHARE * window))


def window_start(n_known: int, sizes: tuple[int, int], lines: Lines) -> int:
    """The frame of a clip at which the next window begins, after `n_known` frames, at least a
    window's: on the bar line that leaves nearest to the usual length of context.

    Args:
        n_known: frames of the clip so far.
        sizes: frames of a window, and how many of them are usually new. Bars longer than the latter
            don't count, as too little would be new or context.
        lines: bar lines of the clip.
    """
    window, stride = sizes
    start = n_known - (window - stride)
    first, bar = lines
    if not bar <= stride:
        return start
    return nearest_bar_line(start, n_known - 1, (first % bar, bar))


def window_bar(base: BaseModel, n_frames: int, lines: Lines) -> float | None:
    """Frames of a bar if windows of a clip begin on bars; None if there is a single window, or
    windows begin anywhere."""
    window, stride = window_frames(base)
    return lines[1] if n_frames > window and lines[1] <= stride else None


def windows_sentence(base: BaseModel, n_frames: int) -> str:
    """What to tell the user if clips are longer than a window; empty if they aren't."""
    window, stride = window_frames(base)
    if n_frames <= window:
        return ""
    rate = base.shape.frame_rate
    window_s, heard_s = window / rate, (window - stride) / rate
    slowest = math.ceil(240.0 * rate / stride - 1e-9)
    return (
        f"The base plays {window_s:g} s at a time: {n_frames / rate:g} s are played in windows of "
        f"{window_s:g} s. Each continues from the last {heard_s:g} s of the one before (or from "
        f"the nearest bar line, if the tempo is known and {slowest} bpm or more) and hears nothing "
        "earlier."
    )


@torch.inference_mode()
def generate_codes(
    model: BaseModel | Decoder,
    request: Request,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """Generates codes for B clips.

    Args:
        model: in eval mode, with or without an adapter; it isn't changed. For several batches, a
            `Decoder` of it saves preparing its weights again.
        on_step: called with (steps done, total steps).

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
    """Yield codes `[B, K, n]` as they are made: the prompt first, if there is one, then `chunk`
    frames at a time, or a window's. When conditions change, the window ends, and the next one reads
    the codes so far under the new conditions. See `generate_codes` for the rest."""
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
    """Group the unfinished clips by their current conditions: indices of clips, the conditions, and
    the frame at which they end."""
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
    """What the next window plays after the `known` codes `[K, n]`, up to frame `until`."""
    sizes, n_known = window_frames(base), known.shape[-1]
    start = 0 if n_known < sizes[0] else window_start(n_known, sizes, lines)
    return Passage(known[:, start:], min(sizes[0], until - start), start)


class _Played:
    """The codes so far of each clip of a request."""

    def __init__(self, request: Request, n_codebooks: int) -> None:
        given = request.prompt_codes
        if given is None:
            given = torch.empty(len(request.seeds), n_codebooks, 0, dtype=torch.long)
        self.codes = list(given)
        """Codes of each clip, `[K, n]`, without those of a window in progress."""
        self.n_sent = 0
        """Frames of all clips that have been yielded."""
        self._rows: dict[int, int] = {}
        self._part: DecodingWindow | None = None

    def begin(self, clips: Sequence[int], part: DecodingWindow) -> None:
        """Starts a window with some of the clips."""
        self._rows, self._part = {clip: row for row, clip in enumerate(clips)}, part

    def end(self) -> None:
        """Takes the codes of the finished window."""
        if self._part is not None:
            for clip, row in self._rows.items():
                new = self._part.frames(
                    row, self.codes[clip].shape[-1], self._part.passages[row].end
                )
                self.codes[clip] = torch.cat([self.codes[clip], new], dim=-1)
        self._rows, self._part = {}, None

    @property
    def n_ready(self) -> int:
        """Frames that all clips have."""
        return min(
            own.shape[-1]
            if self._part is None or clip not in self._rows
            else self._part.n_ready(self._rows[clip])
            for clip, own in enumerate(self.codes)
        )

    def send(self) -> torch.Tensor:
        """The frames that all clips have and that haven't been yielded yet, `[B, K, n]`."""
        begin, self.n_sent = self.n_sent, self.n_ready
        return torch.stack([self._codes_of(clip, begin) for clip in range(len(self.codes))])

    def _codes_of(self, clip: int, begin: int) -> torch.Tensor:
        """A clip's codes from frame `begin` up to `n_sent`, `[K, n]`."""
        own = self.codes[clip][:, begin : self.n_sent]
        there = begin + own.shape[-1]
        if self._part is None or there == self.n_sent:
            return own
        return torch.cat([own, self._part.frames(self._rows[clip], there, self.n_sent)], dim=-1)
