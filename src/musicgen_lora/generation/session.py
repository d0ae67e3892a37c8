"""Prompts on their way to clips: a request that was checked, and the player of it.

`MusicGen` makes a session of the settings; the command and Python play it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console

from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import progress
from musicgen_lora.generation.clip import Clip
from musicgen_lora.generation.clips import TakePlayer, draw_best
from musicgen_lora.generation.decode import depends_on_batch, generate_codes
from musicgen_lora.generation.decoder import Conditions, Decoder
from musicgen_lora.generation.sampling import Sampling
from musicgen_lora.generation.stream import stream_audio
from musicgen_lora.generation.wanted import Wanted, read_as
from musicgen_lora.model.lora.mixture import Mixture
from musicgen_lora.model.musicgen import MusicGen as Base
from musicgen_lora.model.text import TextStates


@dataclass(frozen=True)
class Instrument:
    """A base with its adapters, ready to play.

    Args:
        base: its codec and text encoder are used.
        mixture: of the adapters on it.
        decoder: of the mixture.
        text: states by the mixture's text encoder.
        facts: who plays, for the JSON.
    """

    base: Base
    mixture: Mixture
    decoder: Decoder
    text: TextStates
    facts: dict[str, Any]

    def conditions(self, prompts: Sequence[str], melody: torch.Tensor | None) -> Conditions:
        """What clips of these prompts are to be like, and of a tune `[M]` for all."""
        encoder: Any = self.base.hf.text_encoder
        with self.mixture.on([encoder]):
            states, mask = self.text.batch(list(prompts))
        tunes = None if melody is None else melody.expand(len(prompts), -1)
        return Conditions(states, mask, tunes)


class Session:
    """What is asked of an instrument.

    Args:
        instrument: that plays.
        settings: prompts, sampling, seed and batch size are read.
        wanted: what else is asked for.
        seconds: of each take.
        melody: pitch classes `[M]` of the tune that all follow; None for none.
        how: takes are made, all alike, for the JSON.
        console: where it is said how far it is.
    """

    def __init__(
        self,
        instrument: Instrument,
        settings: GenerateSettings,
        wanted: Wanted,
        seconds: float,
        melody: torch.Tensor | None,
        how: dict[str, Any],
        console: Console,
    ) -> None:
        self._instrument, self._settings, self._wanted = instrument, settings, wanted
        self._melody, self._how, self._console = melody, how, console
        self._rate = instrument.base.shape.sample_rate
        self._n_frames = instrument.base.shape.frames(seconds)
        self._seconds, self._what = seconds, ""
        self._sampling = Sampling(
            guidance_scale=settings.guidance_scale,
            top_k=settings.top_k,
            top_p=settings.top_p,
            temperature=settings.temperature,
        )
        self.n_played = 0
        """Takes, so far."""

    @property
    def take_s(self) -> float:
        """Seconds of a take."""
        return self._n_frames / self._instrument.base.shape.frame_rate

    def clips(self) -> Iterator[Clip]:
        """Plays the prompts, and gives a clip of each as soon as it is there."""
        return self._plain() if self._wanted.is_plain else self._best()

    def chunks(self, chunk_s: float) -> Iterator[np.ndarray]:
        """Plays the first prompt; its samples `[C, n]`, part after part."""
        prompt, seed = self._settings.prompts[0], self._settings.seed
        parts = stream_audio(
            self._instrument.decoder,
            self._instrument.conditions([read_as(prompt, self._wanted)], self._melody),
            n_frames=self._n_frames,
            seeds=[seed],
            sampling=self._sampling,
            chunk_s=chunk_s,
        )
        for part in parts:
            yield part[0]

    def _plain(self) -> Iterator[Clip]:
        """A take of each prompt, `batch_size` prompts together."""
        settings, n_prompts = self._settings, len(self._settings.prompts)
        for start in range(0, n_prompts, settings.batch_size):
            prompts = settings.prompts[start : start + settings.batch_size]
            seeds = [settings.seed + start + index for index in range(len(prompts))]
            self._what = f"clips {start + 1}-{start + len(prompts)} of {n_prompts}, frames"
            texts = [read_as(prompt, self._wanted) for prompt in prompts]
            waveforms = self._play(texts, seeds, self._seconds)
            made = self._made(len(prompts))
            for prompt, seed, waveform in zip(prompts, seeds, waveforms, strict=True):
                yield Clip.of(made(prompt, seed), waveform, self._rate, self._wanted)

    def _best(self) -> Iterator[Clip]:
        """Takes of one prompt after the other, the best of each kept."""
        settings, n_prompts = self._settings, len(self._settings.prompts)
        takes_of = TakePlayer(self._play, self._rate, self._seconds, settings.batch_size)
        made = self._made(settings.batch_size)
        for index, prompt in enumerate(settings.prompts):
            self._what = f"takes of clip {index + 1} of {n_prompts}, frames"
            seed = settings.seed + index
            takes = draw_best(takes_of, prompt, seed, self._wanted)
            waveform = takes[0].waveform
            yield Clip.of(made(prompt, seed), waveform, self._rate, self._wanted, takes)

    def _play(self, texts: Sequence[str], seeds: Sequence[int], seconds: float) -> list[np.ndarray]:
        """Waveforms `[C, N]` of texts, each with a seed."""
        instrument = self._instrument
        conditions = instrument.conditions(texts, self._melody)
        with progress(self._console, self._what) as on_step:
            codes = generate_codes(
                instrument.decoder,
                conditions.text_states,
                conditions.text_mask,
                n_frames=self._instrument.base.shape.frames(seconds),
                seeds=seeds,
                melodies=conditions.melodies,
                sampling=self._sampling,
                on_step=on_step,
            )
        self.n_played += len(texts)
        # One at a time: the codec's products, too, differ with the company.
        return [instrument.base.decode(clip[None])[0] for clip in codes]

    def _made(self, batch: int) -> Any:
        """Gives how a prompt's clip is made, by its seed."""
        depends = depends_on_batch(self._instrument.decoder.device)

        def made(prompt: str, seed: int) -> dict[str, Any]:
            text = read_as(prompt, self._wanted)
            read = {} if text == prompt else {"read_as": text}
            with_batch = {"batch": batch} if depends else {}
            return {"prompt": prompt, **read, "seed": seed, **self._how, **with_batch}

        return made
