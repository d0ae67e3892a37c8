"""Generates the clips to compare: the same prompts and seeds with the adapter off and on."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from musicgen_lora.audio.files import write_wav
from musicgen_lora.cluster.engine import Engine
from musicgen_lora.console import OnStep
from musicgen_lora.dataset.bar_lines import stated_bar_lines
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.evaluation.performers import Performer
from musicgen_lora.evaluation.play_tasks import ClipKind, SeededPrompt, play_batches_by, request_of
from musicgen_lora.evaluation.players import Players, hearers, players, shared_out
from musicgen_lora.evaluation.sound.ear import Ear, Heard, Vectors
from musicgen_lora.generation.decoding.decode import (
    VERSION,
    depends_on_batch,
    generate_codes,
    window_bar,
)
from musicgen_lora.generation.decoding.decoder import Decoder, is_small
from musicgen_lora.generation.decoding.request import Request
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.reading import TextReader, describe_readings

TOGETHER = 16
"""Batch size of a small decoder on a CPU, where a step of tiny-beats takes 9 ms for four clips and
13 ms for ten."""
DEFAULT_PROMPTS = (
    "hip hop 808 beat with trap drums",
    "808 bass and hip hop drum pattern",
    "trap beat with 808",
    "dark trap beat, sliding 808 bass, fast hi-hat rolls, 140 bpm",
    "boom bap hip hop beat, dusty drums, swung hi-hats, 88 bpm",
    "drill beat, gliding 808 bass, syncopated hi-hats, 142 bpm",
    "memphis hip hop beat, 808 cowbell melody, distorted kick, 130 bpm",
    "slow southern hip hop beat, long 808 bass, claps, 70 bpm",
    "minimal 808 drum machine pattern, kick, clap and closed hi-hat",
    "hard trap beat, punchy 808 kick, snare rolls, 150 bpm",
    "laid-back hip hop beat, deep sub bass, open hi-hats, 95 bpm",
    "808 drum machine groove with congas and rimshots, 110 bpm",
)


def choose_prompts(
    given: Sequence[str], held_out: Sequence[Clip], n_prompts: int
) -> list[dict[str, str]]:
    """Choose the prompts: the given ones; else captions of held-out clips, cycling through the
    sources, filled up with our own 808 prompts.

    Returns:
        `{"prompt", "origin"}` for each, without duplicates; fewer than `n_prompts` if there are
        not enough.
    """
    if given:
        return [{"prompt": prompt, "origin": "given"} for prompt in given]
    by_source: dict[str, list[str]] = {}
    for clip in held_out:
        by_source.setdefault(clip.source, []).append(clip.texts[0])
    rounds = max((len(texts) for texts in by_source.values()), default=0)
    captions = [
        texts[turn] for turn in range(rounds) for texts in by_source.values() if turn < len(texts)
    ]
    chosen = dict.fromkeys(captions, "held-out caption")
    for prompt in DEFAULT_PROMPTS:
        chosen.setdefault(prompt, "default prompt")
    return [{"prompt": p, "origin": origin} for p, origin in list(chosen.items())[:n_prompts]]


def describe_texts(
    prompts: Sequence[dict[str, str]], held_out: Sequence[Clip], reader: TextReader
) -> list[str]:
    """Sentences on prompts and captions that the text encoder does not read as written."""
    names = {clip.texts[0]: clip.name for clip in held_out}
    others = [item["prompt"] for item in prompts if item["prompt"] not in names]
    return [
        *describe_readings(others, lambda: reader, "prompt"),
        *describe_readings(names, lambda: reader, "caption", names.__getitem__),
    ]


def play_prompts(
    performer: Performer,
    prompts: Sequence[str],
    playing: ClipKind,
    *,
    seed: int,
    batch_size: int,
    on_step: OnStep,
    engine: Engine | None = None,
) -> list[np.ndarray]:
    """Generate a clip for each prompt; the first has `seed`, the next `seed + 1`, and so on. Clips
    that the performer has generated before come from the cache.

    Args:
        batch_size: clips per batch; at least `TOGETHER` for a small decoder on a CPU.
        on_step: called with (frames done, frames in total).
        engine: generates the clips; None means this process.

    Returns:
        Codes of each prompt, `[K, T]` int64.

    Raises:
        RunError: a prompt kills an engine's workers.
    """
    n_together = batch_size if depends_on_batch(performer.model.device) else None
    rows = list(zip(prompts, itertools.count(seed)))
    keys = {
        row: performer.key(
            "clip",
            *(VERSION, performer.precision),
            *(performer.reads(row[0]), row[1], playing.n_frames, n_together),
            dataclasses.asdict(playing.sampling),
            *_window_bar(performer, row[0], playing),
        )
        for row in rows
    }
    found = {row: performer.store.get("clips", key) for row, key in keys.items()}
    missing = [row for row in rows if found[row] is None]
    if engine is None and is_small(performer.model):
        batch_size = max(batch_size, TOGETHER)
    batches = [missing[at : at + batch_size] for at in range(0, len(missing), batch_size)]
    if engine is None:
        played = _play_here(performer, batches, playing, on_step)
    else:
        played = play_batches_by(engine, performer, batches, playing)
    n_done = 0
    for batch, made in played:
        fresh = {row: {"codes": own.astype(np.int32)} for row, own in zip(batch, made, strict=True)}
        performer.store.put("clips", {keys[row]: entry for row, entry in fresh.items()})
        found |= fresh
        n_done += len(batch)
        on_step(n_done * playing.n_frames, len(missing) * playing.n_frames)
    return [entry["codes"].astype(np.int64) for row in rows if (entry := found[row]) is not None]


def _window_bar(performer: Performer, prompt: str, playing: ClipKind) -> list[float]:
    """For a clip's cache key: the bar length if its windows start on bar lines; empty if they do
    not, so that keys of earlier releases stay valid."""
    model = performer.model
    lines = stated_bar_lines(prompt, model.shape.frame_rate)
    bar = window_bar(model, playing.n_frames, lines)
    return [] if bar is None else [bar]


def _play_here(
    performer: Performer, batches: Sequence[list[SeededPrompt]], playing: ClipKind, on_step: OnStep
) -> Iterator[tuple[list[SeededPrompt], np.ndarray]]:
    """Like `play_batches_by`, in this process."""
    if not batches:
        return
    total, n_before = sum(map(len, batches)) * playing.n_frames, 0
    with performer.worn(), players(performer.model, performer.precision) as side_by_side:
        for batch in batches:
            parts = shared_out(batch, side_by_side.n)
            asked = [request_of(performer.model, part, playing) for part in parts]
            made = side_by_side.play(_part_player(side_by_side, n_before, total, on_step), asked)
            yield batch, np.concatenate(made)
            n_before += len(batch) * playing.n_frames


def _part_player(
    side_by_side: Players, n_before: int, total: int, on_step: OnStep
) -> Callable[[Decoder, Request], np.ndarray]:
    """Return a function that generates a part of a batch and reports the overall progress."""
    n_done: dict[int, int] = {}

    def play(decoder: Decoder, request: Request) -> np.ndarray:
        def on_frame(done: int, of: int) -> None:
            side_by_side.check()
            n_done[id(request)] = min(done, request.n_frames) * len(request.seeds)
            on_step(n_before + sum([*n_done.values()]), total)

        return generate_codes(decoder, request, on_frame).numpy()

    return play


def write_clips(
    model: BaseModel,
    ears: Sequence[Ear],
    codes: Sequence[np.ndarray],
    prompts: Sequence[str],
    folder: Path,
) -> tuple[list[Path], list[Heard]]:
    """Decode, analyse and write clips.

    Args:
        model: its codec decodes.
        ears: for each clip, the ear that analyses it.
        codes: `[K, T]` each.
        prompts: prompts of the clips; their words are used in the file names.

    Returns:
        Paths, and the analyses. These are of the decoder's raw samples, while the WAV is turned
        down if they exceed full scale, and has 0 in place of NaN and infinite samples.
    """
    paths = [
        folder / f"{number:02d}_{_slug(prompt)}.wav"
        for number, prompt in enumerate(prompts, start=1)
    ]

    def write(clip: np.ndarray, path: Path, ear: Ear) -> Heard:
        waveform = model.decode(torch.from_numpy(clip)[None])[0]
        finite = np.nan_to_num(waveform, posinf=0.0, neginf=0.0)
        write_wav(path, finite, model.shape.sample_rate)
        return ear.hear(waveform, clip)

    with hearers(side_by_side=all(ear.hears_side_by_side for ear in ears)) as pool:
        return paths, [*pool.map(write, codes, paths, ears)]


def hear_spectra(model: BaseModel, ear: Ear, codes: Sequence[np.ndarray]) -> list[Vectors]:
    """The log-mel spectra of clips `[K, T]`; nothing else of them is computed or kept."""

    def hear(clip: np.ndarray) -> Vectors:
        waveform = model.decode(torch.from_numpy(clip)[None])[0]
        return ear.spectra_alone.vectors(np.nan_to_num(waveform, posinf=0.0, neginf=0.0))

    with hearers() as pool:
        return [*pool.map(hear, codes)]


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:48].strip("-") or "clip"
