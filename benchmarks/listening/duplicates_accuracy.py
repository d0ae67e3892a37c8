"""How well copies are distinguished from other beats of the same kit, and what the search costs.

    python benchmarks/listening/duplicates_accuracy.py

Composes different beats for the 808 kit, makes copies of some (gain, MP3, resampling, shifts,
all of these at once, the loop twice), and searches the whole pool. Every copy should end up in a
group with its original, and no group should hold two different beats. Takes about 3 minutes on
one core, most of them for rendering the beats.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import soundfile
import soxr

from musicgen_lora.beats.beats808 import Beat, make_beat, render_beat
from musicgen_lora.listening.duplicates import (
    N_BANDS,
    SUMMARY_THRESHOLD,
    THRESHOLD,
    _summaries,
    audio_fingerprint,
    duplicate_groups,
    similarity,
)

RATE = 44_100
DURATION_S = 10.0
Audio = tuple[np.ndarray, int]


def mp3(waveform: np.ndarray, rate: int, kbps: int = 128) -> Audio:
    """Encoded to constant-rate MP3. libsndfile maps compression levels 0-1 to 320-32 kbit/s."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        waveform.T,
        rate,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=(320 - kbps) / 288,
    )
    buffer.seek(0)
    samples, rate = soundfile.read(buffer, dtype="float32", always_2d=True)
    return samples.T, rate


