"""Loops and takes by the command, of a random model and of the embedded base."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile

from musicgen_lora.audio.writing import FORMATS
from musicgen_lora.cli import main
from musicgen_lora.config.kinds import SoundFormat


def generate(model: Path | str, folder: Path, *words: str) -> int:
    given = ["generate", "--base_model_path", str(model), "--output_dir", str(folder)]
    has_prompts = "--prompts" in words or "--prompts_file" in words
    return main([*given, *(() if has_prompts else ("--prompts", "808 beat")), *words])


def test_a_loop_of_the_embedded_base_is_exact_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bpm", "180", "--bars", "1", "--loop_tries", "1", "--key", "Fm", "--midi"]
    assert generate("tiny-beats", tmp_path, *words) == 0
    path = tmp_path / "Beat_180bpm_Fmin_01.wav"
    samples, rate = soundfile.read(path)
    assert len(samples) == round(240.0 / 180.0 * rate)
    assert np.abs(samples).max() > 0.01
    assert path.with_suffix(".mid").is_file()
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["read_as"] == "808 beat, 180 bpm, F minor"
    assert len(facts["takes"]) == 1
    # Whether it fits is the base's matter; that it is told is ours.
    told = capsys.readouterr().out
    assert all(fault in told for fault in facts["faults"])
    assert bool(facts["faults"]) == ("raises the odds" in told)


def test_a_loop_as_mp3_is_told_to_have_gaps(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = ["--bpm", "240", "--bars", "1", "--loop_tries", "1", "--format"]
    gap = "many programs play the silence that MP3 adds at both ends"
    assert generate(tiny_model_dir, tmp_path, *loop, "mp3") == 0
    assert gap in capsys.readouterr().out
    assert generate(tiny_model_dir, tmp_path, *loop, "ogg") == 0
    assert generate(tiny_model_dir, tmp_path, "--duration", "0.4", "--format", "mp3") == 0
    assert gap not in capsys.readouterr().out


def test_a_short_clip_is_not_told_as_no_audio(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tiny_model_dir, tmp_path, "--duration", "0.3") == 0
    assert re.search(r"^0\.3 s of audio in", capsys.readouterr().out, re.MULTILINE)


def test_what_is_written_is_told_apart_from_the_takes_that_were_played_for_it(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = ["--duration", "1", "--variations", "2"]
    assert generate(tiny_model_dir, tmp_path, *clips) == 0
    assert re.search(r"^2 s of audio in [\d.]+ s \(", capsys.readouterr().out, re.MULTILINE)
    assert generate(tiny_model_dir, tmp_path, *clips, "--best_of", "3") == 0
    told = capsys.readouterr().out
    assert re.search(
        r"^2 s of audio written; 6 s generated for it in [\d.]+ s \(", told, re.MULTILINE
    )


def test_a_length_that_a_loop_does_not_have_is_reported(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = ["--bpm", "240", "--bars", "1", "--loop_tries", "1"]
    assert generate(tiny_model_dir, tmp_path, *loop, "--duration", "3") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--duration 3 has no effect: a loop is as long as its --bars." in said
    assert generate(tiny_model_dir, tmp_path, *loop) == 0
    assert "has no effect" not in capsys.readouterr().out


def test_takes_of_a_clip_are_counted_and_the_first_is_the_clip(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    short = ["--duration", "0.4", "--seed", "7"]
    assert generate(tiny_model_dir, tmp_path / "one", *short) == 0
    assert generate(tiny_model_dir, tmp_path / "best", *short, "--best_of", "3") == 0
    best = json.loads(next((tmp_path / "best").glob("808*.json")).read_text())
    seeds = [take["seed"] for take in best["takes"]]
    assert len(set(seeds)) == 3
    assert 7 in seeds
    # The kept take again, by its seed alone.
    again = ["--duration", "0.4", "--seed", str(seeds[0])]
    assert generate(tiny_model_dir, tmp_path / "again", *again) == 0
    sounds = [
        soundfile.read(next((tmp_path / name).glob("*.wav")))[0] for name in ("best", "again")
    ]
    np.testing.assert_array_equal(*sounds)


@pytest.mark.parametrize(
    "prompt", ["808, 240 bpm", "陷阱，\uff12\uff14\uff10\uff22\uff30\uff2d", "陷阱，二百四十拍"]
)
def test_a_loop_takes_the_tempo_that_its_prompt_states(
    prompt: str, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = ["--bars", "1", "--loop_tries", "1", "--prompts", prompt]
    assert generate(tiny_model_dir, tmp_path / "stated", *loop) == 0
    assert "the tempo that its prompt states (240 bpm)" in capsys.readouterr().out
    assert generate(tiny_model_dir, tmp_path / "given", *loop, "--bpm", "240") == 0
    assert "its prompt states" not in capsys.readouterr().out
    (stated,), (given,) = ((tmp_path / name).glob("*.wav") for name in ("stated", "given"))
    assert stated.name == given.name
    assert stated.read_bytes() == given.read_bytes()
    assert json.loads(stated.with_suffix(".json").read_text())["bpm"] == 240.0


def test_each_loop_has_its_own_tempo_and_none_is_guessed(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "808, 240 bpm", "bars": 1}\n{"prompt": "a", "duration": 0.3}\n')
    loop = ["--loop_tries", "1", "--prompts_file", str(rows)]
    two = ["--prompts", "b, 200 bpm", "c", "--bars", "1"]
    assert generate(tiny_model_dir, tmp_path / "out", *loop, *two) == 2
    said = capsys.readouterr().err
    assert "a loop needs its tempo; give --bpm, or state one in 'c'." in said
    rows.write_text('{"prompt": "808, 240 bpm"}\n{"prompt": "a", "bpm": 220}\n')
    two = ["--prompts", "b, 200 bpm", "--bars", "1"]
    assert generate(tiny_model_dir, tmp_path / "out", *loop, *two) == 0
    assert "states (200, 240 bpm)" in " ".join(capsys.readouterr().out.split())
    made = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*_01.json")]
    assert sorted(one["bpm"] for one in made) == [200.0, 220.0, 240.0]
    rows.write_text('{"prompt": "808, 240 or 200 bpm and 180 bpm", "bars": 1}\n')
    assert generate(tiny_model_dir, tmp_path / "out", *loop) == 2
    assert "entry 1" in (said := capsys.readouterr().err) or "line 1" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bars", "4"], "a loop needs its tempo"),
        (["--bpm", "60", "--bars", "16"], "--bars 7 or fewer"),
        (["--key", "H#m"], "no such key"),
    ],
)
def test_what_cannot_be_ends_with_two_and_writes_nothing(
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    assert generate(tiny_model_dir, tmp_path / "out", *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_settings_and_writing_know_the_same_formats() -> None:
    assert set(get_args(SoundFormat)) == set(FORMATS)
