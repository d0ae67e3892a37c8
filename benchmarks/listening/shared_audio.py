"""How reliably a beat is found in a mix that plays it, and what the search costs.

    python benchmarks/listening/shared_audio.py

Composes beats for the 808 kit and compares each pair of them, which share nothing; then each with
mixes that play it between two others: whole, in part, as MP3, quieter than its neighbours, and one
bar of it as a loop. Takes about two minutes on one core.
"""

from __future__ import annotations

import argparse
import io
import time

import numpy as np
import soundfile

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.listening.duplicates import audio_fingerprint
from musicgen_lora.listening.overlaps import find_overlaps

RATE = 32_000
FIRST_SEED = 5
GAINS_DB = (-6.0, -9.0, -12.0)


def through_mp3(waveform: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.T, RATE, format="MP3")
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32", always_2d=True)[0].T


def is_found(one: np.ndarray, other: np.ndarray) -> bool:
    prints = [audio_fingerprint(waveform, RATE) for waveform in (one, other)]
    return bool(find_overlaps(prints, [w.shape[1] / RATE for w in (one, other)], [0, 1]))


def mixes(beats: list[np.ndarray], bars: list[int], index: int) -> dict[str, bool]:
    """Whether a beat is found in each mix that plays it."""
    rng = np.random.default_rng(index)
    beat, before, after = (beats[(index + step) % len(beats)] for step in range(3))

    def mixed(middle: np.ndarray) -> np.ndarray:
        return np.concatenate([before, middle, after], axis=1)

    start = int(rng.integers(0, beat.shape[1] - 8 * RATE))
    loop = beat[:, bars[index] : 2 * bars[index]]
    return {
        "whole": is_found(beat, 0.6 * mixed(beat)),
        "8 s of it": is_found(beat, 0.6 * mixed(beat[:, start : start + 8 * RATE])),
        "6 s of it": is_found(beat, 0.6 * mixed(beat[:, start : start + 6 * RATE])),
        "MP3": is_found(beat, through_mp3(0.5 * mixed(beat))),
        **{f"{g:g} dB": is_found(beat, mixed(10.0 ** (g / 20.0) * beat)) for g in GAINS_DB},
        "a bar of it as a loop": is_found(loop, mixed(np.tile(loop, 4))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--beats", type=int, default=40)
    n_beats = parser.parse_args().beats
    composed = [make_beat((FIRST_SEED, seed), duration_s=16.0) for seed in range(n_beats)]
    beats = [render_beat(beat, RATE, seed=seed) for seed, beat in enumerate(composed)]
    bars = [round(240.0 / beat.bpm * RATE) for beat in composed]
    lengths_s = [beat.shape[1] / RATE for beat in beats]
    prints = [audio_fingerprint(beat, RATE) for beat in beats]
    began = time.process_time()
    n_false = len(find_overlaps(prints, lengths_s, range(n_beats)))
    seconds = time.process_time() - began
    n_pairs = n_beats * (n_beats - 1) // 2
    print(f"{n_false} of {n_pairs} pairs of different beats joined, {seconds:.2f} s of CPU")
    found = [mixes(beats, bars, index) for index in range(n_beats)]
    for name in found[0]:
        print(f"{name:24} {sum(each[name] for each in found):3} of {n_beats} found")


if __name__ == "__main__":
    main()
