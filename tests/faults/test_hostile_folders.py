"""Folders of models and adapters that are made to do harm, and files that are none."""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import add_lora
from harm.hostile import change
from harm.pickles import Bomb
from made_datasets import RATE, make_dataset, sine
from prepared.written_facts import read_captions
from safetensors.torch import load_file, save_file

from musicgen_lora import atomic
from musicgen_lora.audio.files import probe, write_wav
from musicgen_lora.config_file import read_config
from musicgen_lora.dataset.cache import read_table
from musicgen_lora.dataset.encoding import write_shard
from musicgen_lora.dataset.metadata import SCHEMA, load_dataset
from musicgen_lora.dataset.tokens import find_codes
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats import documents
from musicgen_lora.formats.tensors import read_shapes
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import load_adapter, read_adapter
from musicgen_lora.model.lora.trainable import save_adapter
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.prepare.hearing.analyse import read_fingerprint, read_record
from musicgen_lora.training.checkpoints import read_state
from musicgen_lora.training.record.run import Run


@pytest.fixture
def copied(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "copied")


def in_shards(folder: Path, file: str) -> None:
    """Weights as an index names them."""
    weights = folder / "model.safetensors"
    names = list(read_shapes(weights))
    weights.rename(folder / "shard.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, file)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_shards_are_read(copied: Path, model: Any) -> None:
    in_shards(copied, "shard.safetensors")
    read = load_base(copied).state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["weights.bin", "../outside.safetensors", "/outside.safetensors"])
def test_an_index_names_files_of_the_folder_alone(name: str, copied: Path, tmp_path: Path) -> None:
    in_shards(copied, name.replace("/outside", f"{tmp_path}/outside") if name[0] == "/" else name)
    shutil.copy(copied / "shard.safetensors", tmp_path / "outside.safetensors")
    torch.save({"weight": Bomb(tmp_path / "mark")}, copied / "weights.bin")
    with pytest.raises(
        UserError, match=r"index\.json: names .*are read only from \.safetensors files"
    ):
        load_base(copied)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("part", ["", "decoder__", "text_encoder__", "audio_encoder__"])
@pytest.mark.parametrize("name", ["_attn_implementation", "attn_implementation"])
def test_a_config_chooses_no_kernel(
    name: str, part: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.modeling_utils

    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel was fetched")

    monkeypatch.setattr(transformers.modeling_utils, "lazy_import_flash_attention", fetched)
    change(copied / "config.json", **{f"{part}{name}": "someone/kernel"})
    read: Any = load_base(copied)
    found = {module.config._attn_implementation for module in (read.decoder, read.text_encoder)}
    assert found == {"sdpa"}


@pytest.mark.parametrize("field", ["auto_map", "quantization_config", "transformers_weights"])
def test_a_config_opens_no_door(field: str, copied: Path) -> None:
    change(copied / "config.json", **{f"decoder__{field}": {"AutoModel": "code.Model"}})
    with pytest.raises(UserError, match=f"decoder.{field} is not supported"):
        load_base(copied)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("decoder__num_hidden_layers", 10**6),
        ("decoder__hidden_size", 10**9),
        ("decoder__vocab_size", 10**6),
        ("decoder__num_codebooks", 10**5),
        ("text_encoder__num_layers", 10**6),
        ("text_encoder__d_ff", 10**7),
        ("audio_encoder__sampling_rate", 10**9),
        ("audio_encoder__upsampling_ratios", [1, 1]),
        ("audio_encoder__upsampling_ratios", []),
        ("audio_encoder__upsampling_ratios", [512] * 9),
        ("audio_encoder__target_bandwidths", [1e9]),
        ("audio_encoder__num_residual_layers", 10**6),
        ("audio_encoder__num_filters", 60_000),
        ("audio_encoder__codebook_size", 1),
        ("text_encoder__some_length", 10**12),
    ],
)
def test_a_config_is_within_bounds(field: str, value: Any, copied: Path) -> None:
    change(copied / "config.json", **{field: value})
    with pytest.raises(UserError, match=field.split("__")[0]):
        load_base(copied)


@pytest.mark.parametrize(
    ("field", "value"), [("decoder__hidden_size", 60_000), ("text_encoder__vocab_size", 1_000_000)]
)
def test_a_model_larger_than_its_files_takes_no_memory(
    field: str, value: int, copied: Path
) -> None:
    change(copied / "config.json", **{field: value})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"config\.json and weights don't belong together"):
        load_base(copied)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 50_000, "60,000 x 60,000 weights are 14 GB"


def test_weights_that_are_not_finite(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    tensors["decoder.model.decoder.layers.1.fc1.weight"][0, 0] = torch.nan
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"layers\.1\.fc1\.weight has values that are not finite"):
        load_base(copied)


def test_an_expression_in_a_tokenizer_takes_no_time(copied: Path) -> None:
    change(
        copied / "tokenizer.json", pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}}
    )
    with pytest.raises(UserError, match=r"tokenizer\.json: .*Regex.*too complex"):
        load_tokenizer(copied)


