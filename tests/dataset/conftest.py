"""Fixtures for the tests of tokens: a model, and a spy on its codec."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicgen_lora.dataset import encoding
from musicgen_lora.model.base_model import BaseModel


@pytest.fixture
def model(tiny_model_dir: Path):
    return BaseModel.load(tiny_model_dir)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the clips that the codec has encoded so far."""
    names: list[str] = []
    original = encoding.encode_clips

    def counting(clips, model):
        names.extend(clip.name for clip in clips)
        return original(clips, model)

    monkeypatch.setattr(encoding, "encode_clips", counting)
    return names
