"""Measures the embedded base model: held-out loss, tempo, steadiness, words, speed.

    python -m pretraining.base.check                      # work/base_check/check_base.json

Held-out clips are played by kits and presets that training never heard. Generated clips are
measured like any audio; if a figure has a natural ceiling or a chance level, that is measured the
same way and reported with it.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicgen_lora.audio.files import read_audio, write_wav
from musicgen_lora.config import EMBEDDED_NAME, GenerateSettings
from musicgen_lora.dataset.bar_lines import stated_bar_lines
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import Clip, load_dataset
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import GREEDY, sampling_of
from musicgen_lora.listening.descriptors import describe
from musicgen_lora.listening.pitch.key import estimate_key
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.mixture import Mixture, read_part
from pretraining.base.beat_figures import bar_repetition, beat_figures, tempo_share, tempos
from pretraining.base.facts import clip_flags, stated_tempo
from pretraining.base.losses import loss_figures
from pretraining.base.probe import probe_figures
from pretraining.paths import WORK

DURATION_S, LONG_S = 10.0, 30.0
BATCH = 8
KEY_TONICS = ("C", "D", "E", "F", "G", "A", "A#", "C#")
CONTRASTS = {
    "hats": (
        ("house beat with hi-hats, 120 bpm", "house beat, no hats, 120 bpm"),
        ("rock beat with hi-hats, 110 bpm", "rock beat, no hats, 110 bpm"),
        ("techno with hi-hats, 130 bpm", "techno, without hi-hats, 130 bpm"),
        ("funk groove with hi-hats, 100 bpm", "funk groove, without hats, 100 bpm"),
    ),
    "bass": (
        ("house with synth bass, electronic drums, 124 bpm", "house, no bass, 124 bpm"),
        ("funk with slap bass and drums, 100 bpm", "funk, without bass, 100 bpm"),
        ("rock with picked bass and drums, 120 bpm", "rock, no bass, 120 bpm"),
        ("electro with synth bass, drum machine, 120 bpm", "electro, without bass, 120 bpm"),
    ),
    "drums": (
        ("house with electric piano, electronic drums, 124 bpm", "house, no drums, 124 bpm"),
        ("soul with electric piano, live drums, 80 bpm", "soul, without drums, 80 bpm"),
        ("rock with clean guitar, acoustic drums, 120 bpm", "rock, no drums, 120 bpm"),
        ("synthwave with warm pad, drum machine, 100 bpm", "synthwave, no drums, 100 bpm"),
    ),
    "energy": (
        ("energetic techno, 130 bpm", "sparse techno, 130 bpm"),
        ("busy funk groove with drums, 100 bpm", "minimal funk groove with drums, 100 bpm"),
        ("driving rock beat, 120 bpm", "stripped-down rock beat, 120 bpm"),
        ("lively drum and bass, 172 bpm", "laid-back drum and bass, 172 bpm"),
    ),
}
"""Prompts that differ in a word or two: the first should score higher in `MEASURES`."""
MEASURES = {
    "hats": ("hat_onset_rate_hz", "band_6000_14000_share"),
    "bass": ("band_60_120_share",),
    "drums": ("onset_rate_hz", "band_6000_14000_share"),
    "energy": ("onset_rate_hz",),
}
SEEDS_EACH = 4
PARTS = ("loss", "probe", "tempo", "tempo_808", "continuation", "words", "key", "speed")


def play(
    model: BaseModel,
    prompts: Sequence[str],
    seed: int,
    folder: Path | None = None,
    duration_s: float = DURATION_S,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Generates codes `[K, T]` and waveforms `[C, N]` for prompts with the base's advised sampling;
    writes them to `folder`, if given."""
    decoder, codes = Decoder(model), []
    for start in range(0, len(prompts), BATCH):
        some = list(prompts[start : start + BATCH])
        texts = model.text.batch(some)
        bars = [stated_bar_lines(text, model.shape.frame_rate) for text in some]
        played = generate_codes(
            decoder,
            Request(
                Conditions(texts, bars=bars),
                n_frames=model.shape.frames(duration_s),
                seeds=range(seed + start, seed + start + len(some)),
                sampling=sampling_of(GenerateSettings(), model.facts),
            ),
        )
        codes.extend(played.numpy())
    sounds = [model.decode(torch.from_numpy(clip)[None])[0] for clip in codes]
    for number, (prompt, sound) in enumerate(zip(prompts, sounds, strict=True)):
        if folder is not None:
            slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:60]
            write_wav(folder / f"{number:02d}_{slug}.wav", sound, model.shape.sample_rate)
    return codes, sounds


