"""The settings of each command, filled from a YAML file and flags.

pydantic enforces types and ranges for both, tyro turns the fields into flags. The command line
wins over the file, the file over the defaults here.

A command's settings inherit from their groups, so a setting has the same name as a flag, in YAML
and in Python, and a function that reads one group says so by its type. Groups hold types and
ranges. Rules that involve several settings are in the command's class, which is made once file and
flags have been merged; they raise a UserError.
"""

from __future__ import annotations

import re

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.config.export import ExportSettings, ImportSettings, MergeSettings
from musicgen_lora.config.page import UiSettings
from musicgen_lora.config.play import EvaluateSettings, GenerateSettings
from musicgen_lora.config.prefetch import PrefetchSettings
from musicgen_lora.config.prepare import PrepareSettings
from musicgen_lora.config.train import TokeniseSettings, TrainSettings

__all__ = [
    "EMBEDDED_NAME",
    "SETTINGS",
    "EvaluateSettings",
    "ExportSettings",
    "GenerateSettings",
    "ImportSettings",
    "MergeSettings",
    "PrefetchSettings",
    "PrepareSettings",
    "TokeniseSettings",
    "TrainSettings",
    "UiSettings",
    "groups",
]

SETTINGS: dict[str, type] = {
    "prepare": PrepareSettings,
    "tokenise": TokeniseSettings,
    "train": TrainSettings,
    "generate": GenerateSettings,
    "evaluate": EvaluateSettings,
    "merge": MergeSettings,
    "export": ExportSettings,
    "import": ImportSettings,
    "prefetch": PrefetchSettings,
    "ui": UiSettings,
}


def groups(settings: type) -> dict[str, type]:
    """The groups of a command's settings by name, in the order in which help lists them."""
    # Dataclasses take the fields of the last base first, and so does help. The name of
    # `HeldOutSettings` is `held_out`.
    return {
        re.sub("(?<!^)(?=[A-Z])", "_", group.__name__.removesuffix("Settings")).lower(): group
        for group in reversed(settings.__bases__)
    }
