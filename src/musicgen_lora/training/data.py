"""The data of a run: its clips, their codes, the split, the validation windows, the captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.console import Console

from musicgen_lora.config import TrainSettings
from musicgen_lora.console import progress, working
from musicgen_lora.dataset.batches import ClipDataset, WindowSampler, fixed_windows
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.copies import join_copies
from musicgen_lora.dataset.melodies import open_melodies
from musicgen_lora.dataset.metadata import Clip, Clips, parts_sentence, split_rows
from musicgen_lora.dataset.scoring import Windows
from musicgen_lora.dataset.tokens import TokenStore, open_tokens, tokenise_clips
from musicgen_lora.errors import UserError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.reading import TextReader, describe_readings
from musicgen_lora.plural import count
from musicgen_lora.runtime import processes

GATE_WINDOWS = 32
"""Training windows that the gate scores when nothing is held out."""
CAPTIONS_AHEAD = 1_000
"""Up to this many captions are all encoded before the first step; more are encoded as they come
up, so that the start doesn't wait for a whole large dataset."""


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Args:
        clips: the clips that are long enough.
        train: rows of the clips to train on.
        held_out: rows of the clips whose sources are held out.
        windows: windows of the held-out clips; empty if nothing is held out.
        gate_windows: windows that the gate and the effect check score.
        text_is_ready: whether all captions are encoded, so that no step runs the text encoder.
    """

    clips: Clips
    ids: list[str]
    train: np.ndarray
    held_out: np.ndarray
    dataset: ClipDataset
    windows: Windows
    gate_windows: Windows
    text_is_ready: bool


class RunInputs(NamedTuple):
    """What a run works with.

    Args:
        settings: with the values that were decided for this run filled in.
        model: on its device by the first step, with the trained weights in it.
    """

    settings: TrainSettings
    model: BaseModel
    data: RunData


def open_data(
    settings: TrainSettings,
    clips: Sequence[Clip],
    model: BaseModel,
    console: Console,
    *,
    frozen_text: bool,
) -> RunData:
    """Encodes whatever is not cached, splits the clips, and chooses the validation windows.

    Args:
        model: encodes clips and captions, and keeps the text states.
        frozen_text: whether captions can be encoded ahead because no step changes the encoder.

    Raises:
        UserError: a file or the split is unusable.
    """
    shortest = model.delays.shortest
    ids, codes = _open_codes(settings, clips, model, console)
    long_enough = _long_enough(clips, codes, shortest, console)
    kept, codes = _of_joined_sources(clips, ids, console).take(long_enough), codes.take(long_enough)
    train, held_out = _split(settings, kept, console)
    max_frames = model.shape.frames(settings.max_duration, shortest)
    melodies = open_melodies(model)

    def windows_of(rows: np.ndarray, limit: int) -> Windows:
        return fixed_windows(
            kept.take(rows),
            codes.take(rows),
            max_frames=max_frames,
            min_frames=shortest,
            max_windows=limit,
            melodies=melodies,
        )

    windows = windows_of(held_out, settings.max_validation_windows)
    dataset = ClipDataset(
        kept.take(train),
        codes.take(train),
        WindowSampler(
            max_frames,
            settings.seed,
            condition_dropout=settings.condition_dropout,
            melody_dropout=settings.melody_dropout,
        ),
        frame_rate=model.shape.frame_rate,
        melodies=melodies if settings.melody_dropout < 1.0 else None,
    )
    # Enough to judge the base, however large the dataset.
    gate_windows = windows or windows_of(train, GATE_WINDOWS)
    model.text.frozen = frozen_text
    is_ready = _read_captions(settings, kept, model, console)
    ids = [ids[row] for row in long_enough]
    return RunData(kept, ids, train, held_out, dataset, windows, gate_windows, is_ready)


def _of_joined_sources(clips: Sequence[Clip], ids: Sequence[str], console: Console) -> Clips:
    """The clips, with copies of the same audio joined into one source; says so if there are any."""
    joined, copies = join_copies(clips, ids)
    if copies:
        console.print(
            f"{count(len(copies), 'clip')} with the same audio as another, such as {copies[0]}: "
            "treated as one source, so that no audio is both trained on and held out.",
            style="yellow",
        )
    return joined


def _split(
    settings: TrainSettings, clips: Clips, console: Console
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the clips to train on, and of those held out."""
    train, held_out = split_rows(clips, settings.validation_fraction, settings.seed)
    n_sources = len(clips.take(held_out).column("source").unique())
    console.print(
        f"{count(len(train), 'clip')} to train on, {len(held_out)} held out "
        f"({count(n_sources, 'source')})."
    )
    if parts := parts_sentence(clips):
        console.print(parts)
    if not len(held_out):
        console.print(
            "Too few sources to hold any out: nothing is validated, and the weights of the last "
            "step become best_model. Use at least two sources; 50 clips or more are advised.",
            style="yellow",
        )
    return train, held_out


def _read_captions(
    settings: TrainSettings,
    clips: Clips,
    model: BaseModel,
    console: Console,
) -> bool:
    """Encodes the captions ahead, unless there are too many or the encoder is trained. Returns
    whether all of them are encoded; says how unusual ones are read."""
    tokenizer, text = model.tokenizer, model.text
    captions = clips.column("texts").flatten().unique()
    for line in [
        *describe_readings(settings.preview_prompts, lambda: TextReader.of(tokenizer), "prompt"),
        *describe_readings(
            captions.to_pylist(),
            lambda: TextReader.of(tokenizer),
            "caption",
            lambda caption: next(clip.name for clip in clips if caption in clip.texts),
        ),
    ]:
        console.print(line, style="yellow")
    is_ready = text.frozen and len(captions) <= CAPTIONS_AHEAD
    if is_ready:
        with working(console, "encoding the captions"):
            text.prepare(captions.to_pylist())
    return is_ready


def _open_codes(
    settings: TrainSettings,
    clips: Sequence[Clip],
    model: BaseModel,
    console: Console,
) -> tuple[list[str], TokenStore]:
    """Ids and codes of the clips."""
    data_dir = settings.data_dir
    if settings.from_tokens:
        return open_tokens(clips, model, data_dir)
    # The first process encodes what is missing; the others wait, then find it cached.
    if processes.rank() > 0:
        processes.barrier()
    with progress(console, "clips encoded") as on_clip:
        ids = clip_ids(clips, data_dir)
        codes = tokenise_clips(clips, ids, model, data_dir, on_clip)
    if processes.rank() == 0:
        processes.barrier()
    return ids, codes


def _long_enough(
    clips: Sequence[Clip], codes: TokenStore, shortest: int, console: Console
) -> np.ndarray:
    """Rows of the clips that are long enough for the last codebook to have something to predict."""
    is_long = codes.n_frames >= shortest
    if not is_long.any():
        raise UserError("Every clip is shorter than 0.1 s; nothing is left to train on.")
    for row in np.flatnonzero(~is_long).tolist():
        line = f"{clips[row].name}: shorter than {shortest} frames; left out."
        console.print(line, style="yellow")
    return np.flatnonzero(is_long)