def tempo_figures(
    model: BaseModel,
    data_dir: Path,
    n_prompts: int,
    folder: Path,
) -> dict[str, Any]:
    """The tempo of generations against that of their prompts, over the first and last 10 of 30 s,
    for captions of held-out clips with drums that state it. `recordings` is the same measure on
    those clips themselves (the ceiling), `shuffled` compares generations with each other's prompts
    (chance). `bar_repetition` is for the codes of generations and recordings, at that tempo."""
    rate, frame_rate = model.shape.sample_rate, model.shape.frame_rate
    clips = clips_at_a_tempo(data_dir)[:n_prompts]
    wanted = [float(clip.fields["bpm"]) for clip in clips]
    prompts = [clip.texts[0] for clip in clips]
    codes, sounds = play(model, prompts, 1000, folder, LONG_S)
    recorded = [read_audio(clip.path, rate) for clip in clips]
    recorded_codes = codes_of(clips, model, data_dir)
    n = round(DURATION_S * rate)
    figures: dict[str, Any] = {"n_prompts": len(clips)}
    for name, part in (("first_10_s", slice(0, n)), ("last_10_s", slice(-n, None))):
        figures[name] = beat_figures(
            [sound[:, part] for sound in sounds], [r[:, part] for r in recorded], rate, wanted
        )
    on_grid = [clip.fields["on_grid"] for clip in clips]
    for name, chosen in (("on_grid", on_grid), ("off_grid", [not it for it in on_grid])):
        kept = [i for i, it in enumerate(chosen) if it]
        if kept:
            bpm = [wanted[i] for i in kept]
            figures[f"bar_repetition_{name}"] = {
                "played": bar_repetition([codes[i] for i in kept], bpm, frame_rate),
                "recordings": bar_repetition([recorded_codes[i] for i in kept], bpm, frame_rate),
            }
    figures["prompts"] = [[prompt, bpm] for prompt, bpm in zip(prompts, wanted, strict=True)]
    return figures


def unheard_tempo_figures(
    model: BaseModel, beats_808: Path, n_prompts: int, folder: Path
) -> dict[str, Any]:
    """The same for captions of 808 beats, a style that the language model never heard and whose
    words it never read, over 10 s."""
    clips = [
        clip
        for clip in load_dataset(beats_808)
        if clip.split == "validation" and stated_tempo(clip.texts[0]) is not None
    ][:n_prompts]
    rate = model.shape.sample_rate
    _, sounds = play(model, [clip.texts[0] for clip in clips], 6000, folder)
    recorded = [read_audio(clip.path, rate) for clip in clips]
    wanted = [float(clip.fields["bpm"]) for clip in clips]
    return {"n_prompts": len(clips), **beat_figures(sounds, recorded, rate, wanted)}


def key_figures(model: BaseModel, data_dir: Path, folder: Path) -> dict[str, float]:
    """The share of 16 prompts whose key is heard in the generated clip, with each other's keys
    (chance) and held-out recordings (the ceiling) for comparison."""
    rate = model.shape.sample_rate
    keys = [f"{tonic} {mode}" for tonic in KEY_TONICS for mode in ("minor", "major")]
    prompts = [f"house with synth bass and piano, 120 bpm, {key}" for key in keys]
    _, sounds = play(model, prompts, 5000, folder)
    heard = [estimate_key(sound, rate).name for sound in sounds]
    clips = [c for c in load_dataset(data_dir) if c.split == "validation" and c.fields.get("key")]
    recorded = [estimate_key(read_audio(clip.path, rate), rate).name for clip in clips]
    true = [clip.fields["key"] for clip in clips]
    shifted = [keys[shift:] + keys[:shift] for shift in range(1, len(keys))]
    return {
        "right": equal_share(heard, keys),
        "shuffled": float(np.mean([equal_share(heard, other) for other in shifted])),
        "recordings": equal_share(recorded, true),
    }


def equal_share(found: Sequence[str | None], wanted: Sequence[str]) -> float:
    return float(np.mean([one == other for one, other in zip(found, wanted, strict=True)]))


def clips_at_a_tempo(data_dir: Path) -> list[Clip]:
    """Held-out clips with drums whose first caption states the tempo."""
    return [
        clip
        for clip in load_dataset(data_dir)
        if clip.split == "validation"
        and clip.fields.get("kit")
        and stated_tempo(clip.texts[0]) is not None
    ]


def codes_of(clips: Sequence[Clip], model: BaseModel, data_dir: Path) -> list[np.ndarray]:
    """Codes `[K, T]` of the clips themselves."""
    ids = clip_ids(clips, data_dir)
    return [codes.T for codes in tokenise_clips(clips, ids, model, data_dir)]


