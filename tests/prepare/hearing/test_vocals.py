"""Vocals are flagged and removed, with a fake in place of demucs."""

from __future__ import annotations

import html
import importlib.machinery
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from made_datasets import RATE, sine

from musicgen_lora import extras
from musicgen_lora.audio.files import read_audio
from musicgen_lora.cli import main
from musicgen_lora.config import PrepareSettings
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.prepare.hearing import vocals
from musicgen_lora.prepare.prepare import prepare_dataset

VOICE_HZ, BASS_HZ = 1000.0, 80.0


@pytest.fixture
def separator(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A fake demucs whose voice is everything above 500 Hz. Collects the names of models."""
    named: list[str] = []

    def get_model(name: str) -> SimpleNamespace:
        named.append(name)
        model = SimpleNamespace(samplerate=44_100, sources=["drums", "bass", "other", "vocals"])
        model.eval = lambda: model
        return model

    def apply_model(model, mix, device, progress):
        assert mix.shape[:2] == (1, 2)
        spectrum = torch.fft.rfft(mix)
        spectrum[..., : round(500 * mix.shape[-1] / 44_100)] = 0
        voice = torch.fft.irfft(spectrum, mix.shape[-1])
        silent = torch.zeros_like(mix)
        return torch.stack([silent, mix - voice, silent, voice], dim=1)

    for name in ("demucs", "demucs.pretrained", "demucs.apply"):
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.get_model, module.apply_model = get_model, apply_model
        monkeypatch.setitem(sys.modules, name, module)
    vocals._separator.cache_clear()
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    return named


def levels(path: Path) -> tuple[float, float]:
    """Magnitudes of the voice and the bass."""
    spectrum = np.abs(np.fft.rfft(read_audio(path, RATE)[0][:RATE]))
    return float(spectrum[round(VOICE_HZ)]), float(spectrum[round(BASS_HZ)])


def prepared(
    tmp_path: Path, how: str, output: str | None = None
) -> dict[str, tuple[str | None, Path]]:
    """Vocals and path of each clip of a dataset in `output`, else in a folder named `how`."""
    source = tmp_path / "in"
    source.mkdir(exist_ok=True)
    bass = sine(BASS_HZ, 2.0, RATE, 0.4)
    soundfile.write(source / "beat.wav", bass.T, RATE)
    soundfile.write(source / "song.wav", (bass + sine(VOICE_HZ, 2.0, RATE, 0.3)).T, RATE)
    out = tmp_path / (output or how)
    prepare_dataset(PrepareSettings(input_dir=source, output_dir=out, vocals=how, num_workers=0))
    return {
        clip.fields["source"]: (clip.fields.get("vocals"), clip.path) for clip in load_dataset(out)
    }


def test_vocals_are_flagged_and_removed(tmp_path: Path, separator: list[str]) -> None:
    kept = prepared(tmp_path, "keep")
    assert not separator
    assert {how for how, _ in kept.values()} == {None}
    flagged = prepared(tmp_path, "flag")
    assert separator == ["htdemucs"]
    assert flagged["beat.wav"][0] == "none"
    assert flagged["song.wav"][0] == "some"
    assert flagged["song.wav"][1].read_bytes() == kept["song.wav"][1].read_bytes()
    removed = prepared(tmp_path, "remove")
    assert removed["beat.wav"][0] == "none"
    assert removed["beat.wav"][1].read_bytes() == kept["beat.wav"][1].read_bytes()
    assert removed["song.wav"][0] == "removed"
    voice, bass = levels(removed["song.wav"][1])
    assert voice < 0.02 * bass
    assert levels(kept["song.wav"][1])[0] > 0.5 * levels(kept["song.wav"][1])[1]


@pytest.mark.parametrize(("first", "second"), [("remove", "keep"), ("keep", "remove")])
def test_an_interrupted_run_leaves_no_clips_to_one_with_other_vocals(
    tmp_path: Path, separator: list[str], first: str, second: str
) -> None:
    wanted = prepared(tmp_path, second)
    prepared(tmp_path, first, "out")
    # Stopped before the clips were listed.
    (tmp_path / "out" / "metadata.json").unlink()
    found = prepared(tmp_path, second, "out")
    for source, (how, path) in wanted.items():
        assert found[source][0] == how
        assert found[source][1].read_bytes() == path.read_bytes()


def test_the_report_says_what_to_do_about_vocals(
    tmp_path: Path, separator: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def advice(how: str, output: str) -> str:
        prepared(tmp_path, how, output)
        content = json.loads((tmp_path / output / "report.json").read_text())
        page = (tmp_path / output / "report.html").read_text()
        found = [line for line in content["advice"] if "vocals" in line]
        assert all(html.escape(line, quote=False).split("'")[0] in page for line in found)
        return " ".join(found)

    assert advice("keep", "kept") == ""
    said = advice("flag", "flagged")
    assert said == "Vocals in 1 clip; remove them with prepare --vocals remove."
    assert advice("remove", "removed") == ""
    # Clips that are already listed are searched too.
    assert advice("flag", "kept").startswith("Vocals in 1 clip")
    assert advice("remove", "kept") == ""
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    said = advice("keep", "flagged")
    assert "remove (after pip install 'musicgen-lora[vocals]')." in said


def test_without_demucs_one_line_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    flags = ["--input_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    assert main(["prepare", *flags, "--vocals", "remove"]) == 2
    said = capsys.readouterr().err
    assert "--vocals remove needs demucs: pip install 'musicgen-lora[vocals]'" in said
    assert said.count("\n") == 1
