"""What is said of text that the text encoder doesn't read."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import torch
from made_datasets import make_dataset, read_metadata, tiny_settings, write_metadata

from musicgen_lora.cli import main
from musicgen_lora.config import GenerateSettings
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.text.reading import PLAIN, TextReader, describe_readings, t5_reader
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.prepare.report.findings import caption_advice
from musicgen_lora.training.train import train_lora

LONG = " ".join(["beat"] * 600)
"""A caption of 601 tokens."""


def said_of(*texts: str, noun: str = "prompt") -> list[str]:
    return describe_readings(texts, t5_reader, noun)


@pytest.fixture(scope="module")
def embedded():
    return load_base(str(EMBEDDED)), load_tokenizer(str(EMBEDDED))


def test_plain_text_is_known_for_certain() -> None:
    plain = [character for character in string.printable if PLAIN.fullmatch(character)]
    assert len(plain) > 80
    reader = t5_reader()
    # Past the first look, with a sign that isn't plain: the second must agree.
    unknown = {c for c in plain for word in reader.read(f"{c}x ♯").unknown if word != "♯"}
    assert unknown == set()
    assert said_of("hip hop 808 beat, 140 bpm (C# minor)", "don't") == []


def test_unknown_words_are_counted_and_named() -> None:
    (line,) = said_of("dark 😀 beat", "trap")
    assert "1 of 2 prompts is partly unknown" in line
    assert "1 of 3 words: 😀" in line
    (line,) = said_of("ダーク")
    assert "3 of 3 words: ダ ー ク" in line
    assert "plain English" in line
    (line,) = said_of("темный трэп")
    assert "2 of 2 words: темный трэп" in line


def test_chinese_is_shown_with_its_english() -> None:
    (line,) = said_of("暗黑陷阱鼓点")
    assert "“暗黑陷阱鼓点” = “dark trap drum pattern”" in line
    translated, unknown = said_of("鼓励的鼓点", "trap")
    assert "“鼓励的鼓点” = “鼓励 drum pattern”" in translated
    assert "2 of 4 words: 鼓 励" in unknown
    many = said_of(*("鼓点" * number for number in range(1, 10)), noun="caption")
    assert "9 of 9 captions are in Chinese" in many[0]
    assert "and 6 more" in many[0]


def test_text_past_the_encoders_limit_is_said_with_its_place(embedded) -> None:
    (line,) = describe_readings([LONG, "trap"], t5_reader, "caption", lambda text: "train/x.wav")
    assert line.startswith("train/x.wav: its caption has 601 tokens")
    assert "the first 512" in line
    assert said_of(LONG[:2500]) == []
    # As many as the encoder is given.
    assert int(TextStates(*embedded).batch([LONG])[1].sum()) == 512


def test_a_bases_own_tokenizer_reads_as_t5_does(embedded) -> None:
    own = TextReader.of(embedded[1])
    for text in ("暗黑陷阱鼓点", "ダーク 808", "темный трэп", LONG, "C♯ {minor}"):
        assert own.read(text) == t5_reader().read(text)


def test_the_encoder_is_given_the_english(embedded) -> None:
    text = TextStates(*embedded)
    states, _ = text.batch(["暗黑陷阱鼓点", "dark trap drum pattern", "明亮的钢琴旋律"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_chinese_prompts_give_different_audio_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["暗黑陷阱鼓点", "明亮的钢琴旋律"]
    paths = generate_audio(
        GenerateSettings(prompts=prompts, duration=0.2, output_dir=tmp_path, batch_size=1)
    )
    assert paths[0].read_bytes() != paths[1].read_bytes()
    said = capsys.readouterr().out
    assert "“明亮的钢琴旋律” = “bright piano melody”" in said
    facts = json.loads(paths[0].with_suffix(".json").read_text(encoding="utf-8"))
    assert (facts["prompt"], facts["read_as"]) == ("暗黑陷阱鼓点", "dark trap drum pattern")


def test_training_and_preparation_say_it_too(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_dataset(tmp_path / "data", [0.4, 0.5, 0.6])
    captions = ["暗黑陷阱鼓点", "ダーク", LONG]
    entries = [
        entry | {"text": caption}
        for entry, caption in zip(read_metadata(data), captions, strict=True)
    ]
    write_metadata(data, entries)
    train_lora(tiny_settings(tiny_model_dir, data, tmp_path / "run", max_steps=1))
    said = capsys.readouterr().out
    assert "“暗黑陷阱鼓点” = “dark trap drum pattern”" in said
    assert "ダ ー ク" in said
    assert "train/beat2.wav: its caption has 601 tokens" in said
    for sentence in (
        "“暗黑陷阱鼓点” = “dark trap drum pattern”",
        "words: ダ ー ク",
        "train/beat2.wav: its caption has",
    ):
        assert sentence in " ".join(caption_advice(entries))


def test_a_prepared_caption_stays_with_its_english_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_dataset(tmp_path / "source", [1.5])
    (source / "train" / "beat0.txt").write_text("暗黑陷阱鼓点", encoding="utf-8")
    (source / "metadata.json").unlink()
    words = ["--input_dir", str(source), "--output_dir", str(tmp_path / "out")]
    assert main(["prepare", *words, "--num_workers", "0"]) == 0
    (entry,) = read_metadata(tmp_path / "out")
    assert entry["text"] == "暗黑陷阱鼓点"
    assert "dark trap drum pattern" in entry["texts"]
    said = capsys.readouterr().out
    assert "“暗黑陷阱鼓点” = “dark trap drum pattern”" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert any("dark trap drum pattern" in line for line in report["advice"])


def test_wordings_of_one_caption_are_named_once() -> None:
    captions = [
        "暗黑陷阱鼓点",
        "暗黑陷阱鼓点, trap, at 140 bpm",
        "dark, 暗黑 陷阱 鼓点. key: A minor.",
        "明亮的钢琴旋律",
        "trap beat",
    ]
    (line,) = describe_readings(captions, t5_reader, "caption")
    assert line.startswith("4 of 5 captions are in Chinese")
    assert line.count("dark trap drum pattern") == 1
    assert line.count(" = ") == 2
    assert "A minor" not in line
    assert " more" not in line
