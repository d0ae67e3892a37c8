"""What a base states in its config.json about its training and use:

    "musicgen_lora": {"trained_duration_s": 30.0, "advised_window_s": 10.0,
                      "advised_learning_rate": 2e-3, "advised_guidance_scale": 4.0,
                      "advised_temperature": 0.9}

A base without these facts is taken for one of Meta's, all of which were trained on 30 s. Beyond the
length that it was trained on, a base predicts no better than chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import is_number

FIELD = "musicgen_lora"
"""The field of config.json that holds them."""
RANGES = {
    "trained_duration_s": (0.1, 3600.0),
    "advised_window_s": (0.1, 3600.0),
    "advised_learning_rate": (1e-9, 1.0),
    "advised_guidance_scale": (1.0, 1000.0),
    "advised_temperature": (0.001, 1000.0),
}


@dataclass(frozen=True)
class BaseFacts:
    """Facts that a base states. Fields from later releases are ignored.

    Args:
        trained_duration_s: length of the longest windows that it was trained on.
        advised_window_s: length of the windows in which it plays longer clips best, if shorter than
            that; None if it advises none.
        advised_learning_rate: for adapters; None if it advises none.
        advised_guidance_scale: with which it plays best; None if it advises none.
        advised_temperature: likewise.
    """

    trained_duration_s: float = 30.0
    advised_window_s: float | None = None
    advised_learning_rate: float | None = None
    advised_guidance_scale: float | None = None
    advised_temperature: float | None = None

    @property
    def window_s(self) -> float:
        """Length of the windows in which it plays."""
        return min(self.advised_window_s or self.trained_duration_s, self.trained_duration_s)


def read_base_facts(config: PreTrainedConfig, name: str) -> BaseFacts:
    """Reads and checks the facts in a configuration, with Meta's as defaults.

    Raises:
        UserError: a fact is not valid; `name` says which base's.
    """
    stated: Any = getattr(config, FIELD, {})
    where = f'{name}: config.json: "{FIELD}"'
    if not isinstance(stated, dict):
        raise UserError(f'{where} must be an object such as {{"trained_duration_s": 30.0}}.')
    found: dict[str, float] = {}
    for fact, (least, most) in RANGES.items():
        if fact not in stated:
            continue
        value = stated[fact]
        if not is_number(value) or not least <= value <= most:
            raise UserError(f"{where}: {fact} must be a number from {least:g} to {most:g}.")
        found[fact] = float(value)
    return BaseFacts(**found)
