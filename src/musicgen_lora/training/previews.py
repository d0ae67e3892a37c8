"""Clips that the model plays while it trains: the same prompts and seeds each time, so that one
hears what the training changed and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.audio.files import write_wav
from musicgen_lora.config import TrainSettings
from musicgen_lora.dataset.bar_lines import stated_bar_lines
from musicgen_lora.dataset.metadata import Clips
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.plural import count
from musicgen_lora.runtime import processes
from musicgen_lora.training.record.run_folder import PREVIEWS

N_CAPTIONS = 2
PREVIEW_S, CAPTION_ON_CPU_S = 10.0, 4.0
"""Seconds of each preview. On a CPU, musicgen-small takes a minute or more for 10 s."""
LOOKED_AT = 100
"""Clips that are searched for different captions."""
NEVER = 10**9


def with_previews(
    settings: TrainSettings, clips: Clips, held_out: np.ndarray, console: Console
) -> TrainSettings:
    """The settings with the previews filled in: prompts, seconds, steps between them. If no prompts
    are given, two captions are played by the base and, at the end, by the adapter.

    Args:
        held_out: rows of the held-out clips, whose captions come first because the adapter has not
            heard them.
    """
    if settings.previews == "off":
        return settings
    if settings.fsdp:
        console.print("No previews: --fsdp doesn't support them.")
        return settings
    if settings.preview_prompts:
        return replace(settings, preview_duration=settings.preview_duration or PREVIEW_S)
    rows = [*held_out[:LOOKED_AT].tolist(), *range(min(len(clips), LOOKED_AT))]
    prompts = list(dict.fromkeys(clips[row].texts[0] for row in rows))[:N_CAPTIONS]
    is_fast = processes.device().type != "cpu"
    duration_s = settings.preview_duration or (PREVIEW_S if is_fast else CAPTION_ON_CPU_S)
    every = settings.preview_every or NEVER
    when = "at the end" if every == NEVER else f"every {every} steps and at the end"
    console.print(
        f"Previews: {count(len(prompts), 'caption')}, {duration_s:g} s each, played by the base "
        f"at the start and by the adapter {when}, into {settings.output_dir / PREVIEWS}; "
        "--previews off turns them off."
    )
    return replace(
        settings, preview_prompts=prompts, preview_duration=duration_s, preview_every=every
    )


def clip_names(prompts: Sequence[str]) -> list[str]:
    """The names of the files that prompts are played into."""
    words = [re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:48].strip("-") for text in prompts]
    return [f"{index:02d}_{said or 'clip'}.wav" for index, said in enumerate(words)]


@torch.no_grad()
def make_previews(
    model: BaseModel,
    prompts: Sequence[str],
    folder: Path,
    *,
    duration_s: float,
    seed: int,
) -> None:
    """Plays each prompt into `folder`, as WAV with a picture of its spectrum.

    Sampling uses generators of its own, so that a training with previews equals one without.

    Args:
        model: in eval mode, with its current weights.
        folder: replaced as a whole; never half written.
        seed: of the first clip; each further clip has the next one.
    """
    # Plotting libraries take a second to load, which no run should wait for at its start.
    from musicgen_lora.audio.pictures import mel_spectrogram_png

    bars = [stated_bar_lines(prompt, model.shape.frame_rate) for prompt in prompts]
    codes = generate_codes(
        model,
        Request(
            Conditions(model.text.batch(prompts), bars=bars),
            n_frames=model.shape.frames(duration_s),
            seeds=[seed + index for index in range(len(prompts))],
        ),
    )

    names = clip_names(prompts)

    def fill(staging: Path) -> None:
        for index, waveform in enumerate(model.decode(codes)):
            path = staging / names[index]
            write_wav(path, waveform, model.shape.sample_rate)
            picture = mel_spectrogram_png(waveform, model.shape.sample_rate)
            path.with_suffix(".png").write_bytes(picture)

    atomic.publish_folder(folder, fill)
