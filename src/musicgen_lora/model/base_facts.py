"""What a base model says of itself beside its shapes: how long its music was.

A model's positions go on for ever, its knowledge doesn't: past the length that it was trained on,
the embedded base predicts no better than chance. The facts stand in its config.json:

    "musicgen_lora": {"trained_duration_s": 10.0}

A base without them is taken for one of Meta's, all of which were trained on 30 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import MusicgenForConditionalGeneration, PreTrainedConfig

from musicgen_lora.errors import UserError

FIELD = "musicgen_lora"
"""Of config.json."""
LONGEST_S = 3600.0


@dataclass(frozen=True)
class BaseFacts:
    """Facts of a base. What a later release states beside them is no fault.

    Args:
        trained_duration_s: length of the longest windows that it was trained on.
    """

    trained_duration_s: float = 30.0


def base_facts(model: MusicgenForConditionalGeneration) -> BaseFacts:
    """The facts that a loaded base states, and Meta's for the rest."""
    return read_base_facts(model.config, str(model.config.name_or_path))


def read_base_facts(config: PreTrainedConfig, name: str) -> BaseFacts:
    """The facts of a configuration.

    Raises:
        UserError: they are not what they should be; `name` says of which base.
    """
    stated: Any = getattr(config, FIELD, {})
    where = f'{name}: config.json: "{FIELD}"'
    if not isinstance(stated, dict):
        raise UserError(f'{where} must be an object such as {{"trained_duration_s": 30.0}}.')
    seconds = stated.get("trained_duration_s", BaseFacts.trained_duration_s)
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0.1 <= seconds <= LONGEST_S:
        raise UserError(
            f"{where}: trained_duration_s must be a number of seconds, 0.1 to {LONGEST_S:g}."
        )
    return BaseFacts(float(seconds))
