"""Audio models from a folder: those that fail the self-test are refused, and no repository code is
run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clap import make_tiny_clap
from made_datasets import beat
from safetensors.torch import load_file
from transformers import ClapProcessor, HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.measures.listeners import Listener, load_listener

RATE = 32_000


@pytest.fixture(scope="module")
def clap_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="module")
def clap(clap_dir: Path) -> Listener:
    return load_listener(str(clap_dir))


def test_a_sound_clap_gives_unit_vectors_of_one_room(clap: Listener) -> None:
    assert clap.read is not None
    words = clap.read(["a drum machine beat", "white noise"])
    heard = clap.embedding.hear(beat(0), RATE)
    assert words.shape == (2, len(heard))
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1.0, rtol=1e-5)
    assert np.linalg.norm(heard) == pytest.approx(1.0, rel=1e-5)


def test_all_of_a_long_clip_is_heard_and_always_the_same(clap: Listener) -> None:
    """transformers crops what is longer than the model's window, here 5 s, at random."""
    rng = np.random.default_rng(0)
    long = rng.normal(0.0, 0.1, (1, 12 * RATE)).astype(np.float32)
    long[:, 10 * RATE :] = np.tile(beat(1)[:1], 4)[:, : 2 * RATE]
    np.random.seed(1)
    first = clap.embedding.hear(long, RATE)
    np.random.seed(2)
    np.testing.assert_array_equal(first, clap.embedding.hear(long, RATE))
    assert not np.allclose(first, clap.embedding.hear(long[:, : 10 * RATE], RATE), atol=1e-6)
    # A little more is one window: no padded rest counts as much as the whole.
    np.testing.assert_allclose(
        clap.embedding.hear(long[:, : 5 * RATE + 640], RATE),
        clap.embedding.hear(long[:, : 5 * RATE], RATE),
        atol=0.05,
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("deaf", r"cannot tell noise, a beat and a tone apart \(mean cosine (1\.0|0\.99)"),
        ("illiterate", r"cannot tell unrelated texts apart \(mean cosine (1\.0|0\.99)"),
        ("mismatched", "texts match their own sounds no better than other sounds"),
    ],
)
def test_a_model_that_fails_the_self_test_is_refused(fault: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        load_listener(str(make_tiny_clap(tmp_path, fault)))


def test_no_code_of_a_repository_is_run(clap_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "muq"
    shutil.copytree(clap_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    config |= {"model_type": "muq", "auto_map": {"AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"its own code, which is not run.*your own function"):
        load_listener(str(folder))
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="model_type is 'muq', not one of clap, hubert"):
        load_listener(str(folder))
    assert not (tmp_path / "mark").exists()


def test_a_folder_as_the_installed_transformers_saves_it_is_the_same_model(
    clap: Listener, clap_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(clap_dir, folder)
    (folder / "preprocessor_config.json").unlink()
    ClapProcessor.from_pretrained(clap_dir).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    again = load_listener(str(folder))
    np.testing.assert_array_equal(
        again.embedding.hear(beat(0), RATE), clap.embedding.hear(beat(0), RATE)
    )


def test_what_is_said_of_pickled_weights_makes_a_folder_that_is_read(
    clap: Listener, clap_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(clap_dir, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="pickled weights") as told:
        load_listener(str(folder))
    (_, python) = str(told.value).split("python -c ")
    monkeypatch.chdir(tmp_path)
    exec(python.strip('"'), {})
    again = load_listener(str(tmp_path / "pickled-safetensors"))
    np.testing.assert_array_equal(
        again.embedding.hear(beat(0), RATE), clap.embedding.hear(beat(0), RATE)
    )


@pytest.mark.parametrize("fault", ["pickle", "shapes", "extractor", "nested", "fusion", "nothing"])
def test_a_damaged_folder_is_one_line(fault: str, clap_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clap"
    shutil.copytree(clap_dir, folder)
    said = {
        "pickle": "pickled weights",
        "shapes": "don't belong together",
        "extractor": "feature_size",
        "nested": "max_length_s",
        "fusion": "truncation and enable_fusion",
        "nothing": "preprocessor_config.json is missing",
    }
    if fault == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif fault == "shapes":
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["hidden_size"] = 32
        (folder / "config.json").write_text(json.dumps(config))
    elif fault in ("extractor", "nested", "fusion"):
        path = folder / "preprocessor_config.json"
        settings = json.loads(path.read_text())
        if fault == "nested":
            # transformers reads this one, however right the other is.
            settings = {"feature_extractor": settings | {"max_length_s": 10**9}}
            path = folder / "processor_config.json"
        elif fault == "extractor":
            settings["feature_size"] = 10**9
        else:
            settings["truncation"] = "fusion"
        path.write_text(json.dumps(settings))
    else:
        (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=said[fault]):
        load_listener(str(folder))


def test_a_model_that_reads_samples_is_a_door_too(tmp_path: Path) -> None:
    config = HubertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(10, 10),
        conv_kernel=(20, 20),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=False,
    )
    torch.manual_seed(0)
    model = HubertModel(config)
    for name, weight in model.named_parameters():
        if "attention" in name or "feed_forward" in name or "projection.weight" in name:
            torch.nn.init.normal_(weight, std=1.0)
    model.save_pretrained(tmp_path / "mine")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "mine")
    listener = load_listener(str(tmp_path / "mine"))
    assert (listener.embedding.name, listener.read) == ("mine", None)
    assert listener.embedding.hear(beat(0), RATE).shape == (16,)
