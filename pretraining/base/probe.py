"""The language model's position within a bar, as read by a linear probe from each layer.

If a layer knows the phase of a bar, a half, ... a sixteenth, least squares finds its cosine and
sine in the layer's outputs (Alain and Bengio, 2017, "Understanding intermediate layers using linear
classifier probes"). If no layer shows eighths, generated onsets are spread over the beat, whatever
the loss says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicgen_lora.dataset.bar_lines import bar_lines
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import Clip, load_dataset
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.model.base_model import BaseModel
from pretraining.base.facts import stated_tempo
from pretraining.base.losses import counted_clips

TURNS = (1, 2, 4, 8, 16)
"""Turns per bar of the probed phases, from the bar to the sixteenth."""
N_FRAMES = 500
RIDGE = 1e-3
"""As a share of the mean variance of a layer's outputs."""
BATCH = 8

ProbeWindow = tuple[np.ndarray, str, np.ndarray]
"""Codes `[K, N_FRAMES]` from a bar line on, their caption, and the cosines and sines of their
phases `[N_FRAMES, 2 * len(TURNS)]`."""


def probe_figures(model: BaseModel, data_dir: Path, beats_808: Path) -> dict[str, Any]:
    """The share of the phases' variance that each layer shows, by turns per bar: fitted on training
    clips whose captions state the tempo, measured on held-out ones and on 808 beats, whose captions
    have words that the model never read."""
    clips = load_dataset(data_dir)
    fitted = windows_of(model, counted_clips(clips), data_dir)
    probes = fit(model, fitted)
    figures: dict[str, Any] = {"turns_a_bar": TURNS, "n_fitted": len(fitted)}
    for name, chosen, folder in (
        ("held_out", clips, data_dir),
        ("808_beats", load_dataset(beats_808), beats_808),
    ):
        held = [clip for clip in chosen if clip.split == "validation"]
        windows = windows_of(model, held, folder)
        figures[name] = {"n_clips": len(windows), "layers": shown(model, probes, windows)}
    return figures


def windows_of(model: BaseModel, clips: Sequence[Clip], folder: Path) -> list[ProbeWindow]:
    """A window of each clip that states its tempo and is long enough, from its first bar line."""
    stated = [clip for clip in clips if stated_tempo(clip.texts[0]) is not None]
    all_codes = tokenise_clips(stated, clip_ids(stated, folder), model, folder)
    windows = []
    for clip, codes in zip(stated, all_codes, strict=True):
        first, length = bar_lines(clip, model.shape.frame_rate)
        start = round(first)
        cut = np.asarray(codes[start : start + N_FRAMES])
        if len(cut) == N_FRAMES:
            turns = (start - first + np.arange(N_FRAMES)) / length
            windows.append((cut.T, clip.texts[0], phases(turns)))
    return windows


def phases(turns: np.ndarray) -> np.ndarray:
    """Cosines and sines `[T, 2 * len(TURNS)]` of positions given in turns of the bar `[T]`."""
    angles = 2.0 * np.pi * turns[:, None] * np.array(TURNS)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(len(turns), -1)


def fit(model: BaseModel, windows: Sequence[ProbeWindow]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fits a probe for each layer: its mean `[D]` and weights `[D, 2 * len(TURNS)]`."""
    n = N_FRAMES * len(windows)
    sums: list[list[Any]] = []
    for layers, wanted in outputs_of(model, windows):
        sums = sums or [[0.0, 0.0, 0.0, 0.0] for _ in layers]
        for own, x in zip(sums, layers, strict=True):
            for number, part in enumerate((x.sum(0), x.T @ x, x.T @ wanted, wanted.sum(0))):
                own[number] = own[number] + part
    probes = []
    for total, squares, products, wanted_total in sums:
        mean = total / n
        spread = squares / n - np.outer(mean, mean)
        spread += RIDGE * np.trace(spread) / len(spread) * np.eye(len(spread))
        shared = products / n - np.outer(mean, wanted_total / n)
        probes.append((mean, np.linalg.solve(spread, shared)))
    return probes


def shown(
    model: BaseModel,
    probes: Sequence[tuple[np.ndarray, np.ndarray]],
    windows: Sequence[ProbeWindow],
) -> list[list[float]]:
    """The share of the variance of each of `TURNS` that each layer's probe finds."""
    missed = np.zeros((len(probes), 2 * len(TURNS)))
    whole = np.zeros(2 * len(TURNS))
    for layers, wanted in outputs_of(model, windows):
        whole += (wanted**2).sum(0)
        for number, (x, (mean, weights)) in enumerate(zip(layers, probes, strict=True)):
            missed[number] += ((wanted - (x - mean) @ weights) ** 2).sum(0)
    pairs = missed.reshape(len(probes), len(TURNS), 2).sum(-1)
    return (1.0 - pairs / whole.reshape(len(TURNS), 2).sum(-1)).tolist()


def outputs_of(
    model: BaseModel, windows: Sequence[ProbeWindow]
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Yields each layer's outputs `[N, D]`, float64, and the phases, batch by batch. The output at
    a position predicts the frame of that number, of which it has heard nothing yet."""
    found: list[torch.Tensor] = []

    def keep(module: Any, given: Any, out: Any) -> None:
        found.append(out)

    hooks = [layer.register_forward_hook(keep) for layer in model.hf.decoder.model.decoder.layers]
    try:
        for start in range(0, len(windows), BATCH):
            codes, texts, wanted = zip(*windows[start : start + BATCH], strict=True)
            text = model.text.batch(list(texts))
            found.clear()
            with torch.no_grad():
                model.states(torch.from_numpy(np.stack(codes).astype(np.int64)), text)
            layers = [x[:, :N_FRAMES].double().flatten(0, 1).numpy() for x in found]
            yield layers, np.concatenate(wanted)
    finally:
        for hook in hooks:
            hook.remove()
