"""What takes the training clips: overfitting and memorisation, beside held-out figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.console import Console

from musicgen_lora.config import EvaluateSettings
from musicgen_lora.console import progress
from musicgen_lora.dataset.tokens import TokenStore
from musicgen_lora.evaluation.ear import Heard
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.evaluation.memorisation import find_nearest, measure_continuations
from musicgen_lora.evaluation.overfitting import measure_overfitting
from musicgen_lora.evaluation.references import References
from musicgen_lora.evaluation.trained_clips import open_trained
from musicgen_lora.model.musicgen import MusicGen


@dataclass(frozen=True)
class HeldOutFigures:
    """Held-out clips and what was found on them."""

    held_out: HeldOut
    codes: TokenStore | None
    loss: Mapping[str, Any]
    references: References


def measure_on_trained(
    settings: EvaluateSettings,
    adapted: PeftModel,
    model: MusicGen,
    figures: HeldOutFigures,
    made: Sequence[Heard],
    output_dir: Path,
    console: Console,
) -> dict[str, Any]:
    """The report's `overfitting` and `memorisation`.

    Args:
        settings: of the evaluation.
        adapted: the adapter on `model`.
        model: the base that carries it.
        figures: of held-out clips.
        made: clips with the adapter.
        output_dir: of the report.
        console: where progress is shown.
    """
    held_out = figures.held_out
    trained = open_trained(settings, held_out, model)
    with progress(console, "loss on training clips, windows") as on_step:
        overfitting = measure_overfitting(
            settings, adapted, model, trained, held_out, figures.loss, on_step
        )
    with progress(console, "continuations of clips") as on_step:
        continuations = measure_continuations(
            adapted,
            model,
            trained,
            (held_out.clips, figures.codes or ()),
            seed=settings.seed,
            on_step=on_step,
        )
    nearest = find_nearest(
        model,
        made,
        trained,
        figures.references.heard,
        duration_s=settings.duration,
        output_dir=output_dir,
    )
    return {
        "overfitting": overfitting,
        "memorisation": {"continuations": continuations, "nearest": nearest},
    }
