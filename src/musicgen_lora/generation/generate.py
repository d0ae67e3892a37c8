"""From prompts to sound files, each with a JSON that says how it was made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import MusicgenForConditionalGeneration

from musicgen_lora import __version__, atomic
from musicgen_lora.atomic import sha256_file
from musicgen_lora.audio.files import read_audio
from musicgen_lora.audio.writing import check_format
from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.prompts import ClipOrder, clip_orders, read_prompts
from musicgen_lora.console import free_stdout, plain_console
from musicgen_lora.errors import UserError
from musicgen_lora.generation.bar_grid import facts_beside
from musicgen_lora.generation.captions import draw_captions
from musicgen_lora.generation.clips import WAIT_S, wanted_of
from musicgen_lora.generation.decode import window_frames
from musicgen_lora.generation.decoder import Decoder
from musicgen_lora.generation.outlets import open_live
from musicgen_lora.generation.player import Player
from musicgen_lora.generation.precision import choose_precision
from musicgen_lora.generation.recording import Asked, asked_of
from musicgen_lora.generation.session import Session, Writer, alike
from musicgen_lora.given import check_prompts, check_strengths
from musicgen_lora.model.chroma import Chroma
from musicgen_lora.model.lora.adapter import AdapterFiles, read_adapter
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
from musicgen_lora.model.reading import TextReader, describe_readings
from musicgen_lora.model.shape import Shape
from musicgen_lora.model.text import TextStates
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.locks import locked


def generate_audio(settings: GenerateSettings) -> list[Path]:
    """Generates a clip or a loop for each prompt.

    Returns:
        Paths of the sound files. A clip whose prompt, seed, models and settings are those of an
        existing file has its name and its samples; nothing else is ever overwritten.

    Raises:
        UserError: no prompts, an empty one, a loop that can't be, a recording that can't be gone on
            with, or a model, adapter or output folder that is not usable.
        RunError: the disk is full; the clips before are whole, and nothing is half written.
    """
    with free_stdout(settings.stdout is not None):
        return _generate(settings)


def _generate(settings: GenerateSettings) -> list[Path]:
    console = plain_console()
    check_strengths(settings.lora_model_path, settings.strength)
    adapters = [read_adapter(folder) for folder in settings.lora_model_path]
    orders = _orders(settings, adapters, console)
    model = load_base(settings.base_model_path)
    shape = model_shape(model)
    strengths = settings.strength or [1.0] * len(adapters)
    mixture = Mixture(model, list(map(read_part, repeat(model), adapters, strengths)))
    facts = _facts(model, mixture, settings)
    melody = _tune(model, settings.base_model_path, settings.melody)
    window, _ = window_frames(model)
    asked = asked_of(settings, window / shape.frame_rate, shape.frame_rate)
    rate, n_channels = shape.sample_rate, shape.n_channels
    if asked is not None:
        rate, n_channels = asked.extension.sample_rate, len(asked.extension.recording)
    for order in {order.settings.format: order for order in orders}.values():
        check_format(order.settings.format, rate)
    # What a killed run has left there; files are only made while the folder is held.
    with locked(settings.output_dir, wait_s=WAIT_S):
        atomic.sweep(settings.output_dir)
    device = processes.device()
    precision, why = choose_precision(model, settings.precision, device)
    place(model, device, "fp32")
    console.print(why)
    tokenizer = load_tokenizer(settings.base_model_path)
    for line in describe_readings(_texts(orders), lambda: TextReader.of(tokenizer), "prompt"):
        console.print(line, style="yellow")
    _say_of_recording(asked, facts, shape, console)
    facts |= {"precision": precision, "musicgen_lora": __version__}
    text = TextStates(model, tokenizer)
    player = Player(Decoder(model, precision, mixture), text, melody, console, mixture)
    began, paths = time.monotonic(), []
    with open_live(settings.play, settings.stdout, rate, n_channels) as live:
        if settings.stdout is not None:
            console.print(f"Standard output: {settings.stdout}, {rate} Hz, {n_channels} channels.")
        writer = Writer(settings.output_dir, rate, console)
        session = Session(player, writer, live, facts, asked)
        for some in alike(orders):
            paths += session.play(some)
    elapsed = time.monotonic() - began
    total_s = player.n_samples / shape.sample_rate
    console.print(
        f"{total_s:.0f} s of audio in {elapsed:.1f} s ({total_s / elapsed:.1f} times real time)."
    )
    return paths


def _orders(
    settings: GenerateSettings, adapters: Sequence[AdapterFiles], console: Console
) -> list[ClipOrder]:
    """The clips that are asked for, looked at before anything is loaded.

    Raises:
        UserError: there are none, or one can't be.
    """
    further: list[str] = []
    if settings.from_captions:
        further, said = draw_captions(adapters, settings.from_captions, settings.seed)
        if said:
            console.print(said, style="yellow")
    if settings.prompts_file is not None:
        guessed = read_prompts(settings.prompts_file)[1]
        if guessed is not None:
            console.print(
                f"{settings.prompts_file}: is no UTF-8 and read as {guessed}.", style="yellow"
            )
    has_none = not (settings.prompts or settings.prompts_file or further)
    if settings.regenerate is not None and has_none:
        further = [text for text in [facts_beside(settings.regenerate).get("prompt")] if text]
    orders = clip_orders(settings, further)
    check_prompts(_texts(orders), needed=True)
    for order in orders:
        try:
            wanted_of(order.settings)
        except UserError as error:
            raise order.fault(error) from error
    return orders


def _texts(orders: Sequence[ClipOrder]) -> list[str]:
    """All that is read to the model, each text once."""
    prompts = [text for order in orders for text in order.settings.prompts]
    negative = [text for order in orders if (text := order.settings.negative_prompt)]
    return list(dict.fromkeys(prompts + negative))


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


def _say_of_recording(
    asked: Asked | None, facts: dict[str, Any], shape: Shape, console: Console
) -> None:
    """What happens to a recording, and what of it isn't as one might think."""
    if asked is None:
        return
    console.print(asked.said)
    rate, n_channels = asked.extension.sample_rate, len(asked.extension.recording)
    if (rate, n_channels) != (shape.sample_rate, shape.n_channels):
        console.print(
            f"The base plays {shape.sample_rate} Hz, {shape.n_channels} channels; what is new is "
            f"brought to the recording's {rate} Hz, {n_channels} channels.",
            style="yellow",
        )
    was = asked.made_by
    names = ("base", "adapters")
    other = [n for n in names if n in was and _identity(was[n]) != _identity(facts[n])]
    if other:
        console.print(
            f"The recording was made by another {' and '.join(other)} than now.",
            style="yellow",
        )


def _identity(players: Any) -> Any:
    """The fingerprints of a base or of adapters as a JSON has them."""
    if isinstance(players, list):
        return [_identity(player) for player in players]
    names = ("fingerprint", "strength")
    return [players.get(name) for name in names] if isinstance(players, dict) else None


def _tune(
    model: MusicgenForConditionalGeneration, model_path: str, path: Path | None
) -> torch.Tensor | None:
    """Pitch classes `[1, M]` of an audio file."""
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
    return torch.from_numpy(chroma(waveform))[None]
