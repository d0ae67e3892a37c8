"""Taggers give facts only for what is clear, and never override what somebody stated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_datasets import RATE, beat
from safetensors.torch import load_file, save_file
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    RobertaTokenizer,
)

from musicgen_lora.atomic import sha256_file
from musicgen_lora.cli import main
from musicgen_lora.config import PrepareSettings
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.errors import UserError
from musicgen_lora.listening.musicnn import TAGS
from musicgen_lora.prepare.hearing import tagging
from musicgen_lora.prepare.hearing.tagging import (
    CLAP_LEAST,
    CLAP_WORDS,
    MUSICNN_LEAST,
    MUSICNN_WORDS,
    TagTask,
    check_clap,
    heard_facts,
    read_heard,
    tag_file,
)
from musicgen_lora.prepare.prepare import prepare_dataset
from musicgen_lora.prepare.words.facts import facts_from_name, merge_facts
from musicgen_lora.runtime.workers import Failure


def write_beat(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    soundfile.write(path, beat(3, 4.0).T, RATE)
    return path


def test_only_what_is_clear_is_said() -> None:
    heard = {
        "genre": {"rock": 0.6, "jazz": 0.7, "pop": 0.1},
        "mood": {"chill": 0.39, "ambient": 0.41},
        "instrument": {"guitar": 0.9, "vocal": 0.2},
    }
    facts = heard_facts(heard, "musicnn", "a beat")
    assert facts.genre == "jazz"
    assert facts.tags == ("ambient", "guitar")
    assert facts.sure("genre") < facts_from_name("trap 140bpm").sure("genre")
    assert merge_facts([facts, facts_from_name("trap 140bpm.wav")]).genre == "trap"
    assert heard_facts(heard, "musicnn", "hip hop 808 beat").genre is None
    assert heard_facts(heard, "musicnn", "a jazz tune").genre is None


def test_every_tag_that_has_a_word_exists() -> None:
    assert set(TAGS) >= MUSICNN_WORDS.keys()
    kinds = {kind for kind, _ in MUSICNN_WORDS.values()}
    assert kinds == MUSICNN_LEAST.keys() == CLAP_LEAST.keys() == CLAP_WORDS.keys()


def test_what_was_heard_is_kept_by_the_bytes(tmp_path: Path) -> None:
    path = write_beat(tmp_path, "beat.wav")
    digest = sha256_file(path)
    task = TagTask(path, digest, tmp_path, ((0.0, 4.0),), "musicnn")
    segments = tag_file(task, lambda *_: None)
    assert not isinstance(segments, Failure)
    (heard,) = segments
    # As measured on ten beats: electronic, between 0.43 and 0.64.
    assert max(heard["genre"], key=heard["genre"].__getitem__) == "electronic"
    assert read_heard(tmp_path, digest, "musicnn") == [heard]
    assert read_heard(tmp_path, digest[:16] + "b" * 48, "musicnn") is None
    assert read_heard(tmp_path, digest, "clap") is None


def test_captions_say_what_musicnn_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tagging, "_listen", lambda *_: {"genre": {"jazz": 0.8}, "mood": {}, "instrument": {}}
    )
    write_beat(tmp_path / "in", "one.wav")
    settings = {
        "input_dir": tmp_path / "in",
        "output_dir": tmp_path / "out",
        "default_text": "a beat",
        "num_workers": 0,
    }
    prepare_dataset(PrepareSettings(**settings))
    (clip,) = load_dataset(tmp_path / "out")
    assert "jazz" not in clip.fields["text"]
    # A second run with a tagger brings the captions up to date.
    prepare_dataset(PrepareSettings(**settings, tagger="musicnn"))
    (clip,) = load_dataset(tmp_path / "out")
    assert "jazz" in clip.fields["text"]
    assert "jazz" in clip.fields["tags"]
    # A third one listens to nothing.
    monkeypatch.setattr(tagging, "_listen", lambda *_: pytest.fail("heard again"))
    prepare_dataset(PrepareSettings(**settings, tagger="musicnn"))


def tiny_clap(folder: Path) -> Path:
    """A random CLAP in the real format."""
    words = sorted({*"abcdefghijklmnopqrstuvwxyzT0123456789-&.Ġ"})
    vocabulary = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *words])}
    torch.manual_seed(0)
    config = ClapConfig(
        text_config={
            "vocab_size": len(vocabulary),
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "initializer_factor": 40.0,
        },
        audio_config={
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "patch_embeds_hidden_size": 8,
            "hidden_size": 64,
            "num_hidden_layers": 4,
        },
        projection_dim=16,
    )
    ClapModel(config).save_pretrained(folder)
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=[])
    ClapProcessor(ClapFeatureExtractor(truncation="rand_trunc"), tokenizer).save_pretrained(folder)
    return folder


def test_a_clap_shares_out_each_kind_of_word(tmp_path: Path) -> None:
    clap = tiny_clap(tmp_path / "clap")
    path = write_beat(tmp_path, "beat.wav")
    task = TagTask(path, sha256_file(path), tmp_path, ((0.0, 4.0), (1.0, 2.0)), "clap", clap)
    segments = tag_file(task, lambda *_: None)
    assert not isinstance(segments, Failure)
    assert len(segments) == 2
    for heard in segments:
        for kind, words in CLAP_WORDS.items():
            assert tuple(heard[kind]) == words
            assert sum(heard[kind].values()) == pytest.approx(1.0, abs=0.01)
            assert np.isfinite(list(heard[kind].values())).all()


def test_a_clap_that_hears_no_difference_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagging, "COLLAPSED", -1.0)
    clap = tiny_clap(tmp_path / "clap")
    path = write_beat(tmp_path, "x.wav")
    task = TagTask(path, sha256_file(path), tmp_path, ((0.0, 4.0),), "clap", clap)
    with pytest.raises(UserError, match="can't tell words apart"):
        tag_file(task, lambda *_: None)


def test_a_clap_has_to_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_beat(tmp_path / "in", "beat.wav")
    flags = ["--input_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")]
    assert main(["prepare", *flags, "--tagger", "clap"]) == 2
    assert "--clap_path" in capsys.readouterr().err
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text(json.dumps({}))
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    clap = ["--clap_path", str(tmp_path / "pickled")]
    assert main(["prepare", *flags, "--tagger", "clap", *clap]) == 2
    assert "no model.safetensors" in capsys.readouterr().err


def test_a_clap_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    clap = tiny_clap(tmp_path / "clap")
    weights = load_file(clap / "model.safetensors")
    del weights["text_projection.linear1.weight"]
    save_file(weights, clap / "model.safetensors", {"format": "pt"})
    path = write_beat(tmp_path, "x.wav")
    task = TagTask(path, sha256_file(path), tmp_path, ((0.0, 4.0),), "clap", clap)
    with pytest.raises(UserError, match="1 of its weights is missing, such as text_projection"):
        tag_file(task, lambda *_: None)


def test_a_clap_that_brings_code_is_refused(tmp_path: Path) -> None:
    clap = tiny_clap(tmp_path / "clap")
    assert check_clap(clap) == clap
    config = json.loads((clap / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Clap"}
    (clap / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="auto_map is not supported"):
        check_clap(clap)
