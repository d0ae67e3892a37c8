"""Finds audio that two recordings share, at any position.

A mix may play beats that are also in the folder as files. If such a beat is held out, it has been
trained on as a part of the mix, and the validation loss is misleading. `duplicates` compares files
from their start; here each recording is cut into pieces of five seconds, and each piece is searched
for in all others: its shift-invariant summary finds candidates, its fingerprint is compared there.

A loop shorter than a piece is repeated to its length, as a mix would play it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from musicgen_lora.listening.duplicates import (
    FINGERPRINT_HOP_S,
    MIN_STATES,
    SUMMARY_FRAMES,
    VARIANT_THRESHOLD,
    candidates,
    count_states,
    negated,
    summary_of,
)

PIECE_FRAMES = SUMMARY_FRAMES
"""Length of a piece, 5.12 s, which its summary covers as a single window."""
PIECE_HOP = PIECE_FRAMES // 4
SHORTEST_S = 1.5
"""Shorter loops say too little: a kick and a hat occur in many beats."""
SUMMARY_THRESHOLD = 0.65
"""Cosine of two summaries from which pieces are compared: 0.6 % of pairs of different beats."""
THRESHOLD = VARIANT_THRESHOLD
"""Similarity from which two pieces are the same audio. Different beats of one kit stay below 0.3 at
any shift. Of 40 beats in a mix, all are found if they are as loud as the others; 39, 29 and 15 at
6, 9 and 12 dB below; 27 if they are looped bars (`benchmarks/listening/shared_audio.py`)."""
LOOP_THRESHOLD = THRESHOLD + 0.2
"""The same if one of them is a repeated loop, which says less."""
COARSE_THRESHOLD = 0.3
"""First every fourth frame must reach this similarity, at an eighth of the cost."""


class Overlap(NamedTuple):
    """Audio that two recordings share: their indices, and its start in each, in seconds."""

    first: int
    second: int
    first_s: float
    second_s: float


class _Pieces(NamedTuple):
    """Pieces of recordings: fingerprints `[M, PIECE_FRAMES]`, unit summaries `[M, D]`, and the
    recording and first frame of each `[M]`."""

    prints: np.ndarray
    summaries: np.ndarray
    owners: np.ndarray
    starts: np.ndarray


def find_overlaps(
    fingerprints: Sequence[np.ndarray],
    durations: Sequence[float],
    groups: Sequence[Hashable],
    fresh: Collection[int] | None = None,
) -> list[Overlap]:
    """Find recordings that share audio.

    Args:
        fingerprints: `[F]` each, from `duplicates.audio_fingerprint`.
        groups: group of each recording; recordings of one group, or joined by an overlap that was
            found already, are not compared.
        fresh: indices of recordings that were not compared before; None for all. Pairs of others
            are skipped.

    Returns:
        Enough overlaps to join all recordings that share audio, not every overlap.
    """
    pieces = _cut(fingerprints, durations)
    is_fresh = np.full(len(fingerprints), fresh is None)
    is_fresh[list(fresh or ())] = True
    places = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    labels = np.array([places[group] for group in groups], dtype=np.int64)
    found = []
    owners = pieces.owners
    for piece, others in candidates(pieces.summaries, owners, labels, SUMMARY_THRESHOLD):
        for other in others:
            own, its = labels[owners[piece]], labels[owners[other]]
            if own == its or not (is_fresh[owners[piece]] or is_fresh[owners[other]]):
                continue
            overlap = _look_for(pieces, piece, fingerprints, other)
            overlap = overlap or _look_for(pieces, other, fingerprints, piece)
            if overlap is not None:
                found.append(overlap)
                labels[labels == its] = own
    return found


def _cut(fingerprints: Sequence[np.ndarray], durations: Sequence[float]) -> _Pieces:
    prints, owners, starts = [], [], []
    for index, (row, duration_s) in enumerate(zip(fingerprints, durations, strict=True)):
        for first, piece in _pieces_of(row, duration_s):
            if count_states(piece[: len(row)]) >= MIN_STATES:
                prints.append(piece)
                owners.append(index)
                starts.append(first)
    if not prints:
        nothing = np.zeros(0, dtype=np.int64)
        return _Pieces(np.zeros((0, PIECE_FRAMES), np.uint64), np.zeros((0, 1)), nothing, nothing)
    summaries = np.stack([summary_of(piece) for piece in prints])
    return _Pieces(np.stack(prints), summaries, np.asarray(owners), np.asarray(starts))


def _pieces_of(prints: np.ndarray, duration_s: float) -> list[tuple[int, np.ndarray]]:
    """Evenly spaced pieces with their first frames; the last ends with the recording."""
    if len(prints) >= PIECE_FRAMES:
        last = len(prints) - PIECE_FRAMES
        firsts = [*range(0, last, PIECE_HOP), last]
        return [(first, prints[first : first + PIECE_FRAMES]) for first in firsts]
    if duration_s < SHORTEST_S:
        return []
    # By its exact length, which isn't a whole number of frames.
    times_s = np.arange(PIECE_FRAMES) * FINGERPRINT_HOP_S % duration_s
    frames = np.minimum(np.round(times_s / FINGERPRINT_HOP_S).astype(np.int64), len(prints) - 1)
    return [(0, prints[frames])]


def _look_for(
    pieces: _Pieces, piece: int, fingerprints: Sequence[np.ndarray], near: int
) -> Overlap | None:
    """Where a piece occurs in another recording, around its piece `near`; None if it doesn't."""
    own, owner, other = pieces.prints[piece], int(pieces.owners[piece]), int(pieces.owners[near])
    target, low = pieces.prints[near], int(pieces.starts[near])
    if len(fingerprints[other]) >= PIECE_FRAMES:
        # Pieces are at most half of this reach apart.
        target = fingerprints[other][max(0, low - PIECE_HOP) : low + PIECE_FRAMES + PIECE_HOP]
        low = max(0, low - PIECE_HOP)
    windows = sliding_window_view(target, PIECE_FRAMES)
    if _similarities(windows[::2, ::4], own[::4]).max() < COARSE_THRESHOLD:
        return None
    alike = _similarities(windows, own)
    best = int(alike.argmax())
    is_loop = min(len(fingerprints[owner]), len(fingerprints[other])) < PIECE_FRAMES
    if alike[best] < (LOOP_THRESHOLD if is_loop else THRESHOLD):
        return None
    places = sorted([(owner, int(pieces.starts[piece])), (other, low + best)])
    return Overlap(
        places[0][0],
        places[1][0],
        places[0][1] * FINGERPRINT_HOP_S,
        places[1][1] * FINGERPRINT_HOP_S,
    )


def _similarities(windows: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How well each of the windows `[M, F]` agrees with a piece `[F]`, see `duplicates.similarity`;
    `[M]`, -1 to 1. A window with few states counts as if it had more."""
    agreed = np.bitwise_count(windows & own).sum(axis=1, dtype=np.int64)
    agreed -= np.bitwise_count(windows & negated(own)).sum(axis=1, dtype=np.int64)
    n_states = np.bitwise_count(windows).sum(axis=1, dtype=np.int64)
    fewest = MIN_STATES * len(own) / PIECE_FRAMES
    return agreed / np.sqrt(np.maximum(n_states, fewest) * max(1, count_states(own)))
