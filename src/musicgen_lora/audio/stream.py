"""Reads an audio file from front to back, without seeks that the caller didn't ask for.

python-soundfile seeks after each `read`. The MP3 decoder then loses the bits that a frame borrows
from earlier ones: if a file is read in pieces, 16 to 111 ms at the end of each are wrong. It also
stops at the length in the header, which programs that write to a pipe leave at zero or "unknown".
Here a file ends where its samples end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile

from musicgen_lora.audio.decoder_words import DecoderWords
from musicgen_lora.audio.headers import HeadedFile, find_head, lacks_end, may_be_mp3, told_share
from musicgen_lora.errors import AudioError, audio_unread, no_file

SAMPLE_RATES = range(4_000, 384_001)
MAX_CHANNELS = 16
BLOCK_FRAMES = 1 << 16
LOSSLESS_SUBTYPES = ("PCM", "FLOAT", "DOUBLE", "ALAC", "DPCM", "DWVW")
"""Prefixes of libsndfile's subtype names; FLAC's is PCM."""
CUT_SHORT = 0.98
"""A file shorter than this share of its header's length was cut off; headers are not exact."""
LONGEST_S = 12 * 3600.0
"""Headers that claim more are not trusted: the samples are counted, up to this length."""
NEARBY_S = 10.0
"""A position no further ahead than this is reached by decoding, not by seeking."""
PRE_ROLL = 48 * 1152
"""Samples decoded before the requested ones after a seek. An MP3 frame borrows from up to 511 bytes
before it, which at 8 kbit/s are 22 frames; and libsndfile seeks wrongly within the last page of an
Ogg."""


class _SequentialFile(soundfile.SoundFile):
    """A file that soundfile thinks isn't seekable, so it doesn't seek after each read and reads no
    more than it is asked to. `seek` itself works."""

    @property
    def can_seek(self) -> bool:
        return super().seekable()

    def seekable(self) -> bool:
        return False


