"""What the model plays while it trains: the same prompts and seeds each time, so that the ear
hears what the training changed and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import MusicgenForConditionalGeneration

from musicgen_lora import atomic
from musicgen_lora.audio.files import write_wav
from musicgen_lora.generation.decode import generate_codes
from musicgen_lora.model.codec import decode_codes
from musicgen_lora.model.musicgen import model_shape
from musicgen_lora.model.text import TextStates


@torch.no_grad()
def make_previews(
    model: MusicgenForConditionalGeneration,
    text: TextStates,
    prompts: Sequence[str],
    folder: Path,
    *,
    duration_s: float,
    seed: int,
) -> None:
    """Plays each prompt into `folder`, as WAV with a picture of its spectrum.

    The draws come from generators of their own: a training with previews equals one without.

    Args:
        model: in eval mode, with whatever weights it has now.
        text: gives the conditions.
        prompts: a clip each.
        folder: whole or absent; what it held is replaced.
        duration_s: of each clip.
        seed: of the first clip; the next has one more.
    """
    # Drawing libraries take a second to load, which no start of a run should wait for.
    from musicgen_lora.data.pictures import mel_spectrogram_png

    shape = model_shape(model)
    states, mask = text.batch(prompts)
    codes = generate_codes(
        model,
        states,
        mask,
        n_frames=max(1, round(duration_s * shape.frame_rate)),
        seeds=[seed + index for index in range(len(prompts))],
    )

    def fill(staging: Path) -> None:
        for index, waveform in enumerate(decode_codes(model, codes)):
            words = re.sub(r"[^\w]+", "-", prompts[index].lower()).strip("-")[:48].strip("-")
            path = staging / f"{index:02d}_{words or 'clip'}.wav"
            write_wav(path, waveform, shape.sample_rate)
            picture = mel_spectrogram_png(waveform, shape.sample_rate)
            path.with_suffix(".png").write_bytes(picture)

    atomic.publish_folder(folder, fill)
