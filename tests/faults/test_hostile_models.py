"""Documents of a base and of an adapter, with anything in them."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from adapters import add_lora
from harm.hostile import broken, examples, taken_or_refused
from hypothesis import given
from tiny import make_tiny_musicgen

from musicgen_lora.model.base.loading import load_base, load_processor, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.chroma import Chroma
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.lora.trainable import save_adapter
from musicgen_lora.model.text.states import TextStates


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return make_tiny_musicgen(folder / "base")


def test_the_config_of_an_adapter(folder: Path, base: Path) -> None:
    model = load_base(base)
    adapter = folder / "adapter"
    adapter.mkdir()
    save_adapter(add_lora(copy.deepcopy(model), base_name="x", rank=2, alpha=4), adapter)
    path = adapter / "adapter_config.json"
    sound = json.loads(path.read_text())

    @given(content=broken(sound))
    @examples(40)
    def read(content: bytes) -> None:
        path.write_bytes(content)
        taken_or_refused(lambda: load_adapter(BaseModel(copy.deepcopy(model)), adapter))

    read()


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]
)
def test_a_file_of_a_base(name: str, folder: Path, base: Path) -> None:
    other = folder / f"base_{name}"
    shutil.copytree(base, other)
    sound = json.loads((base / name).read_text())

    def use() -> None:
        model = load_base(other)
        if name.startswith("tokenizer"):
            load_processor(other)
            TextStates(model, load_tokenizer(other)).prepare(["hip hop 808 鼓", "x" * 3000])

    @given(content=broken(sound))
    @examples(12)
    def read(content: bytes) -> None:
        (other / name).write_bytes(content)
        taken_or_refused(use)

    read()


def test_the_feature_extractor_of_a_melody_model(folder: Path) -> None:
    base = make_tiny_musicgen(folder / "melody", melody=True)
    path = base / "preprocessor_config.json"
    sound = json.loads(path.read_text())

    @given(content=broken(sound))
    @examples(40)
    def read(content: bytes) -> None:
        path.write_bytes(content)
        taken_or_refused(lambda: Chroma(base, 11)(np.zeros((1, 32_000), np.float32)))

    read()
