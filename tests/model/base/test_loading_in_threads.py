"""Models loaded by several threads: transformers replaces parts of torch while it loads."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from musicgen_lora.model.base import loading
from musicgen_lora.model.base.folder import read_base_config, read_base_shapes
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.spec import LoraSpec
from musicgen_lora.model.lora.trainable import TrainableLora


def test_one_thread_loads_at_a_time(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests keep the bases that they have loaded.
    folder = shutil.copytree(tiny_model_dir, tmp_path / "base")
    inside, most = [], []
    without_weights = loading.no_init_weights

    @contextmanager
    def slowly() -> Iterator[None]:
        with without_weights():
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.2)
            inside.pop()
            yield

    monkeypatch.setattr(loading, "no_init_weights", slowly)
    content = read_base_config(folder, tuple(loading.MODEL_CLASSES))
    shapes = read_base_shapes(folder)
    threads = [
        threading.Thread(target=loading.read_model, args=(folder, content, shapes))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    _, missing = loading.read_model(folder, content, shapes)
    assert not missing


def test_an_adapter_made_while_another_thread_loads(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = BaseModel.load(tiny_model_dir)
    # Tests keep the bases that they have loaded.
    folder = shutil.copytree(tiny_model_dir, tmp_path / "base")
    content = read_base_config(folder, tuple(loading.MODEL_CLASSES))
    shapes = read_base_shapes(folder)
    is_loading = threading.Event()
    without_weights = loading.no_init_weights

    @contextmanager
    def slowly() -> Iterator[None]:
        with without_weights():
            is_loading.set()
            time.sleep(0.5)
            yield

    monkeypatch.setattr(loading, "no_init_weights", slowly)
    loads = threading.Thread(target=loading.read_model, args=(folder, content, shapes))
    loads.start()
    assert is_loading.wait(30.0)
    # With torch's initialisation replaced, it would keep what was in memory.
    made = TrainableLora(base, LoraSpec(rank=2, alpha=4))
    loads.join()
    for name, weight in made.peft.named_parameters():
        if "lora_A" in name:
            largest = weight.abs().max() * weight.shape[1] ** 0.5
            assert 0.8 < largest <= 1.0, name
