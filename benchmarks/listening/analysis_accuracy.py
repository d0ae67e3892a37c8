"""Our and other libraries' tempos, keys and bar cuts against the truth, in one run.

    python benchmarks/listening/analysis_accuracy.py          # 150 clips, 30 tracks, some minutes
    python benchmarks/listening/analysis_accuracy.py --corpus pretraining/work/corpus
    python benchmarks/listening/analysis_accuracy.py --fit key --corpus pretraining/work/corpus

Clips are 808 beats, rendered from seeds that nothing was fitted on, and cut to start anywhere in
the first two bars. With `--corpus`, held-out clips of the pretraining corpus follow: 15 other
styles on kits that its training split lacks. `--fit` instead prints the weights of `audio.metre`
or the profiles of `audio.key`, from the tuning seeds and the corpus's training split. `--key_only`
reports only the key.

Other libraries are run if they are installed: librosa (ISC) and sonara (MIT).
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile as sf
from scipy.optimize import minimize

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.sequencer import NOTE_NAMES
from musicgen_lora.listening.pitch.bass import find_bass_notes
from musicgen_lora.listening.pitch.key import (
    MODES,
    estimate_key,
    key_features,
    pitch_evidence,
)
from musicgen_lora.listening.rhythm.bars import cut_on_bars
from musicgen_lora.listening.rhythm.metre import (
    WEIGHTS,
    find_hypotheses,
    find_tempi,
    onset_strengths,
)
from musicgen_lora.listening.rhythm.tempo import estimate_tempo
from musicgen_lora.prepare.words.captions import MIN_CONFIDENCE

RATE = 32_000
TUNING_SEEDS = range(1000, 1300)
REPORT_SEED = 5000
TUNING_SHARE = {"metre": 8, "key": 3}
"""One in this many clips of the corpus's training split is used."""
CORPUS_WEIGHT = {"metre": 0.4, "key": 0.2}
"""Weight of a clip in fitting relative to an 808 beat, which matters more."""
MAJOR_WEIGHT = 2.0
"""Weight of a clip in major relative to one in minor when fitting keys: four in five tuning clips
with a key are in minor. With less, a plain cadence in C major is heard as C minor."""
DRUMLESS = {"chords only", "lead only", "bass only", "no drums"}
TEMPO_TOLERANCE = 0.04
CUT_TOLERANCE_S = 0.03


@dataclass(frozen=True)
class Clip:
    """A clip and the truth about it: tempo, key, its group, and where its first bar line is."""

    waveform: np.ndarray
    bpm: float
    key: str | None
    group: str
    first_bar_s: float

    @property
    def duration_s(self) -> float:
        return self.waveform.shape[1] / RATE

    def bar_lines_s(self) -> np.ndarray:
        bar_s = 240.0 / self.bpm
        return np.arange(self.first_bar_s - bar_s, self.duration_s + bar_s, bar_s)


def beat_clip(seed: int, duration_s: float) -> Clip:
    beat = make_beat(seed, duration_s=duration_s + 8.0)
    waveform = render_beat(beat, RATE, seed=seed)
    bar_s = 240.0 / beat.bpm
    start = round(float(np.random.default_rng([seed, 1]).uniform(0.0, 2.0 * bar_s)) * RATE)
    waveform = waveform[:, start : start + round(duration_s * RATE)]
    group = "808, half time" if beat.half_time else "808, full time"
    return Clip(waveform, beat.bpm, beat.key, group, -start / RATE % bar_s)


def corpus_clips(folder: Path, split: str, every: int) -> Iterator[Clip]:
    rows = json.loads((folder / "metadata.json").read_text())
    rows = sorted((row for row in rows if row["split"] == split), key=lambda row: row["audio"])
    for index, row in enumerate(rows[::every]):
        samples, _ = sf.read(folder / row["audio"], dtype="float32")
        start = round(float(np.random.default_rng([index, 2]).uniform(0.0, 2.0)) * RATE)
        drums = "without drums" if DRUMLESS & set(row["tags"]) else "with drums"
        first_bar_s = -(row.get("start_s", 0.0) + start / RATE) % (240.0 / row["bpm"])
        waveform = samples[None, start:]
        yield Clip(waveform, row["bpm"], row.get("key"), f"corpus, {drums}", first_bar_s)


def optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: left out.")
        return None


TempoFunction = Callable[[np.ndarray], float]


def tempo_functions() -> dict[str, TempoFunction]:
    functions: dict[str, TempoFunction] = {
        "ours": lambda waveform: estimate_tempo(waveform, RATE).bpm,
    }
    sonara, librosa = optional("sonara"), optional("librosa")
    if sonara is not None:
        functions["sonara"] = lambda waveform: sonara.analyze_signal(
            np.ascontiguousarray(waveform[0]), sr=RATE, features=["bpm"]
        )["bpm"]
    if librosa is not None:
        functions["librosa"] = lambda waveform: float(
            np.atleast_1d(librosa.beat.beat_track(y=waveform[0], sr=RATE)[0])[0]
        )
    return functions


def report_tempo(clips: list[Clip]) -> None:
    groups = sorted({clip.group for clip in clips})
    print(f"\nTempo, {len(clips)} clips: within 4 % | or of half and double")
    print(f"{'':30}" + "".join(f"{group:>24}" for group in groups) + "     CPU s a clip")
    for name, function in tempo_functions().items():
        function(clips[0].waveform)
        started = time.process_time()
        found = np.array([function(clip.waveform) for clip in clips])
        seconds = (time.process_time() - started) / len(clips)
        cells = ""
        for group in groups:
            inside = [index for index, clip in enumerate(clips) if clip.group == group]
            true = np.array([clips[index].bpm for index in inside])
            close = [
                np.abs(found[inside] * factor / true - 1.0) <= TEMPO_TOLERANCE
                for factor in (1.0, 0.5, 2.0)
            ]
            figures = f"{close[0].mean():.1%} | {np.any(close, axis=0).mean():.1%}"
            cells += f"{figures + f' n={len(inside)}':>24}"
        print(f"{name:30}{cells}{seconds:17.3f}")


def report_key(clips: list[Clip]) -> None:
    # Drums alone: an 808 beat without a pitched sound has no key either.
    without = [estimate_key(clip.waveform, RATE) for clip in clips if clip.key is None]
    clips = [clip for clip in clips if clip.key is not None]
    sonara = optional("sonara")
    found = {"ours": [estimate_key(clip.waveform, RATE) for clip in clips]}
    names = {"ours": [key.name for key in found["ours"]]}
    if sonara is not None:
        names["sonara"] = [
            sonara.analyze_signal(
                np.ascontiguousarray(clip.waveform[0]), sr=RATE, features=["key"]
            )["key"]
            for clip in clips
        ]
    print(f"\nKey, {len(clips)} pitched clips: right, mode included")
    for name, keys in names.items():
        print(
            f"{name:30}" + _by_group(clips, [k == c.key for k, c in zip(keys, clips, strict=True)])
        )
    sure = [i for i, key in enumerate(found["ours"]) if key.confidence >= MIN_CONFIDENCE]
    right = [names["ours"][index] == clips[index].key for index in sure]
    name = f"ours, from {MIN_CONFIDENCE}, as captions say it"
    print(f"{name:30}" + _by_group([clips[index] for index in sure], right))
    keyless = [key.confidence >= MIN_CONFIDENCE for key in without]
    if keyless:
        print(f"of {len(keyless)} clips without a key, {sum(keyless)} would be given one")
    errors = Counter(
        _key_error(str(clip.key), name)
        for clip, name in zip(clips, names["ours"], strict=True)
        if clip.group.startswith("corpus")
    )
    if errors:
        print("errors, corpus: " + ", ".join(f"{what} {n}" for what, n in errors.most_common()))


def _key_error(true: str, found: str | None) -> str:
    """The relation of a wrong key to the right one."""
    if found is None:
        return "none found"
    tonic, mode = true.split()
    found_tonic, found_mode = found.split()
    step = (NOTE_NAMES.index(found_tonic) - NOTE_NAMES.index(tonic)) % 12
    if mode == found_mode:
        return {0: "right", 5: "fourth above", 7: "fifth above"}.get(step, "another of its mode")
    if step == 0:
        return "parallel"
    return "relative" if step == (9 if mode == "major" else 3) else "another of the other mode"


