"""Single notes of a General MIDI soundfont, rendered by fluidsynth and cached on disk.

A MIDI file per preset holds its notes one after another, far enough apart to ring out;
fluidsynth renders it, and the result is cut into notes.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf

SAMPLE_RATE = 32000
DEFAULT_SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
INSTALL_HINT = "install it with: apt install fluidsynth fluid-soundfont-gm"
TICKS_PER_S = 960
"""At MIDI's default tempo (120 bpm) and 480 ticks per quarter note."""
DRUM_BANK = 128


class SoundfontError(RuntimeError):
    """fluidsynth or the soundfont is missing, or a preset could not be rendered."""


def soundfont_path() -> Path:
    """The soundfont: `$SOUNDFONT`, or FluidR3 where Debian's package installs it."""
    path = Path(os.environ.get("SOUNDFONT", DEFAULT_SOUNDFONT))
    if not path.is_file():
        raise SoundfontError(f"no soundfont at {path}; {INSTALL_HINT}")
    return path


def notes(
    cache_dir: Path, bank: int, program: int, pitches: list[int], hold_s: float, slot_s: float
) -> np.ndarray:
    """Plays each pitch once, or reads the notes from the cache.

    Args:
        cache_dir: folder of the `.npy` files.
        bank: soundfont bank; 128 is drums.
        program: preset of the bank.
        pitches: MIDI notes.
        hold_s: how long the key is held.
        slot_s: length of each result; longer than `hold_s`, so that the release fits.

    Returns:
        `[n_pitches, slot_s * 32000]` float32, memory-mapped, mono, starting at the onset.
    """
    span = f"{pitches[0]}-{pitches[-1]}-{len(pitches)}"
    path = cache_dir / f"{bank:03d}-{program:03d}-{span}-{hold_s:g}-{slot_s:g}.npy"
    if not path.is_file():
        cache_dir.mkdir(parents=True, exist_ok=True)
        played = _play(bank, program, pitches, hold_s, slot_s)
        with tempfile.NamedTemporaryFile(dir=cache_dir, suffix=".tmp", delete=False) as file:
            np.save(file, played)
        os.replace(file.name, path)
    return np.load(path, mmap_mode="r")


def _play(bank: int, program: int, pitches: list[int], hold_s: float, slot_s: float) -> np.ndarray:
    command = shutil.which("fluidsynth")
    if command is None:
        raise SoundfontError(f"fluidsynth not found; {INSTALL_HINT}")
    soundfont = soundfont_path()
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        midi.write_bytes(_midi_file(bank, program, pitches, hold_s, slot_s))
        # No reverb or chorus: the room is added to the mix, not to each note.
        options = ["-ni", "-q", "-g", "0.5", "-R", "0", "-C", "0", "-r", str(SAMPLE_RATE)]
        output = ["-T", "wav", "-O", "float", "-F", str(wav)]
        done = subprocess.run(
            [command, *options, *output, str(soundfont), str(midi)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode != 0 or not wav.is_file():
            raise SoundfontError(f"fluidsynth failed on {bank}:{program}: {done.stderr.strip()}")
        stereo, sample_rate = sf.read(wav, dtype="float32", always_2d=True)
    if sample_rate != SAMPLE_RATE:
        raise SoundfontError(f"fluidsynth rendered at {sample_rate} Hz, not {SAMPLE_RATE}")
    n_slot = round(slot_s * SAMPLE_RATE)
    mono = stereo.mean(axis=1)
    mono = np.pad(mono, (0, max(0, n_slot * len(pitches) - len(mono))))
    return mono[: n_slot * len(pitches)].reshape(len(pitches), n_slot)


def _midi_file(bank: int, program: int, pitches: list[int], hold_s: float, slot_s: float) -> bytes:
    is_drums = bank == DRUM_BANK
    channel = 9 if is_drums else 0
    track = b"" if is_drums else b"\x00" + bytes([0xB0 | channel, 0, bank])
    track += b"\x00" + bytes([0xC0 | channel, program])
    hold, rest = round(hold_s * TICKS_PER_S), round((slot_s - hold_s) * TICKS_PER_S)
    for index, pitch in enumerate(pitches):
        track += _delta(rest if index else 0) + bytes([0x90 | channel, pitch, 104])
        track += _delta(hold) + bytes([0x80 | channel, pitch, 0])
    # The track ends after the last note's release, which would otherwise be cut off.
    track += _delta(rest) + b"\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def _delta(ticks: int) -> bytes:
    """A time difference as a MIDI variable-length number."""
    groups = [ticks & 0x7F]
    while ticks := ticks >> 7:
        groups.append(0x80 | (ticks & 0x7F))
    return bytes(reversed(groups))
