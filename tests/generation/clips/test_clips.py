"""Clips and loops from a player of known beats to files, without a model."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from musicgen_lora.audio.loudness import integrated_loudness
from musicgen_lora.audio.writing import FORMATS
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.config import GenerateSettings
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips.beside import made_beside
from musicgen_lora.generation.clips.clip import GeneratedClip
from musicgen_lora.generation.clips.keeping import (
    draw_best,
    level_sentence,
    loudness_sentence,
    takes_sentence,
    write_clip,
)
from musicgen_lora.generation.clips.takes import JudgedTake
from musicgen_lora.generation.wanted import Wanted, read_as, take_s, wanted_of
from musicgen_lora.listening.rhythm.tempo import estimate_tempo
from musicgen_lora.prepare.words.facts import facts_from_name

RATE = 32_000
BEAT = make_beat(24, duration_s=14.0)
MADE = {
    "prompt": "dark trap beat",
    "seed": 3,
    "base": {"path": "tiny-beats", "fingerprint": "0123abcd"},
    "adapters": [{"path": "/runs/trap/best_model", "fingerprint": "4567cdef", "strength": 0.7}],
    "musicgen_lora": "1.0",
}


def asked(**values: Any) -> Wanted:
    return wanted_of(GenerateSettings(**({"prompts": ["dark trap beat"]} | values)))


def play(seeds: Sequence[int], seconds: float) -> list[np.ndarray]:
    """Plays the beat for seeds that end in 0 to 4, otherwise noise."""
    takes = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        noise = rng.uniform(-0.3, 0.3, (1, round(seconds * RATE))).astype(np.float32)
        beat = render_beat(BEAT, RATE, seed=0)[:, 4_000:][:, : round(seconds * RATE)]
        takes.append(beat if seed % 10 < 5 else noise)
    return takes


def best_of(seconds: float, prompt: str, seed: int, wanted: Wanted) -> list[JudgedTake]:
    draw = partial(play, seconds=seconds)
    return draw_best(draw, prompt, seed, wanted, sample_rate=RATE, batch_size=2)


def write(folder: Path, wanted: Wanted, seed: int = 5) -> Path:
    seconds = take_s(wanted, 8.0, 10.0)
    takes = best_of(seconds, "dark trap beat", seed, wanted)
    made = MADE | {"seed": seed} | wanted.facts()
    return write_clip(folder, GeneratedClip.of(made, takes[0].waveform, RATE, wanted, takes))


def played_clip(wanted: Wanted, seed: int) -> GeneratedClip:
    made = MADE | {"seed": seed} | wanted.facts()
    return GeneratedClip.of(made, *play([seed], 4.0), RATE, wanted)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_loop_in_every_format(kind: str, tmp_path: Path) -> None:
    wanted = asked(bpm=BEAT.bpm, bars=2, key="C#m", format=kind, midi=True, spectrogram=True)
    path = write(tmp_path, wanted)
    assert path.name == f"Dark_Trap_Beat_{BEAT.bpm}bpm_C#min_01{FORMATS[wanted.format].suffix}"
    samples, rate = soundfile.read(path)
    n_samples = round(2 * 240 / BEAT.bpm * RATE)
    assert (len(samples), rate) == (n_samples, RATE)
    assert sorted(other.suffix for other in tmp_path.glob("Dark*")) == sorted(
        {".json", ".mid", ".png", path.suffix}
    )
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["faults"] == []
    assert facts["takes"][0]["tempo"]["measured_bpm"] == pytest.approx(BEAT.bpm, rel=0.005)
    assert set(facts["takes"][0]["seam"]) > {"joined", "level_db", "spectrum_db", "phase_deg"}
    told = mido.MidiFile(path.with_suffix(".mid")).tracks[0][0]
    assert mido.tempo2bpm(told.tempo) == pytest.approx(BEAT.bpm, abs=0.01)
    # What `prepare` makes of it: the tempo of its name and that of its length are one.
    assert facts_from_name(path.name).bpm == BEAT.bpm
    if path.suffix != ".mp3":
        assert round(estimate_tempo(samples[None], RATE).bpm) == BEAT.bpm


def test_takes_go_on_until_one_fits_and_the_rest_is_told(tmp_path: Path) -> None:
    wanted = asked(bpm=BEAT.bpm, bars=2, loop_tries=40)
    facts = json.loads(write(tmp_path, wanted, seed=5).with_suffix(".json").read_text())
    assert facts["faults"] == []
    assert 2 <= len(facts["takes"]) <= 40
    assert facts["takes"][0]["seed"] % 10 < 5
    assert facts["takes"][-1]["faults"] == ["has no steady beat"]


def test_where_no_take_fits_the_best_is_kept_and_said() -> None:
    wanted = asked(bpm=BEAT.bpm, bars=2, loop_tries=1)
    takes = best_of(10.0, "x", 5, wanted)
    said = takes_sentence(takes, wanted)
    assert said.startswith("the take has no steady beat. --loop_tries 4 raises the odds")


def test_a_picture_is_large_enough_to_look_at() -> None:
    wanted = asked(spectrogram=True)
    content = played_clip(wanted, seed=0).files("wav")[".png"]
    width, height = struct.unpack_from(">II", content, 16)
    assert width >= 400
    assert height >= 300


def test_the_json_of_a_loop_has_its_own_length() -> None:
    """And also has that of the take that it was cut from."""
    wanted = asked(bpm=BEAT.bpm, bars=1)
    takes = best_of(8.0, "dark trap beat", 0, wanted)
    made = MADE | {"duration_s": 8.0} | wanted.facts()
    loop = GeneratedClip.of(made, takes[0].waveform, RATE, wanted, takes)
    assert loop.facts["duration_s"] == pytest.approx(240 / BEAT.bpm, abs=1e-4)
    assert loop.facts["take_s"] == 8.0
    clip = GeneratedClip.of(made, *play([0], 8.0), RATE, asked())
    assert clip.facts["duration_s"] == 8.0
    assert "take_s" not in clip.facts


def test_the_same_again_is_the_same_file_and_nothing_else_is_touched(tmp_path: Path) -> None:
    wanted = asked(bpm=BEAT.bpm, bars=1)
    first = write(tmp_path, wanted, seed=0)
    before = first.read_bytes()
    assert write(tmp_path, wanted, seed=0) == first
    assert first.read_bytes() == before
    other = write(tmp_path, wanted, seed=1)
    assert other.stem == f"{first.stem[:-2]}02"
    assert first.read_bytes() == before
    # Somebody else's JSON is no clip of ours.
    (tmp_path / f"{first.stem[:-2]}03.json").write_text("[1]")
    assert write(tmp_path, wanted, seed=2).stem.endswith("_04")


def test_clips_keep_their_names_and_state_a_tempo_only_where_they_obey(tmp_path: Path) -> None:
    wanted = asked(bpm=BEAT.bpm, best_of=2, loudness=-20.0)
    path = write(tmp_path, wanted, seed=0)
    assert path.name.startswith("dark-trap-beat_seed0_")
    with soundfile.SoundFile(path) as file:
        assert "prompt: dark trap beat; seed: " in file.comment
    samples, _ = soundfile.read(path)
    assert integrated_loudness(samples[None], RATE) == pytest.approx(-20.0, abs=0.1)
    assert b"TBPM" in path.read_bytes()
    noisy = write(tmp_path, asked(bpm=BEAT.bpm * 1.19, best_of=2), seed=0)
    assert b"TBPM" not in noisy.read_bytes()
    assert b"acid" not in path.read_bytes()


def test_a_loudness_that_the_peaks_keep_a_clip_from_is_told() -> None:
    """Hits of a drum machine have peaks far above their mean: -5 LUFS is out of reach."""
    loud = played_clip(asked(loudness=-5.0), seed=0)
    assert loud.loudness_lufs is not None
    assert loud.facts["loudness_lufs"] == round(loud.loudness_lufs, 1) < -6.0
    said = f"its peaks keep it at {loud.loudness_lufs:.1f} LUFS, below --loudness -5"
    assert loudness_sentence(loud).startswith(said)
    reached = played_clip(asked(loudness=-30.0), seed=0)
    assert reached.facts["loudness_lufs"] == -30.0
    assert loudness_sentence(reached) == ""
    unasked = played_clip(asked(), seed=0)
    assert "loudness_lufs" not in unasked.facts
    assert loudness_sentence(unasked) == ""


@pytest.mark.parametrize(("kind", "db"), [("wav", 6.0), ("mp3", 6.0), ("wav_float", 0.0)])
def test_a_recording_above_full_scale_keeps_its_level_or_that_is_told(kind: str, db: float) -> None:
    """Most decoded MP3s are."""
    wanted = dataclasses.replace(asked(format=kind), keeps_level=True)
    recording = np.sin(np.arange(RATE) / 20.0, dtype=np.float32)[None] * np.float32(10**0.3)
    clip = GeneratedClip.of(MADE | {"seed": 0}, recording, RATE, wanted)
    # An MP3 also leaves room for what its decoder adds.
    assert clip.facts["gain_db"] == pytest.approx(-db, abs=0.2 if kind == "mp3" else 0.01)
    content = clip.files(wanted.format)[FORMATS[wanted.format].suffix]
    samples, _ = soundfile.read(io.BytesIO(content))
    gain = np.abs(samples).max() / np.abs(recording).max()
    assert 20.0 * np.log10(gain) == pytest.approx(-db, abs=0.2)
    said = f"its peaks are {'6.1' if kind == 'mp3' else '6'} dB above full scale, so the whole file"
    assert level_sentence(clip).startswith(said if db else "")
    assert bool(level_sentence(clip)) == bool(db)
    # Other clips have no level to keep.
    assert level_sentence(played_clip(asked(), seed=0)) == ""


def test_an_unwritable_part_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def broken(*_: Any) -> bytes:
        raise RuntimeError("a fault that was put here")

    monkeypatch.setattr("musicgen_lora.generation.clips.clip.clip_midi", broken)
    with pytest.raises(RuntimeError):
        write(tmp_path, asked(bpm=BEAT.bpm, bars=1, midi=True), seed=0)
    assert not [path for path in tmp_path.iterdir() if path.name != ".lock"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bars": 4}, "--bars 4: a loop needs its tempo"),
        ({"bars": 16, "bpm": 60.0}, "--bpm 60 --bars 16 make 64.0 s"),
        ({"key": "H minor"}, '--key "H minor": no such key'),
        ({"bpm": 140.0, "prompts": ["trap 90 bpm"]}, "says 90 bpm"),
        ({"key": "Am", "prompts": ["trap, 升C小调"]}, "says C# minor"),
    ],
)
def test_what_cannot_be_is_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        asked(**values)
    assert "\n" not in str(caught.value)


def test_prompts_ask_for_tempo_and_key() -> None:
    wanted = asked(bpm=140.0, key="c# minor")
    assert read_as("dark trap", wanted) == "dark trap, 140 bpm, C# minor"
    assert read_as("暗黑陷阱", wanted).endswith(", 140 bpm, C# minor")
    assert read_as("dark trap", asked()) == "dark trap"


def test_a_midi_of_a_clip_has_its_measured_tempo(tmp_path: Path) -> None:
    path = write(tmp_path, asked(midi=True, best_of=1), seed=0)
    told = mido.MidiFile(file=io.BytesIO(path.with_suffix(".mid").read_bytes())).tracks[0][0]
    facts = json.loads(path.with_suffix(".json").read_text())
    assert mido.tempo2bpm(told.tempo) == pytest.approx(facts["midi_bpm"], abs=0.01)


@pytest.mark.parametrize("values", [{"bpm": float(BEAT.bpm), "bars": 2, "key": "C#m"}, {}])
def test_what_is_made_later_is_what_the_command_writes(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    plain = write(tmp_path / "plain", asked(format="wav_float", **values), seed=0)
    with_all = asked(format="wav_float", midi=True, spectrogram=True, **values)
    whole = write(tmp_path / "whole", with_all, seed=0)
    assert not plain.with_suffix(".mid").exists()
    for ending in (".mid", ".png"):
        beside = whole.with_suffix(ending)
        written = beside.read_bytes()
        assert made_beside(plain, ending) == written
        # What lies there is taken, as long as it is what was written.
        beside.write_bytes(b"other")
        assert made_beside(whole, ending) == written
    whole.unlink()
    beside = whole.with_suffix(".mid")
    beside.write_bytes(made_beside(plain, ".mid"))
    assert made_beside(whole, ".mid") == beside.read_bytes()
    plain.with_suffix(".json").write_text("[]")
    assert made_beside(plain, ".mid").startswith(b"MThd")