def test_files_that_are_pipes_are_not_waited_for(base: Path, model: Any, tmp_path: Path) -> None:
    """Nobody writes to them: whoever opens one waits for ever."""
    data, shards = make_dataset(tmp_path / "data", [0.2]), tmp_path / "shards"
    (tmp_path / "in").mkdir()
    write_wav(tmp_path / "in" / "a.wav", sine(100.0, 0.2, RATE), RATE)
    write_shard(shards, ["a"], [np.zeros((5, 4), np.uint16)])
    other, adapter = shutil.copytree(base, tmp_path / "other"), tmp_path / "adapter"
    adapter.mkdir()
    save_adapter(add_lora(copy.deepcopy(model), base_name="x", rank=2, alpha=4), adapter)
    (index,), (codes,) = shards.glob("*.parquet"), shards.glob("*.npy")
    (tmp_path / "1234.json").touch()

    def pipe(path: Path) -> Path:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return path

    refuse: list[tuple[Path, Callable[[], object]]] = [
        (tmp_path / "config.yaml", lambda: read_config(tmp_path / "config.yaml", "train")),
        (data / "metadata.json", lambda: load_dataset(data)),
        (tmp_path / "state.json", lambda: read_state(tmp_path)),
        (other / "tokenizer.json", lambda: load_tokenizer(other)),
        (
            adapter / "adapter_config.json",
            lambda: load_adapter(BaseModel(copy.deepcopy(model)), adapter),
        ),
        (codes, lambda: find_codes(shards, ["a"])[0][0]),
        (index, lambda: find_codes(shards, ["a"])),
    ]
    for path, read in refuse:
        pipe(path)
        with pytest.raises(UserError):
            read()
    pass_over: list[tuple[Path, Callable[[], object]]] = [
        (tmp_path / "run.json", lambda: Run.read(tmp_path)),
        (tmp_path / f"{'1' * 16}.json", lambda: read_record(tmp_path, "1" * 64)),
        (tmp_path / f"{'1' * 16}.npy", lambda: read_fingerprint(tmp_path, "1" * 64)),
        (tmp_path / "a.arrow", lambda: read_table(tmp_path / "a.arrow", "", SCHEMA)),
    ]
    for path, read in pass_over:
        pipe(path)
        assert read() is None
    pipe(tmp_path / atomic.MANIFEST)
    assert atomic.manifest_faults(tmp_path) == [atomic.MANIFEST]
    pipe(tmp_path / "in" / "metadata.json")
    pipe(tmp_path / "in" / "a.txt")
    assert list(read_captions(tmp_path / "in")) == ["a.wav"]


def test_a_manifest_names_files_of_its_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    (tmp_path / "folder").mkdir()
    for name in ("../other", str(tmp_path / "other")):
        digest = atomic.sha256_file(tmp_path / "other")
        (tmp_path / "folder" / atomic.MANIFEST).write_text(json.dumps({name: digest}))
        assert atomic.manifest_faults(tmp_path / "folder") == [atomic.MANIFEST]


def test_a_document_of_too_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_VALUES", 1000)
    path = tmp_path / "a.json"
    path.write_text("[" + "[]," * 999 + "[]]")
    with pytest.raises(UserError, match="more than 1,000 values"):
        documents.read_json(path)


def test_a_disk_that_fails_is_no_broken_file(tmp_path: Path) -> None:
    """Linux answers with an input/output error where a process reads its own first page."""
    path = Path("/proc/self/mem")
    for read in (lambda: documents.read_bytes(path, 100), lambda: probe(path)):
        with pytest.raises(RunError, match="Input/output error"):
            read()


ASCII = """
import sys
from musicgen_lora.cli import main
from musicgen_lora.console import plain_console

code = main(["train", "--data_dir", sys.argv[1], "--output_dir", sys.argv[2]])
plain_console().print("\\u9f13")
sys.exit(code)
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_terminals_that_know_no_other_letters(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASCII, str(tmp_path / "鼓"), str(tmp_path / "out")],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b"\\u9f13\n"


def test_a_path_with_a_null_byte_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    save_adapter(add_lora(load_base(tiny_model_dir), base_name="x", rank=2, alpha=4), tmp_path)
    facts = {"format_version": 1, "base": {"path": "x", "fingerprint": "0"}}
    for data in ({"data_dir": "a\0b"}, {"metadata_file": "\0"}):
        (tmp_path / "musicgen_lora.json").write_text(json.dumps(facts | {"data": data}))
        with pytest.raises(UserError, match="the path of a file"):
            read_adapter(tmp_path)


@pytest.mark.parametrize("fault", ["padding", "ending"])
def test_a_tokenizer_that_lacks_what_is_needed_is_one_line(
    tmp_path: Path, tiny_model_dir: Path, fault: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base)
    name = "tokenizer_config.json" if fault == "padding" else "tokenizer.json"
    content = json.loads((base / name).read_text())
    if fault == "padding":
        content["pad_token"] = None
    else:
        content["post_processor"] = None
    (base / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as raised:
        TextStates(load_base(base), load_tokenizer(base)).batch(["hip hop", ""])
    assert "tokenizer" in str(raised.value)
    assert "\n" not in str(raised.value)
