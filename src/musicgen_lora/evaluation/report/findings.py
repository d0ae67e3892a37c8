"""The key findings, and the sentences of each section.

Nobody reads a page of twenty bullets: at most seven come first, warnings before everything else,
the worst at the top. Every sentence also appears in its section.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from musicgen_lora.evaluation.report.asked import obedience_sentences
from musicgen_lora.evaluation.report.document import Report
from musicgen_lora.evaluation.report.learned import (
    caption_sentences,
    memorisation_sentences,
    overfitting_sentences,
)
from musicgen_lora.evaluation.report.seeds import seed_sentences
from musicgen_lora.evaluation.report.side_by_side import choice_sentences
from musicgen_lora.evaluation.report.summary import (
    descriptor_sentences,
    forgetting_sentences,
    generation_sentences,
    loss_sentences,
    worst_sentences,
)
from musicgen_lora.evaluation.report.unasked import off_style_sentences
from musicgen_lora.evaluation.report.verdicts import (
    agreement_sentences,
    damage_sentences,
    distance_sentences,
    primary_sentence,
    primary_sentences,
)

MOST = 7
"""Number of key findings; warnings are always among them, however many there are."""
WARNING = "Warning: "
WORST_FIRST = (
    "faults",
    "remarks",
    "primaries",
    "loss",
    "memory",
    "overfitting",
    "captions",
    "descriptors",
    "distances",
    "seeds",
)
"""Sections in order of the severity of their warnings."""


def tell_sections(report: Report) -> dict[str, list[str]]:
    """The sentences of each section of the page, by section name."""
    held_out, reference = report["held_out"], report["reference"]
    return {
        "choice": choice_sentences(report),
        "remarks": report["remarks"],
        "primaries": primary_sentences(report["primaries"]),
        "loss": loss_sentences(report["loss"], held_out),
        "overfitting": overfitting_sentences(report["overfitting"]),
        "captions": caption_sentences(report["captions"]),
        "forgetting": forgetting_sentences(report["forgetting"]),
        "off_style": off_style_sentences(report["off_style"]),
        "descriptors": [
            *worst_sentences(report["descriptors"], reference),
            *descriptor_sentences(report["descriptors"], reference),
        ],
        "distances": distance_sentences(report["distances"]),
        "seeds": seed_sentences(report["seeds"]),
        "obedience": obedience_sentences(report["obedience"]),
        "agreement": agreement_sentences(report["text_agreement"]),
        "memory": memorisation_sentences(report["memorisation"]),
        "faults": [
            *generation_sentences(report["generation"]),
            *damage_sentences(report["damage"]),
        ],
    }


def find_findings(report: Report) -> list[str]:
    """The key findings: with several variants, which one the report describes; then the warnings,
    then the verdicts and what they cost."""
    told = tell_sections(report)
    # The loss section has its own sentence on a higher loss, with its size.
    first, *others = report["primaries"]
    # One sentence is enough for everything missing for the same reason.
    verdicts = [
        primary_sentence(own) for own in others if not own["why"] or own["why"] != first["why"]
    ]
    told["primaries"] = verdicts
    warnings = [said for name in WORST_FIRST for said in told[name] if is_warning(said)]
    loss, *about_loss = told["loss"]
    calm = [
        loss,
        # That clips may be training clips comes before everything measured on them.
        *(about_loss if not report["held_out"]["is_unseen"] else []),
        # What a lower loss may hide.
        *worst_sentences(report["descriptors"], report["reference"]),
        *verdicts,
        *chain(told["overfitting"], told["forgetting"], told["captions"], told["off_style"]),
        *chain(told["memory"], told["obedience"], told["agreement"], told["descriptors"]),
        *told["seeds"],
    ]
    room = max(0, MOST - len(warnings) - len(told["choice"]))
    # The last sentence says how far the choice can be trusted.
    return [
        *told["choice"][:1],
        *warnings,
        *told["choice"][1:],
        *_first(calm, room),
    ]


def is_warning(sentence: str) -> bool:
    """Whether the sentence is a warning, which comes first."""
    return sentence.startswith(WARNING)


def _first(sentences: Iterable[str], most: int) -> list[str]:
    return [said for said in sentences if not is_warning(said)][:most]
