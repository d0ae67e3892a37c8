"""A report of an evaluation without a model: rendered beats, and what is heard of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import butter, sosfilt

from musicgen_lora.audio.files import write_wav
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.protocol import judge_primaries
from musicgen_lora.evaluation.decisions.regressions import find_regressions
from musicgen_lora.evaluation.losses.captions import judge_captions
from musicgen_lora.evaluation.losses.held_out_loss import summarise_losses, summarise_positions
from musicgen_lora.evaluation.losses.overfitting import excess_of
from musicgen_lora.evaluation.measures.damage import measure_damage
from musicgen_lora.evaluation.measures.embeddings import LOG_MEL, log_mel
from musicgen_lora.evaluation.measures.memory import judge_continuations
from musicgen_lora.evaluation.off_style import OWN_ORIGIN
from musicgen_lora.evaluation.report.findings import find_findings, tell_sections
from musicgen_lora.evaluation.report.report import write_report
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.evaluation.sound.seeds import measure_seeds
from musicgen_lora.evaluation.sound.sounds import compare_sounds
from musicgen_lora.evaluation.sound.unasked import measure_off_style
from musicgen_lora.formats.documents import plain
from musicgen_lora.listening.descriptors import describe
from musicgen_lora.listening.duplicates import audio_fingerprint

RATE = 32_000
NO_AUDIO = "--from_tokens does not read the audio"
NO_MUSIC = "no other music is long enough"
NASTY = 'bass <script>alert("x")</script> & [red]"drums"'


def base_like(wave: np.ndarray) -> np.ndarray:
    """A beat without its bass and hats: what a base that knows no 808 might play."""
    band = butter(4, (250, 4000), "bandpass", fs=RATE, output="sos")
    return sosfilt(band, wave, axis=-1).astype(np.float32)  # pyright: ignore[reportAttributeAccessIssue]


def losses(n_sources: int) -> Any:
    rng = np.random.default_rng(0)
    base = rng.uniform(3.5, 5.0, (2 * n_sources, 4))
    counts = np.full((2 * n_sources, 4), 200.0)
    lowered = base * rng.uniform(0.75, 0.9, base.shape)
    sources = [f"pack {index // 2} <b>" for index in range(2 * n_sources)]
    found = summarise_losses(base * counts, lowered * counts, counts, sources, seed=0)
    # Four stretches of a second; what was heard before helps.
    parts = np.array([1.3, 1.0, 0.9, 0.8])
    sums = [(own * counts)[..., None] * parts / 4 for own in (base, lowered)]
    found["positions"] = summarise_positions(
        *sums, np.stack([counts / 4] * 4, axis=-1), sources, part_s=1.0, seed=0
    )
    return found


def hear(wave: np.ndarray) -> Heard:
    return Heard(
        descriptors=describe(wave, RATE),
        vectors={"log_mel": log_mel(wave, RATE)},
        damage=measure_damage(wave, RATE, np.arange(800).reshape(4, 200), 50.0),
        fingerprint=audio_fingerprint(wave, RATE),
        bpm=float("nan"),
        key=None,
    )


def compare_clips(
    clips: Any, heard: Compared[Any], references: References, why_none: str = ""
) -> dict[str, Any]:
    """By the log-mel spectrum alone: no model hears."""
    return compare_sounds(
        heard,
        references,
        prompts=[clip["prompt"] for clip in clips],
        embeddings=(LOG_MEL,),
        listener=None,
        why_none=why_none,
        seed=0,
    )


def references_of(heard: list[Heard]) -> References:
    clips = [
        Clip(f"{i}.wav", Path("data"), ("beat at 140 bpm in C# minor",), source=f"{i}")
        for i in range(len(heard))
    ]
    return References(
        heard=heard,
        clips=clips,
        some={"other_music": {0: heard[0]}, "noise": {0: heard[1]}},
        why_not_recorded=NO_AUDIO,
        why_no_others="needs --other_data_dir, a dataset of other music",
    )


def on_trained(n_clips: int) -> dict[str, Any]:
    """What a dataset of training clips gives; the second clip is a copy of one."""
    nearest = [
        {
            "trained": f"pack <b> {index}",
            "place": index,
            "similarity": 0.9 if index == 1 else 0.2,
            "odds": 1 / 6,
            "position": None if index == 0 else 0.25,
            "copied": index == 1,
            "audio": "audio/trained/02.wav" if index == 1 else None,
        }
        for index in range(n_clips)
    ]
    trained = losses(9)
    rng = np.random.default_rng(1)
    told = [np.stack([np.full(n, 4.0), *rng.normal(4.03, 0.02, (2, n))]) for n in (12, 12, 9)]
    continuations = judge_continuations(([0.3] * 6, [0.1] * 6), ([0.1] * 6, [0.1] * 6))
    return {
        "captions": judge_captions(*told),
        "overfitting": {
            "computed": True,
            "why": "",
            "trained": trained,
            "excess": excess_of(trained, losses(12)),
        },
        "memorisation": {
            "continuations": {
                "computed": True,
                "why": "",
                **dataclasses.asdict(continuations),
                "anchors": {
                    "halves": {"value": 0.02, "n": 12, "why": ""},
                    "other_music": {"value": None, "n": 0, "why": NO_MUSIC},
                    "noise": {"value": 1 / 2048, "n": 0, "why": ""},
                },
                "position": {
                    "trained": 0.29,
                    "held_out": 0.08,
                    "base_trained": 0.08,
                    "base_held_out": None,
                },
                "flagged": continuations.flagged,
                "given_s": 5.0,
                "made_s": 1.5,
            },
            "nearest": {
                "computed": True,
                "why": "",
                "n": n_clips,
                "n_trained": 9,
                "n_trained_in_all": 9,
                "n_held_out": 5,
                "copy_from": 0.7,
                "held_out_median": 0.2,
                "held_out_highest": 0.3,
                "held_out_copies": [],
                "anchors": {
                    name: {"median": 0.1, "highest": 0.2, "n": 3, "why": ""}
                    for name in ("base", "other_music", "noise")
                }
                | {"recorded": {"median": None, "highest": None, "n": 0, "why": NO_AUDIO}},
                "clips": nearest,
                "flagged": True,
            },
        },
    }


def off_style(clips: Any, heard: dict[str, list[Heard]]) -> dict[str, Any]:
    """The first two clips, as if they were of other styles."""
    base, adapter, style = heard["base"][:2], heard["adapter"][:2], heard["adapter"][2:]
    found = measure_off_style(base, base[::-1], adapter, style, seed=0)
    entries = [
        {
            "prompt": f"jazz <b> {row}",
            "origin": OWN_ORIGIN,
            "read_as": f"jazz <b> {row}",
            "seed": 5 + row,
            "other_seed": 7 + row,
            "identical": row == 1,
            "base": clips[row]["base"],
            "again": clips[1 - row]["base"],
            "adapter": clips[row]["adapter"],
            "measured": measured,
        }
        for row, measured in enumerate(found.pop("prompts"))
    ]
    return {"computed": True, "why": "", **found, "clips": entries}


def make_report(folder: Path) -> dict[str, Any]:
    """A full report on rendered beats, written to a folder."""
    beats = [
        render_beat(make_beat((3, seed), duration_s=4.0), RATE, seed=seed)[:, : 4 * RATE]
        for seed in range(10)
    ]
    clips: list[dict[str, Any]] = []
    heard: dict[str, list[Heard]] = {"base": [], "adapter": []}
    for index, wave in enumerate(beats[:5]):
        clip: dict[str, Any] = {
            "prompt": NASTY if index == 0 else f"hip hop 808 beat at {index}0 bpm",
            "origin": "held-out caption",
            "seed": index,
            "identical": False,
        }
        for side, sound in (("base", base_like(wave)), ("adapter", wave)):
            name = f"audio/{side}/{index}.wav"
            write_wav(folder / name, sound, RATE)
            heard[side].append(hear(sound))
            clip[side] = heard[side][-1].played(name)
        clip["others"] = {}
        clips.append(clip)
    generation = {"compared": True, "duration_s": 4.0, "precision": "fp16", "clips": clips}
    references = references_of([hear(wave) for wave in beats[5:]])
    write_wav(folder / "audio/trained/02.wav", beats[9], RATE)
    report = plain(
        {
            "format_version": 1,
            "created": "2025-01-01 00:00:00",
            "base": {"path": "base & co", "fingerprint": "0" * 16},
            "adapter": {
                "name": "adapter",
                "label": "best_model",
                "path": "run/best_model",
                "strength": 1.0,
                "sha256": "0" * 64,
                "fingerprint": "0" * 64,
            },
            "variants": [],
            "choice": {"computed": False, "why": "there is only one adapter and strength"},
            "cache": {"folder": "cache", "reused": {}, "made": {}, "damaged": []},
            "settings": {"duration": 4.0, "prompts": []},
            "versions": {"torch": "2"},
            "device": "cpu",
            "held_out": {
                "origin": "Measured on the clips that training held out (5).",
                "is_unseen": True,
                "chose_best": True,
                "why_none": "",
                "n_clips": 5,
                "n_sources": 5,
                "n_heard": 0,
                "missing": [],
            },
            "remarks": [],
            "loss": losses(12),
            "forgetting": losses(9),
            "generation": generation,
            **compare_clips(clips, Compared(heard["base"], heard["adapter"]), references),
            **on_trained(len(clips)),
            "off_style": off_style(clips, heard),
            "seeds": measure_seeds(
                Compared(*([own.vectors for own in heard[side]] for side in heard)),
                Compared(*([own.vectors for own in heard[side][1:3]] for side in heard)),
                references,
                seed=0,
            ),
            "not_computed": [],
        }
    )
    report["primaries"] = plain(judge_primaries(report, compared=True))
    report["regressions"] = plain(find_regressions(report))
    report["findings"], report["told"] = find_findings(report), tell_sections(report)
    write_report(report, folder)
    return report
