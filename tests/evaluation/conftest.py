"""An adapter and an evaluation of it, shared by tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluated import settings_for
from made_datasets import make_dataset, tiny_settings

from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.training.train import train_lora


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> dict[str, Path]:
    """A dataset of eight sources, four of them held out, and an adapter trained on the others."""
    root = tmp_path_factory.mktemp("evaluate")
    data = make_dataset(root / "data", [1.5] * 8)
    settings = tiny_settings(
        tiny_model_dir, data, root / "run", num_epochs=3, validation_fraction=0.5, max_duration=1.0
    )
    train_lora(settings)
    return {"base": tiny_model_dir, "data": data, "adapter": root / "run" / "best_model"}


@pytest.fixture(scope="session")
def uncompared(
    trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """One prompt without the base's clips, with the adapter's own dataset as other music."""
    output_dir = tmp_path_factory.mktemp("uncompared") / "evaluation"
    settings = settings_for(trained, output_dir, num_prompts=1, other_data_dir=trained["data"])
    return evaluate_adapter(settings), output_dir


@pytest.fixture(scope="session")
def compared(
    trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    output_dir = tmp_path_factory.mktemp("compared") / "evaluation"
    settings = settings_for(trained, output_dir, compare=True, num_off_style=2)
    return evaluate_adapter(settings), output_dir
