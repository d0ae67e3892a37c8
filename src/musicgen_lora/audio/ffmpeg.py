"""Decodes M4A, whatever its extension, and AAC, which soundfile can't read, with ffmpeg if it is
installed.

ffmpeg opens anything that a file asks it to: playlists, other files, URLs. So it may use only the
demuxer that the first bytes call for, the file protocol and two decoders, its time and output are
limited, and there is no shell.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from musicgen_lora.atomic import STAGING_PREFIX, write_bytes
from musicgen_lora.audio.files import FFMPEG_EXTENSIONS
from musicgen_lora.errors import AudioError, audio_unread

LIMIT_S = 600.0
MAX_DECODED_BYTES = 2 << 30
"""Three hours of 16-bit stereo at 44.1 kHz."""
PROBE_BYTES = 1 << 20
CUT_OFF = b"partial file"
"""ffmpeg's message when a file ends before the samples that its index lists."""
INSTALL = "apt install ffmpeg, or brew install ffmpeg"


@contextlib.contextmanager
def decodable(path: Path, folder: Path, alive: Callable[[], None]) -> Iterator[Path]:
    """Yields a file that soundfile can read: the file itself, or, for M4A and AAC, a WAV in
    `folder` that is removed at the end.

    Args:
        path: of any format in `READ_EXTENSIONS`.
        alive: called periodically while ffmpeg works.

    Raises:
        AudioError: ffmpeg is missing or can't decode the file, or the file decodes to more than
            2 GiB. Errors raised inside name `path`, not the WAV.
        RunError: the disk is full.
    """
    demuxer = _demuxer(path)
    if demuxer is None:
        yield path
        return
    decoded = folder / f"{STAGING_PREFIX}{os.getpid()}-decoded.wav"
    try:
        _decode(path, demuxer, decoded, alive)
        yield decoded
    except AudioError as error:
        raise AudioError(f"{path}: {str(error).removeprefix(f'{decoded}: ')}") from error
    finally:
        decoded.unlink(missing_ok=True)


def _demuxer(path: Path) -> str | None:
    """ffmpeg's demuxer for a file's first bytes; None if they are neither M4A nor AAC."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as error:
        raise audio_unread(path, error) from error
    if head[4:8] == b"ftyp":
        return "mov"
    # ADTS: twelve set bits, then layer 0, which can occur in an MP3 by chance.
    is_named = path.suffix.lower() in FFMPEG_EXTENSIONS
    is_adts = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    return "aac" if is_named and is_adts else None


def _decode(path: Path, demuxer: str, decoded: Path, alive: Callable[[], None]) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(f"M4A and AAC need ffmpeg; install it ({INSTALL}) and run this again.")
    decoded.parent.mkdir(parents=True, exist_ok=True)
    command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
    command += ["-protocol_whitelist", "file", "-codec_whitelist", "aac,alac"]
    command += ["-enable_drefs", "0"] if demuxer == "mov" else []
    command += ["-f", demuxer, "-i", f"file:{path.absolute()}"]
    command += ["-map", "0:a:0", "-map_metadata", "-1", "-c:a", "pcm_s16le"]
    command += ["-fs", str(MAX_DECODED_BYTES), "-f", "wav", f"file:{decoded.absolute()}"]
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words
        ) as process,
    ):
        try:
            deadline = time.monotonic() + LIMIT_S
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
                alive()
            code = process.poll()
        finally:
            process.kill()
        words.seek(0)
        is_cut_off = CUT_OFF in words.read(PROBE_BYTES)
    if code is None:
        raise AudioError(
            f"ffmpeg took more than {LIMIT_S:g} s and was stopped; convert the file to WAV."
        )
    if code != 0 or not decoded.is_file():
        # ffmpeg's exit code is the same if the disk is full, which isn't the file's fault.
        write_bytes(decoded, bytes(PROBE_BYTES))
        raise AudioError(
            "has no AAC or ALAC that ffmpeg can decode; copy it again, or convert it to WAV or "
            "FLAC."
        )
    if is_cut_off:
        # ffmpeg treats a truncated file as complete.
        raise AudioError("is cut off; copy or download it again.")
    if decoded.stat().st_size > 0.999 * MAX_DECODED_BYTES:
        raise AudioError(f"decodes to more than {MAX_DECODED_BYTES >> 20} MiB; split it.")
