from __future__ import annotations

import os
from pathlib import Path

from musicgen_lora.threads import bounded_spinning

# Before torch loads, and for the processes that tests start too. Tiny layers spend their time on
# waiting for the other threads, and tests run a process a core.
os.environ.update(bounded_spinning())
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tiny import make_tiny_musicgen

torch.set_num_threads(1)


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
