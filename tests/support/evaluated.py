"""What tests of the evaluation share: its settings, and what an adapter says of its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from musicgen_lora.config import EvaluateSettings
from musicgen_lora.evaluation.held_out import HeldOut, find_held_out
from musicgen_lora.evaluation.report.document import Report
from musicgen_lora.model.lora.facts import FACTS_FILE, AdapterFacts

DOCUMENT = TypeAdapter(Report)
"""Checks that a report is what its type says."""


def settings_for(trained: dict[str, Path], output_dir: Path, **changes: Any) -> EvaluateSettings:
    values: dict[str, Any] = {
        "base_model_path": str(trained["base"]),
        "lora_model_path": trained["adapter"],
        "output_dir": output_dir,
        "duration": 0.6,
        "num_prompts": 3,
        "batch_size": 2,
        "num_off_style": 0,
    }
    return EvaluateSettings(**(values | changes))


def facts_of(trained: dict[str, Path]) -> dict[str, Any]:
    return json.loads((trained["adapter"] / FACTS_FILE).read_text())


def held_out_of(facts: dict[str, Any], *where: Any, **options: Any) -> HeldOut:
    return find_held_out(AdapterFacts(facts), *where, **options)
