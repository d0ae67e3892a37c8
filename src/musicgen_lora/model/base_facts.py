"""What a base model says of itself beside its shapes: how long its music was.

A model's positions go on for ever, its knowledge doesn't: past the length that it was trained on,
the embedded base predicts no better than chance. The facts stand in its config.json:

    "musicgen_lora": {"trained_duration_s": 10.0}

A base without them is taken for one of Meta's, all of which were trained on 30 s.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from transformers import MusicgenForConditionalGeneration, PreTrainedConfig

from musicgen_lora.errors import UserError

FIELD = "musicgen_lora"
"""Of config.json."""
# What a later release writes there is no fault.
OWN = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, config=OWN)
class BaseFacts:
    """Facts of a base.

    Args:
        trained_duration_s: length of the longest windows that it was trained on.
    """

    trained_duration_s: Annotated[float, Field(ge=0.1, le=3600.0)] = 30.0


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
    try:
        return BaseFacts(**stated)
    except (TypeError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {}
        place = ".".join(str(part) for part in first.get("loc", ()))
        raise UserError(f"{where}: {place}: {first.get('msg', error)}.") from error
