"""A report that tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reports import make_report


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A full report on rendered beats, written to a folder."""
    folder = tmp_path_factory.mktemp("report")
    return make_report(folder), folder
