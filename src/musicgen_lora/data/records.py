"""Analyses as they are kept: what they must hold to be taken for one.

A record is a file that anybody can edit or tear; one that is not as it should be is made again.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lora.audio.fold import N_BANDS
from musicgen_lora.documents import LARGE, read_json, read_start
from musicgen_lora.errors import UserError
from musicgen_lora.kinds import (
    Kind,
    Wrong,
    fields,
    integer,
    many,
    named,
    nothing,
    one_of,
    or_null,
    real,
    text,
    truth,
)

MAX_HEADER = 1024
_SECONDS = real(-1.0, 100_000.0)
_SURE = real(0.0, 1.0)
_TEMPO = or_null(real(1.0, 1_000.0))
_LEVEL = real(-1_000.0, 1_000.0)
_FAR = real(-1e9, 1e9)
_WORD = or_null(text())
_COUNT = integer(0, 10**15)


def _stretch(value: Any) -> None:
    many(_SECONDS, 2, 2)(value)


_TEMPO_FIELDS = fields(
    {
        "start_s": _SECONDS,
        "duration_s": _SECONDS,
        "bpm": _TEMPO,
        "alternative_bpm": _TEMPO,
        "tempo_confidence": _SURE,
        "downbeat_confidence": _SURE,
        "is_steady": truth,
        "beats_s": many(_SECONDS),
        "downbeats_s": many(_SECONDS),
        "loop_bars": or_null(integer(1, 1_000)),
    }
)
_KEY_FIELDS = fields({"key": _WORD, "key_confidence": _SURE})


def _with_tempo(value: Any) -> None:
    _TEMPO_FIELDS(value)
    if value["is_steady"] and value["bpm"] is None:
        raise Wrong("is_steady", True, "false without a tempo")


_STRETCHES = fields({"stretches": many(_with_tempo, 0, 100_000)})


def _segment(value: Any) -> None:
    _with_tempo(value)
    _KEY_FIELDS(value)
    _STRETCHES(value)


_QUALITY = fields(
    {
        "loudness_lufs": or_null(_LEVEL),
        "true_peak_db": _LEVEL,
        "clipped_samples": _COUNT,
        "silences_s": many(_stretch),
        "dc_offset": _FAR,
        "channels": text(),
        "bandwidth_hz": or_null(_FAR),
        "has_lossy_edge": truth,
        "over_samples": _COUNT,
        "bad_samples": _COUNT,
        "peak_db": _LEVEL,
        "unrelated_db": many(_LEVEL, N_BANDS, N_BANDS),
        "mono_db": many(_LEVEL, N_BANDS, N_BANDS),
    }
)
_TAGS = fields(
    {
        **dict.fromkeys(("text", "key", "genre", "title", "artist"), _WORD),
        "texts": many(text()),
        "bpm": _TEMPO,
        "tags": many(text()),
        "sources": named(text()),
        "confidence": named(_SURE),
    },
    # No tag says these.
    {**dict.fromkeys(("split", "source", "part"), nothing), "other": fields(closed=True)},
    closed=True,
)
ANALYSIS_RECORD = fields(
    {
        "format": _COUNT,
        "sha256": text(),
        "tags": _TAGS,
        "duration_s": _SECONDS,
        "claimed_s": real(-1.0, 1e300),
        "sample_rate": integer(1_000, 1_000_000),
        "n_channels": integer(1, 1_000),
        "is_float": truth,
        "is_lossless": truth,
        "is_one_shot": truth,
        "quality": _QUALITY,
        "segments": many(_segment, 1, 1_000),
    }
)
"""What `analyse.analyse_file` writes, and is read again."""
WINDOW_RECORD = fields({"format": _COUNT, "sha256": text(), "segment": _segment})
"""What `windows.measure_file` writes, and is read again."""
HEARD_RECORD = fields(
    {"sha256": text(), "segments": many(named(named(_SURE), one_of("genre", "mood", "instrument")))}
)
"""What a tagger heard in each segment, strengths of words by kind."""


def read_kept(path: Path, kind: Kind, digest: str) -> dict[str, Any] | None:
    """What was kept of the bytes of SHA-256 `digest`; None where nothing is, or nothing whole."""
    try:
        record = read_json(path, kind, max_bytes=LARGE)
    except UserError:
        return None
    return record if record["sha256"] == digest else None


_HEADER = re.compile(
    rb"\{'descr': '(<u\d)', 'fortran_order': False, "
    rb"'shape': \((\d{1,15}),(?: (\d{1,15}))?\), \} *\n"
)


def read_array(path: Path, dtype: type[np.generic], n_axes: int) -> np.ndarray | None:
    """A file that `numpy.save` made, mapped; None where it is none, or of another type.

    NumPy would hand the header to Python's parser, and allocate what it claims.
    """
    try:
        head = read_start(path, MAX_HEADER)
        header = _HEADER.fullmatch(head[10 : 10 + int.from_bytes(head[8:10], "little")])
        if head[:8] != b"\x93NUMPY\x01\0" or header is None:
            return None
        shape = tuple(int(size) for size in header.groups()[1:] if size is not None)
        offset, found = 10 + header.end(), np.dtype(header[1].decode())
        is_whole = path.stat().st_size == offset + math.prod(shape) * found.itemsize
        if not is_whole or found != dtype or len(shape) != n_axes:
            return None
        if 0 in shape:
            return np.zeros(shape, found)
        return np.memmap(path, found, "r", offset, shape)
    except (UserError, OSError, ValueError, TypeError):
        return None
