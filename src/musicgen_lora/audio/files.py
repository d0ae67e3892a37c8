"""Reads and writes audio files within bounds: a false header or a decompression bomb costs time,
not memory.

Formats are libsndfile's; resampling is soxr's.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from musicgen_lora.atomic import write_bytes
from musicgen_lora.audio.stream import BLOCK_FRAMES, AudioStream
from musicgen_lora.errors import AudioError, UserError

AUDIO_EXTENSIONS = {
    *(".wav", ".wave", ".bwf", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    *(".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mpga"),
    *(".voc", ".8svx", ".iff", ".sf", ".paf", ".sph", ".avr"),
}
FFMPEG_EXTENSIONS = {".m4a", ".aac"}
"""Formats that `prepare` reads with `audio.ffmpeg`."""
READ_EXTENSIONS = AUDIO_EXTENSIONS | FFMPEG_EXTENSIONS
OTHER_AUDIO_EXTENSIONS = {
    *(".wma", ".ape", ".wv", ".tta", ".mpc", ".dsf", ".dff", ".ac3", ".amr", ".m4b", ".m4p"),
    *(".mp4", ".mka", ".webm", ".weba", ".3gp", ".ra", ".rm", ".spx", ".sd2", ".alac"),
    *(".mov", ".m4v", ".mkv", ".avi", ".wmv", ".flv"),
}
"""Audio that isn't supported, and video with sound: reported, so that nobody thinks it is used."""
NO_AUDIO_EXTENSIONS = {
    *(".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".md", ".yaml", ".yml"),
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".pdf", ".html", ".mid", ".midi", ".npy", ".asd"),
    *(".safetensors", ".arrow", ".als", ".flp", ".rpp", ".ogv", ".ogx"),
}
"""Files that are not checked for being audio under another extension."""
ARCHIVE_ENDINGS = (".zip", ".rar", ".7z", ".tar", ".tgz", ".tar.gz")
"""Archives, in which sample packs come: reported, since a whole pack may be in there."""
MAGICS = {b"RIFF": "wav", b"RF64": "wav", b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mp3"}
MAGICS |= {b"FORM": "aiff", b"caff": "caf", b".snd": "au"}
"""First bytes of audio files; RIFF and FORM give their content type further on."""
MAX_READ_S = 3600.0
"""A single read returns at most an hour of audio; longer files are read in windows."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says; its length may be wrong until the file has been read."""

    sample_rate: int
    n_channels: int
    duration_s: float


def probe(path: Path) -> AudioInfo:
    """A file's format. Its length is the header's, or is counted if the header doesn't know it.

    Raises:
        AudioError: missing, not audio, or of a rate or channel count out of bounds.
    """
    with AudioStream(path) as stream:
        n_frames = stream.count_frames() if stream.n_frames is None else stream.n_frames
        return AudioInfo(stream.sample_rate, stream.n_channels, n_frames / stream.sample_rate)


def read_audio(
    path: Path, sample_rate: int, *, start_s: float = 0.0, duration_s: float | None = None
) -> np.ndarray:
    """Reads a stretch of a file and resamples it once.

    Args:
        path: any format in `AUDIO_EXTENSIONS`; the content decides, not the name.
        duration_s: how much to read; None reads to the end, at most `MAX_READ_S`.

    Returns:
        `[C, N]` float32, C is 1 or 2 (more channels are folded to their mean).

    Raises:
        AudioError: unreadable, no audio at that position, or NaN or infinite samples.
    """
    with AudioStream(path) as stream:
        return read_stretch(stream, sample_rate, start_s=start_s, duration_s=duration_s)


def read_stretch(
    stream: AudioStream,
    sample_rate: int,
    *,
    start_s: float,
    duration_s: float | None,
    fold: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> np.ndarray:
    """`read_audio` for an open file; consecutive stretches are read without seeking.

    Args:
        fold: gets all of the file's channels `[C, N]` and its rate in Hz, returns the channels of
            the result.
    """
    rate = stream.sample_rate
    wanted = round(min(duration_s if duration_s is not None else MAX_READ_S, MAX_READ_S) * rate)
    stream.move_to(round(start_s * rate))
    blocks = []
    while wanted > 0:
        block = stream.read(min(wanted, BLOCK_FRAMES))
        if not len(block):
            break
        wanted -= len(block)
        is_wide = block.shape[1] > 2 and fold is None
        blocks.append(block.mean(axis=1, keepdims=True) if is_wide else block)
    if not blocks:
        if start_s == 0.0:
            raise AudioError(f"{stream.path}: has no audio in it; copy or export it again.")
        raise AudioError(f"{stream.path}: has no audio at {start_s:g} s; correct the start.")
    samples = np.concatenate(blocks)
    if fold is not None:
        samples = fold(samples.T, rate).T
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate, quality="VHQ")
    return np.ascontiguousarray(samples.T, dtype=np.float32)


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> float:
    """Writes `[C, N]` as a 16-bit WAV, whole or not at all.

    Samples beyond full scale are never wrapped or clipped: the clip is turned down to -0.1 dBFS.

    Returns:
        The gain factor; 1 if it wasn't turned down.
    """
    content = wav_bytes(waveform, sample_rate)
    write_bytes(path, content)
    return _full_scale_gain(waveform)


def wav_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """What `write_wav` writes, in memory, as libsndfile doesn't say which disk error occurred."""
    samples = waveform.T * _full_scale_gain(waveform)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def _full_scale_gain(waveform: np.ndarray) -> float:
    peak = float(np.abs(waveform).max(initial=0.0))
    ceiling = 10.0 ** (-0.1 / 20.0)
    return ceiling / peak if peak > ceiling else 1.0


def find_audio(folder: Path) -> list[Path]:
    """Audio files below `folder` by extension, sorted, without hidden files and links that lead out
    of the folder, see `find_unread`.

    Raises:
        UserError: folders lie too deep in each other for Python to follow.
    """
    root = folder.resolve()
    try:
        named = [path for path in folder.rglob("*") if path.suffix.lower() in READ_EXTENSIONS]
    except RecursionError as error:
        raise UserError(
            f"{folder}: has hundreds of folders inside one another; move the audio further up."
        ) from error
    return sorted(
        path
        for path in named
        if hidden_part(path, folder) is None and path.is_file() and is_inside(path, root)
    )


def find_unread(folder: Path) -> list[tuple[Path, str]]:
    """Audio below `folder` that `find_audio` leaves out and folders that it doesn't search, each
    with the reason, sorted."""
    root = folder.resolve()
    found: dict[Path, str] = {}
    for path in folder.rglob("*"):
        hidden = hidden_part(path, folder)
        if hidden is None:
            found[path] = _why_unread(path, root)
        elif path.suffix.lower() in READ_EXTENSIONS and not (
            # macOS keeps metadata of x.wav in ._x.wav on other systems' disks.
            path.name.startswith("._") or path.is_dir()
        ):
            found[hidden] = (
                "is a hidden file, which isn't read; rename it if you want to use it."
                if hidden == path
                else "is a hidden folder with audio, which isn't searched; rename it if you want "
                "to use it."
            )
    return sorted((path, why) for path, why in found.items() if why)


def hidden_part(path: Path, folder: Path) -> Path | None:
    """The hidden file that a path below `folder` is, or the outermost hidden folder that it lies
    in, such as a trash or a program's backups; None if nothing is hidden."""
    parts = path.relative_to(folder).parts
    hidden = next((n for n, part in enumerate(parts, 1) if part.startswith(".")), None)
    return None if hidden is None else folder.joinpath(*parts[:hidden])


def _why_unread(path: Path, root: Path) -> str:
    """Why something below a resolved folder is left out; "" if it isn't, or isn't audio."""
    kind = path.suffix.lower()
    if path.is_dir():
        if path.is_symlink() and not is_inside(path, root):
            return "is a link to a folder elsewhere, which isn't searched; copy the folder."
    elif kind in OTHER_AUDIO_EXTENSIONS:
        if path.is_file():
            return "is in a format that isn't supported; convert it to WAV or FLAC."
    elif path.name.lower().endswith(ARCHIVE_ENDINGS):
        if path.is_file():
            return "is an archive, which isn't opened; unpack it if there is audio in it."
    elif kind in READ_EXTENSIONS:
        if path.is_symlink() and not path.exists():
            return "is a link that leads nowhere; copy the file itself."
        if not path.is_file():
            return "is a pipe, socket or device, not a file; copy the audio itself."
        if not is_inside(path, root):
            return "is a link that leads out of the folder; copy the file itself."
    # A Hugging Face cache keeps files in `blobs`, named by hash, with links to them elsewhere.
    elif kind not in NO_AUDIO_EXTENSIONS and path.parent.name != "blobs":
        found = _format_of(path) if path.is_file() and is_inside(path, root) else ""
        if found:
            return f"is audio without an audio extension; rename it to end in .{found}."
    return ""


def _format_of(path: Path) -> str:
    """The extension that a file's first bytes call for; "" if they are not audio."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return ""
    if head[:4] in (b"RIFF", b"RF64", b"FORM") and head[8:] not in (b"WAVE", b"AIFF", b"AIFC"):
        return ""
    if head[4:11] == b"ftypM4A":
        return "m4a"
    return MAGICS.get(head[:4], MAGICS.get(head[:3], ""))


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path resolves into a resolved folder. Files of a Hugging Face cache count: its
    `snapshots/<revision>` consists of links into its own `blobs`."""
    resolved = path.resolve()
    if resolved.is_relative_to(root):
        return True
    for place in (root, *root.parents):
        if place.parent.name == "snapshots":
            return resolved.parent == place.parent.parent / "blobs"
    return False
