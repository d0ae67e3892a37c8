"""Two adapters that tests of playing share."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapters import KINDS, draw_adapter


@pytest.fixture(scope="module")
def pair(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters, the second of which reaches every part of the model."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        draw_adapter(tiny_model_dir, folder / "one", seed=1),
        draw_adapter(tiny_model_dir, folder / "two", seed=2, **KINDS["rslora"]),
    ]
