"""Decides which files of a folder are worth keeping.

Silent files, short files and single hits, which are not beats, are left out. Of several copies (the
same bytes, or the same sound after gain, re-encoding or shifts) the best is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen_lora.audio.stream import ends_early
from musicgen_lora.listening.duplicates import THRESHOLD, duplicate_groups
from musicgen_lora.prepare.hearing.analyse import SILENT_PEAK_DB
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.report.findings import is_clipped

SILENT_FILE_SHARE = 0.9
BANDWIDTH_STEP_HZ = 500.0
"""Bandwidths this close count as equal."""
LOUDER_DB = 3.0
MUCH_SHORTER = 0.5
"""A copy shorter than this share of the longest loses to it, however good it sounds."""
SAME_LENGTH_S = 0.3
"""Copies whose lengths differ by no more than this count as equally long."""
ONE_SHOT = "a single hit (one-shot), not a beat; --one_shots caption keeps and captions such files."


def unusable_reason(
    record: Analysis, min_clip_s: float, *, to_mono: bool, keeps_hits: bool = False
) -> str | None:
    """Why a file's analysis rules it out; None for a usable file.

    Args:
        to_mono: whether its channels are folded with cancelling parts inverted, see `audio.fold`.
    """
    duration_s, quality = record.duration_s, record.quality
    if duration_s < min_clip_s:
        # Rounded down: 0.9999 s is not "1.00 s is shorter than 1 s".
        told_s = math.floor(duration_s * 100.0) / 100.0
        return f"{told_s:.2f} s is shorter than {min_clip_s:g} s (--min_clip)."
    silent_s = sum(stop_s - start_s for start_s, stop_s in quality.silences_s)
    if quality.true_peak_db <= SILENT_PEAK_DB or silent_s >= SILENT_FILE_SHARE * duration_s:
        share = 100.0 * silent_s / duration_s
        if quality.true_peak_db <= SILENT_PEAK_DB or share > 99.5:
            return "is silent."
        return f"is silent for {share:.0f} % of its length."
    if record.is_one_shot and not keeps_hits:
        return ONE_SHOT
    n_channels = record.n_channels
    if n_channels > 2 and quality.channels == "inverted" and not to_mono:
        return f"its {n_channels} channels cancel each other in mono; prepare with --mono_fold."
    return None


@dataclass(frozen=True)
class NearDuplicate:
    """Why a file is left out as a copy: the digest of the one that is kept, and its advantage."""

    of: str
    why: str


def near_duplicates(
    records: Mapping[str, Analysis],
    prints: Mapping[str, np.ndarray],
    listed: set[str],
) -> dict[str, NearDuplicate]:
    """Near copies to leave out, by digest.

    Files that the dataset already lists are kept; otherwise the best copy is, see `_merits`.
    """
    left_out = {}
    for group in sounding_alike(records, prints, THRESHOLD):
        longest_s = max(records[digest].duration_s for digest in group)
        merits = {digest: _merits(records[digest], longest_s) for digest in group}
        # Of equals the first is kept, as `max` does.
        best = max(group, key=lambda digest: (digest in listed, *merits[digest].values()))
        for digest in group:
            if digest == best or digest in listed:
                continue
            better = (n for n, merit in merits[best].items() if merit > merits[digest][n])
            worse = any(merits[digest][n] > merit for n, merit in merits[best].items())
            why = next(better, "just as good, and comes first")
            if best in listed:
                is_better = tuple(merits[digest].values()) > tuple(merits[best].values())
                why = "already in the dataset" + (
                    "; this one is better: take the other out of the folder to use it"
                    if worse and is_better
                    else ""
                )
            left_out[digest] = NearDuplicate(best, why)
    return left_out


def _merits(record: Analysis, longest_s: float) -> dict[str, float]:
    """The merits of one of several copies by their names in messages, the weightiest first."""
    duration_s, quality = record.duration_s, record.quality
    # An encoder's low-pass reveals a WAV that was once an MP3.
    is_lossless = record.is_lossless and not quality.has_lossy_edge
    is_short = ends_early(duration_s, record.claimed_s or 0.0)
    band = round((quality.bandwidth_hz or 0.0) / BANDWIDTH_STEP_HZ)
    return {
        "much longer": duration_s >= MUCH_SHORTER * longest_s,
        "lossless": is_lossless,
        "not clipped": not is_clipped(record),
        # Encoders pad their output by a tenth of a second.
        "longer": duration_s >= longest_s - SAME_LENGTH_S,
        "undamaged": not (record.is_cut_off or record.n_decoder_faults or is_short),
        "wider in bandwidth": band,
        "higher in sample rate": record.sample_rate,
        "higher in level": round(quality.true_peak_db / LOUDER_DB),
    }


def sounding_alike(
    records: Mapping[str, Analysis], prints: Mapping[str, np.ndarray], threshold: float
) -> list[list[str]]:
    """Groups of files, by digest, that sound alike from the start, see `duplicates`."""
    digests: Sequence[str] = [digest for digest in records if digest in prints]
    return duplicate_groups(
        digests,
        [prints[digest] for digest in digests],
        [records[digest].duration_s for digest in digests],
        threshold,
    )
