"""A whole dataset's tokens and captions in one small file, for a machine with little else on it:
training on a rented GPU then needs neither the audio nor an audio library. numpy and safetensors
are enough to read it; docs/architecture.md describes the format."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from musicgen_lora import atomic
from musicgen_lora.errors import UserError

FORMAT_VERSION = 1
HEADER = "musicgen_lora"
"""Name of the header entry that says how to read the codes."""
CHUNK = 1 << 16
"""Frames packed or unpacked at a time, during which each bit takes a byte."""


@dataclass(frozen=True)
class PackedTokens:
    """Codes, captions and split of a dataset.

    Args:
        codes: `[frames, K]` uint16, clip after clip.
        n_frames: `[clips]` int64.
        texts: the captions of each clip, at least one.
        held_out: `[clips]` bool.
        n_entries: V, of each codebook.
        codec: fingerprint of the codec that made the codes.
        bars: `[clips, 2]` float32, the frame of each clip's first bar line and the frames per bar;
            NaN where unknown. None in files from earlier releases.
    """

    codes: np.ndarray
    n_frames: np.ndarray
    texts: Sequence[Sequence[str]]
    held_out: np.ndarray
    n_entries: int
    frame_rate: float
    codec: str
    bars: np.ndarray | None = None

    @property
    def offsets(self) -> np.ndarray:
        """`[clips]`, the frame at which each clip begins."""
        return np.cumsum(self.n_frames) - self.n_frames


def write_packed(path: Path, tokens: PackedTokens) -> None:
    """Writes the file, whole or not at all.

    Raises:
        ValueError: a code is outside the codebooks, or the lengths don't add up.
    """
    if len(tokens.codes) != int(tokens.n_frames.sum()) or len(tokens.texts) != len(tokens.n_frames):
        raise ValueError("the clips' lengths and captions do not fit the codes")
    if len(tokens.codes) and int(tokens.codes.max()) >= tokens.n_entries:
        raise ValueError(f"a code is {int(tokens.codes.max())} of {tokens.n_entries} entries")
    n_bits = _n_bits(tokens.n_entries)
    header = {
        "format_version": FORMAT_VERSION,
        "n_codebooks": tokens.codes.shape[1],
        "n_entries": tokens.n_entries,
        "frame_rate": tokens.frame_rate,
        "codec": tokens.codec,
    }
    captions = json.dumps([list(texts) for texts in tokens.texts], ensure_ascii=False)
    tensors = {
        "codes": np.concatenate([*_packed_chunks(tokens.codes, n_bits), np.empty(0, np.uint8)]),
        "n_frames": tokens.n_frames.astype(np.int64),
        "held_out": tokens.held_out.astype(np.uint8),
        "captions": np.frombuffer(captions.encode(), np.uint8),
    }
    if tokens.bars is not None:
        tensors["bars"] = tokens.bars.astype(np.float32)
    metadata = {HEADER: json.dumps(header, sort_keys=True)}
    atomic.write_file(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def read_packed(path: Path) -> PackedTokens:
    """Reads a file that `write_packed` wrote.

    Raises:
        UserError: it is missing, damaged, from a newer release, or something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            if header["format_version"] > FORMAT_VERSION:
                raise UserError(f"{path}: made by a newer release; update this one.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _checked(header, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not readable as packed tokens ({error}); pack them again with "
            "musicgen-lora tokenise --pack."
        ) from error


def _checked(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> PackedTokens:
    n_codebooks, n_entries = int(header["n_codebooks"]), int(header["n_entries"])
    n_frames = tensors["n_frames"]
    if not (0 < n_codebooks <= 64 and 1 < n_entries <= 1 << 16 and (n_frames >= 0).all()):
        raise ValueError("its header or lengths are out of range")
    texts = json.loads(tensors["captions"].tobytes().decode())
    total, n_bits = int(n_frames.sum()), _n_bits(n_entries)
    if len(tensors["codes"]) != math.ceil(total * n_codebooks * n_bits / 8):
        raise ValueError("its number of codes doesn't match its lengths")
    if not (len(texts) == len(n_frames) == len(tensors["held_out"])) or not all(texts):
        raise ValueError("a clip lacks its caption")
    bars = tensors.get("bars")
    if bars is not None and (bars.shape != (len(n_frames), 2) or (bars < 0).any()):
        raise ValueError("its bars don't match its clips")
    codes = _unpacked(tensors["codes"], total, n_codebooks, n_bits)
    if total and int(codes.max()) >= n_entries:
        raise ValueError(f"a code is {int(codes.max())} of {n_entries} entries")
    return PackedTokens(
        codes=codes,
        n_frames=n_frames,
        texts=texts,
        held_out=tensors["held_out"].astype(bool),
        n_entries=n_entries,
        frame_rate=float(header["frame_rate"]),
        codec=str(header["codec"]),
        bars=bars,
    )


def _n_bits(n_entries: int) -> int:
    return max(1, (n_entries - 1).bit_length())


def _packed_chunks(codes: np.ndarray, n_bits: int) -> Iterator[np.ndarray]:
    """The bytes of codes `[frames, K]`, code after code, each with its lowest bit first. A chunk
    has a multiple of eight codes, so that it ends on a byte boundary."""
    places = np.arange(n_bits, dtype=np.uint16)
    for start in range(0, len(codes), CHUNK):
        flat = codes[start : start + CHUNK].astype(np.uint16).reshape(-1, 1)
        yield np.packbits((flat >> places & 1).astype(np.uint8), bitorder="little")


def _unpacked(packed: np.ndarray, n_frames: int, n_codebooks: int, n_bits: int) -> np.ndarray:
    codes = np.zeros((n_frames, n_codebooks), dtype=np.uint16)
    weights = np.left_shift(1, np.arange(n_bits)).astype(np.float32)
    chunk_bytes = CHUNK * n_codebooks * n_bits // 8
    for number, start in enumerate(range(0, n_frames, CHUNK)):
        part = codes[start : start + CHUNK]
        piece = packed[number * chunk_bytes : (number + 1) * chunk_bytes]
        bits = np.unpackbits(piece, bitorder="little", count=part.size * n_bits)
        part[:] = (bits.reshape(-1, n_bits) @ weights).reshape(part.shape)
    return codes
