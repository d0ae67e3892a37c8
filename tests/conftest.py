from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musicgen_lora.runtime.threads import bounded_spinning

# Before torch loads, and for the processes that tests start too. Tiny layers spend their time on
# waiting for the other threads, and tests run a process a core.
os.environ.update(bounded_spinning())
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whatever the machine speaks.
os.environ["MUSICGEN_LORA_LANGUAGE"] = "en"

import pytest
import torch
from made_datasets import make_dataset
from quick import make_quick
from tiny import make_tiny_musicgen

torch.set_num_threads(1)
make_quick()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_musicgen(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_stereo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_musicgen(tmp_path_factory.mktemp("models") / "stereo", stereo=True)


@pytest.fixture(scope="session")
def tiny_melody_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_musicgen(tmp_path_factory.mktemp("models") / "melody", melody=True)


@pytest.fixture(scope="session")
def tiny_stereo_melody_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "stereo_melody"
    return make_tiny_musicgen(folder, melody=True, stereo=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """playwright's, where it is installed."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    from browsing import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight ragged clips of 0.3 to 1 s."""
    return make_dataset(tmp_path / "data", [0.3 + 0.1 * index for index in range(8)])
