"""A recording that is continued or regenerated is written in the format that keeps its samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicgen_lora.cli import main

RATE = 32_000
SAMPLES = np.clip(0.2 * np.random.default_rng(0).standard_normal(4 * RATE), -0.9, 0.9)


def generate(model: Path, folder: Path, *words: str) -> int:
    given = ["generate", "--base_model_path", str(model), "--output_dir", str(folder)]
    return main([*given, "--prompts", "808", "--loop_tries", "1", *words])


@pytest.mark.parametrize(
    ("name", "subtype", "written", "said"),
    [
        ("a.wav", "PCM_U8", ("WAV", "PCM_16"), ""),
        ("a.wav", "PCM_16", ("WAV", "PCM_16"), ""),
        ("a.wav", "PCM_24", ("WAV", "PCM_24"), ""),
        ("a.wav", "FLOAT", ("WAV", "FLOAT"), ""),
        ("a.aiff", "PCM_24", ("WAV", "PCM_24"), ""),
        ("a.flac", "PCM_24", ("FLAC", "PCM_24"), ""),
        ("a.wav", "DOUBLE", ("WAV", "FLOAT"), "is written in 32-bit float, the finest here"),
        ("a.ogg", "VORBIS", ("WAV", "PCM_16"), "is written as 16-bit WAV; its own coding (VORBIS)"),
    ],
)
def test_it_stays_what_it_is(
    name: str,
    subtype: str,
    written: tuple[str, str],
    said: str,
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = tmp_path / name
    soundfile.write(given, SAMPLES, RATE, subtype)
    bars = ["--regenerate", str(given), "--from_bar", "4", "--to_bar", "4", "--bpm", "240"]
    assert generate(tiny_model_dir, tmp_path / "out", *bars) == 0
    (path,) = (p for p in (tmp_path / "out").iterdir() if p.suffix in (".wav", ".flac"))
    info = soundfile.info(path)
    assert (info.format, info.subtype) == written
    told = " ".join(capsys.readouterr().out.split())
    assert ("is written" in told) == bool(said)
    assert said in told
    samples, was = (soundfile.read(file, dtype="float64")[0][:RATE] for file in (path, given))
    assert np.abs(samples - was).max() <= (0.0 if not said else 2.0**-16)


def test_a_format_that_is_asked_for_says_what_it_rounds(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "a.wav"
    soundfile.write(given, SAMPLES[:RATE], RATE, "PCM_24")
    words = ["--continue_from", str(given), "--duration", "0.3", "--format"]
    rounds = f"--format wav: rounds the samples of {given}, which have 24 bits, to 16"
    for kind, subtype in {"wav": "PCM_16", "wav_float": "FLOAT", "auto": "PCM_24"}.items():
        assert generate(tiny_model_dir, tmp_path / kind, *words, kind) == 0
        assert (rounds in " ".join(capsys.readouterr().out.split())) == (kind == "wav")
        (path,) = (tmp_path / kind).glob("*.wav")
        assert soundfile.info(path).subtype == subtype
        assert generate(tiny_model_dir, tmp_path / kind, *words, kind) == 0
        assert len(list((tmp_path / kind).glob("*.wav"))) == 1
        capsys.readouterr()
