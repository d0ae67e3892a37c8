"""Held-out losses of the embedded base: on and off the codec's grid, by position, on 808 beats, and
how much captions lower them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lora.dataset.bar_lines import bar_lines
from musicgen_lora.dataset.batches import Window, fixed_windows
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import Clip, load_dataset
from musicgen_lora.dataset.scoring import Windows, position_losses
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.training.validation import held_out_losses
from pretraining.base.facts import stated_tempo, with_tempo

N_FRAMES = 1500
"""Frames in the windows for losses by position."""
TEMPO_FRAMES = 500
SPANS_S = ((0, 5), (5, 10), (10, 20), (20, 30))
PART_S = 5
"""Spans are multiples of this."""
BATCH = 4
COUNTED_EACH = 10
"""One in this many training clips is counted for the unigram."""


def loss_figures(model: BaseModel, data_dir: Path, beats_808: Path) -> dict[str, Any]:
    """The held-out loss per codebook, with a unigram of the training clips for comparison."""
    clips = load_dataset(data_dir)
    counted = counted_clips(clips)
    train = tokenise_clips(counted, clip_ids(counted, data_dir), model, data_dir)
    log_p = unigram(train, model.shape.special)
    held = [clip for clip in clips if clip.split == "validation"]
    sets = {
        "off_grid": [clip for clip in held if not clip.fields["on_grid"]],
        "on_grid": [clip for clip in held if clip.fields["on_grid"]],
        "808_beats": [clip for clip in load_dataset(beats_808) if clip.split == "validation"],
    }
    figures: dict[str, Any] = {"n_train_clips": len(train)}
    for name, chosen in sets.items():
        folder = beats_808 if name == "808_beats" else data_dir
        windows = windows_of(model, chosen, folder)
        codebooks = held_out_losses(model, windows, BATCH)
        codes = np.concatenate([window.codes for window in windows])
        counted = [-float(log_p[k][codes[:, k]].mean()) for k in range(codes.shape[1])]
        figures[name] = {
            "n_clips": len(chosen),
            "codebooks": codebooks,
            "loss": float(np.mean(codebooks)),
            "unigram": float(np.mean(counted)),
            "under_unigram": float(np.mean(counted) - np.mean(codebooks)),
        }
    windows = windows_of(model, held, data_dir)
    after = zip(held, held[1:] + held[:1], strict=True)
    strange = [clip._replace(texts=other.texts) for clip, other in after]
    misled = windows_of(model, strange, data_dir)
    long = windows_of(model, held, data_dir, N_FRAMES)
    figures["by_position"] = losses_by_position(model, long)
    figures["caption_effect"] = caption_effect(model, windows, misled)
    figures["tempo_effect"] = tempo_effect(model, held, data_dir)
    return figures


def counted_clips(clips: Sequence[Clip]) -> list[Clip]:
    """The training clips that are counted: not all, since the package's codec, rounded to fp16, has
    to encode them again."""
    return [clip for clip in clips if clip.split == "train"][::COUNTED_EACH]


def tempo_effect(model: BaseModel, clips: Sequence[Clip], data_dir: Path) -> dict[str, Any]:
    """Like `caption_effect`, over `TEMPO_FRAMES` from the first bar line, for captions in which
    only the tempo is the next clip's."""
    tempos = [stated_tempo(clip.texts[0]) for clip in clips]
    stated = [clip for clip, bpm in zip(clips, tempos, strict=True) if bpm is not None]
    known = [bpm for bpm in tempos if bpm is not None]
    codes = tokenise_clips(stated, clip_ids(stated, data_dir), model, data_dir)
    own, misled = [], []
    for number, (clip, next_bpm) in enumerate(zip(stated, known[1:] + known[:1], strict=True)):
        start = round(bar_lines(clip, model.shape.frame_rate)[0])
        cut = np.asarray(codes[number][start : start + TEMPO_FRAMES])
        own.append(Window(cut, clip.texts[0]))
        misled.append(Window(cut, with_tempo(clip.texts[0], next_bpm)))
    return caption_effect(model, own, misled)


def windows_of(
    model: BaseModel, clips: Sequence[Clip], data_dir: Path, max_frames: int | None = None
) -> Windows:
    """Windows of the first frames of clips, by default as many as the model was trained on."""
    codes = tokenise_clips(list(clips), clip_ids(clips, data_dir), model, data_dir)
    trained = model.shape.frames(model.facts.trained_duration_s)
    return fixed_windows(list(clips), codes, max_frames=max_frames or trained, min_frames=4)


def unigram(train: Sequence[np.ndarray], n_entries: int) -> np.ndarray:
    """The log shares `[K, V]` of the entries in codes `[T, K]`; an unused one counts once."""
    counts = np.ones((train[0].shape[1], n_entries))
    for own in train:
        for k, column in enumerate(own.T):
            counts[k] += np.bincount(column, minlength=n_entries)
    return np.log(counts / counts.sum(1, keepdims=True))


def losses_by_position(model: BaseModel, windows: Windows) -> dict[str, Any]:
    """The loss in each of `SPANS_S`, always on the same windows: those that reach the middle of the
    last span.

    Raises:
        ValueError: no window is that long.
    """
    rate = round(model.shape.frame_rate)
    reached = rate * sum(SPANS_S[-1]) // 2
    whole = [window for window in windows if len(window.codes) >= reached]
    if not whole:
        raise ValueError(f"no held-out clip has {reached} frames")
    sums, counts = position_losses(model, whole, BATCH, PART_S * rate)
    figures: dict[str, Any] = {"n_clips": len(whole)}
    for start, stop in SPANS_S:
        parts = slice(start // PART_S, stop // PART_S)
        figures[f"{start}-{stop} s"] = float(sums[..., parts].sum() / counts[..., parts].sum())
    return figures


def caption_effect(model: BaseModel, own: Windows, misled: Windows) -> dict[str, Any]:
    """How much captions tell the model: the extra nats per token that windows cost with the next
    clip's caption instead of their own."""
    losses = [held_out_losses(model, windows, BATCH) for windows in (own, misled)]
    gains = np.subtract(losses[1], losses[0])
    return {"codebooks": gains.tolist(), "mean": float(gains.mean())}
