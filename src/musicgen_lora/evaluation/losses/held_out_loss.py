"""Held-out loss, base vs. adapter, by codebook and by source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from musicgen_lora.console import OnStep
from musicgen_lora.dataset.batches import fixed_windows
from musicgen_lora.dataset.melodies import open_melodies
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.scoring import Windows, position_losses
from musicgen_lora.dataset.tokens import TokenStore
from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.evaluation.performers import ADAPTER, BASE, Performer, Sides
from musicgen_lora.evaluation.report.document import Losses, PositionLoss
from musicgen_lora.model.base_model import BaseModel

PART_S = 0.5
"""Resolution at which losses along the clip are stored ..."""
MOST_POSITIONS = 10
"""... and the most stretches of equal length, in whole parts, in which they are reported."""
LOSS_VERSION = 2
"""Part of the cache key; raise it when the loss of a window changes."""


def windows_to_measure(
    model: BaseModel, clips: Sequence[Clip], codes: TokenStore, held_out: HeldOut
) -> Windows:
    """The same windows as in training's validation; none if every clip is too short."""
    shortest = model.delays.shortest
    return fixed_windows(
        clips,
        codes,
        max_frames=model.shape.frames(held_out.max_duration_s, shortest),
        min_frames=shortest,
        max_windows=held_out.max_windows,
        melodies=open_melodies(model),
    )


def compare_losses(
    sides: Sides,
    windows: Windows,
    *,
    batch_size: int,
    seed: int,
    on_step: OnStep,
) -> Losses:
    """Teacher-forced loss of the same windows with the adapter off and on.

    Args:
        windows: at least one.

    Returns:
        The report's `loss`, see `summarise_losses` and `summarise_positions`.
    """
    total = 2 * len(windows)
    model = sides[BASE].model
    base_sums, counts = score_windows(
        sides[BASE], windows, batch_size, lambda done, _: on_step(done, total)
    )
    adapter_sums, _ = score_windows(
        sides[ADAPTER], windows, batch_size, lambda done, of: on_step(of + done, total)
    )
    sources = [window.source for window in windows]
    found = summarise_losses(
        base_sums.sum(2), adapter_sums.sum(2), counts.sum(2), sources, seed=seed
    )
    part_s = model.shape.frames(PART_S) / model.shape.frame_rate
    found["positions"] = summarise_positions(
        base_sums, adapter_sums, counts, sources, part_s=part_s, seed=seed
    )
    return found


