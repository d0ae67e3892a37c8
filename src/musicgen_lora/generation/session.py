"""A model that plays: what it is loaded with, how prompts become files, and how that is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import MusicgenForConditionalGeneration

from musicgen_lora import __version__
from musicgen_lora.atomic import sha256_file
from musicgen_lora.audio.files import read_audio
from musicgen_lora.audio.writing import check_format
from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import progress
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips import (
    TakePlayer,
    Wanted,
    draw_best,
    find_clip,
    read_as,
    take_s,
    takes_sentence,
    wanted_of,
    write_clip,
)
from musicgen_lora.generation.decode import (
    depends_on_batch,
    generate_codes,
    window_frames,
    windows_sentence,
)
from musicgen_lora.generation.decoder import Decoder
from musicgen_lora.generation.precision import choose_precision
from musicgen_lora.generation.sampling import Sampling
from musicgen_lora.generation.takes import Judged
from musicgen_lora.model.chroma import Chroma
from musicgen_lora.model.codec import Codec
from musicgen_lora.model.lora.mixture import Mixture, read_part
from musicgen_lora.model.melody import is_melody
from musicgen_lora.model.musicgen import (
    base_fingerprint,
    fingerprint,
    load_base,
    load_tokenizer,
    model_shape,
)
from musicgen_lora.model.placement import place
from musicgen_lora.model.text import TextStates
from musicgen_lora.runtime import processes


class Session:
    """A model that is loaded and ready to play, by what settings say of everything but prompts and
    seed.

    Args:
        settings: to play by.
        console: where it is said how, and what is written.
        shown: where progress is shown.

    Raises:
        UserError: a loop that can't be, or a model or adapter that is not usable.
    """

    def __init__(self, settings: GenerateSettings, console: Console, shown: Console) -> None:
        self._settings, self._console, self._shown = settings, console, shown
        self._wanted = wanted_of(settings)
        self._model = load_base(settings.base_model_path)
        self._shape = model_shape(self._model)
        check_format(self._wanted.format, self._shape.sample_rate)
        self._mixture = _mixture(self._model, settings)
        facts = _facts(self._model, self._mixture, settings)
        self._melody = _tune(self._model, settings.base_model_path, settings.melody)
        device = processes.device()
        self.precision, why = choose_precision(self._model, settings.precision, device)
        place(self._model, device, "fp32")
        console.print(why)
        self.tokenizer = load_tokenizer(settings.base_model_path)
        window, _ = window_frames(self._model)
        rate = self._shape.frame_rate
        self._take_s = take_s(self._wanted, settings.duration, window / rate)
        n_frames = max(1, round(self._take_s * rate))
        if n_frames > window:
            facts["window_s"] = window / rate
            console.print(windows_sentence(self._model, n_frames), style="yellow")
        self.how: dict[str, Any] = {
            "duration_s": n_frames / rate,
            "guidance_scale": settings.guidance_scale,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "temperature": settings.temperature,
            "precision": self.precision,
            **self._wanted.facts(),
            **facts,
            "musicgen_lora": __version__,
        }
        """What decides the samples beside prompt and seed, for the JSON."""

    @cached_property
    def player(self) -> _Player:
        """Plays prompts; made when it is first asked for."""
        decoder = Decoder(self._model, self.precision, self._mixture)
        return _Player(decoder, self._text, self._melody, self._settings, self._shown)

    @cached_property
    def _text(self) -> TextStates:
        return TextStates(self._model, self.tokenizer)

    def play(self, prompts: Sequence[str], seed: int) -> list[Path]:
        """Plays prompts and writes them, the first with `seed`, the next with `seed + 1`."""
        encoder: Any = self._model.text_encoder
        with self._mixture.on([encoder]):
            read = [read_as(prompt, self._wanted) for prompt in prompts]
            self._text.prepare(read, batch_size=1)
        play = _play_clips if self._wanted.is_plain else _play_takes
        settings = replace(self._settings, prompts=list(prompts), seed=seed)
        return play(self.player, settings, self._wanted, self._take_s, self._write)

    def find(self, prompts: Sequence[str], seed: int) -> list[Path] | None:
        """The files of an earlier run that played these prompts together; None unless all are
        there."""
        batch = None
        if self.player.depends_on_batch:
            batch = len(prompts) if self._wanted.is_plain else self._settings.batch_size
        found = []
        for number, prompt in enumerate(prompts):
            made = self._write.made(prompt, seed + number, batch)
            found.append(find_clip(self._settings.output_dir, made, self._wanted))
        return found if None not in found else None

    @property
    def _write(self) -> _Writer:
        rate, folder = self._shape.sample_rate, self._settings.output_dir
        return _Writer(folder, self.how, self._wanted, rate, self._console)


def _mixture(model: MusicgenForConditionalGeneration, settings: GenerateSettings) -> Mixture:
    """The adapters that play, each at its strength."""
    strengths = settings.strength or [1.0] * len(settings.lora_model_path)
    pairs = zip(settings.lora_model_path, strengths, strict=True)
    return Mixture(model, [read_part(model, path, strength) for path, strength in pairs])


def _facts(
    model: MusicgenForConditionalGeneration, mixture: Mixture, settings: GenerateSettings
) -> dict[str, Any]:
    """What is played by, for the JSON."""
    facts: dict[str, Any] = {
        "base": {"path": settings.base_model_path, "fingerprint": base_fingerprint(model)},
        # Text encoder and codec decide the samples as well.
        "model": fingerprint(model),
        "adapters": [
            {
                "path": str(part.files.folder.resolve()),
                "fingerprint": part.files.fingerprint,
                "strength": part.strength,
            }
            for part in mixture.parts
        ],
    }
    if settings.melody is not None:
        facts["melody"] = {"path": str(settings.melody), "sha256": sha256_file(settings.melody)}
    return facts


class _Player:
    """Plays prompts by a model that is in place, and counts."""

    def __init__(
        self,
        decoder: Decoder,
        text: TextStates,
        melody: torch.Tensor | None,
        settings: GenerateSettings,
        console: Console,
    ) -> None:
        self.what = "clips, frames"
        self.n_played = 0
        self.alive: Callable[[], None] = lambda: None
        """Called with each step."""
        self._decoder, self._text, self._melody = decoder, text, melody
        self._codec = Codec(decoder.model)
        self._settings, self._console = settings, console

    @property
    def depends_on_batch(self) -> bool:
        """Whether a clip's samples depend on the others of its batch."""
        return depends_on_batch(self._decoder.device)

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], seconds: float
    ) -> list[np.ndarray]:
        """Waveforms `[C, N]` of prompts, each with a seed."""
        states, mask = self._text.batch(list(prompts))
        melody, settings = self._melody, self._settings
        with progress(self._console, self.what) as shown:

            def on_step(done: int, total: int) -> None:
                shown(done, total)
                self.alive()

            codes = generate_codes(
                self._decoder,
                states,
                mask,
                n_frames=max(1, round(seconds * self._decoder.shape.frame_rate)),
                seeds=seeds,
                melodies=None if melody is None else melody.expand(len(prompts), -1),
                sampling=Sampling(
                    guidance_scale=settings.guidance_scale,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                    temperature=settings.temperature,
                ),
                on_step=on_step,
            )
        self.n_played += len(prompts)
        # One at a time: the codec's products, too, differ with the company.
        return [self._codec.decode(clip[None])[0] for clip in codes]


