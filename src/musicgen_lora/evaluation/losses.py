"""Held-out loss, base against adapter, codebook by codebook and source by source."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from musicgen_lora.dataset.batches import fixed_windows
from musicgen_lora.dataset.melodies import open_melodies
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.scoring import OnStep, Windows, window_losses
from musicgen_lora.dataset.tokens import TokenStore
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.evaluation.report.document import Losses
from musicgen_lora.evaluation.statistics import paired_bootstrap
from musicgen_lora.evaluation.voices import ADAPTER, BASE, Sides, Voice
from musicgen_lora.model.musicgen import MusicGen

LOSS_VERSION = 1
"""Raised where a window comes to have another loss."""


def windows_to_measure(
    model: MusicGen, clips: Sequence[Clip], codes: TokenStore, held_out: HeldOut
) -> Windows:
    """Windows of clips as training's validation takes them; none where every clip is too short."""
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
    on_step: OnStep = lambda done, total: None,
) -> Losses:
    """Teacher-forced loss of the same windows with the adapter off and on.

    Args:
        sides: base and adapter.
        windows: at least one.
        batch_size: windows that go through the model together.
        seed: of the intervals.
        on_step: told how many of both sides' windows are done.

    Returns:
        The report's `loss`, see `summarise_losses`.
    """
    total = 2 * len(windows)
    base_sums, counts = score_windows(
        sides[BASE], windows, batch_size, lambda done, _: on_step(done, total)
    )
    adapter_sums, _ = score_windows(
        sides[ADAPTER], windows, batch_size, lambda done, of: on_step(of + done, total)
    )
    return summarise_losses(
        base_sums, adapter_sums, counts, [window.source for window in windows], seed=seed
    )


def score_windows(
    voice: Voice, windows: Windows, batch_size: int, on_step: OnStep
) -> tuple[np.ndarray, np.ndarray]:
    """Sums in nats and numbers of predicted frames of each window, `[W, K]`. What the voice has
    scored before is not scored again, but for what changes with the company in a batch, the last
    bits."""
    model = voice.model
    keys = [
        voice.key(
            "loss",
            LOSS_VERSION,
            voice.reads(window.caption),
            np.ascontiguousarray(window.codes, np.uint16).tobytes(),
            b"" if window.melody is None else np.ascontiguousarray(window.melody).tobytes(),
        )
        for window in windows
    ]
    found = {key: voice.store.get("losses", key) for key in keys}
    missing = [index for index, key in enumerate(keys) if found[key] is None]
    # Windows of like length together: less padding.
    missing.sort(key=lambda index: len(windows[index].codes))
    with voice.worn() if missing else nullcontext():
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            sums, counts = window_losses(model, [windows[index] for index in batch], batch_size)
            fresh = {
                keys[index]: {"sums": sums[row], "counts": counts[row]}
                for row, index in enumerate(batch)
            }
            voice.store.put("losses", fresh)
            found |= fresh
            on_step(len(windows) - len(missing) + start + len(batch), len(windows))
    entries = [entry for key in keys if (entry := found[key]) is not None]
    return np.stack([own["sums"] for own in entries]), np.stack([own["counts"] for own in entries])


def summarise_losses(
    base_sums: np.ndarray,
    adapter_sums: np.ndarray,
    counts: np.ndarray,
    sources: Sequence[str],
    *,
    seed: int,
) -> Losses:
    """Figures of the held-out loss, with the source as the unit.

    Args:
        base_sums: `[W, K]` nats, summed over a window's predicted frames.
        adapter_sums: `[W, K]`.
        counts: `[W, K]` predicted frames.
        sources: W of them; windows of one source are one observation.
        seed: of the intervals.

    Returns:
        `n_sources`, `n_windows`, `n_frames`; `mean`, the loss (the mean of the codebooks) and
        `codebooks`, each of them, as `paired_bootstrap` gives them in nats, sources weighted by
        their frames as in training; `sources`, each source's own figures.
    """
    names = sorted(set(sources))
    member = np.array([[source == name for source in sources] for name in names], np.float64)
    frames = member @ counts
    base, adapter = member @ base_sums / frames, member @ adapter_sums / frames
    return {
        "computed": True,
        "n_sources": len(names),
        "n_windows": len(sources),
        "n_frames": int(counts.max(axis=1).sum()),
        "mean": paired_bootstrap(base.mean(1), adapter.mean(1), frames.mean(1), seed),
        "codebooks": [
            paired_bootstrap(base[:, k], adapter[:, k], frames[:, k], seed)
            for k in range(base.shape[1])
        ],
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
