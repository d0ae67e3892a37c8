"""Fixtures for the tests of `prepare`."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_datasets import beat
from prepared.preparing import prepared, put


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Path]:
    """Three loops, prepared."""
    for index in range(3):
        put(tmp_path / "in" / f"loop{index}.wav", beat(index, 2.0))
    prepared(tmp_path / "in", tmp_path / "out")
    return tmp_path / "in", tmp_path / "out"