def continuation_figures(model: BaseModel, data_dir: Path, n_prompts: int) -> dict[str, Any]:
    """Whether the model continues a beat: it is given the first half of held-out recordings, and
    its second half is measured, with the base's advised sampling and greedily."""
    clips = clips_at_a_tempo(data_dir)[:n_prompts]
    wanted = [float(clip.fields["bpm"]) for clip in clips]
    shape, recorded = model.shape, codes_of(clips, model, data_dir)
    n_frames = round(DURATION_S * shape.frame_rate)
    n_given = n_frames // 2
    given = torch.from_numpy(np.stack([c[:, :n_given] for c in recorded]).astype(np.int64))
    texts = model.text.batch([clip.texts[0] for clip in clips])
    figures: dict[str, Any] = {"n_clips": len(clips)}
    drawn = sampling_of(GenerateSettings(), model.facts)
    for name, sampling in (("sampled", drawn), ("greedy", GREEDY)):
        codes = generate_codes(
            model,
            Request(
                Conditions(texts),
                n_frames=n_frames,
                seeds=range(4000, 4000 + len(clips)),
                sampling=sampling,
                prompt_codes=given,
            ),
        )
        heard = [model.decode(clip[None])[0] for clip in codes]
        new = [sound[:, sound.shape[1] // 2 :] for sound in heard]
        figures[name] = {
            "within_4_percent": tempo_share(tempos(new, shape.sample_rate), wanted),
            "bar_repetition": bar_repetition(
                list(codes[..., n_given:].numpy()), wanted, shape.frame_rate
            ),
        }
    start, stop = (round(s * shape.sample_rate) for s in (DURATION_S / 2, DURATION_S))
    halves = [read_audio(clip.path, shape.sample_rate)[:, start:stop] for clip in clips]
    figures["recordings"] = tempo_share(tempos(halves, shape.sample_rate), wanted)
    return figures


def word_figures(model: BaseModel, data_dir: Path, folder: Path) -> dict[str, Any]:
    """How a word in the prompt changes the descriptors that it should affect, with equal seeds, and
    how far apart held-out recordings with and without its meaning are."""
    figures: dict[str, Any] = {}
    rate = model.shape.sample_rate
    recorded = [
        (clip.fields, describe(read_audio(clip.path, rate), rate))
        for clip in load_dataset(data_dir)
        if clip.split == "validation"
    ]
    for name, pairs in CONTRASTS.items():
        prompts = [list(pairs) * SEEDS_EACH for _ in (0, 1)]
        sides = []
        for side in (0, 1):
            chosen = [pair[side] for pair in prompts[side]]
            _, sounds = play(model, chosen, 2000, folder / f"{name}_{'ab'[side]}")
            sides.append([describe(sound, rate) for sound in sounds])
        figures[name] = {}
        for measure in MEASURES[name]:
            high, low = (np.array([clip[measure] for clip in side]) for side in sides)
            heard = [
                [found[measure] for fields, found in recorded if has_it(name, fields) is side]
                for side in (True, False)
            ]
            figures[name][measure] = {
                "with": float(high.mean()),
                "without": float(low.mean()),
                "n_clips": 2 * len(high),
                "share_of_pairs_right": float((high > low).mean()),
                "recordings_with": float(np.mean(heard[0])),
                "recordings_without": float(np.mean(heard[1])),
                **{f"by_{key}": value for key, value in paired_bootstrap(low, high).items()},
            }
    return figures


def has_it(contrast: str, fields: Mapping[str, Any]) -> bool | None:
    """Whether a recording has what a contrast is about; None if it fits neither side."""
    flags = clip_flags(fields)
    if contrast == "drums":
        return flags["drums"]
    # Drums alone are not the same as a band without bass.
    if not flags["drums"] or (contrast == "bass" and flags["alone"]):
        return None
    if contrast == "energy":
        return flags["energetic"] if flags["energetic"] or flags["sparse"] else None
    return flags[contrast]


def speed_figures(model: BaseModel) -> dict[str, float]:
    """Seconds of audio generated per second, by language model and codec together."""
    figures = {}
    for size in (1, 4):
        prompts = ["house with synth bass, 124 bpm"] * size
        began = time.perf_counter()
        play(model, prompts, 3000)
        figures[f"batch_{size}"] = size * DURATION_S / (time.perf_counter() - began)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model_path", default=EMBEDDED_NAME)
    parser.add_argument("--lora_model_path", type=Path, help="play with this adapter")
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    parser.add_argument("--beats_808", type=Path, default=WORK / "codec_808")
    parser.add_argument("--out", type=Path, default=WORK / "base_check")
    parser.add_argument("--n_prompts", type=int, default=32)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    model = BaseModel.load(options.model_path)
    measures = {
        "loss": lambda: loss_figures(model, options.corpus, options.beats_808),
        "probe": lambda: probe_figures(model, options.corpus, options.beats_808),
        "tempo": lambda: tempo_figures(
            model, options.corpus, options.n_prompts, options.out / "tempo"
        ),
        "tempo_808": lambda: unheard_tempo_figures(
            model, options.beats_808, options.n_prompts, options.out / "tempo_808"
        ),
        "continuation": lambda: continuation_figures(model, options.corpus, options.n_prompts),
        "words": lambda: word_figures(model, options.corpus, options.out / "words"),
        "key": lambda: key_figures(model, options.corpus, options.out / "key"),
        "speed": lambda: speed_figures(model),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    parts = [read_part(model, options.lora_model_path)] if options.lora_model_path else []
    with Mixture(model, parts).on():
        figures = {name: measures[name]() for name in options.only}
    print(json.dumps(figures, indent=2))
    path = options.out / "check_base.json"
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