def resampled(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Resampled from `RATE` to `rate`."""
    return soxr.resample(waveform.T, RATE, rate).T


def delayed(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 200 ms of silence in front, never a whole number of frames."""
    return np.pad(waveform, ((0, 0), (int(rng.uniform(0.0, 0.2) * RATE), 0)))


def trimmed(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 200 ms cut off in front."""
    return waveform[:, int(rng.uniform(0.0, 0.2) * RATE) :]


def everything(waveform: np.ndarray, rng: np.random.Generator) -> Audio:
    """Trimmed, turned down, resampled and encoded to MP3."""
    return mp3(resampled(0.3 * trimmed(waveform, rng), 32_000), 32_000)


COPIES: dict[str, Callable[[np.ndarray, np.random.Generator], Audio]] = {
    "gain -20 dB": lambda w, rng: (0.1 * w, RATE),
    "MP3 128 kbit/s": lambda w, rng: mp3(w, RATE),
    "MP3 64 kbit/s": lambda w, rng: mp3(w, RATE, 64),
    "22.05 kHz": lambda w, rng: (resampled(w, 22_050), 22_050),
    "48 kHz": lambda w, rng: (resampled(w, 48_000), 48_000),
    "0-200 ms later": lambda w, rng: (delayed(w, rng), RATE),
    "0-200 ms cut": lambda w, rng: (trimmed(w, rng), RATE),
    "all at once": everything,
    "the loop twice": lambda w, rng: (np.tile(w, 2), RATE),
    "twice, MP3": lambda w, rng: mp3(np.tile(w, 2), RATE),
}


def pool(n_beats: int, n_copied: int) -> tuple[list[Beat], dict[tuple[int, str], tuple]]:
    """The beats, and `(fingerprint, duration in s)` by beat and kind of copy ("" the original)."""
    beats = [make_beat((2024, index), duration_s=DURATION_S) for index in range(n_beats)]
    prints = {}
    seconds, heard_s = 0.0, 0.0
    for index, beat in enumerate(beats):
        rng = np.random.default_rng(index)
        waveform = render_beat(beat, RATE, seed=index)
        versions = {"": (waveform, RATE)}
        if index < n_copied:
            versions |= {kind: copy(waveform, rng) for kind, copy in COPIES.items()}
        for kind, (samples, rate) in versions.items():
            duration_s = samples.shape[1] / rate
            start = time.process_time()
            prints[index, kind] = audio_fingerprint(samples, rate), duration_s
            seconds, heard_s = seconds + time.process_time() - start, heard_s + duration_s
    print(f"fingerprints: {heard_s / seconds:.0f} s of audio in a second of one core")
    return beats, prints


def hard_pairs(beats: list[Beat], n_pairs: int) -> list[tuple[int, int]]:
    """Pairs of beats of one style and tempo, nearest in tempo first."""
    by_style = defaultdict(list)
    for index, beat in enumerate(beats):
        by_style[beat.style].append(index)
    pairs = [
        (abs(beats[a].bpm - beats[b].bpm), a, b)
        for members in by_style.values()
        for place, a in enumerate(members)
        for b in members[place + 1 :]
    ]
    return [(a, b) for _, a, b in sorted(pairs)[:n_pairs]]


def rolled(prints: np.ndarray, bands: int) -> np.ndarray:
    """A fingerprint of the same statistics with its bands rotated: another clip."""
    n_bits = np.uint64(N_BANDS - 1)
    mask = (np.uint64(1) << n_bits) - np.uint64(1)
    up, down = np.uint64(bands), n_bits - np.uint64(bands)
    halves = [(prints >> np.uint64(shift)) & mask for shift in (0, 32)]
    gains, losses = (((half << up) | (half >> down)) & mask for half in halves)
    return gains | (losses << np.uint64(32))


def report_copies(prints: dict[tuple[int, str], tuple]) -> None:
    """Prints the similarity of the copies, and the share that a search of the whole pool finds."""
    ids = list(prints)
    fingerprints, durations = zip(*prints.values(), strict=True)
    groups = duplicate_groups(ids, fingerprints, durations)
    group_of = {clip: number for number, group in enumerate(groups) for clip in group}
    n_false = sum(len({beat for beat, _ in group}) > 1 for group in groups)
    print(f"\n{'copy':<16}{'found':>12}{'least':>8}{'median':>8}")
    for kind in COPIES:
        copied = [beat for beat, other in ids if other == kind]
        alike = [similarity(prints[b, ""][0], prints[b, kind][0]) for b in copied]
        found = sum(
            (b, kind) in group_of and group_of[b, kind] == group_of.get((b, "")) for b in copied
        )
        share = f"{found}/{len(copied)}"
        print(f"{kind:<16}{share:>12}{min(alike):>8.3f}{np.median(alike):>8.3f}")
    print(f"groups with two different beats: {n_false} of {len(groups)} ({len(ids)} clips)")


def report_others(beats: list[Beat], prints: dict[tuple[int, str], tuple], n_pairs: int) -> None:
    """Prints the similarity of different beats: random ones, and of one style and similar tempo."""
    rng = np.random.default_rng(0)
    drawn = [tuple(rng.choice(len(beats), 2, replace=False).tolist()) for _ in range(n_pairs)]
    print(f"\n{'different beats':<32}{'pairs':>8}{'false':>8}{'99 %':>8}{'most':>8}")
    for name, pairs in (
        ("at random", drawn),
        ("same style, nearest tempi", hard_pairs(beats, n_pairs)),
    ):
        alike = np.asarray([similarity(prints[a, ""][0], prints[b, ""][0]) for a, b in pairs])
        false = int((alike >= THRESHOLD).sum())
        tail = f"{np.quantile(alike, 0.99):>8.3f}{alike.max():>8.3f}"
        print(f"{name:<32}{len(pairs):>8}{false:>8}{tail}")


def report_cost(originals: list[tuple]) -> None:
    """Prints the seconds of the search alone among 100, 1,000 and 10,000 clips."""
    print(f"\n{'clips':>8}{'seconds':>10}{'pairs compared in full':>26}{'fingerprints, MB':>20}")
    for n_clips in (100, 1_000, 10_000):
        clips = [
            (rolled(prints, turn) if turn else prints, duration_s)
            for turn in range(n_clips // len(originals) + 1)
            for prints, duration_s in originals
        ][:n_clips]
        prints, durations = zip(*clips, strict=True)
        start = time.perf_counter()
        duplicate_groups(range(n_clips), prints, durations)
        seconds = time.perf_counter() - start
        vectors, _ = _summaries(prints, durations)
        near = sum(
            int((vectors[row : row + 500] @ vectors.T >= SUMMARY_THRESHOLD).sum())
            for row in range(0, len(vectors), 500)
        )
        n_near = (near - len(vectors)) // 2
        size_mb = sum(row.nbytes for row in prints) / 1e6
        print(f"{n_clips:>8}{seconds:>10.2f}{n_near:>26,}{size_mb:>20.1f}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak_mb:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--beats", type=int, default=1000, help="different beats")
    parser.add_argument("--copied", type=int, default=100, help="beats of which copies are made")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of different beats")
    settings = parser.parse_args()
    beats, prints = pool(settings.beats, settings.copied)
    report_copies(prints)
    report_others(beats, prints, settings.pairs)
    report_cost([prints[index, ""] for index in range(len(beats))])


if __name__ == "__main__":
    main()
