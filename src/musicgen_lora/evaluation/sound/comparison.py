"""Descriptors of base, adapter and held-out audio, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.statistics import apart, moved_share, paired_bootstrap
from musicgen_lora.evaluation.report.document import DescriptorRow, Summary
from musicgen_lora.listening.descriptors import BANDS_HZ, band_name

Descriptors = Sequence[Mapping[str, float]]
"""Descriptors, a dictionary a clip."""


@dataclass(frozen=True)
class Descriptor:
    """How a descriptor is shown.

    Args:
        name: as in `describe`.
        scale: the descriptor is multiplied by this for display.
        least: smallest relevant difference, in the descriptor's own unit, roughly what is just
            audible: a base this near to the held-out audio counts as there already. None if
            "moved towards the held-out audio" makes no sense for it.
    """

    name: str
    label: str
    unit: str
    scale: float
    digits: int
    meaning: str
    least: float | None


_BAND_WORDS = (
    "sub bass: the body of an 808",
    "bass: the punch of the kick",
    "low mids: warmth, mud",
    "mids: snares, melodies",
    "presence: claps, attack",
    "hi-hats and air",
)


def _show_band(band: tuple[int, int], words: str) -> Descriptor:
    return Descriptor(
        f"{band_name(*band)}_share", f"Energy {band_label(*band)}", "%", 100.0, 1, words, 0.01
    )


def band_label(low_hz: int, high_hz: int) -> str:
    """Format a band, such as 20 to 60 Hz, 250 Hz to 2 kHz or 2 to 6 kHz."""
    if low_hz >= 1000:
        return f"{low_hz // 1000} to {high_hz // 1000} kHz"
    return (
        f"{low_hz} Hz to {high_hz // 1000} kHz" if high_hz >= 1000 else f"{low_hz} to {high_hz} Hz"
    )


SHOWN = (
    *(_show_band(band, words) for band, words in zip(BANDS_HZ, _BAND_WORDS, strict=True)),
    Descriptor("sub_f0_hz", "Bass pitch", "Hz", 1.0, 1, "strongest frequency, 25 to 120 Hz", 1.0),
    Descriptor("bass_glide_semitones", "Bass glide", "semitones", 1.0, 1, "mean over notes", 0.5),
    Descriptor("bass_decay_s", "Bass decay", "s", 1.0, 2, "time for a note to fall 8.7 dB", 0.2),
    Descriptor("onset_rate_hz", "Onsets", "per second", 1.0, 2, "how busy it is", 0.2),
    Descriptor("kick_onset_rate_hz", "Low onsets", "per second", 1.0, 2, "kicks, bass notes", 0.2),
    Descriptor("hat_onset_rate_hz", "High onsets", "per second", 1.0, 2, "hi-hats, snares", 0.2),
    Descriptor("roll_density", "Hi-hat rolls", "%", 100.0, 1, "onsets less than 90 ms apart", 0.02),
    Descriptor("swing", "Swing", "%", 100.0, 0, "50 is straight, 67 a full shuffle", 0.02),
    Descriptor("tempo_bpm", "Tempo", "BPM", 1.0, 1, "may be half or double the true one", None),
    Descriptor(
        "tempo_confidence", "Beat steadiness", "", 1.0, 2, "1: every bar like the one before", 0.05
    ),
    Descriptor("spectral_centroid_hz", "Brightness", "Hz", 1.0, 0, "spectral centroid", 100.0),
    Descriptor("spectral_flatness", "Noisiness", "", 1.0, 3, "tone 0, white noise 0.56", 0.01),
    Descriptor("loudness_lufs", "Loudness", "LUFS", 1.0, 1, "BS.1770-4", 1.0),
    Descriptor("rms_db", "Level", "dBFS", 1.0, 1, "RMS", 1.0),
    Descriptor("peak_db", "Peak", "dBFS", 1.0, 1, "files are turned down to below 0", 1.0),
    Descriptor("crest_db", "Punch", "dB", 1.0, 1, "crest factor: peak over RMS", 1.0),
    Descriptor("side_share", "Width", "%", 100.0, 1, "power of left minus right; mono: 0", 0.01),
    Descriptor("clipped_share", "Clipped", "%", 100.0, 2, "samples at full scale", 0.001),
    Descriptor("silence_share", "Silence", "%", 100.0, 1, "frames below -60 dBFS", 0.02),
    Descriptor("dc_offset", "DC offset", "", 1.0, 4, "mean sample value; should be 0", None),
)
BY_NAME = {shown.name: shown for shown in SHOWN}


def compare_descriptors(
    clips: Compared[Descriptors],
    reference: Descriptors | None,
    anchors: Mapping[str, Descriptors] | None = None,
    *,
    seed: int,
) -> list[DescriptorRow]:
    """The report's `descriptors`: a row for each of `SHOWN`, in the descriptor's own unit.

    Args:
        clips: descriptors of base and adapter, prompt by prompt.
        reference: descriptors of held-out audio, one entry per source; None if there is none.
        anchors: descriptors of the anchors' clips, by name.
    """
    rows = [_row(shown, clips, reference, seed) for shown in SHOWN]
    for row in rows:
        row["anchors"] = {
            name: found
            for name, anchor in (anchors or {}).items()
            if (found := _summary(_values(anchor, row["name"]))) is not None
        }
    return rows


def _row(
    shown: Descriptor,
    clips: Compared[Descriptors],
    reference: Descriptors | None,
    seed: int,
) -> DescriptorRow:
    values = clips.each(lambda facts: _values(facts, shown.name))
    before, after = values.base, values.adapter
    target = None if reference is None else _values(reference, shown.name)
    row: DescriptorRow = {
        "name": shown.name,
        "base": _summary(before),
        "adapter": _summary(after),
        "reference": _summary(target),
        "anchors": {},
        "paired": None,
        "moved": None,
        "apart": None,
    }
    if target is not None and shown.least is not None:
        row["apart"] = apart(
            after[np.isfinite(after)], target[np.isfinite(target)], least=shown.least
        )
    if before is None:
        return row
    both = np.isfinite(before) & np.isfinite(after)
    row["paired"] = paired_bootstrap(before[both], after[both], seed=seed)
    if target is not None and shown.least is not None:
        row["moved"] = moved_share(
            before[both],
            after[both],
            target[np.isfinite(target)],
            least=shown.least,
            seed=seed,
        )
    return row


def _values(facts: Descriptors, name: str) -> np.ndarray:
    return np.array([clip[name] for clip in facts], dtype=np.float64)


def _summary(values: np.ndarray | None) -> Summary | None:
    if values is None:
        return None
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": None, "sd": None, "n": 0}
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "sd": sd, "n": len(values)}


def shown_value(shown: Descriptor, value: float | None) -> str:
    """A descriptor's value as text, without the unit."""
    if value is None:
        return "\N{EN DASH}"
    # Plus 0 avoids "-0".
    return f"{round(value * shown.scale, shown.digits) + 0.0:.{shown.digits}f}"