def _by_group(clips: list[Clip], right: list[bool]) -> str:
    cells = []
    for group in sorted({clip.group for clip in clips}):
        inside = [
            is_right for clip, is_right in zip(clips, right, strict=True) if clip.group == group
        ]
        cells.append(f"{group}: {np.mean(inside):.1%} n={len(inside)}")
    return "   ".join(cells)


def report_cuts(tracks: list[Clip]) -> None:
    """A track is right when each of its cuts is within 30 ms of a bar line."""
    right, late_s, n_cuts, n_on_bars, period_errors = [], [], 0, 0, []
    for track in tracks:
        tempo = estimate_tempo(track.waveform, RATE)
        cuts = cut_on_bars(tempo, track.duration_s)
        edges = np.unique(np.array(cuts.windows_s))
        distances = np.abs(edges[:, None] - track.bar_lines_s()).min(axis=1)
        late_s += distances.tolist()
        right.append(bool((distances <= CUT_TOLERANCE_S).all()))
        n_cuts += len(edges)
        n_on_bars += cuts.grid == "bars"
        if abs(tempo.bpm / track.bpm - 1.0) < TEMPO_TOLERANCE:
            period_errors.append(abs(tempo.bpm / track.bpm - 1.0))
    late = np.array(late_s)
    print(f"\nCuts on bar lines, {len(tracks)} tracks of 60 to 120 s, {n_cuts} cuts")
    print(f"tracks with every cut within 30 ms    {np.mean(right):.1%}")
    print(f"cuts within 30 ms                     {(late <= CUT_TOLERANCE_S).mean():.1%}")
    print(f"median distance                       {1000.0 * np.median(late):.1f} ms")
    print(f"tracks sure enough to cut on bars     {n_on_bars}")
    print(f"error of the tempo, median            {np.median(period_errors):.1e}")
    sonara = optional("sonara")
    if sonara is None:
        return
    shares = []
    for track in tracks:
        facts = sonara.analyze_signal(
            np.ascontiguousarray(track.waveform[0]), sr=RATE, features=["bpm", "beatgrid"]
        )
        lines_s = np.asarray(facts["downbeats"]) * facts["provenance"]["hop_length"] / RATE
        distances = np.abs(lines_s[:, None] - track.bar_lines_s()).min(axis=1)
        shares.append(float((distances <= CUT_TOLERANCE_S).mean()))
    print(f"sonara's bar lines within 30 ms       {np.mean(shares):.1%}")


def tuning_clips(corpus: Path | None, share: int) -> Iterator[Clip]:
    for seed in TUNING_SEEDS:
        yield beat_clip(seed, (12.0, 20.0, 30.0, 60.0)[seed % 4])
    if corpus is not None:
        yield from corpus_clips(corpus, "train", share)


def fit(corpus: Path | None, what: str) -> None:
    """Prints the parameters of `audio.metre` or `audio.key`: both are softmax regressions, for the
    right one among a clip's hypotheses, and for the right key among 24."""
    rows = []
    for clip in tuning_clips(corpus, TUNING_SHARE[what]):
        weight = 1.0 if clip.group.startswith("808") else CORPUS_WEIGHT[what]
        if what == "key" and clip.key is not None and clip.key.endswith("major"):
            weight *= MAJOR_WEIGHT
        found = _metre_choices(clip) if what == "metre" else _key_choices(clip)
        if found is not None:
            rows.append((*found, weight))
    if what == "metre":
        print(f"metre.WEIGHTS, {len(rows)} clips:")
        for name, value in zip(WEIGHTS, _softmax_regression(rows, 2e-3, scaled=True), strict=True):
            print(f'    "{name}": {value:.2f},')
        return
    values = _softmax_regression(rows, 3e-5)
    np.set_printoptions(precision=2, suppress=True, linewidth=100)
    print(f"key.PROFILES and MINOR_ODDS, {len(rows)} clips:")
    print(np.array2string(values[:144].reshape(2, 6, 12), separator=", "), values[144].round(2))


