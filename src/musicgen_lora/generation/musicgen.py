"""MusicGen ready to play: a base with adapters, from prompt to audio.

`from musicgen_lora import MusicGen` gives this class, and `generate` plays with it. The base is a
value of its own (`model.base_model.BaseModel`, here `MusicGen.base`) and never changes: adapters
are merged into copies of its weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from musicgen_lora import EMBEDDED_NAME, __version__
from musicgen_lora.atomic import sha256_file
from musicgen_lora.audio.files import read_audio
from musicgen_lora.audio.writing import check_format
from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.kinds import at_home, base_at_home, no_such_setting
from musicgen_lora.config.prompts import ClipOrder
from musicgen_lora.console import plain_console
from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.generation.clips.clip import GeneratedClip, GeneratedClips
from musicgen_lora.generation.decoding.decode import window_frames
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.precision import choose_precision
from musicgen_lora.generation.decoding.sampling import advice_sentence
from musicgen_lora.generation.decoding.stream import CHUNK_S
from musicgen_lora.generation.orders import orders_of, texts_of
from musicgen_lora.generation.player import Instrument, Player
from musicgen_lora.generation.recordings.recording import (
    LONGEST_S,
    SILENT_PEAK,
    asked_of,
    say_of_recording,
)
from musicgen_lora.generation.session import Session
from musicgen_lora.generation.wanted import wanted_of
from musicgen_lora.given import check_playing
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.fingerprint import fingerprint
from musicgen_lora.model.lora.adapter import AdapterFiles
from musicgen_lora.model.lora.mixture import MixedAdapter, Mixture, doubts, read_part
from musicgen_lora.model.text.reading import TextReader, describe_readings
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.seeds import ONE_THREAD
from musicgen_lora.urls import shown

_OF_THE_COMMAND = (
    *("base_model_path", "lora_model_path", "strength", "precision", "output_dir"),
    *("play", "stdout", "ray"),
)
_OF_CLIPS = (
    *("bars", "best_of", "loop_tries", "format", "loudness", "midi", "spectrogram"),
    *("prompts_file", "from_captions", "variations"),
    *("continue_from", "continue_at", "heard", "regenerate", "from_bar", "to_bar"),
)


class MusicGen:
    """A base that plays, with or without adapters.

    Args:
        base: without an adapter, on the CPU.
        precision: of the weights while it plays, as in `generate`.
    """

    def __init__(
        self, base: BaseModel, precision: str = "auto", console: Console | None = None
    ) -> None:
        self.base = base
        self._console = console or plain_console()
        self._device = processes.device()
        self._precision, why = choose_precision(base, precision, self._device, self._console.print)
        self._console.print(why)
        base.to(self._device, "fp32")
        enable(base.hf, "fp32")
        self._parts: dict[Path, MixedAdapter] = {}
        self._instrument: Instrument | None = None
        self._told: set[str] = set()

    def __repr__(self) -> str:
        shape = self.base.shape
        sound = "stereo" if shape.n_channels == 2 else "mono"
        on = [f"{folder} x {strength:g}" for folder, strength in self.adapters.items()]
        return (
            f"<MusicGen {self.base.path}, {sound} at {shape.sample_rate} Hz, {self._precision} on "
            f"{self._device}; adapters: {', '.join(on) or 'none'}>"
        )

    @classmethod
    def load(cls, path: str | Path = EMBEDDED_NAME, *, precision: str = "auto") -> MusicGen:
        """Loads a base.

        Args:
            path: `tiny-beats`, a hub id such as `facebook/musicgen-small`, or a folder.
            precision: "auto" (the fastest that is near lossless on this machine), "fp32",
                "fp16", "bf16" or "int8".

        Raises:
            UserError: there is no such folder or id, it is not a MusicGen, or there is no such
                precision.
        """
        # Checks the precision.
        GenerateSettings(precision=precision)  # pyright: ignore[reportArgumentType]
        with _same_random_state():
            return cls(BaseModel.load(base_at_home(str(path))), precision)

    # Adapters.

    @property
    def adapters(self) -> dict[Path, float]:
        """Folders of the adapters that are loaded, each with its strength."""
        return {folder: part.strength for folder, part in self._parts.items()}

    def add_adapter(self, path: str | Path | AdapterFiles, strength: float = 1.0) -> None:
        """Adds an adapter; several add up.

        Args:
            path: its folder, such as output_dir/best_model, or the files read from it.
            strength: 0 to 2; 1 is the adapter as it was trained, 0 the base.

        Raises:
            UserError: no adapter there, one of another base, one that was added already, or a
                strength out of range. The model stays as it was.
        """
        adapter = path if isinstance(path, AdapterFiles) else at_home(path)
        named = adapter.folder if isinstance(adapter, AdapterFiles) else adapter
        if (folder := named.resolve()) in self._parts:
            raise UserError(f"{named}: was added already; use set_strength to change it.")
        with _same_random_state():
            part = read_part(self.base, adapter, strength)
        self._change({**self._parts, folder: part})

    def set_strength(self, path: str | Path, strength: float) -> None:
        """Changes the strength of an adapter; nothing is loaded again."""
        self._change({**self._parts, (folder := self._on(path)): self._parts[folder].at(strength)})

    def remove_adapter(self, path: str | Path) -> None:
        """Removes an adapter."""
        folder = self._on(path)
        self._change({other: part for other, part in self._parts.items() if other != folder})

    def _on(self, path: str | Path) -> Path:
        folder = at_home(path).resolve()
        if folder not in self._parts:
            there = ", ".join(map(str, self._parts)) or "none"
            raise UserError(f"{path}: no such adapter was added; added are: {there}.")
        return folder

    def _change(self, parts: dict[Path, MixedAdapter]) -> None:
        self._parts, self._instrument = parts, None

    # Generation.

    def generate(
        self, prompts: str | Sequence[str], *, duration: float = 10.0, seed: int = 0, **more: Any
    ) -> GeneratedClips:
        """Plays a clip for each prompt.

        Args:
            duration: seconds of each clip, 600 at most.
            seed: of the first clip; the next has one more.
            more: other settings of the `generate` command by name: `guidance_scale`,
                `top_k`, `top_p`, `temperature`, `batch_size`, `melody`, `bpm`, `key`, `best_of`,
                `bars`, `loop_tries`, `loudness`, `format`, `midi`, `spectrogram`;
                `negative_prompt`, `guidance_end`, `change_at`, `variations`, `prompts_file`,
                `from_captions`; `continue_from`, `continue_at`, `heard`, `regenerate`, `from_bar`,
                `to_bar`.

        Raises:
            UserError: an empty prompt, a value out of range, or settings that don't go together.
        """
        return GeneratedClips(self.session(_settings(prompts, duration, seed, more)).clips())

    def loop(
        self,
        prompt: str,
        *,
        bpm: float,
        bars: int,
        key: str | None = None,
        seed: int = 0,
        **more: Any,
    ) -> GeneratedClip:
        """Plays a loop of exactly `bars` bars, whose end leads into its beginning.

        Args:
            bars: of 4/4.
            key: such as "C# minor"; None leaves it open.
            seed: of the first take.
            more: as in `generate`; at most `loop_tries` takes are played until one fits.

        Returns:
            The best take. If no take fits, `facts["faults"]` says what is wrong with it.

        Raises:
            UserError: an unknown key, or bars that don't fit into 30 s.
        """
        asked = {"bpm": bpm, "bars": bars, "key": key or ""}
        (clip,) = self.generate([prompt], seed=seed, **asked, **more)
        return clip

    def stream(
        self,
        prompt: str,
        *,
        duration: float = 10.0,
        seed: int = 0,
        chunk_s: float = CHUNK_S,
        **more: Any,
    ) -> Iterator[np.ndarray]:
        """Plays a prompt and yields its samples as they are made.

        Args:
            duration: seconds, 600 at most.
            more: as in `generate`, except settings for whole clips.

        Returns:
            An iterator of `[C, n]` float32 at `base.shape.sample_rate`. Joined, they are the clip
            of `generate` at the model's own level, which may exceed full scale.

        Raises:
            UserError: as in `generate`; more than one clip; or a codec that can't be decoded in
                chunks.
        """
        if odd := [name for name in more if name in _OF_CLIPS]:
            raise UserError(f"{odd[0]}: is for whole clips, not for a stream; leave it out.")
        if not (isinstance(chunk_s, Real) and 0.0 < chunk_s < math.inf):
            raise UserError(f"chunk_s = {shortened(chunk_s)}: must be a number above 0.")
        session = self.session(_settings(prompt, duration, seed, more))
        if len(session.orders) > 1:
            raise UserError("A stream is one clip; give one prompt, or several with change_at.")
        return session.chunks(chunk_s)

    def session(
        self,
        settings: GenerateSettings,
        orders: Sequence[ClipOrder] | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> Session:
        """Checks a request and prepares it.

        Args:
            settings: prompts, sampling and output are read; models are not, as this model plays.
            orders: the clips, if they were read from the settings already.
            alive: called on each frame.

        Raises:
            UserError: no prompts, an empty one, an impossible loop, a recording that can't be
                continued, a format that can't hold the sample rate, or a melody for a model that
                takes none.
        """
        shape = self.base.shape
        if orders is None:
            check_playing(settings)
            adapters = [part.files for part in self._parts.values()]
            orders = orders_of(settings, adapters, self._console)
        melody = self._read_melody(settings.melody)
        window, _ = window_frames(self.base)
        asked = asked_of(settings, window / shape.frame_rate, shape.frame_rate)
        rate = shape.sample_rate if asked is None else asked.extension.sample_rate
        for order in {order.settings.format: order for order in orders}.values():
            check_format(wanted_of(order.settings).format, rate)
        instrument = self._ready()
        reader = lambda: TextReader.of(self.base.tokenizer)  # noqa: E731
        for line in describe_readings(texts_of(orders), reader, "prompt"):
            self._console.print(line, style="yellow")
        facts = dict(instrument.facts)
        if settings.melody is not None:
            facts["melody"] = {
                "path": shown(settings.melody),
                "sha256": sha256_file(settings.melody),
            }
        if asked is not None:
            say_of_recording(asked, facts, shape, self._console)
        self._tell_advice(orders)
        player = Player(instrument, melody, self._console, alive)
        return Session(player, orders, facts, asked)

    def _tell_advice(self, orders: Sequence[ClipOrder]) -> None:
        """Prints which settings are taken from the base's advice, once per model."""
        lines = (advice_sentence(order.settings, self.base.facts) for order in orders)
        for line in dict.fromkeys(lines):
            if line and line not in self._told:
                self._told.add(line)
                self._console.print(line)

    def _ready(self) -> Instrument:
        """Merges the weights again if adapters or strengths have changed."""
        if self._instrument is None:
            mixture = Mixture(self.base, list(self._parts.values()))
            for line in doubts(self.base, list(self._parts.values())):
                self._console.print(line, style="yellow")
            adapters = [
                {
                    "path": shown(folder),
                    "fingerprint": part.files.fingerprint,
                    "strength": part.strength,
                }
                for folder, part in self._parts.items()
            ]
            facts = {**self._base_facts, "adapters": adapters, "precision": self._precision}
            self._instrument = Instrument(
                decoder=Decoder(self.base, self._precision, mixture),
                text=TextStates(self.base.hf, self.base.tokenizer),
                mixture=mixture,
                facts=facts | {"musicgen_lora": __version__},
            )
        return self._instrument

    @cached_property
    def _base_facts(self) -> dict[str, Any]:
        # Text encoder and codec affect the samples as well.
        base = {"path": self.base.path, "fingerprint": self.base.fingerprint}
        return {"base": base, "model": fingerprint(self.base.hf)}

    def _read_melody(self, path: Path | None) -> torch.Tensor | None:
        """Pitch classes `[1, L]` of an audio file, up to the longest clip."""
        if path is None:
            return None
        chroma = self.base.chroma
        if chroma is None:
            raise UserError(
                f"--melody {path}: {self.base.path} takes no melody; use a melody model, such as "
                "facebook/musicgen-melody."
            )
        waveform = read_audio(path, chroma.sample_rate, duration_s=LONGEST_S)
        if float(np.abs(waveform).max()) < SILENT_PEAK:
            raise UserError(f"--melody {path}: is silent; give a recording that has a melody.")
        return torch.from_numpy(chroma.along(waveform))[None]


@contextmanager
def _same_random_state() -> Iterator[None]:
    """Restores the caller's random state at the end: transformers and PEFT draw initial weights
    from torch's global generator, on the CPU, before they read the saved ones."""
    before = torch.get_rng_state()
    try:
        yield
    finally:
        # Not in the middle of a training step of another thread.
        with ONE_THREAD:
            torch.set_rng_state(before)


def _settings(
    prompts: str | Sequence[str], duration: float, seed: int, more: dict[str, Any]
) -> GenerateSettings:
    known = {field.name for field in dataclasses.fields(GenerateSettings)}.difference(
        _OF_THE_COMMAND
    )
    if odd := [name for name in more if name not in known]:
        raise no_such_setting(odd[0], sorted(known))
    several = isinstance(prompts, Iterable) and not isinstance(prompts, str)
    # What is neither is refused by the settings.
    texts: Any = list(prompts) if several else [prompts] if isinstance(prompts, str) else prompts
    return GenerateSettings(prompts=texts, duration=duration, seed=seed, **more)
