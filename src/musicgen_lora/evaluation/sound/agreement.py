"""Do the clips sound as their prompts say? By a CLAP, which reads and hears in one room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.measures.listeners import CLAP, SUGGESTED, Listener
from musicgen_lora.evaluation.sound.ear import Heard


def measure_agreement(
    listener: Listener | None,
    prompts: Sequence[str],
    base: Sequence[Heard] | None,
    adapter: Sequence[Heard],
    captions: Sequence[str],
    reference: Sequence[Heard],
    *,
    seed: int,
) -> dict[str, Any]:
    """The report's `text_agreement`: the cosine of each clip and its prompt.

    Args:
        listener: the CLAP; None where none was given.
        prompts: of the clips.
        base: its clips; None without a comparison.
        adapter: its clips.
        captions: of the reference.
        reference: held-out clips; may be none.
        seed: of the interval.

    Returns:
        `base`, `adapter` and `reference`, a value a clip, None where there are none; `others`, the
        mean cosine of the adapter's clips and the prompts of the others, which is what a clip that
        was played for something else has; `paired`.
    """
    if listener is None or listener.read is None:
        why = f"needs a CLAP: --clap {SUGGESTED}, or the folder of a copy"
        return {"computed": False, "why": why}
    words = listener.read(prompts)
    table = words @ np.stack([one.vectors[CLAP] for one in adapter]).T  # [N, N]
    after = np.diag(table)
    before = None if base is None else _matched(words, base)
    theirs = _matched(listener.read(captions), reference) if reference else None
    n = len(table)
    others = float((table.sum() - np.trace(table)) / (n * (n - 1))) if n > 1 else None
    return {
        "computed": True,
        "why": "",
        "model": listener.path,
        "base": None if before is None else before.tolist(),
        "adapter": after.tolist(),
        "reference": None if theirs is None else theirs.tolist(),
        "others": others,
        "paired": None if before is None else paired_bootstrap(before, after, seed=seed),
    }


def _matched(words: np.ndarray, heard: Sequence[Heard]) -> np.ndarray:
    return (words * np.stack([one.vectors[CLAP] for one in heard])).sum(axis=1)
