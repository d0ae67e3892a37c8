"""Whether loops are exact, in tempo and seamless, and whether MIDI is what was played.

    python benchmarks/loops.py --lora_model_path demo/output/best_model   # the base with an adapter
    python benchmarks/loops.py --played                                   # takes of a sequencer
    python benchmarks/loops.py --hearing                                  # drums of known scores

Twenty loops of 4 or 8 bars are requested, with the style, tempo and key of beats that no training
saw. With `--played`, the takes are such beats themselves, up to 3 % off the tempo and started
anywhere in a bar: losses are then the cutting's fault, not the model's.

The tempo is also measured independently: `listening.rhythm.tempo`, without any hint, hears seven
eighths of each loop, a length that doesn't reveal whole bars, and the loop as it is played, over
and over, cut after two and three eighths; twice and half the requested tempo count as right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from musicgen_lora.beats.beats808 import Beat, make_beat, render_beat
from musicgen_lora.beats.sequencer import step_time_s
from musicgen_lora.generation.clips.loop import LoopRequest
from musicgen_lora.generation.clips.takes import JudgedTake, judge_loop
from musicgen_lora.listening.drums import find_drum_hits
from musicgen_lora.listening.rhythm.asked_tempo import kept_tempo
from musicgen_lora.listening.rhythm.metre import onset_strengths
from musicgen_lora.listening.rhythm.tempo import estimate_tempo

RATE = 32_000
FIRST_SEED = 40_000
LONGEST_S = 30.0
WITHIN = 0.02
HEARING_SEEDS = range(300, 330)
HEARD_WITHIN_S = 0.03
TRACKS = {
    "kick": ("kick", "kick_long"),
    "snare": ("snare", "snare_tight", "clap"),
    "hat": ("closed_hat", "open_hat", "ride"),
}
GHOST = 0.35


def requests(count: int) -> list[tuple[Beat, int]]:
    """Beats to request, each with a number of bars."""
    return [(make_beat(FIRST_SEED + index), (4, 8)[index % 2]) for index in range(count)]


def fitting_bars(beat: Beat, n_bars: int) -> int:
    """The number of bars, halved if it doesn't fit into a clip."""
    return n_bars if n_bars * 240.0 / beat.bpm <= LONGEST_S else n_bars // 2


def played_loop(beat: Beat, n_bars: int, index: int) -> dict[str, Any]:
    """The figures of a loop cut from a beat that is off its tempo."""
    rng = np.random.default_rng([FIRST_SEED, index])
    speed = float(rng.uniform(0.97, 1.03))
    request = LoopRequest(float(beat.bpm), n_bars, RATE)
    long = make_beat(FIRST_SEED + index, duration_s=request.take_s(LONGEST_S) * 1.1 + 8.0)
    pattern = dataclasses.replace(long.pattern, bpm=beat.bpm * speed)
    waveform = render_beat(dataclasses.replace(long, pattern=pattern), RATE, seed=index)
    start = int(rng.integers(0, round(request.bar_s * RATE)))
    take = waveform[:, start : start + round(request.take_s(LONGEST_S) * RATE)]
    return figures(judge_loop(0, take, request), request, 1)