def score_windows(
    performer: Performer, windows: Windows, batch_size: int, on_step: OnStep
) -> tuple[np.ndarray, np.ndarray]:
    """Sums in nats and numbers of predicted frames of each window, `[W, K, P]`, for P parts of half
    a second, zero past a window's end. Windows that the performer has scored before come from the
    cache; they may differ in the last bits, which depend on the rest of the batch."""
    model = performer.model
    part_frames = model.shape.frames(PART_S)
    keys = [
        performer.key(
            "loss",
            LOSS_VERSION,
            performer.reads(window.caption),
            np.ascontiguousarray(window.codes, np.uint16).tobytes(),
            b"" if window.melody is None else np.ascontiguousarray(window.melody).tobytes(),
        )
        for window in windows
    ]
    found = {key: performer.store.get("losses", key) for key in keys}
    missing = [index for index, key in enumerate(keys) if found[key] is None]
    # Batch windows of similar length: less padding.
    missing.sort(key=lambda index: len(windows[index].codes))
    with performer.worn() if missing else nullcontext():
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            sums, counts = position_losses(
                model, [windows[index] for index in batch], batch_size, part_frames
            )
            lengths = [-(-len(windows[index].codes) // part_frames) for index in batch]
            fresh = {
                keys[index]: {"sums": sums[row, :, :n], "counts": counts[row, :, :n]}
                for row, (index, n) in enumerate(zip(batch, lengths, strict=True))
            }
            performer.store.put("losses", fresh)
            found |= fresh
            on_step(len(windows) - len(missing) + start + len(batch), len(windows))
    entries = [entry for key in keys if (entry := found[key]) is not None]
    n_parts = max((entry["sums"].shape[1] for entry in entries), default=0)
    sums, counts = np.zeros((2, len(entries), model.shape.n_codebooks, n_parts))
    for row, entry in enumerate(entries):
        length = entry["sums"].shape[1]
        sums[row, :, :length], counts[row, :, :length] = entry["sums"], entry["counts"]
    return sums, counts


def summarise_losses(
    base_sums: np.ndarray,
    adapter_sums: np.ndarray,
    counts: np.ndarray,
    sources: Sequence[str],
    *,
    seed: int,
) -> Losses:
    """Summarise the held-out loss with the source as the unit, weighted by its frames as in
    training.

    Args:
        base_sums: `[W, K]` nats, summed over a window's predicted frames.
        adapter_sums: `[W, K]`.
        counts: `[W, K]` predicted frames.
        sources: W of them; windows of one source are one observation.
    """
    names, member = _members(sources)
    frames = member @ counts
    base, adapter = member @ base_sums / frames, member @ adapter_sums / frames
    codebooks = [
        paired_bootstrap(base[:, k], adapter[:, k], frames[:, k], seed)
        for k in range(base.shape[1])
    ]
    return {
        "computed": True,
        "n_sources": len(names),
        "n_windows": len(sources),
        "n_frames": int(counts.max(axis=1).sum()),
        "mean": paired_bootstrap(base.mean(1), adapter.mean(1), frames.mean(1), seed),
        "codebooks": codebooks,
        "perplexity": {
            "base": [math.exp(own["mean_base"] or 0.0) for own in codebooks],
            "adapter": [math.exp(own["mean_adapter"] or 0.0) for own in codebooks],
        },
        "sources": [
            {
                "source": name,
                "n_windows": int(member[row].sum()),
                "n_frames": int(frames[row].max()),
                "base": [float(value) for value in base[row]],
                "adapter": [float(value) for value in adapter[row]],
            }
            for row, name in enumerate(names)
        ],
    }


def _members(sources: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Names of the S sources, and a 0/1 matrix `[S, W]` of the windows that belong to them."""
    names = sorted(set(sources))
    return names, np.array([[source == name for source in sources] for name in names], np.float64)


def summarise_positions(
    base_sums: np.ndarray,
    adapter_sums: np.ndarray,
    counts: np.ndarray,
    sources: Sequence[str],
    *,
    part_s: float,
    seed: int,
) -> list[PositionLoss]:
    """The loss along the clip, in up to ten stretches: does the adapter help at the start, or with
    more context? Each stretch covers the sources that have a frame of all codebooks there.

    Args:
        base_sums: `[W, K, P]` nats, summed over the predicted frames of a part.
        adapter_sums: `[W, K, P]`.
        counts: `[W, K, P]` predicted frames.
        sources: W of them.
    """
    _, member = _members(sources)
    grouped = -(-counts.shape[2] // MOST_POSITIONS)
    starts = np.arange(0, counts.shape[2], grouped)
    base, adapter, frames = (
        np.add.reduceat(np.einsum("sw,wkp->skp", member, own), starts, axis=2)
        for own in (base_sums, adapter_sums, counts)
    )
    length_s = grouped * part_s
    found: list[PositionLoss] = []
    for place in range(len(starts)):
        has = (frames[:, :, place] > 0.0).all(axis=1)
        if not has.any():
            continue  # Past what the latest codebook predicts.
        n = frames[has, :, place]
        before, after = ((own[has, :, place] / n).mean(axis=1) for own in (base, adapter))
        found.append(
            {
                "from_s": place * length_s,
                "to_s": (place + 1) * length_s,
                "loss": paired_bootstrap(before, after, n.mean(axis=1), seed),
            }
        )
    return found
