"""All comparisons of sound between base, adapter and held-out audio, from their analyses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.protocol import descriptor_distances
from musicgen_lora.evaluation.measures.embeddings import Embedding
from musicgen_lora.evaluation.measures.listeners import Listener
from musicgen_lora.evaluation.sound.agreement import measure_agreement
from musicgen_lora.evaluation.sound.comparison import compare_descriptors
from musicgen_lora.evaluation.sound.damage import compare_damage
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.obedience import measure_obedience
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.evaluation.sound.set_distances import compare_sets


def compare_sounds(
    clips: Compared[Sequence[Heard]],
    references: References,
    *,
    prompts: Sequence[str],
    embeddings: Sequence[Embedding],
    listener: Listener | None,
    why_none: str,
    seed: int,
) -> dict[str, Any]:
    """The report's `reference`, `descriptors`, `descriptor_distance`, `distances`, `damage`,
    `obedience` and `text_agreement`.

    Args:
        embeddings: in the order in which they are reported.
        why_none: the reason if there are no held-out clips.
    """
    reference: dict[str, Any] = {"computed": False, "why": why_none, "descriptors": []}
    if references.heard:
        reference = {"computed": True, "why": "", **references.describe()}
    target = reference["descriptors"] or None
    described = clips.each(lambda heard: [one.descriptors for one in heard])
    return {
        "reference": reference,
        "descriptors": compare_descriptors(described, target, references.described, seed=seed),
        "descriptor_distance": descriptor_distances(
            described, target, anchors=references.described, why_none=why_none, seed=seed
        ),
        "distances": compare_sets(embeddings, clips, references, why_none=why_none, seed=seed),
        "damage": compare_damage(clips, references, seed=seed),
        "obedience": measure_obedience(prompts, clips, references),
        "text_agreement": measure_agreement(listener, prompts, clips, references, seed=seed),
    }
