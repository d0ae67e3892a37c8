"""Whether loops get the tempo of their length, and nothing else does.

    python benchmarks/listening/loop_tempo.py                  # 808 beats, three minutes
    python benchmarks/listening/loop_tempo.py --folder my_loops  # and what each file gets

Loops are 1, 2, 4 or 8 bars cut from 808 beats that nothing was fitted on; excerpts are parts of the
same beats, of any length and of whole seconds; the rest are noises, scattered hits and drones
without a tempo. A tempo counts as said if a caption would state it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from musicgen_lora.audio.files import find_audio, read_audio
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.listening.rhythm.tempo import Tempo, estimate_tempo
from musicgen_lora.prepare.hearing.analyse import tempo_confidence
from musicgen_lora.prepare.words.captions import MIN_CONFIDENCE

RATE = 32_000
FIRST_SEED = 20_000
SHORTEST_S, LONGEST_S = 2.0, 16.0
WHOLE_SECONDS = (2, 3, 4, 5, 6, 8, 10, 12, 15)

Piece = tuple[str, np.ndarray, float | None]
"""The group, waveform `[1, N]` and tempo of a piece."""


def beat_pieces(seed: int) -> Iterator[Piece]:
    rng = np.random.default_rng([seed, 3])
    beat = make_beat(seed, duration_s=40.0)
    waveform = render_beat(beat, RATE, seed=seed)
    bar_s = 240.0 / beat.bpm
    n_bars = int(rng.choice([n for n in (1, 2, 4, 8) if SHORTEST_S <= n * bar_s <= LONGEST_S]))
    first_bar = int(rng.integers(0, max(1, int(waveform.shape[1] / RATE / bar_s) - n_bars)))
    start = round(first_bar * bar_s * RATE)
    yield "loops", waveform[:, start : start + round(n_bars * bar_s * RATE)], beat.bpm
    lengths = (float(rng.uniform(SHORTEST_S, LONGEST_S)), float(rng.choice(WHOLE_SECONDS)))
    for group, length_s in zip(("excerpts", "excerpts, whole s"), lengths, strict=True):
        n_samples = round(length_s * RATE)
        start = int(rng.integers(0, waveform.shape[1] - n_samples))
        yield group, waveform[:, start : start + n_samples], beat.bpm


def tempoless_piece(seed: int) -> Piece:
    rng = np.random.default_rng([seed, 4])
    n_samples = round(float(rng.uniform(SHORTEST_S, LONGEST_S)) * RATE)
    time_s = np.arange(n_samples) / RATE
    if seed % 3 == 0:
        decay = np.exp(-time_s / float(rng.uniform(0.3, 3.0)))
        return "noises", (0.1 * rng.standard_normal(n_samples) * decay)[None], None
    if seed % 3 == 1:
        tones = [np.sin(2.0 * np.pi * hz * time_s) for hz in rng.uniform(80.0, 800.0, 4)]
        swell = 1.0 + 0.5 * np.sin(2.0 * np.pi * float(rng.uniform(0.1, 0.6)) * time_s)
        return "drones", 0.1 * (np.sum(tones, axis=0) * swell)[None], None
    waveform = np.zeros(n_samples)
    for start in rng.integers(0, n_samples, int(rng.integers(3, 40))):
        hit = waveform[start : start + 6000]
        hit += 0.3 * rng.standard_normal(len(hit)) * np.exp(-np.arange(len(hit)) / (0.03 * RATE))
    return "scattered hits", waveform[None], None


def told(tempo: Tempo, duration_s: float) -> str:
    loop = f"loop of {tempo.loop_bars} bars" if tempo.loop_bars else "no loop"
    sure = tempo_confidence(tempo.confidence, tempo.loop_bars, duration_s)
    return f"{duration_s:7.3f} s  {tempo.bpm:7.2f} BPM  said at {sure:.2f}  {loop}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--beats", type=int, default=150)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    pieces = [p for seed in range(options.beats) for p in beat_pieces(FIRST_SEED + seed)]
    pieces += [tempoless_piece(seed) for seed in range(options.beats)]
    counts: dict[str, np.ndarray] = {}
    for group, waveform, bpm in pieces:
        duration_s = waveform.shape[1] / RATE
        tempo = estimate_tempo(waveform, RATE)
        sure = tempo_confidence(tempo.confidence, tempo.loop_bars, duration_s)
        ratio = tempo.bpm / bpm if bpm else float("nan")
        is_right = abs(ratio - 1.0) < 0.01
        is_octave = not is_right and min(abs(ratio - 0.5), abs(ratio - 2.0)) < 0.02
        is_said = sure >= MIN_CONFIDENCE
        row = [1, tempo.loop_bars is not None, is_said and is_right, is_said and is_octave]
        row.append(is_said and not is_right and not is_octave)
        counts[group] = counts.get(group, 0) + np.array(row, dtype=int)
    print(f"{'':20}{'n':>6}{'loops':>8}{'said right':>12}{'half, double':>14}{'wrong':>8}")
    for group, row in counts.items():
        print(f"{group:20}{row[0]:6}{row[1]:8}{row[2]:12}{row[3]:14}{row[4]:8}")
    for path in find_audio(options.folder) if options.folder else []:
        waveform = read_audio(path, RATE)
        print(f"{path.name:32}", told(estimate_tempo(waveform, RATE), waveform.shape[1] / RATE))


if __name__ == "__main__":
    main()
