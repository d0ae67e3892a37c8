"""A tiny base that tests of faults share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_musicgen

from musicgen_lora.model.base.loading import load_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_musicgen(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    return load_base(base)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")
