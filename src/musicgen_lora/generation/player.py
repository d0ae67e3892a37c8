"""Plays clips with a loaded model: conditions to codes to sound of exactly the requested length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console

from musicgen_lora.console import progress
from musicgen_lora.dataset.bar_lines import Lines, stated_bar_lines
from musicgen_lora.generation.decoding.decode import depends_on_batch, play_frames
from musicgen_lora.generation.decoding.decoder import Decoder, threads_for
from musicgen_lora.generation.decoding.request import Conditions, Request, Scenes
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.generation.decoding.stream import (
    CHUNK_S,
    ChunkDecoder,
    decodes_in_parts,
    stream_audio,
)
from musicgen_lora.model.lora.mixture import Mixture
from musicgen_lora.model.text.states import TextStates

WHOLE_S = 30.0
"""Clips up to this long are decoded whole, longer ones in chunks, to bound memory."""
PART_S = 10.0


@dataclass(frozen=True)
class Instrument:
    """A base with its adapters, ready to play.

    Args:
        decoder: has the merged weights of the mixture.
        mixture: the adapters, which the text encoder uses as well.
        facts: base and adapters, for the JSON.
    """

    decoder: Decoder
    text: TextStates
    mixture: Mixture
    facts: dict[str, Any]


@dataclass(frozen=True)
class ClipTexts:
    """The texts and the seed that a clip is generated from.

    Args:
        texts: prompts, more than one if the clip changes.
        negative: negative prompt; "" is none.
    """

    texts: tuple[str, ...]
    seed: int
    negative: str = ""


@dataclass(frozen=True)
class Length:
    """How long clips are, and when they change.

    Args:
        n_frames: codec frames, including `given`.
        n_samples: samples per channel that are kept of them.
        changes: frames at which the second and each further text begins.
        given: `[1, K, P]`, codes that all clips begin with; None is nothing.
        bars: of the recording that they continue; None where they begin themselves, on a bar line.
    """

    n_frames: int
    n_samples: int
    changes: tuple[int, ...] = ()
    given: torch.Tensor | None = None
    bars: Lines | None = None


class Player:
    """Plays clips and counts their samples.

    Args:
        melody: `[1, L]` pitch classes that all clips follow; None is no melody.
        alive: called on each frame.
    """

    def __init__(
        self,
        instrument: Instrument,
        melody: torch.Tensor | None,
        console: Console,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.what = "clips, frames"
        self.n_samples = 0
        self.decoder, self.console = instrument.decoder, console
        self._text, self._mixture = instrument.text, instrument.mixture
        self._melody, self._alive = melody, alive

    @property
    def depends_on_batch(self) -> bool:
        """Whether a clip's samples depend on the others of its batch."""
        return depends_on_batch(self.decoder.device)

    def length(self, seconds: float, change_at: Sequence[float] = ()) -> Length:
        """The `Length` of clips of so many seconds, exact to the sample."""
        shape = self.decoder.shape
        n_samples = max(1, round(seconds * shape.sample_rate))
        return Length(
            n_frames=-(-n_samples // self.hop),
            n_samples=n_samples,
            changes=tuple(max(1, round(at * shape.frame_rate)) for at in change_at),
        )

    def bars(self, texts: Sequence[str], length: Length) -> list[Lines]:
        """The bar lines of a clip for each of its texts: those of the recording that it continues,
        otherwise of the tempo that the text states. A new tempo begins on a bar line."""
        rate = self.decoder.shape.frame_rate
        stated = [stated_bar_lines(text, rate) for text in texts]
        found = [stated[0] if length.bars is None else length.bars]
        for (_, before), (_, bar), begin in zip(stated, stated[1:], length.changes, strict=False):
            is_same = before == bar or (math.isnan(before) and math.isnan(bar))
            found.append(found[-1] if is_same else (begin, bar))
        return found

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return round(self.decoder.shape.sample_rate / self.decoder.shape.frame_rate)

    def play(
        self,
        parts: Sequence[ClipTexts],
        length: Length,
        sampling: Sampling,
        hear: Callable[[np.ndarray], None] | None = None,
    ) -> list[np.ndarray]:
        """Waveforms `[C, n_samples]` of clips with the same length and sampling.

        Args:
            hear: called with each chunk `[C, n]` of a single clip as it is made; together they
                equal the waveform up to rounding.
        """
        base, codes, n_heard = self.decoder.base, [], 0
        chunks = None if hear is None else ChunkDecoder(base)
        with progress(self.console, self.what) as show, threads_for(base):

            def on_step(done: int, of: int) -> None:
                self._alive()
                show(done, of)

            for some in play_frames(
                self.decoder,
                self._request(parts, length, sampling),
                chunk=None if hear is None else round(CHUNK_S * self.decoder.shape.frame_rate),
                on_step=on_step,
            ):
                codes.append(some)
                if hear is not None and chunks is not None:
                    is_last = sum(found.shape[-1] for found in codes) == length.n_frames
                    sound = chunks.push(some, last=is_last)[0][:, : length.n_samples - n_heard]
                    n_heard += sound.shape[1]
                    hear(sound)
        self.n_samples += len(parts) * length.n_samples
        # One at a time: the codec's products also depend on the rest of a batch.
        return [
            self._decoded(clip[None])[:, : length.n_samples] for clip in torch.cat(codes, dim=-1)
        ]

    def stream(
        self, part: ClipTexts, length: Length, sampling: Sampling, chunk_s: float = CHUNK_S
    ) -> Iterator[np.ndarray]:
        """Yield the sound `[C, n]` of one clip in chunks of so many seconds, as it is made."""
        n_heard = 0
        request = self._request([part], length, sampling)
        for some in stream_audio(self.decoder, request, chunk_s):
            sound = some[0][:, : length.n_samples - n_heard]
            n_heard += sound.shape[1]
            yield sound
        self.n_samples += n_heard

    def _request(self, parts: Sequence[ClipTexts], length: Length, sampling: Sampling) -> Request:
        """The clips as a request to the decoder."""
        return Request(
            self._scenes(parts, length, sampling),
            n_frames=length.n_frames,
            seeds=[part.seed for part in parts],
            sampling=sampling,
            prompt_codes=None if length.given is None else length.given.expand(len(parts), -1, -1),
        )

    def _scenes(self, parts: Sequence[ClipTexts], length: Length, sampling: Sampling) -> Scenes:
        """The conditions of the clips, each with the frame that it begins at."""
        melody = self._melody
        melodies = None if melody is None else melody.expand(len(parts), -1)
        away = [part.negative or None for part in parts]
        bars = zip(*(self.bars(part.texts, length) for part in parts), strict=True)
        encoder: Any = self.decoder.base.hf.text_encoder
        with self._mixture.on([encoder]):
            negative = self._text.batch(away) if any(away) and sampling.is_guided else None
            texts = [
                self._text.batch([part.texts[number] for part in parts])
                for number in range(1 + len(length.changes))
            ]
        return [
            (begin, Conditions(text, melodies, negative, lines))
            for begin, text, lines in zip((0, *length.changes), texts, bars, strict=True)
        ]

    def _decoded(self, codes: torch.Tensor) -> np.ndarray:
        """The sound `[C, N]` of codes `[1, K, T]`."""
        base, rate = self.decoder.base, self.decoder.shape.frame_rate
        if codes.shape[-1] <= WHOLE_S * rate or not decodes_in_parts(base):
            return base.decode(codes)[0]
        chunks, pieces = ChunkDecoder(base), codes.split(round(PART_S * rate), dim=-1)
        sounds = [
            chunks.push(piece, last=number == len(pieces) - 1)[0]
            for number, piece in enumerate(pieces)
        ]
        return np.concatenate(sounds, axis=-1)
