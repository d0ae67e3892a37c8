"""How much a clip changes with the seed: a model that plays the same for every seed has collapsed,
however good it sounds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.measures.diversity import COLLAPSED_BELOW
from musicgen_lora.evaluation.measures.embeddings import log_mel_distance
from musicgen_lora.evaluation.sound.ear import Vectors
from musicgen_lora.evaluation.sound.references import References

N_PROMPTS = 2
"""The first prompts are also generated with another seed; each costs one more clip per side."""


def measure_seeds(
    clips: Compared[Sequence[Vectors]],
    again: Compared[Sequence[Vectors]],
    references: References,
    *,
    seed: int,
) -> dict[str, Any]:
    """The report's `seeds`: distances between clips of the same prompt with two seeds, in decibels,
    see `log_mel_distance`.

    Args:
        clips: one clip per prompt.
        again: the first prompts with other seeds.
        references: held-out clips, which differ like clips of different captions.
    """
    ours = _side(clips.adapter, again.adapter)
    theirs = _side(clips.base, again.base) if clips.base and again.base else None
    paired = None
    if theirs is not None:
        paired = paired_bootstrap(np.array(theirs["values"]), np.array(ours["values"]), seed=seed)
    heard = zip(references.heard, references.sources, strict=True)
    apart = [
        log_mel_distance(one.vectors, other.vectors)
        for (one, source), (other, its) in combinations(heard, 2)
        if source != its
    ]
    return {
        "computed": True,
        "why": "",
        "n": len(ours["values"]),
        "base": theirs,
        "adapter": ours,
        "reference": float(np.mean(apart)) if apart else None,
        "paired": paired,
        "collapsed": theirs is not None
        and ours["among_seeds"] < COLLAPSED_BELOW * theirs["among_seeds"],
    }


def _side(clips: Sequence[Vectors], again: Sequence[Vectors]) -> dict[str, Any]:
    values = [log_mel_distance(*pair) for pair in zip(clips, again, strict=False)]
    apart = [log_mel_distance(*pair) for pair in combinations(clips, 2)]
    return {
        "among_seeds": float(np.mean(values)),
        "values": values,
        "among_prompts": float(np.mean(apart)) if apart else None,
    }
