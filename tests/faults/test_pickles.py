"""Pickles in every place where a weight could be, and checkpoints of another format: refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from adapters import add_lora
from harm.pickles import put_pickle
from made_datasets import make_dataset, tiny_settings
from tiny import make_tiny_musicgen
from trainer import train_interrupted

from musicgen_lora import atomic
from musicgen_lora.dataset.tokens import find_codes
from musicgen_lora.errors import UserError
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.training.checkpoints import FORMAT_VERSION, read_state
from musicgen_lora.training.train import train_lora


def refused(do: Callable[[], object], path: Path, mark: Path) -> None:
    with pytest.raises(UserError) as raised:
        do()
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not mark.exists()


def test_the_bomb_works(tmp_path: Path) -> None:
    put_pickle(tmp_path / "file", "pickle", tmp_path / "mark")
    pickle.loads((tmp_path / "file").read_bytes())
    assert (tmp_path / "mark").exists()


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_musicgen(tmp_path_factory.mktemp("base") / "base")


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "model.pt"])
def test_in_a_model_folder(file: str, how: str, tmp_path: Path, base_dir: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base_dir, folder)
    (folder / "model.safetensors").unlink()
    put_pickle(folder / file, how, tmp_path / "mark")
    refused(lambda: load_base(folder), folder, tmp_path / "mark")


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_model.bin"])
def test_in_an_adapter_folder(file: str, how: str, tmp_path: Path, base_dir: Path) -> None:
    folder = tmp_path / "adapter"
    adapted = add_lora(load_base(base_dir), base_name="x", rank=2, alpha=4)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "adapter_model.safetensors").unlink()
    put_pickle(folder / file, how, tmp_path / "mark")
    refused(lambda: load_adapter(BaseModel.load(base_dir), folder), folder, tmp_path / "mark")


def test_beside_sound_weights_they_stay_unread(tmp_path: Path, base_dir: Path) -> None:
    base, adapter, mark = tmp_path / "base", tmp_path / "adapter", tmp_path / "mark"
    shutil.copytree(base_dir, base)
    adapted = add_lora(load_base(base_dir), base_name="x", rank=2, alpha=4)
    adapted.save_pretrained(str(adapter), save_embedding_layers=False)
    for path in (base / "pytorch_model.bin", adapter / "adapter_model.bin"):
        put_pickle(path, "pickle", mark)
    load_adapter(BaseModel.load(base), adapter)
    assert not mark.exists()


@pytest.fixture(scope="module")
def stopped(base_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """Settings of a run with an average of the weights, stopped after step 2."""
    root = tmp_path_factory.mktemp("stopped")
    data = make_dataset(root / "data", [0.4] * 4)
    settings = tiny_settings(base_dir, data, root / "out", max_steps=4, ema_decay=0.9, num_epochs=9)
    train_interrupted(settings, 2)
    return settings


@pytest.mark.parametrize(
    "file", ["adapter_model.safetensors", "optimizer.safetensors", "average.safetensors"]
)
def test_in_a_checkpoint_whose_manifest_agrees(file: str, stopped, tmp_path: Path) -> None:
    checkpoint, mark = stopped.output_dir / "checkpoints" / "step-000002", tmp_path / "mark"
    path = checkpoint / file
    sound = path.read_bytes(), (checkpoint / atomic.MANIFEST).read_bytes()
    put_pickle(path, "torch", mark)
    manifest = json.loads(sound[1]) | {file: atomic.sha256_file(path)}
    (checkpoint / atomic.MANIFEST).write_text(json.dumps(manifest))
    try:
        assert not atomic.manifest_faults(checkpoint)
        refused(lambda: train_lora(stopped), path, mark)
    finally:
        path.write_bytes(sound[0])
        (checkpoint / atomic.MANIFEST).write_bytes(sound[1])


@pytest.mark.parametrize("how", ["pickle", "torch", "numpy"])
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_in_a_token_shard(kind: str, how: str, stopped, tmp_path: Path) -> None:
    (index,) = stopped.data_dir.glob("tokens/*/*.parquet")
    folder = tmp_path / "tokens"
    shutil.copytree(index.parent, folder)
    path = folder / f"{index.stem}.{kind}"
    ids = pq.read_table(folder / f"{index.stem}.parquet")["id"].to_pylist()
    put_pickle(path, how, tmp_path / "mark")

    def read() -> None:
        assert find_codes(folder, ids)[0][0].shape[1] == 4

    refused(read, path, tmp_path / "mark")


@pytest.mark.parametrize("version", [99, 0, None, "2"])
def test_a_checkpoint_of_another_format_is_refused(version: Any, stopped, tmp_path: Path) -> None:
    checkpoint = stopped.output_dir / "checkpoints" / "step-000002"
    content = json.loads((checkpoint / "state.json").read_text())
    assert content["format_version"] == FORMAT_VERSION
    other = tmp_path / "step-000002"
    other.mkdir()
    (other / "state.json").write_text(json.dumps(content | {"format_version": version}))
    with pytest.raises(UserError, match="resume with that release, or start over") as raised:
        read_state(other)
    assert f"{other}: written by {'a newer' if version == 99 else 'an older'}" in str(raised.value)
    assert "\n" not in str(raised.value)