def _play_clips(
    player: _Player,
    settings: GenerateSettings,
    wanted: Wanted,
    seconds: float,
    write: _Writer,
) -> list[Path]:
    """A take of each prompt, `batch_size` prompts together."""
    paths, n_prompts = [], len(settings.prompts)
    for start in range(0, n_prompts, settings.batch_size):
        prompts = settings.prompts[start : start + settings.batch_size]
        seeds = [settings.seed + start + index for index in range(len(prompts))]
        player.what = f"clips {start + 1}-{start + len(prompts)} of {n_prompts}, frames"
        waveforms = player([read_as(prompt, wanted) for prompt in prompts], seeds, seconds)
        batch = len(prompts) if player.depends_on_batch else None
        for prompt, seed, waveform in zip(prompts, seeds, waveforms, strict=True):
            paths.append(write(prompt, seed, waveform, batch=batch))
    return paths


def _play_takes(
    player: _Player,
    settings: GenerateSettings,
    wanted: Wanted,
    seconds: float,
    write: _Writer,
) -> list[Path]:
    """Takes of one prompt after the other, the best of each kept."""
    paths, n_prompts = [], len(settings.prompts)
    takes_of = TakePlayer(player, write.sample_rate, seconds, settings.batch_size)
    for index, prompt in enumerate(settings.prompts):
        player.what = f"takes of clip {index + 1} of {n_prompts}, frames"
        seed = settings.seed + index
        takes = draw_best(takes_of, prompt, seed, wanted)
        batch = settings.batch_size if player.depends_on_batch else None
        paths.append(write(prompt, seed, takes[0].waveform, takes=takes, batch=batch))
    return paths


@dataclass(frozen=True)
class _Writer:
    """Writes clips and says so.

    Args:
        folder: where to.
        how: they are made, all alike.
        wanted: what is asked of them.
        sample_rate: Hz.
        console: where it is said.
    """

    folder: Path
    how: dict[str, Any]
    wanted: Wanted
    sample_rate: int
    console: Console

    def __call__(
        self,
        prompt: str,
        seed: int,
        waveform: np.ndarray,
        *,
        takes: Sequence[Judged] = (),
        batch: int | None = None,
    ) -> Path:
        """Writes a clip `[C, N]`, the best of its takes where there are some."""
        made = self.made(prompt, seed, batch)
        path = write_clip(self.folder, made, waveform, self.sample_rate, self.wanted, takes)
        self.console.print(str(path))
        said = takes_sentence(takes, self.wanted) if takes else ""
        if said:
            self.console.print(f"{path.name}: {said}", style="yellow")
        return path

    def made(self, prompt: str, seed: int, batch: int | None) -> dict[str, Any]:
        """How a clip is made, which decides its name."""
        text = read_as(prompt, self.wanted)
        read = {} if text == prompt else {"read_as": text}
        made = {"prompt": prompt, **read, "seed": seed, **self.how}
        return made | ({} if batch is None else {"batch": batch})


def _tune(
    model: MusicgenForConditionalGeneration, model_path: str, path: Path | None
) -> torch.Tensor | None:
    """Pitch classes `[M]` of an audio file."""
    if path is None:
        return None
    if not is_melody(model):
        raise UserError(
            f"--melody {path}: {model_path} takes no tune; give a melody model, such as "
            "facebook/musicgen-melody."
        )
    config: Any = model.config
    chroma = Chroma(model_path, config.chroma_length)
    waveform = read_audio(path, chroma.sample_rate, duration_s=chroma.max_duration_s)
    return torch.from_numpy(chroma(waveform))
