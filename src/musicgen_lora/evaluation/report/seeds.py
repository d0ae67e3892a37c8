"""Variation across seeds in the report: sentences and table rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_lora.evaluation.measures.diversity import COLLAPSED_BELOW
from musicgen_lora.evaluation.report.verdicts import DASH, number
from musicgen_lora.plural import count


def seed_sentences(seeds: Mapping[str, Any]) -> list[str]:
    """How much each side's clips change with the seed."""
    base, adapter, n = seeds["base"], seeds["adapter"], count(seeds["n"], "prompt")
    own = f"{adapter['among_seeds']:.1f}"
    if base is None:
        return [f"Another seed changes the adapter's clip of a prompt by {own} dB (n = {n})."]
    theirs = f"{base['among_seeds']:.1f}"
    if seeds["collapsed"]:
        return [
            f"Warning: the adapter's clips hardly vary with the seed: another seed changes them "
            f"by {own} dB, the base's by {theirs} dB; less than {COLLAPSED_BELOW} of the base's "
            f"counts as collapsed (n = {n})."
        ]
    return [
        f"Another seed changes the adapter's clip of a prompt by {own} dB, the base's by {theirs} "
        f"dB (n = {n})."
    ]


def seed_rows(seeds: Mapping[str, Any]) -> list[dict[str, str]]:
    """Distances between seeds and between prompts as texts, one row each."""
    sides = {side: seeds[side] or {} for side in ("base", "adapter")}
    names = {"among_seeds": "distance between seeds", "among_prompts": "distance between prompts"}
    rows = [
        {
            "label": label,
            "unit": "dB",
            **{side: number(own.get(name), 1) for side, own in sides.items()},
        }
        for name, label in names.items()
    ]
    rows[0] |= {"reference": DASH, "n": str(seeds["n"])}
    rows[1] |= {"reference": number(seeds["reference"], 1), "n": ""}
    return rows
