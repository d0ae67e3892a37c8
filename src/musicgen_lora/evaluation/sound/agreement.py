"""Do the clips match their prompts? By CLAP, which embeds text and audio in one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.measures.between import anchor_of, share_between
from musicgen_lora.evaluation.measures.distances import mean_of_pairs
from musicgen_lora.evaluation.measures.listeners import CLAP, SUGGESTED, Listener
from musicgen_lora.evaluation.sound.ear import Heard, Vectors
from musicgen_lora.evaluation.sound.references import References


def measure_agreement(
    listener: Listener | None,
    prompts: Sequence[str],
    clips: Compared[Sequence[Heard]],
    references: References,
    *,
    seed: int,
) -> dict[str, Any]:
    """The report's `text_agreement`: the cosine of each clip and its prompt. `others`, the mean for
    the adapter's clips with other clips' prompts, is the level of unrelated prompts; `halves` is
    the same for held-out clips with other clips' captions.

    Args:
        listener: the CLAP model; None if none was given.
        references: held-out clips, which may be empty, and anchors.
    """
    if listener is None or listener.read is None:
        why = f"needs a CLAP model: --clap {SUGGESTED}, or the folder of a copy"
        return {"computed": False, "why": why}
    words = listener.read(prompts)
    table = words @ _heard([one.vectors for one in clips.adapter]).T  # [N, N]
    after = np.diag(table)
    before = None if clips.base is None else _matched(words, clips.base)
    captions = [clip.texts[0] for clip in references.clips]
    told = listener.read(captions) if captions else np.empty((0, words.shape[1]))
    theirs = _matched(told, references.heard) if captions else None
    others = mean_of_pairs(table) if len(table) > 1 else None
    return {
        "computed": True,
        "why": "",
        "model": listener.path,
        "base": None if before is None else before.tolist(),
        "adapter": after.tolist(),
        "reference": None if theirs is None else theirs.tolist(),
        "others": others,
        "anchors": _anchors(words, told, captions, references),
        "position": {
            side: share_between(_mean(own), others, _mean(theirs))
            for side, own in (("base", before), ("adapter", after))
        },
        "paired": None if before is None else paired_bootstrap(before, after, seed=seed),
    }


def _anchors(
    words: np.ndarray, told: np.ndarray, captions: Sequence[str], references: References
) -> dict[str, dict[str, Any]]:
    """Anchors by name: `value`, `n` clips, and `why` if there is none."""
    exchanged: list[float] = []
    if captions:
        table = told @ _heard([one.vectors for one in references.heard]).T
        names = np.array(captions)
        exchanged = table[names[:, None] != names].tolist()
    recorded = references.recorded
    values = (told * _heard(recorded)).sum(axis=1).tolist() if recorded else []
    why = "needs two held-out clips whose captions differ"
    anchors = {
        "halves": anchor_of(exchanged, len(captions), why),
        "recorded": anchor_of(values, len(recorded), references.why_no("recorded")),
    }
    for name, vectors in (("other_music", references.others), ("noise", references.noises)):
        values = (words @ _heard(vectors).T).ravel().tolist() if vectors else []
        anchors[name] = anchor_of(values, len(vectors), references.why_no(name))
    return anchors


def _heard(vectors: Sequence[Vectors]) -> np.ndarray:
    return np.stack([one[CLAP] for one in vectors])


def _mean(values: np.ndarray | None) -> float | None:
    return None if values is None else float(values.mean())


def _matched(words: np.ndarray, heard: Sequence[Heard]) -> np.ndarray:
    return (words * _heard([one.vectors for one in heard])).sum(axis=1)
