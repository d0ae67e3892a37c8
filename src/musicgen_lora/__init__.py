"""LoRA fine-tuning of MusicGen, from a folder of audio to a measured adapter.

What a script or notebook needs is here by name: a function for each command, its settings, and
`MusicGen`, which generates. Each is loaded on first use, so that `import musicgen_lora` costs
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musicgen_lora.config import (
        EvaluateSettings,
        ExportSettings,
        GenerateSettings,
        ImportSettings,
        MergeSettings,
        PrefetchSettings,
        PrepareSettings,
        TokeniseSettings,
        TrainSettings,
        UiSettings,
    )
    from musicgen_lora.dataset.tokenise import tokenise_dataset
    from musicgen_lora.errors import UserError
    from musicgen_lora.evaluation.evaluate import evaluate_adapter
    from musicgen_lora.export.export import export_model
    from musicgen_lora.export.importing import import_model
    from musicgen_lora.export.merge import merge_adapters
    from musicgen_lora.generation.generate import generate_audio
    from musicgen_lora.generation.musicgen import MusicGen
    from musicgen_lora.model.base.prefetch import prefetch_models
    from musicgen_lora.prepare.prepare import prepare_dataset
    from musicgen_lora.training.train import train_lora
    from musicgen_lora.webui.ui import serve_page

__version__ = "0.1.0"

EMBEDDED_NAME = "tiny-beats"
"""Stands for the base model that ships with the package, wherever a model is named."""

__all__ = [
    "EMBEDDED_NAME",
    "EvaluateSettings",
    "ExportSettings",
    "GenerateSettings",
    "ImportSettings",
    "MergeSettings",
    "MusicGen",
    "PrefetchSettings",
    "PrepareSettings",
    "TokeniseSettings",
    "TrainSettings",
    "UiSettings",
    "UserError",
    "evaluate_adapter",
    "export_model",
    "generate_audio",
    "import_model",
    "merge_adapters",
    "prefetch_models",
    "prepare_dataset",
    "serve_page",
    "tokenise_dataset",
    "train_lora",
]

_MODULES = {
    **{name: "config" for name in __all__ if name.endswith("Settings")},
    "MusicGen": "generation.musicgen",
    "UserError": "errors",
    "evaluate_adapter": "evaluation.evaluate",
    "export_model": "export.export",
    "generate_audio": "generation.generate",
    "import_model": "export.importing",
    "merge_adapters": "export.merge",
    "prefetch_models": "model.base.prefetch",
    "prepare_dataset": "prepare.prepare",
    "serve_page": "webui.ui",
    "tokenise_dataset": "dataset.tokenise",
    "train_lora": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from musicgen_lora.runtime.garbage import no_garbage

    with no_garbage(freezes=False):
        found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
