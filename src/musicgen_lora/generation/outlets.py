"""Where sound goes while it is made: to the speakers, or to a pipe.

Both need samples within full scale before the clip's peak is known. From the first sample beyond it
on, everything is turned down to fit, with a fade of some milliseconds before that sample.
"""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np

from musicgen_lora.audio.writing import CEILING
from musicgen_lora.errors import UserError
from musicgen_lora.plural import count
from musicgen_lora.terminals import named_output

FALL_S = 0.01
PipeFormat = Literal["s16", "f32", "wav"]
NO_PORTAUDIO = (
    "--play needs PortAudio, the system's library for sound: apt install libportaudio2 (Debian, "
    "Ubuntu), dnf install portaudio (Fedora), brew install portaudio (macOS)."
)


class Level:
    """The gain of a stream of chunks `[C, n]`; it only ever falls."""

    def __init__(self, sample_rate: int) -> None:
        self.gain = 1.0
        self._n_fall = max(1, round(FALL_S * sample_rate))

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """Apply the gain to a chunk; no sample of the result exceeds full scale."""
        peaks = np.abs(sound).max(axis=0, initial=0.0)
        if peaks.max(initial=0.0) * self.gain <= CEILING:
            return (sound * np.float32(self.gain)).astype(np.float32)
        first = int((peaks * self.gain > CEILING).argmax())
        lower = CEILING / float(peaks.max())
        begin = max(0, first - self._n_fall)
        gains = np.full(sound.shape[1], lower, dtype=np.float32)
        gains[:begin] = self.gain
        # Up to, but excluding, the sample that has to be lower.
        gains[begin:first] = np.linspace(self.gain, lower, first - begin, dtype=np.float32)
        self.gain = lower
        return (sound * gains).astype(np.float32)


class Speakers:
    """The system's default audio output.

    Raises:
        UserError: PortAudio is missing, or no device plays this rate and these channels.
    """

    def __init__(self, sample_rate: int, n_channels: int) -> None:
        try:
            sounddevice: Any = importlib.import_module("sounddevice")
        except OSError as error:
            raise UserError(NO_PORTAUDIO) from error
        self._fault: Any = sounddevice.PortAudioError
        try:
            self._stream = sounddevice.OutputStream(
                samplerate=sample_rate, channels=n_channels, dtype="float32", latency="high"
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise UserError(
                f"--play: no device plays {sample_rate} Hz, {count(n_channels, 'channel')} "
                f"({error}); connect one, or use --stdout wav with another player."
            ) from error

    def write(self, sound: np.ndarray) -> None:
        """Plays a chunk `[C, n]` float32 within full scale."""
        try:
            self._stream.write(np.ascontiguousarray(sound.T))
        except self._fault as error:
            raise UserError(
                f"--play: the audio device disconnected ({error}); connect it and run this again: "
                "what is written is kept."
            ) from error

    def close(self) -> None:
        """Waits until everything has been heard, and closes."""
        self._stream.stop()
        self._stream.close()


class Pipe:
    """Standard output, with the interface of `Speakers`.

    Args:
        kind: sample format.
    """

    def __init__(self, kind: PipeFormat, sample_rate: int, n_channels: int) -> None:
        self._kind = kind
        # Unbuffered: Python would try again to write what is left when it collects the file.
        self._file = os.fdopen(os.dup(1), "wb", buffering=0)
        if kind == "wav":
            self._write(endless_wav_head(sample_rate, n_channels))

    def write(self, sound: np.ndarray) -> None:
        samples = sound.T
        if self._kind == "f32":
            content = samples.astype("<f4").tobytes()
        else:
            content = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
        self._write(content)

    def close(self) -> None:
        with named_output():
            self._file.close()

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        with named_output():
            while rest:
                rest = rest[self._file.write(rest) :]


def endless_wav_head(sample_rate: int, n_channels: int) -> bytes:
    """The header of a 16-bit WAV of unknown length, as ffmpeg writes it to pipes."""
    step = 2 * n_channels
    form = struct.pack("<HHIIHH", 1, n_channels, sample_rate, sample_rate * step, step, 16)
    unknown = struct.pack("<I", 0xFFFFFFFF)
    return b"RIFF" + unknown + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + unknown


class Live:
    """All outlets together.

    Args:
        outlets: may be empty.
    """

    def __init__(self, outlets: Sequence[Speakers | Pipe], sample_rate: int) -> None:
        self._outlets, self._sample_rate = outlets, sample_rate
        self._level = Level(sample_rate)

    def __bool__(self) -> bool:
        return bool(self._outlets)

    def begin_clip(self) -> None:
        """The next chunk belongs to another clip, which has its own level."""
        self._level = Level(self._sample_rate)

    def __call__(self, sound: np.ndarray) -> None:
        """Plays a chunk `[C, n]`."""
        if self._outlets and sound.shape[1]:
            level = self._level(sound)
            for outlet in self._outlets:
                outlet.write(level)


@contextmanager
def open_live(
    play: bool, stdout: PipeFormat | None, sample_rate: int, n_channels: int
) -> Iterator[Live]:
    """Open the outlets of a command; on exit, everything written is played to its end.

    Raises:
        UserError: the speakers can't be opened.
    """
    outlets: list[Speakers | Pipe] = [Speakers(sample_rate, n_channels)] if play else []
    if stdout is not None:
        outlets.append(Pipe(stdout, sample_rate, n_channels))
    with ExitStack() as stack:
        for outlet in outlets:
            stack.callback(outlet.close)
        yield Live(outlets, sample_rate)
