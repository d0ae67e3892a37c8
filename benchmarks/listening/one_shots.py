"""How well single hits are distinguished from short loops.

    python benchmarks/listening/one_shots.py

Hits are the bundled recordings, with those that begin with more than one onset in a group of their
own, as they are and padded with silence; loops are one and two bars of 808 beats, full mixes and
single tracks, dry and in two rooms. Takes a minute and a half on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from musicgen_lora.audio.files import find_audio, read_audio
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.listening.one_shots import is_one_shot

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    ROOT / "src" / "musicgen_lora" / "assets" / "kit808",
    ROOT / "pretraining" / "assets" / "oneshots_cc0",
)
NO_SINGLE_HITS = frozenset(
    [
        "drum_roll",
        "perc_door",
        "perc_till",
        "perc_swoosh",
        "elec_wood",
        "vinyl_backspin",
        "vinyl_hiss",
        "vinyl_rewind",
        "vinyl_scratch",
    ]
)
HELD = frozenset(("bass_thick_c", "bass_trance_c", "bass_voxy_c", "bass_hard_c"))
"""Notes that are held to their end, without a decay."""
SHORTEST_S = 1.0
RATE = 32_000
N_BEATS = 60
ROOMS = {"dry": (0.0, 0.0), "room 1.5 s": (1.5, 0.5), "hall 2.5 s": (2.5, 1.0)}
"""Reverberation time and level."""


def hits() -> Iterator[tuple[str, np.ndarray]]:
    """The group and waveform `[C, N]` of each recording."""
    for path in (path for folder in FOLDERS for path in find_audio(folder)):
        waveform = read_audio(path, RATE)
        is_long = waveform.shape[1] >= SHORTEST_S * RATE
        group = "other sounds" if path.stem in NO_SINGLE_HITS else "hits"
        if path.stem in HELD:
            group = "held notes"
        if is_long:
            yield f"{group} of {SHORTEST_S:g} s and more", waveform
        elif group == "hits":
            room = round(1.5 * RATE) - waveform.shape[1]
            yield "shorter hits, lengthened to 1.5 s", np.pad(waveform, ((0, 0), (0, room)))


def loops() -> Iterator[tuple[str, np.ndarray]]:
    """The group and waveform `[1, N]` of each loop with at least two hits."""
    for seed in range(N_BEATS):
        beat = make_beat((8, seed), duration_s=8.0)
        for track in (None, *beat.pattern.tracks):
            tracks = beat.pattern.tracks
            tracks = tracks if track is None else {track: tracks[track]}
            played = replace(beat, pattern=replace(beat.pattern, tracks=tracks))
            waveform = render_beat(played, RATE, seed=seed)
            for n_bars in (1, 2):
                steps = {h.step for row in tracks.values() for h in row if h.step < 16 * n_bars - 1}
                if len(steps) < 2:
                    continue
                loop = waveform[:, : round(n_bars * 240.0 / beat.bpm * RATE)]
                for room, (seconds, level) in ROOMS.items():
                    yield (
                        f"{'beats' if track is None else 'stems'}, {room}",
                        in_room(loop, seconds, level),
                    )


def in_room(waveform: np.ndarray, seconds: float, level: float) -> np.ndarray:
    """`[1, N]` with a diffuse reverberation made of noise."""
    n_samples = round(seconds * RATE)
    if not n_samples:
        return waveform
    noise = np.random.default_rng(0).standard_normal(n_samples)
    noise *= 10.0 ** (-3.0 * np.arange(n_samples) / n_samples)
    noise *= level / np.sqrt(np.square(noise).sum())
    return waveform + fftconvolve(waveform[0], noise)[: waveform.shape[1]]


def main() -> None:
    counts: dict[str, list[int]] = {}
    for group, waveform in (*hits(), *loops()):
        count = counts.setdefault(group, [0, 0])
        count[0] += is_one_shot(waveform, RATE)
        count[1] += 1
    for group, (found, total) in counts.items():
        print(f"{group:34} {found:4} of {total:4} taken for one-shots")


if __name__ == "__main__":
    main()