def figures(take: JudgedTake, request: LoopRequest, n_takes: int) -> dict[str, Any]:
    tempo, seam = take.figures["tempo"], take.figures["seam"]
    n_samples = request.n_samples
    cut = take.waveform[:, : 7 * n_samples // 8]
    repeated = np.tile(take.waveform, (1, 3))[:, : 19 * n_samples // 8]
    measured = tempo["measured_bpm"]
    kept = kept_tempo(onset_strengths(take.waveform, request.sample_rate), request.bpm)
    return {
        "exact": take.waveform.shape[1] == request.n_samples,
        "fits": not take.faults,
        "take": measured is not None and abs(measured / request.bpm - 1.0) <= WITHIN,
        "loop": kept.is_steady and abs(kept.bpm / request.bpm - 1.0) <= WITHIN,
        "heard": is_heard(cut, request),
        "repeated": is_heard(repeated, request),
        "drift_ms": tempo["drift_ms"],
        "step_db": seam["step_db"],
        "hits_db": seam["hits_db"],
        "takes": n_takes,
    }


def is_heard(waveform: np.ndarray, request: LoopRequest) -> bool:
    """Whether the requested tempo is heard, octaves aside."""
    heard = estimate_tempo(waveform, request.sample_rate).bpm
    octaves = np.abs(np.array([0.5, 1.0, 2.0]) * request.bpm / heard - 1.0)
    return bool(octaves.min() <= WITHIN)


def generated_loops(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of loops made by `generate`."""
    from musicgen_lora.config import GenerateSettings
    from musicgen_lora.generation.generate import generate_audio

    found = []
    for index, (beat, wanted) in enumerate(requests(arguments.count)):
        n_bars = fitting_bars(beat, wanted)
        with tempfile.TemporaryDirectory() as folder:
            settings = GenerateSettings(
                lora_model_path=arguments.lora_model_path,
                prompts=[f"{beat.style} hip hop 808 beat"],
                output_dir=Path(folder),
                bpm=float(beat.bpm),
                bars=n_bars,
                key=beat.key or "",
                loop_tries=arguments.loop_tries,
                batch_size=arguments.batch_size,
                seed=index,
                format="wav_float",
            )
            path = generate_audio(settings)[0]
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        request = LoopRequest(float(beat.bpm), n_bars, rate)
        best = facts["takes"][0]
        take = JudgedTake(best["seed"], samples.T, tuple(facts["faults"]), best["penalty"], best)
        found.append(figures(take, request, len(facts["takes"])))
        print(f"{beat.style}, {beat.bpm} bpm, {n_bars} bars: {found[-1]}", flush=True)
    return found


def tell(found: Sequence[dict[str, Any]]) -> None:
    """Prints the figures of all loops."""
    count = len(found)
    for name, said in (
        ("exact", "exact to the sample"),
        ("fits", "without a fault"),
        ("take", "whose take has a steady beat within 2 % of the tempo"),
        ("loop", "that have one themselves, by their onsets"),
        ("heard", "of which seven eighths are heard within 2 % of it, octaves aside"),
        ("repeated", "that are, played over and over"),
    ):
        print(f"{sum(row[name] for row in found):3d} of {count} {said}")
    louder = sum(row["hits_db"] > 0.0 for row in found)
    print(f"{louder:3d} of {count} with a seam louder than the beat's own hits")
    for name in ("drift_ms", "step_db", "hits_db", "takes"):
        values = [row[name] for row in found]
        print(f"{name:9s} median {np.median(values):7.1f}, worst {max(values):7.1f}")


def hearing() -> None:
    """Prints how well the drums of known scores are heard."""
    for drum, tracks in TRACKS.items():
        n_true = n_found = n_right = 0
        for seed in HEARING_SEEDS:
            beat = make_beat(seed, duration_s=8.0)
            pattern = beat.pattern
            hits = [hit for track in tracks for hit in pattern.tracks.get(track, ())]
            true_s = {
                round(step_time_s(hit.step, pattern.bpm, pattern.swing), 4)
                for hit in hits
                if hit.velocity > (GHOST if drum == "snare" else 0.0)
            }
            heard = find_drum_hits(render_beat(beat, RATE, seed=seed), RATE)
            left = [hit.start_s for hit in heard if hit.drum == drum]
            n_true, n_found = n_true + len(true_s), n_found + len(left)
            for time_s in sorted(true_s):
                nearest = min(left, key=lambda other: abs(other - time_s), default=None)
                if nearest is not None and abs(nearest - time_s) < HEARD_WITHIN_S:
                    left.remove(nearest)
                    n_right += 1
        score = 2.0 * n_right / (n_true + n_found)
        print(f"{drum:6s} {n_true:5d} strokes, {n_found:5d} heard, F1 {score:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lora_model_path", type=Path)
    parser.add_argument("--played", action="store_true")
    parser.add_argument("--hearing", action="store_true")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--loop_tries", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.hearing:
        hearing()
        return
    began = time.monotonic()
    if arguments.played:
        asked = requests(arguments.count)
        loops = [played_loop(b, fitting_bars(b, n), i) for i, (b, n) in enumerate(asked)]
    else:
        loops = generated_loops(arguments)
    tell(loops)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
