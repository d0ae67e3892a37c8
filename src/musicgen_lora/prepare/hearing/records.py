"""Types for the measurements of a file, and how they are stored.

Anybody can edit or damage a record on the disk; one that isn't valid is made again.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from musicgen_lora import atomic
from musicgen_lora.audio.fold import N_BANDS
from musicgen_lora.dataset.caption_words import normalise_bpm
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import LARGE, plain, read_json
from musicgen_lora.listening.quality import Quality
from musicgen_lora.listening.rhythm.tempo import Tempo
from musicgen_lora.prepare.words.facts import Facts

FORMAT = 5
"""Version of the records; those of other versions are made again."""
N_DIGITS = 5
"""Decimal digits of fractions in a record."""

Seconds = Annotated[float, Field(ge=-1.0, le=100_000.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Bpm = Annotated[float, Field(ge=1.0, le=1_000.0)]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of a file and its tempo; its beats are in seconds from its own start."""

    start_s: Seconds
    duration_s: Seconds
    bpm: Bpm | None = None
    alternative_bpm: Bpm | None = None
    tempo_confidence: Share = 0.0
    downbeat_confidence: Share = 0.0
    is_steady: bool = False
    loop_bars: Annotated[int, Field(ge=1, le=1_000)] | None = None
    beats_s: tuple[Seconds, ...] = ()
    downbeats_s: tuple[Seconds, ...] = ()

    def __post_init__(self) -> None:
        if self.is_steady and self.bpm is None:
            raise ValueError("what has no tempo is not steady")

    @property
    def tempo(self) -> Tempo:
        """The tempo, its times from the stretch's start."""
        return Tempo(
            bpm=self.bpm or float("nan"),
            alternative_bpm=self.alternative_bpm or float("nan"),
            confidence=self.tempo_confidence,
            beats_s=np.array(self.beats_s),
            downbeats_s=np.array(self.downbeats_s),
            downbeat_confidence=self.downbeat_confidence,
            is_steady=self.is_steady,
            loop_bars=self.loop_bars,
        )


@dataclass(frozen=True, kw_only=True)
class Segment(Stretch):
    """What was measured of some minutes of a file, or of a clip. Silence has nothing but its
    position."""

    key: str | None = None
    key_confidence: Share = 0.0
    stretches: tuple[Stretch, ...] = ()
    """The pieces of a mix, which pauses separate."""
    kicks_per_bar: float | None = None
    hats_per_bar: float | None = None
    roll_density: float | None = None
    bass_notes: float | None = None
    bass_glides: float | None = None
    band_20_60_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was measured of a file's bytes, and what the tags inside it say."""

    format: int
    sha256: str
    tags: Facts
    duration_s: Seconds
    claimed_s: float | None
    is_cut_off: bool
    n_decoder_faults: Annotated[int, Field(ge=0)]
    sample_rate: Annotated[int, Field(ge=1_000, le=1_000_000)]
    n_channels: Annotated[int, Field(ge=1, le=1_000)]
    is_float: bool
    is_lossless: bool
    is_one_shot: bool
    quality: Quality
    segments: Annotated[tuple[Segment, ...], Field(min_length=1, max_length=1_000)]

    def __post_init__(self) -> None:
        tags, quality = self.tags, self.quality
        if (tags.split, tags.source, tags.part, tags.other) != (None, None, None, {}):
            raise ValueError("no tag says these")
        if tags.bpm is not None and normalise_bpm(tags.bpm) is None:
            raise ValueError("this is not a tempo")
        if not len(quality.unrelated_db) == len(quality.mono_db) == N_BANDS:
            raise ValueError("a level for each band is missing")


@dataclass(frozen=True, kw_only=True)
class WindowRecord:
    """The measurement of a clip that is part of a file."""

    format: int
    sha256: str
    segment: Segment


@dataclass(frozen=True, kw_only=True)
class HeardFile:
    """What a tagger heard in each segment: the strength of each word, by kind."""

    sha256: str
    segments: list[dict[str, dict[str, Share]]] = field(default_factory=list)


K = TypeVar("K", Analysis, WindowRecord, HeardFile)
T = TypeVar("T")


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def made(kind: type[T], fields: Mapping[str, Any]) -> T:
    """A record of plain values, without numpy: NaN becomes None, fractions are rounded."""
    return _adapter(kind).validate_python(plain(fields, N_DIGITS))


def read_kept(path: Path, kind: type[K], digest: str) -> K | None:
    """The record of the bytes with SHA-256 `digest`; None if there is no valid one."""
    try:
        record = _adapter(kind).validate_python(read_json(path, max_bytes=LARGE))
    except (UserError, ValidationError):
        return None
    return record if record.sha256 == digest else None


def keep(path: Path, record: Any) -> None:
    """Writes a record for `read_kept`, whole or not at all."""
    text = json.dumps(plain(dataclasses.asdict(record)), allow_nan=False)
    atomic.write_bytes(path, text.encode())
