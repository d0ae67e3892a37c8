"""All that is compared of sound: base, adapter and held-out audio, by what was heard of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from musicgen_lora.config import EvaluateSettings
from musicgen_lora.evaluation.comparison import compare_descriptors
from musicgen_lora.evaluation.damage import compare_damage
from musicgen_lora.evaluation.ear import Ear, Heard
from musicgen_lora.evaluation.obedience import measure_obedience
from musicgen_lora.evaluation.protocol import descriptor_distances
from musicgen_lora.evaluation.references import References
from musicgen_lora.evaluation.set_distances import compare_sets


def compare_sounds(
    settings: EvaluateSettings,
    ear: Ear,
    generation: Mapping[str, Any],
    heard: Mapping[str, Sequence[Heard] | None],
    references: References,
    why_none: str,
) -> dict[str, Any]:
    """The report's `reference`, `descriptors`, `descriptor_distance`, `distances`, `damage` and
    `obedience`.

    Args:
        settings: for the seed.
        ear: that heard.
        generation: the report's.
        heard: of "base" (None without a comparison) and "adapter", a prompt each.
        references: held-out clips and anchors.
        why_none: there are no held-out clips.
    """
    base, adapter, seed = heard["base"], heard["adapter"] or (), settings.seed
    reference: dict[str, Any] = {"computed": False, "why": why_none, "descriptors": []}
    if references.heard:
        reference = {"computed": True, "why": "", **references.describe()}
    target = reference["descriptors"] or None
    before = None if base is None else [one.descriptors for one in base]
    after = [one.descriptors for one in adapter]
    return {
        "reference": reference,
        "descriptors": compare_descriptors(before, after, target, seed=seed),
        "descriptor_distance": descriptor_distances(
            before, after, target, why_none=why_none, seed=seed
        ),
        "distances": compare_sets(
            ear.embeddings, base, adapter, references, why_none=why_none, seed=seed
        ),
        "damage": compare_damage(base, adapter, references.heard, seed=seed),
        "obedience": measure_obedience(
            [clip["prompt"] for clip in generation["clips"]],
            base,
            adapter,
            [clip.texts[0] for clip in references.clips],
            references.heard,
        ),
    }
