"""Which files of a folder are worth keeping.

Silent and short files go, and single hits, which are no beats. Of copies (the same bytes, or the
same sound under gain, re-encoding and shifts) the best stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen_lora.listening.duplicates import THRESHOLD, duplicate_groups
from musicgen_lora.prepare.hearing.analyse import SILENT_PEAK_DB
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.report.findings import is_clipped

SILENT_FILE_SHARE = 0.9
BANDWIDTH_STEP_HZ = 500.0
LOUDER_DB = 3.0
"""Bandwidths this close are one."""
MUCH_SHORTER = 0.5
"""A copy of less than this share of the longest is no match for it, however good."""
SAME_LENGTH_S = 0.3
"""Copies whose lengths differ by no more are equally long."""
ONE_SHOT = (
    "a single hit (one-shot), no beat; --one_shots caption keeps such files and says what they are."
)


def unusable_reason(
    record: Analysis, min_clip_s: float, *, to_mono: bool, keeps_hits: bool = False
) -> str | None:
    """Why a file is left out by its analysis; None for a usable one.

    Args:
        to_mono: its channels are folded with what cancels turned round, see `audio.fold`.
    """
    duration_s, quality = record.duration_s, record.quality
    if duration_s < min_clip_s:
        return f"{duration_s:.2f} s is shorter than {min_clip_s:g} s (--min_clip)."
    silent_s = sum(stop_s - start_s for start_s, stop_s in quality.silences_s)
    if quality.true_peak_db <= SILENT_PEAK_DB or silent_s >= SILENT_FILE_SHARE * duration_s:
        return f"is silent ({silent_s:.0f} of {duration_s:.0f} s)."
    if record.is_one_shot and not keeps_hits:
        return ONE_SHOT
    n_channels = record.n_channels
    if n_channels > 2 and quality.channels == "inverted" and not to_mono:
        return f"its {n_channels} channels cancel each other in mono; prepare with --mono_fold."
    return None


@dataclass(frozen=True)
class NearDuplicate:
    """A file that is left out, as a copy: the digest of the one that stays, and why it does."""

    of: str
    why: str


def near_duplicates(
    records: Mapping[str, Analysis],
    prints: Mapping[str, np.ndarray],
    listed: set[str],
) -> dict[str, NearDuplicate]:
    """Near copies to leave out, by digest.

    What the dataset lists already stays; else the best copy, see `_merits`.
    """
    left_out = {}
    for group in sounding_alike(records, prints, THRESHOLD):
        longest_s = max(records[digest].duration_s for digest in group)
        merits = {digest: _merits(records[digest], longest_s) for digest in group}
        # Of equals the first stays: `max` keeps it.
        best = max(group, key=lambda digest: (digest in listed, *merits[digest].values()))
        for digest in group:
            if digest == best or digest in listed:
                continue
            better = (n for n, merit in merits[best].items() if merit > merits[digest][n])
            worse = any(merits[digest][n] > merit for n, merit in merits[best].items())
            why = next(better, "as good, and comes first")
            if best in listed:
                is_better = tuple(merits[digest].values()) > tuple(merits[best].values())
                why = "in the dataset already" + (
                    "; this one is better: take the other out of the folder to have it"
                    if worse and is_better
                    else ""
                )
            left_out[digest] = NearDuplicate(best, why)
    return left_out


def _merits(record: Analysis, longest_s: float) -> dict[str, float]:
    """What speaks for one of several copies, the weightiest first, by what is told of it."""
    duration_s, quality = record.duration_s, record.quality
    # An encoder's low-pass tells of a WAV that was an MP3.
    is_lossless = record.is_lossless and not quality.has_lossy_edge
    band = round((quality.bandwidth_hz or 0.0) / BANDWIDTH_STEP_HZ)
    return {
        "much longer": duration_s >= MUCH_SHORTER * longest_s,
        "lossless": is_lossless,
        "not clipped": not is_clipped(record),
        # An encoder pads what it makes by a tenth of a second.
        "longer": duration_s >= longest_s - SAME_LENGTH_S,
        "wider in its band of frequencies": band,
        "of a higher sample rate": record.sample_rate,
        "of a higher level": round(quality.true_peak_db / LOUDER_DB),
    }


def sounding_alike(
    records: Mapping[str, Analysis], prints: Mapping[str, np.ndarray], threshold: float
) -> list[list[str]]:
    """Groups of files, by digest, that sound alike from their start, see `duplicates`."""
    digests: Sequence[str] = [digest for digest in records if digest in prints]
    return duplicate_groups(
        digests,
        [prints[digest] for digest in digests],
        [records[digest].duration_s for digest in digests],
        threshold,
    )
