from __future__ import annotations

from pathlib import Path

import pytest
from datasets import make_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight ragged clips of 0.3 to 1 s."""
    return make_dataset(tmp_path / "data", [0.3 + 0.1 * index for index in range(8)])
