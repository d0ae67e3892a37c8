"""The pieces of a mix: a file without a single tempo may have one between each pair of pauses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from musicgen_lora.listening.quality import BlockQuality, merge_qualities
from musicgen_lora.listening.rhythm.bars import sounding_spans
from musicgen_lora.listening.rhythm.metre import FRAME_RATE
from musicgen_lora.listening.rhythm.tempo import Tempo, tempo_of_strengths


def tempo_fields(tempo: Tempo) -> dict[str, Any]:
    """A tempo as the fields of a record."""
    fields = dataclasses.asdict(tempo)
    del fields["repetition"]
    fields["tempo_confidence"] = fields.pop("confidence")
    return fields | {name: fields[name].tolist() for name in ("beats_s", "downbeats_s")}


def tempi_between_pauses(
    strengths: np.ndarray, duration_s: float, start_s: float, measured: Sequence[BlockQuality]
) -> list[dict[str, Any]]:
    """The tempo of each stretch between pauses: the pieces of a mix, which have no common tempo.
    Empty if there is no pause.

    Args:
        strengths: onset strengths `[4, F]` of a segment.
        start_s: where the segment begins in the file.
        measured: quality of its blocks.
    """
    silences_s = [
        (max(0.0, begin_s - start_s), min(duration_s, stop_s - start_s))
        for begin_s, stop_s in merge_qualities(measured).silences_s
    ]
    found = []
    for begin_s, stop_s in sounding_spans(duration_s, silences_s):
        first, last = round(begin_s * FRAME_RATE), round(stop_s * FRAME_RATE) + 1
        tempo = tempo_of_strengths(strengths[:, first:last], stop_s - begin_s)
        found.append(
            {"start_s": start_s + begin_s, "duration_s": stop_s - begin_s, **tempo_fields(tempo)}
        )
    return found if len(found) > 1 else []
