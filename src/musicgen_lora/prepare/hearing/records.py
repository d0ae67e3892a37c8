"""Analyses as they are kept: what they must hold to be taken for one.

A record is a file that anybody can edit or tear; one that is not as it should be is made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musicgen_lora.audio.fold import N_BANDS
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import LARGE, read_json
from musicgen_lora.formats.kinds import (
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
