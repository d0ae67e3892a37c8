"""Whether the evaluation tells the truth: tested on known scores, and on bad adapters.

    python benchmarks/evaluation_figures.py hearing                    # descriptors against scores
    python benchmarks/evaluation_figures.py words                      # words against scores
    python benchmarks/evaluation_figures.py null --lora_model_path A   # A against A, other seeds
    python benchmarks/evaluation_figures.py power --report FOLDER      # resampled sources
    python benchmarks/evaluation_figures.py planted --lora_model_path A --work_dir FOLDER

`hearing` plays beats with known scores, and `words` also plays them without their hi-hats and
without their 808: how often does a word's measure find it where it applies, and where it doesn't?
`null` makes a pool of clips with one adapter, and draws evaluations of eight prompts from it whose
two sides differ only in their seeds: "better" or "worse" is then false. `power` resamples the
sources of a real evaluation. `planted` trains three bad adapters on the data of a good one, at
fifty times its rate, on shuffled captions, and on four clips until it knows them by heart, and
evaluates each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicgen_lora.beats.beats808 import Beat, make_beat, render_beat
from musicgen_lora.beats.sequencer import Hit, step_time_s
from musicgen_lora.cli import main as run
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.protocol import descriptor_distances, judge_primaries
from musicgen_lora.evaluation.generations import play_prompts
from musicgen_lora.evaluation.held_out import HeldOut, find_held_out
from musicgen_lora.evaluation.losses.held_out_loss import summarise_losses
from musicgen_lora.evaluation.measures.embeddings import LOG_MEL
from musicgen_lora.evaluation.performers import Performer
from musicgen_lora.evaluation.play_tasks import ClipKind
from musicgen_lora.evaluation.sound.asked_words import WORDS, Middle
from musicgen_lora.evaluation.sound.ear import Ear, Heard
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.evaluation.sound.set_distances import compare_sets
from musicgen_lora.evaluation.store import Store
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.listening.descriptors import describe
from musicgen_lora.listening.drums import find_drum_hits
from musicgen_lora.listening.pitch.bass import find_bass_notes
from musicgen_lora.listening.pitch.key import estimate_key
from musicgen_lora.listening.rhythm.onsets import rolled_share
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.lora.adapter import load_adapter, read_adapter

RATE = 32_000
FIRST_SEED = 60_000
"""Seed of the first beat that nothing was tuned on."""
WITHIN_S = 0.03
TRACKS = {
    "kick": ("kick", "kick_long"),
    "hat": ("closed_hat", "open_hat", "ride"),
}
N_PROMPTS = 8
NO_LOSS = {"computed": False, "why": "the same weights have the same loss"}


def hit_times(beat: Beat, drum: str) -> np.ndarray:
    """The times at which a drum is struck, with simultaneous strokes counted once."""
    hits = [hit for track in TRACKS[drum] for hit in beat.pattern.tracks.get(track, ())]
    times = {round(step_time_s(hit.step, beat.bpm, beat.swing), 3) for hit in hits}
    return np.array(sorted(times))


def true_glides(beat: Beat) -> list[tuple[float, float, bool]]:
    """The start of each bass note, the semitones that it glides until it is cut, and whether a kick
    falls inside it and splits it in two."""
    hits: Sequence[Hit] = sorted(beat.pattern.tracks.get("sub", ()), key=lambda hit: hit.step)
    kicks = [hit.step for track in TRACKS["kick"] for hit in beat.pattern.tracks.get(track, ())]
    found = []
    for hit, following in zip(hits, [*hits, Hit(1e9)][1:], strict=True):
        held = hit.length or 2.0 * beat.bass_decay_s * beat.bpm / 15.0
        sounds = min(held, following.step - hit.step)
        part = float(np.clip((sounds / held - 0.45) / 0.4, 0.0, 1.0))
        part = part * part * (3.0 - 2.0 * part)
        glide = 0.0 if hit.glide_to is None else part * (hit.glide_to - (hit.pitch or 0.0))
        parted = any(hit.step + 0.1 < kick < hit.step + sounds - 0.1 for kick in kicks)
        found.append((step_time_s(hit.step, beat.bpm, beat.swing), glide, parted))
    return found


def matched(true_s: np.ndarray, found_s: np.ndarray) -> int:
    """The number of strokes that were found, each counted once."""
    left, count = sorted(found_s.tolist()), 0
    for time_s in true_s.tolist():
        near = [other for other in left if abs(other - time_s) < WITHIN_S]
        if near:
            left.remove(min(near, key=lambda other: abs(other - time_s)))
            count += 1
    return count


def hear_beats(n_clips: int) -> None:
    """Compares the descriptors of composed beats of 10 s with their scores."""
    counts: Counter[str] = Counter()
    errors: dict[str, list[float]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + n_clips):
        beat = make_beat(seed, duration_s=10.0)
        wave = render_beat(beat, RATE, seed=seed)
        facts = describe(wave, RATE)
        hits = find_drum_hits(wave, RATE)
        for drum in TRACKS:
            true_s = hit_times(beat, drum)
            found_s = np.array([hit.start_s for hit in hits if hit.drum == drum])
            counts[f"{drum} right"] += matched(true_s, found_s)
            counts[f"{drum} both"] += len(true_s) + len(found_s)
        rolls = 100.0 * (facts["roll_density"] - rolled_share(hit_times(beat, "hat")))
        errors.setdefault("roll share, points", []).append(rolls)
        errors.setdefault("swing, %", []).append(100.0 * (facts["swing"] / beat.swing - 1.0))
        errors.setdefault("tempo, %", []).append(100.0 * (facts["tempo_bpm"] / beat.bpm - 1.0))
        if beat.key is not None:
            counts["key right"] += estimate_key(wave, RATE).name == beat.key
            counts["key n"] += 1
        notes = find_bass_notes(wave, RATE)
        for start_s, glide, parted in true_glides(beat):
            own = [note for note in notes if abs(note.start_s - start_s) < 0.05]
            if abs(glide) >= 0.7 and own:
                kind = "glide, semitones, with a kick inside" if parted else "glide, semitones"
                errors.setdefault(kind, []).append(own[0].glide - glide)
    for drum in TRACKS:
        print(f"{drum}: F1 {2.0 * counts[f'{drum} right'] / counts[f'{drum} both']:.3f}")
    print(f"key: {counts['key right']} of {counts['key n']}")
    within = {"roll share, points": 10.0, "swing, %": 5.0, "tempo, %": 4.0}
    for name, found in errors.items():
        known = np.abs([error for error in found if np.isfinite(error)])
        aim = within.get(name, 0.5)
        print(
            f"{name}: median error {np.median(known):.2f}, within {aim:g}: "
            f"{(known <= aim).mean():.1%} (n = {len(known)}, {len(found) - len(known)} unknown)"
        )


def without(beat: Beat, tracks: Sequence[str]) -> Beat:
    """The same beat without some of its tracks; a kick that was cut for the bass then rings out."""
    kept = {track: hits for track, hits in beat.pattern.tracks.items() if track not in tracks}
    if "sub" in tracks and "kick" in kept:
        kept["kick_long"] = kept.pop("kick")
    pattern = dataclasses.replace(beat.pattern, tracks=kept)
    tags = tuple(tag for tag in beat.tags if "bass" not in tag or "sub" not in tracks)
    return dataclasses.replace(beat, pattern=pattern, tags=tags)


def true_words(beat: Beat) -> dict[str, bool]:
    """Which words of `asked_words` are true of a beat, by its score."""
    tracks, tags = beat.pattern.tracks, beat.tags
    return {
        "no_hats": not any(track in tracks for track in TRACKS["hat"]),
        "no_bass": "sub" not in tracks,
        "bass_808": "sub" in tracks,
        "gliding_bass": "gliding bass" in tags,
        "rolling_hats": "rolling hi-hats" in tags,
        "swing": beat.swing >= 0.54,
        "busy": "busy" in tags,
        "sparse": "sparse" in tags,
    }


def hear_words(n_clips: int) -> None:
    """Tests words that have a measure, on beats with and without what they say."""
    beats = [make_beat(seed, duration_s=10.0) for seed in range(FIRST_SEED, FIRST_SEED + n_clips)]
    facts = [describe(render_beat(beat, RATE), RATE) for beat in beats]
    middle = Middle(
        onset_rate_hz=float(np.median([own["onset_rate_hz"] for own in facts])),
        bpm=float(np.median([beat.bpm for beat in beats])),
        is_stereo=False,
    )
    heard = [(own, true_words(beat)) for beat, own in zip(beats, facts, strict=True)]
    for beat in beats:
        for tracks, names in ((TRACKS["hat"], ["no_hats"]), (("sub",), ["no_bass", "bass_808"])):
            if any(track in beat.pattern.tracks for track in tracks):
                less = without(beat, tracks)
                truth = true_words(less)
                own = describe(render_beat(less, RATE), RATE)
                heard.append((own, {name: truth[name] for name in names}))
    for word in WORDS:
        found: dict[bool, list[bool]] = {True: [], False: []}
        for own, truth in heard:
            if word.name in truth:
                found[truth[word.name]].append(bool(word.holds(own, middle)))
        if found[True]:
            told = ", ".join(
                f"{sum(hits)} of {len(hits)} {where}"
                for where, hits in (("where it is so", found[True]), ("elsewhere", found[False]))
            )
            print(f"{word.label}: {told}")


@dataclasses.dataclass
class Pool:
    """The clips of one adapter, by prompt and seed, and held-out ones."""

    clips: list[list[Heard]]
    held_out: References


def make_pool(adapter: Path, n_prompts: int, n_seeds: int, duration_s: float) -> Pool:
    """Plays held-out captions by several seeds each."""
    files = read_adapter(adapter)
    held_out = find_held_out(files.facts, None, "metadata.json", own_run=True)
    model = BaseModel.load("tiny-beats")
    codes = codes_of(held_out, model)
    load_adapter(model, files)
    enable(model.hf, "fp32")
    performer = Performer(model, Store(None), files.fingerprint, nullcontext)
    ear = Ear(model)
    # The verdicts go by it; the others cost most of the time.
    ear.embeddings = (LOG_MEL,)  # pyright: ignore[reportAttributeAccessIssue]

    def hear(own: np.ndarray) -> Heard:
        return ear.hear(model.decode(torch.from_numpy(own.astype(np.int64))[None])[0], own)

    n_frames = model.shape.frames(duration_s)
    references = [hear(np.asarray(own[:n_frames]).T) for own in codes]
    prompts = [clip.texts[0] for clip in held_out.clips][:n_prompts]
    made: list[list[Heard]] = [[] for _ in prompts]
    for seed in range(n_seeds):
        played = play_prompts(
            performer,
            prompts,
            ClipKind(performer.model.shape.frames(duration_s), Sampling()),
            seed=1000 * (seed + 1),
            batch_size=16,
            on_step=lambda done, of: None,
        )
        for row, own in zip(made, played, strict=True):
            row.append(hear(own))
        print(f"{len(prompts)} prompts played by seed {seed + 1} of {n_seeds}", flush=True)
    return Pool(made, References(heard=references, clips=list(held_out.clips)))


def codes_of(held_out: HeldOut, model: BaseModel) -> Any:
    """Codes `[T, K]` of the held-out clips."""
    assert held_out.data_dir is not None, held_out.why_none
    ids = clip_ids(held_out.clips, held_out.data_dir)
    return tokenise_clips(held_out.clips, ids, model, held_out.data_dir, lambda done, of: None)


def judge_null(pool: Pool, n_trials: int) -> None:
    """Evaluates an adapter against itself with other seeds."""
    verdicts: Counter[str] = Counter()
    for trial in range(n_trials):
        rng = np.random.default_rng(trial)
        chosen = rng.permutation(len(pool.clips))[:N_PROMPTS]
        pairs = [rng.permutation(len(pool.clips[row]))[:2] for row in chosen]
        clips = Compared(
            *(
                [pool.clips[row][pair[side]] for row, pair in zip(chosen, pairs, strict=True)]
                for side in (0, 1)
            )
        )
        report = {
            "loss": NO_LOSS,
            "distances": compare_sets((LOG_MEL,), clips, pool.held_out, why_none="", seed=trial),
            "descriptor_distance": descriptor_distances(
                clips.each(lambda heard: [one.descriptors for one in heard]),
                pool.held_out.describe()["descriptors"],
                why_none="",
                seed=trial,
            ),
        }
        found = {primary["verdict"] for primary in judge_primaries(report, compared=True)}
        verdicts["better"] += "better" in found
        verdicts["better or worse"] += bool(found & {"better", "worse"})
    for name, count in verdicts.items():
        print(f"any primary {name}: {count} of {n_trials}")


def judge_power(report: dict[str, Any], n_trials: int) -> None:
    """Verdicts on the loss, its sources drawn with replacement."""
    sources = report["loss"]["sources"]
    others = [primary["p_value"] for primary in report["primaries"][1:]]
    n_better = 0
    for trial in range(n_trials):
        rng = np.random.default_rng(trial)
        drawn = [sources[place] for place in rng.integers(len(sources), size=len(sources))]
        counts = np.array([[own["n_frames"]] * len(own["base"]) for own in drawn], np.float64)
        base, after = (
            np.array([own[side] for own in drawn]) * counts for side in ("base", "adapter")
        )
        # Drawn twice, it counts as two, as in any bootstrap.
        names = [f"{place:03d}" for place in range(len(drawn))]
        loss = summarise_losses(base, after, counts, names, seed=trial)
        again = {**report, "loss": loss}
        n_better += judge_primaries(again, compared=True)[0]["verdict"] == "better"
    print(f"loss better: {n_better} of {n_trials} (other p-values: {others})")


def plant(adapter: Path, folder: Path) -> None:
    """Trains three bad adapters on the data of a good one, and evaluates each."""
    facts: Any = read_adapter(adapter).facts
    data_dir = Path(facts.data_dir)
    rows = json.loads((data_dir / facts.metadata_file).read_text(encoding="utf-8"))
    held_out = {clip["audio"] for clip in facts.held_out}
    kept = [{**row, "split": "validation"} for row in rows if row["audio"] in held_out]
    train = [{**row, "split": "train"} for row in rows if row["audio"] not in held_out]
    texts = [row["text"] for row in train]
    random.Random(0).shuffle(texts)
    shuffled = [{**row, "text": text} for row, text in zip(train, texts, strict=True)]
    once = "--learning_rate {} --max_steps {} --num_epochs 1000 --validate_every {}"
    plans = {
        "rate": (train, once.format("0.1", 24, 24)),
        "shuffled": (shuffled, once.format("2e-3", 96, 96)),
        "memoriser": (train[:4], once.format("2e-3", 160, 160)),
    }
    for name, (own, how) in plans.items():
        (data_dir / f"{name}.json").write_text(json.dumps(own + kept), encoding="utf-8")
        if not (folder / name / "best_model").exists():
            command(
                f"train --data_dir {data_dir} --metadata_file {name}.json --output_dir "
                f"{folder / name} --batch_size 4 --gradient_accumulation_steps 1 --previews off "
                f"--lora_layers 2-3 --lora_rank 16 --lora_alpha 32 {how}"
            )
        command(
            f"evaluate --lora_model_path {folder / name}/best_model --output_dir "
            f"{folder / name}/evaluation --num_prompts 2 --duration 5 --data_dir {data_dir} "
            f"--metadata_file {name}.json"
        )
        report = json.loads((folder / name / "evaluation" / "report.json").read_text())
        primary = report["primaries"][0]
        found = report["memorisation"]["continuations"]
        print(f"{name}: loss {primary['verdict']} ({primary['difference']:+.3f} nats per token)")
        print(f"{name}: forgetting {report['forgetting']['mean']['relative']:+.1%}")
        excess, captions = report["overfitting"]["excess"], report["captions"]
        print(
            f"{name}: knows its clips more than their style: {excess['flagged']} "
            f"({excess['difference']:+.3f}, {excess['share']} of the gain)"
        )
        gains = {"held out": captions["held_out"]["adapter"], "trained": captions["trained"]}
        told = ", ".join(f"{where} {own['gain']:+.4f}" for where, own in gains.items() if own)
        print(f"{name}: captions beside the wrong clips: {captions['flagged']} (gains: {told})")
        print(f"{name}: repeats training clips: {found['flagged']} (excess {found['excess']:.3f})")


def command(line: str) -> None:
    """Runs a command of the package; exits if it fails."""
    print(f"$ musicgen-lora {line}", flush=True)
    if code := run(line.split()):
        raise SystemExit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=["hearing", "words", "null", "power", "planted"])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--lora_model_path", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--work_dir", type=Path, default=Path("planted"))
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the clips of `null`")
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "hearing": lambda: hear_beats(options.clips),
        "words": lambda: hear_words(options.clips),
        "null": lambda: judge_null(
            make_pool(options.lora_model_path, 16, 4, options.seconds), options.trials or 200
        ),
        "power": lambda: judge_power(
            json.loads((options.report / "report.json").read_text()), options.trials or 50
        ),
        "planted": lambda: plant(options.lora_model_path, options.work_dir),
    }
    parts[options.part]()


if __name__ == "__main__":
    main()
