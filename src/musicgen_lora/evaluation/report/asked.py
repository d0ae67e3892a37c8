"""Prompt adherence in the report: sentences and table rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from musicgen_lora.evaluation.report.verdicts import DASH, number, share_text
from musicgen_lora.evaluation.sound.asked_words import WORDS
from musicgen_lora.evaluation.sound.references import ANCHORS
from musicgen_lora.plural import count

MEASURE_NAMES = {
    "tempo": "tempo within 4 %",
    "tempo_or_octave": "tempo, or its half or double",
    "key": "key",
    "key_or_relative": "key, or its relative key",
} | {word.name: word.label for word in WORDS}
RULES = {word.name: word.rule for word in WORDS}
SIDES = ("others", "base", "adapter", "reference")
ANCHORED = ("others", *ANCHORS)
"""Sides without an interval: one clip is judged by several prompts."""


def obedience_sentences(obedience: Mapping[str, Any]) -> list[str]:
    """How often clips have the requested tempo and key, and all requested words together."""
    measures = obedience["measures"]
    sentences = []
    for name in ("tempo", "key"):
        if measures[name]["adapter"] is not None:
            sentences.append(
                f"Prompt adherence, {MEASURE_NAMES[name]}: {_told([measures[name]])} "
                f"(n = {count(measures[name]['adapter']['n'], 'prompt')} that name one)."
            )
    words = [measures[name] for name in RULES if measures[name]["adapter"] is not None]
    if words:
        n_words = sum(row["adapter"]["n"] for row in words)
        sentences.append(
            f"Prompt adherence, measurable words: {_told(words)} "
            f"(n = {count(n_words, 'word')} in the prompts)."
        )
    return sentences


def _told(rows: list[Mapping[str, Any]]) -> str:
    """The pooled hits of several measures, side by side."""
    hits = {side: _together(row[side] for row in rows) for side in SIDES}
    told = [f"with the adapter {hits['adapter']}"]
    if hits["base"]:
        told.append(f"with the base {hits['base']}")
    if hits["others"]:
        told.append(f"in its clips of other prompts (chance) {hits['others']}")
    if hits["reference"]:
        told.append(f"in the held-out audio {hits['reference']}")
    return ", ".join(told)


def _together(found: Iterable[Mapping[str, Any] | None]) -> str:
    told = [own for own in found if own is not None]
    if not told:
        return ""
    return f"{sum(own['hits'] for own in told)} / {sum(own['n'] for own in told)}"


def obedience_rows(obedience: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row of texts for each measure that a prompt asks for."""
    rows = []
    for name, row in obedience["measures"].items():
        if not row["asked"]:
            continue
        texts = {
            "label": MEASURE_NAMES[name],
            "rule": RULES.get(name, ""),
            "why": row["why"],
            "p": number(row["p_value"]),
        }
        for side in (*SIDES, *ANCHORS):
            found = row["anchors"][side] if side in ANCHORS else row[side]
            texts[side] = DASH if found is None else f"{found['hits']} / {found['n']}"
            texts[f"{side}_interval"] = (
                ""
                if found is None
                else f"{found['share'] * 100:.0f} %"
                if side in ANCHORED
                else f"{found['ci_low'] * 100:.0f} to {found['ci_high'] * 100:.0f} %"
            )
        texts |= {f"{n}_place": share_text(p, none="") for n, p in row["position"].items()}
        rows.append(texts)
    return rows
