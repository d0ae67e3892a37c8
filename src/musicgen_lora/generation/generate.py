"""From prompts to WAV files, each with a JSON that says how it was made."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MusicgenForConditionalGeneration

from musicgen_lora import __version__, atomic
from musicgen_lora.atomic import sha256_file
from musicgen_lora.audio.files import read_audio, wav_bytes
from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import plain_console, progress
from musicgen_lora.errors import UserError
from musicgen_lora.generation.decode import (
    depends_on_batch,
    generate_codes,
    window_frames,
    windows_sentence,
)
from musicgen_lora.generation.decoder import Decoder
from musicgen_lora.generation.precision import choose_precision
from musicgen_lora.generation.sampling import Sampling
from musicgen_lora.given import check_prompts
from musicgen_lora.model.chroma import Chroma
from musicgen_lora.model.codec import decode_codes
from musicgen_lora.model.lora.adapter import load_adapter, read_adapter
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
from musicgen_lora.model.text import TextStates
from musicgen_lora.model.wording import english_of
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.locks import locked

WAIT_S = 30.0
"""For another `generate` that is writing into the same folder: a file takes no second."""


def generate_audio(settings: GenerateSettings) -> list[Path]:
    """Generates a clip for each prompt.

    Returns:
        Paths of the WAV files. A clip whose prompt, seed, models and settings are those of an
        existing file has its name and its samples; nothing else is ever overwritten.

    Raises:
        UserError: no prompts, an empty one, or a model, adapter or output folder that is not
            usable.
        RunError: the disk is full; the clips before are whole, and nothing is half written.
    """
    check_prompts(settings.prompts, needed=True)
    console = plain_console()
    model = load_base(settings.base_model_path)
    facts: dict[str, Any] = {
        "base": {"path": settings.base_model_path, "fingerprint": base_fingerprint(model)},
        # Text encoder and codec decide the samples as well.
        "model": fingerprint(model),
        "adapter": None,
    }
    if settings.lora_model_path is not None:
        files = read_adapter(settings.lora_model_path)
        load_adapter(model, files)
        facts["adapter"] = {
            "path": str(settings.lora_model_path.resolve()),
            "fingerprint": files.fingerprint,
        }
    melody = _tune(model, settings.base_model_path, settings.melody)
    if settings.melody is not None:
        facts["melody"] = {"path": str(settings.melody), "sha256": sha256_file(settings.melody)}
    # What a killed run has left there; files are only made while the folder is held.
    with locked(settings.output_dir, wait_s=WAIT_S):
        atomic.sweep(settings.output_dir)
    device = processes.device()
    precision, why = choose_precision(model, settings.precision, device)
    place(model, device, "fp32")
    decoder = Decoder(model, precision)
    console.print(why)
    tokenizer = load_tokenizer(settings.base_model_path)
    for line in describe_readings(settings.prompts, lambda: TextReader.of(tokenizer), "prompt"):
        console.print(line, style="yellow")
    text = TextStates(model, tokenizer)
    shape = model_shape(model)
    n_frames = max(1, round(settings.duration * shape.frame_rate))
    window, _ = window_frames(model)
    if n_frames > window:
        facts["window_s"] = window / shape.frame_rate
        console.print(windows_sentence(model, n_frames), style="yellow")
    sampling = Sampling(
        guidance_scale=settings.guidance_scale,
        top_k=settings.top_k,
        top_p=settings.top_p,
        temperature=settings.temperature,
    )
    how = {
        "duration_s": n_frames / shape.frame_rate,
        "guidance_scale": settings.guidance_scale,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "temperature": settings.temperature,
        "precision": precision,
        **facts,
        "musicgen_lora": __version__,
    }
    paths: list[Path] = []
    began = time.monotonic()
    for start in range(0, len(settings.prompts), settings.batch_size):
        prompts = settings.prompts[start : start + settings.batch_size]
        seeds = [settings.seed + start + index for index in range(len(prompts))]
        states, mask = text.batch(prompts)
        what = f"clips {start + 1}-{start + len(prompts)} of {len(settings.prompts)}, frames"
        with progress(console, what) as on_step:
            codes = generate_codes(
                decoder,
                states,
                mask,
                n_frames=n_frames,
                seeds=seeds,
                melodies=None if melody is None else melody.expand(len(prompts), -1),
                sampling=sampling,
                on_step=on_step,
            )
        if depends_on_batch(model.decoder.device):
            how["batch"] = len(prompts)
        for prompt, seed, clip in zip(prompts, seeds, codes, strict=True):
            # One at a time: the codec's products, too, differ with the company.
            waveform = decode_codes(model, clip[None])[0]
            english = english_of(prompt)
            read = {} if english == prompt else {"read_as": english}
            path = _write_clip(
                settings.output_dir,
                {"prompt": prompt, **read, "seed": seed, **how},
                waveform,
                shape.sample_rate,
            )
            console.print(str(path))
            paths.append(path)
    elapsed = time.monotonic() - began
    total_s = len(paths) * how["duration_s"]
    console.print(
        f"{total_s:.0f} s of audio in {elapsed:.1f} s ({total_s / elapsed:.1f} times real time)."
    )
    return paths


def _write_clip(folder: Path, made: dict[str, Any], waveform: np.ndarray, sample_rate: int) -> Path:
    """Writes a clip `[C, N]` and the JSON that says how it was made, both or none."""
    path = folder / f"{_stem(made)}.wav"
    sound = wav_bytes(waveform, sample_rate)
    facts = atomic.json_bytes(made | {"sample_rate": sample_rate})
    with locked(folder, wait_s=WAIT_S):
        atomic.write_files(
            {
                path: lambda temporary: temporary.write_bytes(sound),
                path.with_suffix(".json"): lambda temporary: temporary.write_bytes(facts),
            }
        )
    return path


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


def _stem(made: dict[str, Any]) -> str:
    """File name: the prompt's words, the seed, and a hash of everything that decides the
    samples, so that different audio never shares a name."""
    words = re.sub(r"[^\w]+", "-", made["prompt"].lower()).strip("-")[:48].strip("-")
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]
    return f"{words or 'clip'}_seed{made['seed']}_{digest}"