def _metre_choices(clip: Clip) -> tuple[np.ndarray, np.ndarray] | None:
    """Features of the hypotheses `[H, D]`, and which are right; None if none is."""
    strengths = onset_strengths(clip.waveform, RATE)
    bars = find_hypotheses(strengths, *find_tempi(strengths))
    if bars is None or clip.group.endswith("without drums"):
        return None
    bar_s = 240.0 / clip.bpm
    late_s = (bars.first_bar_s - clip.first_bar_s + 0.5 * bar_s) % bar_s - 0.5 * bar_s
    is_right = (np.abs(bars.bpm / clip.bpm - 1.0) <= TEMPO_TOLERANCE) & (
        np.abs(late_s) < CUT_TOLERANCE_S
    )
    return (bars.features, is_right) if is_right.any() else None


def _key_choices(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Features of the 24 keys `[24, 145]`, and which is right: all if there is none."""
    notes = find_bass_notes(clip.waveform, RATE)
    seen = key_features(pitch_evidence(clip.waveform, RATE, notes))[:, :-1]
    width = seen.shape[1]
    features, names = np.zeros((24, 2 * width + 1)), []
    for mode, mode_name in enumerate(MODES):
        rows = features[12 * mode : 12 * mode + 12]
        rows[:, width * mode : width * (mode + 1)] = seen
        rows[:, -1] = mode
        names += [f"{tonic_name} {mode_name}" for tonic_name in NOTE_NAMES]
    if clip.key is None:
        return features, np.ones(24, dtype=bool)
    return features, np.array([name == clip.key for name in names])


def _softmax_regression(
    rows: list[tuple[np.ndarray, np.ndarray, float]], ridge: float, *, scaled: bool = False
) -> np.ndarray:
    """Weights that give the right choices of each row `[H, D]` most of the probability or, if all
    are right, an equal share each."""
    features = np.concatenate([row[0] for row in rows])
    scale = features.std(axis=0) if scaled else np.ones(features.shape[1])
    features = features / scale
    is_right = np.concatenate([row[1] for row in rows])
    sizes = [len(row[1]) for row in rows]
    starts, owner = np.cumsum([0, *sizes[:-1]]), np.repeat(np.arange(len(rows)), sizes)
    weights = np.array([row[2] for row in rows])
    weights /= weights.sum()
    is_open = np.array([bool(row[1].all()) for row in rows])

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        odds = features @ values
        odds -= np.maximum.reduceat(odds, starts)[owner]
        exps = np.exp(odds)
        total = np.add.reduceat(exps, starts)
        right = np.add.reduceat(exps * is_right, starts) + 1e-30
        wanted = np.where(
            is_open[owner], 1.0 / np.take(sizes, owner), exps * is_right / right[owner]
        )
        slope = (exps / total[owner] - wanted) * weights[owner]
        equal = np.add.reduceat(odds, starts) / sizes
        mean = float(weights @ (np.log(total) - np.where(is_open, equal, np.log(right))))
        return mean + 0.5 * ridge * float(values @ values), features.T @ slope + ridge * values

    return minimize(loss, np.zeros(len(scale)), jac=True, method="L-BFGS-B").x / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--tracks", type=int, default=30)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--fit", choices=["metre", "key"])
    parser.add_argument("--key_only", action="store_true", help="leave tempo and cuts out")
    options = parser.parse_args()
    if options.fit:
        fit(options.corpus, options.fit)
        return
    seeds = range(REPORT_SEED, REPORT_SEED + options.clips)
    clips = [beat_clip(seed, (15.0, 30.0)[seed % 2]) for seed in seeds]
    if options.corpus is not None:
        clips += corpus_clips(options.corpus, "validation", 1)
    if clips:
        if not options.key_only:
            report_tempo(clips)
        report_key(clips)
    if options.key_only:
        return
    seeds = range(REPORT_SEED + 10_000, REPORT_SEED + 10_000 + options.tracks)
    report_cuts([beat_clip(seed, 60.0 + seed % 61) for seed in seeds])


if __name__ == "__main__":
    main()
