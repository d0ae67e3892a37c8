"""A report that tests share, with its plots drawn."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import make_report

from musicgen_lora.evaluation.report import plots


@pytest.fixture(scope="package", autouse=True)
def drawn() -> Iterator[None]:
    """Draw the plots, which `quick` skips in other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "png_bytes", inspect.unwrap(plots.png_bytes))
        yield


@pytest.fixture(scope="package")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A full report on rendered beats, written to a folder."""
    folder = tmp_path_factory.mktemp("report")
    return make_report(folder), folder
