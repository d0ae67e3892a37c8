"""What another seed changes, in the report: sentences and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_lora.evaluation.measures.diversity import COLLAPSED_BELOW
from musicgen_lora.evaluation.report.verdicts import DASH, number
from musicgen_lora.plural import count


def seed_sentences(seeds: Mapping[str, Any]) -> list[str]:
    """How much another seed changes with each side."""
    base, adapter, n = seeds["base"], seeds["adapter"], count(seeds["n"], "prompt")
    own = f"{adapter['among_seeds']:.1f}"
    if base is None:
        return [f"Another seed changes its clips of a prompt by {own} dB (n = {n})."]
    theirs = f"{base['among_seeds']:.1f}"
    if seeds["collapsed"]:
        return [
            f"Warning: its clips of a prompt are nearly alike, whatever the seed: another seed "
            f"changes them by {own} dB, the base's by {theirs} dB, and below {COLLAPSED_BELOW} "
            f"of that counts as collapsed (n = {n})."
        ]
    return [
        f"Another seed changes its clips of a prompt by {own} dB, the base's by {theirs} dB "
        f"(n = {n})."
    ]


def seed_rows(seeds: Mapping[str, Any]) -> list[dict[str, str]]:
    """Distances among seeds and among prompts as texts, a row each."""
    sides = {side: seeds[side] or {} for side in ("base", "adapter")}
    names = {"among_seeds": "another seed", "among_prompts": "another prompt"}
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
