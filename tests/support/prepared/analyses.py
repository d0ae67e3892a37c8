"""Made-up analyses of files for tests."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from musicgen_lora.listening.quality import silence_quality
from musicgen_lora.prepare.hearing.records import FORMAT, Analysis, Segment
from musicgen_lora.prepare.words.facts import Facts


def analysis(**changes: Any) -> Analysis:
    """A complete, clean file of 8 s, except for these fields of it or of its quality."""
    quality = replace(silence_quality(2, 8.0), true_peak_db=-1.0, silences_s=(), channels="stereo")
    quality = replace(quality, bandwidth_hz=16_000.0)
    names = {field.name for field in fields(quality)}
    own = {name: changes.pop(name) for name in list(changes) if name in names}
    made = Analysis(
        format=FORMAT,
        sha256="",
        tags=Facts(),
        duration_s=8.0,
        claimed_s=8.0,
        is_cut_off=False,
        n_decoder_faults=0,
        sample_rate=44_100,
        n_channels=2,
        is_lossless=True,
        is_float=False,
        is_one_shot=False,
        quality=replace(quality, **own),
        segments=(Segment(start_s=0.0, duration_s=8.0),),
    )
    return replace(made, **changes)