class AudioStream:
    """An open audio file, in any format that soundfile reads; the content decides, not the name.

    Attributes:
        n_frames: samples per channel by the header; None if it doesn't know, or claims more than
            `LONGEST_S`.
        claimed_s: length in the file's own header, in seconds; None if it doesn't know.
        container: libsndfile's name of the file's format.
        subtype: its name of how samples are coded.
        is_float: whether samples beyond full scale are valid.
        is_lossless: whether no lossy codec was used.

    Raises:
        AudioError: missing, not audio, or a sample rate or channel count out of bounds. Each method
            raises it for broken audio.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise AudioError(str(no_file(path, f"{path}: no such audio file.")))
        if path.stat().st_size == 0:
            _check_disk(path)
            raise AudioError(f"{path}: is empty; copy, download or export it again.")
        self.path = path
        self._head = find_head(path)
        self._words = DecoderWords()
        self._is_mp3 = may_be_mp3(path)
        self._open()
        n_counted = None if self._head is None else self._head.n_samples
        if n_counted is not None:
            self._prefer_own_head(n_counted)
        file = self._file
        self.sample_rate, self.n_channels = file.samplerate, file.channels
        self.container, self.subtype = file.format, file.subtype
        self.is_float = file.subtype in ("FLOAT", "DOUBLE")
        self.is_lossless = file.subtype.startswith(LOSSLESS_SUBTYPES)
        if self.sample_rate not in SAMPLE_RATES or not 1 <= self.n_channels <= MAX_CHANNELS:
            self.close()
            raise AudioError(
                f"{path}: {self.sample_rate} Hz, {self.n_channels} channels is out of bounds "
                "(4-384 kHz, up to 16 channels); convert it."
            )
        # libsndfile uses larger values for "unknown".
        is_known = file.frames < 1 << 62 and n_counted is None
        # For a file that was cut off, libsndfile reports the remaining length.
        told_s = file.frames / self.sample_rate * told_share(path)
        self.claimed_s = told_s if is_known else None
        if self._head is not None:
            self.claimed_s = self._head.claimed_s
        is_likely = file.frames <= LONGEST_S * self.sample_rate
        self.n_frames = n_counted or (file.frames if is_likely else None)

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        if self._headed is not None:
            self._headed.close()

    @property
    def is_cut_off(self) -> bool:
        """Whether this is an Ogg without its last page; reads all of its pages to find out."""
        return lacks_end(self.path)

    @property
    def n_faults(self) -> int:
        """Frames of an MP3 that could not be decoded so far: they are silent or noise."""
        return self._words.n_faults

    def read(self, n_frames: int) -> np.ndarray:
        """The next samples `[N, C]` float32; fewer at the file's end, none after it."""
        pieces = []
        while n_frames > 0:
            piece = self._read_piece(min(n_frames, BLOCK_FRAMES))
            if not len(piece):
                break
            if not np.isfinite(piece).all():
                raise AudioError(f"{self.path}: has NaN or infinite samples; export it again.")
            pieces.append(piece)
            n_frames -= len(piece)
        if not pieces:
            return np.zeros((0, self.n_channels), dtype=np.float32)
        return np.concatenate(pieces)

    def move_to(self, frame: int) -> None:
        """Moves to a sample, the next one to be read; beyond the end there is nothing to read."""
        ahead = frame - self._at
        is_near = 0 <= ahead <= NEARBY_S * self.sample_rate
        if ahead < 0 or (self._file.can_seek and not is_near):
            self._seek(frame)
        self._skip(frame - self._at)

    def count_frames(self, alive: Callable[[], None] = lambda: None) -> int:
        """Counts samples per channel from here to the end by decoding them; stops soon after
        `LONGEST_S`. `alive` is called periodically."""
        begin = self._at
        while self._at - begin <= LONGEST_S * self.sample_rate:
            if not len(self._read_piece(BLOCK_FRAMES)):
                break
            alive()
        return self._at - begin

    def _prefer_own_head(self, n_samples: int) -> None:
        """Drops the replaced head of an MP3 if the decoder reaches the end without it: with it,
        decoders lose 12 ms at the start."""
        head, self._head = self._head, None
        self.close()
        self._open()
        if self._file.frames < n_samples:
            self._head = head
            self.close()
            self._open()

    def _open(self) -> None:
        self._headed = None if self._head is None else HeadedFile(self.path, self._head)
        self._at = 0
        try:
            # soundfile checks a file's methods, not its type.
            source = self.path if self._headed is None else cast(BinaryIO, self._headed)
            with self._quiet():
                self._file = _SequentialFile(source)
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            _check_disk(self.path)
            reason = str(getattr(error, "error_string", error)).strip()
            if "pipe?" in reason:
                # libsndfile's message for an MP3 without frames.
                reason = "there is no audio in it"
            if "malformed" in reason or "SF_INFO" in reason:
                # libsndfile's messages for a partly copied CAF or AIFF, and for a WAV whose chunks
                # contradict each other.
                reason = "it was cut off or damaged"
            raise AudioError(
                f"{self.path}: not readable as audio ({reason}); copy, download or export it again."
            ) from error

    def _read_piece(self, count: int) -> np.ndarray:
        with self._broken_is_named(), self._quiet():
            piece = self._file.read(count, dtype="float32", always_2d=True)
        if self._headed is not None and self._headed.error is not None:
            raise audio_unread(self.path, self._headed.error) from self._headed.error
        self._at += len(piece)
        return piece

    def _skip(self, count: int) -> None:
        while count > 0:
            piece = self._read_piece(min(count, BLOCK_FRAMES))
            if not len(piece):
                return
            count -= len(piece)

    def _seek(self, frame: int) -> None:
        """Moves to shortly before a sample, or to the start if format or file isn't seekable."""
        if self.n_frames is not None:
            frame = min(frame, self.n_frames)
        frame = max(0, frame - PRE_ROLL)
        try:
            with self._quiet():
                self._at = self._file.seek(frame)
        except soundfile.LibsndfileError:
            # The state after a failed seek can't be relied on.
            self.close()
            self._open()

    def _quiet(self) -> AbstractContextManager[None]:
        return self._words.caught() if self._is_mp3 else nullcontext()

    @contextmanager
    def _broken_is_named(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            _check_disk(self.path)
            reason = str(error).strip().removeprefix("Error : ").rstrip(".")
            raise AudioError(
                f"{self.path}: was cut off or damaged ({reason}); copy or download it again."
            ) from error


def ends_early(length_s: float, told_s: float) -> bool:
    """Whether the length that was read is clearly less than the header's."""
    return length_s < CUT_SHORT * told_s - 0.1


def _check_disk(path: Path) -> None:
    """Raises an error if the system can't read a file, which libsndfile doesn't distinguish from a
    broken one: a RunError for a disk fault, otherwise an AudioError."""
    try:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        raise audio_unread(path, error) from error
