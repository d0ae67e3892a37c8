"""Which files of a folder are worth keeping, and which belong together.

Silent and short files go. Of copies (the same bytes, or the same sound under gain, re-encoding and
shifts) one stays. Versions of one beat stay, but under one source: a split must not part them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from musicgen_lora.data.analyse import SILENT_PEAK_DB
from musicgen_lora.data.duplicates import THRESHOLD, VARIANT_THRESHOLD, duplicate_groups

SILENT_SHARE = 0.9
BANDWIDTH_STEP_HZ = 500.0
"""Bandwidths this close are one; then the longer file is the better copy."""


def unusable_reason(record: Mapping[str, Any], min_clip_s: float, *, to_mono: bool) -> str | None:
    """Why a file is left out by its analysis; None for a usable one.

    Args:
        record: its analysis.
        min_clip_s: shortest length.
        to_mono: its channels are folded with what cancels turned round, see `audio.fold`.
    """
    duration_s, quality = record["duration_s"], record["quality"]
    if duration_s < min_clip_s:
        return f"{duration_s:.2f} s is shorter than {min_clip_s:g} s (--min_clip)."
    silent_s = sum(stop_s - start_s for start_s, stop_s in quality["silences_s"])
    if quality["true_peak_db"] <= SILENT_PEAK_DB or silent_s >= SILENT_SHARE * duration_s:
        return f"is silent ({silent_s:.0f} of {duration_s:.0f} s)."
    n_channels = record["n_channels"]
    if n_channels > 2 and quality["channels"] == "inverted" and not to_mono:
        return f"its {n_channels} channels cancel each other in mono; prepare with --mono_fold."
    return None


def near_duplicates(
    records: Mapping[str, Mapping[str, Any]],
    prints: Mapping[str, np.ndarray],
    listed: set[str],
) -> dict[str, str]:
    """Near copies to leave out, each with the digest of the one that stays.

    What the dataset lists already stays; else the copy with the widest band, then the longest.

    Args:
        records: analyses by digest, in the order of the files.
        prints: fingerprints by digest.
        listed: digests of files that the dataset has clips of.
    """
    place = {digest: index for index, digest in enumerate(records)}

    def rank(digest: str) -> tuple[bool, int, float, int]:
        record = records[digest]
        band = round((record["quality"]["bandwidth_hz"] or 0.0) / BANDWIDTH_STEP_HZ)
        return digest not in listed, -band, -round(record["duration_s"], 1), place[digest]

    left_out = {}
    for group in _groups(records, prints, THRESHOLD):
        best = min(group, key=rank)
        left_out |= {digest: best for digest in group if digest != best and digest not in listed}
    return left_out


def shared_sources(
    records: Mapping[str, Mapping[str, Any]],
    prints: Mapping[str, np.ndarray],
    own: Mapping[str, str],
    listed: Mapping[str, str],
) -> dict[str, str]:
    """The source of each file: its own, or that of the first version of the same beat.

    Args:
        records: analyses by digest.
        prints: fingerprints by digest.
        own: the path of each file, by digest.
        listed: the source that the dataset states for files that it lists; it stays.
    """
    sources = {**own, **listed}
    for group in _groups(records, prints, VARIANT_THRESHOLD):
        stated = [listed[digest] for digest in group if digest in listed]
        source = stated[0] if stated else own[group[0]]
        sources |= {digest: source for digest in group if digest not in listed}
    return sources


def _groups(
    records: Mapping[str, Mapping[str, Any]], prints: Mapping[str, np.ndarray], threshold: float
) -> list[list[str]]:
    digests: Sequence[str] = [digest for digest in records if digest in prints]
    return duplicate_groups(
        digests,
        [prints[digest] for digest in digests],
        [records[digest]["duration_s"] for digest in digests],
        threshold,
    )
