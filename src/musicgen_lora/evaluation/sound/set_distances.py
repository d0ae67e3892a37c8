"""Distances of base and adapter from held-out audio as sets of clips, between anchors.

A distance alone says nothing: it is compared with the distance between two halves of the reference,
and with that of other music, or noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.measures.between import anchor_of, share_between
from musicgen_lora.evaluation.measures.distances import (
    FEWEST_ROWS,
    frechet_bias,
    frechet_distance,
    kernel_distance,
    paired_kernel_distance,
    prompt_differences,
    reference_bandwidth,
)
from musicgen_lora.evaluation.measures.diversity import measure_diversity
from musicgen_lora.evaluation.measures.embeddings import LOG_MEL, Embedding
from musicgen_lora.evaluation.measures.power import detectable_difference, effect_size
from musicgen_lora.evaluation.sound.ear import Heard, Vectors
from musicgen_lora.evaluation.sound.references import TOO_FEW_FOR_HALVES, References

PRIMARY = LOG_MEL.name
"""The embedding for the verdict: musicnn ends at 8 kHz and hears no sub-bass, and the codec's
latents are part of the model itself."""
FIRM = 100
"""Number of clips from which papers consider KAD reliable."""


def compare_sets(
    embeddings: Sequence[Embedding],
    clips: Compared[Sequence[Heard]],
    references: References,
    *,
    why_none: str,
    seed: int,
) -> dict[str, Any]:
    """The report's `distances`.

    Args:
        embeddings: in the order in which they are reported.
        why_none: the reason if there is no held-out audio.
    """
    result: dict[str, Any] = {"computed": False, "why": "", "primary": PRIMARY, "embeddings": []}
    if not references.heard:
        return result | {"why": why_none}
    if min(len(references.heard), len(clips.adapter)) < FEWEST_ROWS:
        return result | {
            "why": f"distances between sets need {FEWEST_ROWS} clips in each, and there are "
            f"{len(clips.adapter)} generated and {len(references.heard)} held-out ones"
        }
    rows = [
        {
            "name": embedding.name,
            "label": embedding.label,
            **_compare(embedding.name, clips, references, seed),
        }
        for embedding in embeddings
    ]
    return result | {"computed": True, "embeddings": rows}


def _compare(
    name: str,
    clips: Compared[Sequence[Heard]],
    references: References,
    seed: int,
) -> dict[str, Any]:
    """Distances by one embedding, or why there are none: all references sound the same to it."""
    target = _rows([heard.vectors for heard in references.heard], name)
    rows = clips.each(lambda heard: _rows([one.vectors for one in heard], name))
    try:
        bandwidth = reference_bandwidth(target)
    except ValueError as error:
        return {"computed": False, "why": str(error)}
    sides = {"base": rows.base, "adapter": rows.adapter}
    far = {
        anchor: _rows(vectors, name) if len(vectors) >= FEWEST_ROWS else None
        for anchor, vectors in (("other_music", references.others), ("noise", references.noises))
    }
    anchors = _anchors(name, target, references, bandwidth, seed)
    kernel = _kernel(target, rows, bandwidth, seed)
    return {
        "computed": True,
        "why": "",
        "kernel": kernel,
        "anchors": anchors,
        "position": {side: _position(kernel[side], anchors) for side in sides},
        "frechet": {
            "n": len(rows.adapter),
            "n_reference": len(target),
            "bias": frechet_bias(target, len(rows.adapter), seed=seed),
            **{
                side: None if own is None else frechet_distance(target, own)
                for side, own in (sides | far).items()
            },
        },
        "diversity": {
            **{side: _diversity(target, own, "needs --compare") for side, own in sides.items()},
            **{side: _diversity(target, own, "there is none") for side, own in far.items()},
        },
    }


def _rows(vectors: Sequence[Vectors], name: str) -> np.ndarray:
    return np.stack([one[name] for one in vectors])


def _kernel(
    target: np.ndarray, rows: Compared[np.ndarray], bandwidth: float, seed: int
) -> dict[str, Any]:
    before, after = rows.base, rows.adapter
    if before is not None:
        paired = paired_kernel_distance(target, before, after, seed=seed)
        differences = prompt_differences(target, before, after, bandwidth)
        return {
            **dataclasses.asdict(paired),
            "effect": effect_size(differences),
            "detectable": detectable_difference(differences),
            "firm": len(after) >= FIRM,
        }
    return {
        "n": len(after),
        "n_reference": len(target),
        "base": None,
        "adapter": kernel_distance(target, after, bandwidth),
        **dict.fromkeys(("difference", "ci_low", "ci_high", "p_value", "effect", "detectable")),
        "note": "needs --compare",
        "firm": len(after) >= FIRM,
    }


def _anchors(
    name: str, target: np.ndarray, references: References, bandwidth: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Anchors by name: `value`, `n` clips, and `why` if there is none."""
    splits = references.splits(seed)
    few = TOO_FEW_FOR_HALVES if not splits else ""
    halves = [kernel_distance(target[ours], target[theirs], bandwidth) for ours, theirs in splits]
    recorded: list[float] = []
    if references.recorded and splits:
        raw = _rows(references.recorded, name)
        recorded = [kernel_distance(target[o], raw[t], bandwidth) for o, t in splits]
    anchors = {
        "halves": anchor_of(halves, len(target), few),
        "recorded": anchor_of(recorded, len(target), references.why_not_recorded or few),
    }
    for key, vectors, why in (
        ("other_music", references.others, references.why_no_others),
        ("noise", references.noises, ""),
    ):
        found = []
        if len(vectors) >= FEWEST_ROWS:
            found = [kernel_distance(target, _rows(vectors, name), bandwidth)]
        anchors[key] = anchor_of(found, len(vectors), why or "needs at least two clips")
    return anchors


def _position(value: float | None, anchors: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The position of a distance: 0 is as near as the reference's halves are to each other, 1 as
    far as other music (or noise, if there is no other music)."""
    far = "other_music" if anchors["other_music"]["value"] is not None else "noise"
    share = share_between(value, anchors["halves"]["value"], anchors[far]["value"])
    return None if share is None else {"share": share, "far": far}


def _diversity(target: np.ndarray, rows: np.ndarray | None, why_none: str) -> dict[str, Any]:
    if rows is None:
        return {"computed": False, "why": why_none}
    try:
        found = measure_diversity(target, rows)
    except ValueError as error:
        return {"computed": False, "why": str(error)}
    return {
        "computed": True,
        "why": "",
        **dataclasses.asdict(found),
        "n_reference": len(target),
        "collapsed": found.collapsed,
    }
