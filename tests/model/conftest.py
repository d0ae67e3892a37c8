"""An adapter that tests of the model share."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapters import make_adapter

from musicgen_lora.model.base.loading import load_base


@pytest.fixture
def adapter(tmp_path: Path, tiny_model_dir: Path) -> Path:
    return make_adapter(load_base(tiny_model_dir), tmp_path / "adapter")
