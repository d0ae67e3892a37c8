"""A realistic, messy sample pack: Chinese folders, a mix of the singles beside them, copies, hits,
and what other systems leave behind. All of it is rendered with, or recorded from, what ships."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import soundfile
from made_datasets import KIT, RATE

from musicgen_lora.beats.beats808 import make_beat, render_beat

ONE_SHOTS = Path(__file__).resolve().parents[3] / "pretraining" / "assets" / "oneshots_cc0"
SINGLES = ("鼓组/暗黑 one.wav", "鼓组/z two (master).wav", "loops/three.wav")
MIX = "live/my mix.wav"
MP3_COPY = "loops/beat final FINAL(2).mp3"
"""Copy of the second single, whose name comes later."""
HITS = ("one shots/open hat.wav", "one shots/boom.flac", "one shots/splash.flac")
SINGLE_S = 16.0
TABLE_BPM = 101
"""What a table in the pack says about a beat, and its sound contradicts."""


def single(index: int) -> tuple[np.ndarray, int]:
    """A single's waveform `[1, N]` at 32 kHz, whole bars long, and its tempo."""
    beat = make_beat((77, index), duration_s=SINGLE_S)
    return render_beat(beat, RATE, seed=index), beat.bpm


def make_messy_pack(folder: Path) -> Path:
    """Writes the pack. The mix plays the singles one after the other, at its own level."""
    for name in (*SINGLES, MIX, MP3_COPY, *HITS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    waveforms = [single(index)[0] for index in range(len(SINGLES))]
    for name, waveform in zip(SINGLES, waveforms, strict=True):
        soundfile.write(folder / name, waveform.T, RATE)
    mix = 0.6 * np.concatenate(waveforms, axis=1)
    soundfile.write(folder / MIX, mix.T, RATE)
    soundfile.write(folder / MP3_COPY, waveforms[1].T, RATE, format="MP3")
    shutil.copy(folder / SINGLES[2], folder / "loops" / "three copy.wav")
    shutil.copy(KIT / "808_Open_Hat.wav", folder / HITS[0])
    shutil.copy(ONE_SHOTS / "bd_boom.flac", folder / HITS[1])
    shutil.copy(ONE_SHOTS / "drum_splash_hard.flac", folder / HITS[2])
    table = f"文件名,描述,速度,价格\r\nanother,暗黑陷阱鼓点,{TABLE_BPM},10\r\n"
    (folder / "metadata.csv").write_bytes(table.encode("gb18030"))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "broken.mp3").write_bytes(b"not audio at all" * 100)
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._three.wav").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return folder
