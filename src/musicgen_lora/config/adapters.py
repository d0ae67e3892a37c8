"""Which adapters, and at what strength: shared by generating, merging and exporting."""

from __future__ import annotations

import dataclasses

from pydantic.dataclasses import dataclass

from musicgen_lora.config.kinds import STRICT, Adapters, Strengths


@dataclass(config=STRICT)
class AdaptersSettings:
    """Which adapters, and at what strength."""

    lora_model_path: Adapters = dataclasses.field(default_factory=list)
    """Adapter folders, such as output_dir/best_model; several are mixed."""
    strength: Strengths = dataclasses.field(default_factory=list)
    """Strength of each adapter, 0 to 2: 1 is the adapter as trained, 0 the base alone (default: 1
    each)."""
