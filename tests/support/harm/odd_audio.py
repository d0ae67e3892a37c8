"""Audio whose headers lie or don't know, as programs that crash, cut and join leave it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from made_datasets import sine

from musicgen_lora.audio.mp3 import parse_header

SECONDS = 8


def sound(rate: int, n_channels: int, seconds: int = SECONDS) -> np.ndarray:
    """A tone under growing noise, `[N, C]`: an encoder gives its frames very different sizes."""
    rng = np.random.default_rng(rate)
    noise = rng.normal(0.0, 0.1, (seconds * rate, n_channels))
    tone = sine(220.0, seconds, rate, 0.3).T
    return (tone + np.linspace(0.0, 1.0, len(noise))[:, None] * noise).astype(np.float32)


def write_mp3(path: Path, samples: np.ndarray, rate: int, mode: str, level: float) -> bytes:
    with soundfile.SoundFile(
        path, "w", rate, samples.shape[1], format="MP3", bitrate_mode=mode, compression_level=level
    ) as file:
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])
    return path.read_bytes()


def without_info_frame(content: bytes) -> bytes:
    """An MP3 whose first frame, which tells its length, was cut off."""
    first = parse_header(content[:4])
    assert first is not None
    assert content[first.info_offset :][:4] in (b"Xing", b"Info")
    return content[first.n_bytes :]


def with_bytes(at: Callable[[bytes], int], new: bytes) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        place = at(content)
        return content[:place] + new + content[place + len(new) :]

    return changed


def flac_unknown(content: bytes) -> bytes:
    data = bytearray(content)
    # STREAMINFO: 36 bits of the sample count end at byte 26 of the file, then the MD5.
    data[21] &= 0xF0
    data[22:42] = bytes(20)
    return bytes(data)


UNKNOWN = {
    "flac": flac_unknown,
    "wav, zero": with_bytes(lambda c: c.index(b"data") + 4, bytes(4)),
    "wav, all ones": with_bytes(lambda c: c.index(b"data") + 4, b"\xff" * 4),
    "aiff, zero": with_bytes(lambda c: c.index(b"COMM") + 10, bytes(4)),
    "au, unknown": with_bytes(lambda _: 8, b"\xff" * 4),
    "au, zero": with_bytes(lambda _: 8, bytes(4)),
    "caf, unknown": with_bytes(lambda c: c.index(b"data") + 4, struct.pack(">q", -1)),
    "caf, zero": with_bytes(lambda c: c.index(b"data") + 4, bytes(8)),
    "w64, zero": with_bytes(lambda c: c.index(b"data") + 16, bytes(8)),
}
