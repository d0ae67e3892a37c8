"""Where the tests of this folder run: on the card, or on the CPU where there is none, so that they
can't rot. `MUSICGEN_LORA_TEST_DEVICE` names another device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = f"{Path(__file__).parent}{os.sep}"
    for item in items:
        if str(item.path).startswith(folder):
            item.add_marker(pytest.mark.cuda)


@pytest.fixture(scope="session")
def device() -> torch.device:
    found = "cuda" if torch.cuda.is_available() else "cpu"
    # Sums of equal precision, whatever the card's faster modes are.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(os.environ.get("MUSICGEN_LORA_TEST_DEVICE", found))
