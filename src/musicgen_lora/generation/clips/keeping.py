"""Which take of a clip is kept, what the user is told of it, and how its files are named.

It stands between a function that plays takes and the output folder; `clip` makes the contents of
the files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musicgen_lora.audio.writing import FORMATS, free_stem, pack_name
from musicgen_lora.dataset.caption_words import stated_bpm
from musicgen_lora.generation.clips.clip import GeneratedClip, write_contents
from musicgen_lora.generation.clips.takes import (
    Draw,
    JudgedTake,
    draw_takes,
    judge_clip,
    judge_loop,
)
from musicgen_lora.generation.wanted import Wanted, read_as
from musicgen_lora.listening.pitch.key_names import file_key
from musicgen_lora.model.text.wording import english_of
from musicgen_lora.runtime.locks import locked

WAIT_S = 30.0
"""How long to wait for another `generate` that writes into the folder: a file takes under 1 s."""
ODDS_FACTOR = 4
LOUDNESS_SLACK = 0.2
"""In LU; inaudible."""


def draw_best(
    draw: Draw, prompt: str, seed: int, wanted: Wanted, *, sample_rate: int, batch_size: int
) -> list[JudgedTake]:
    """Draw takes of a prompt, from the clip's seed on, best first; see `draw_takes`."""
    request = wanted.request(sample_rate)
    bpm = wanted.bpm if wanted.bpm is not None else stated_bpm(read_as(prompt, wanted))

    def judge(number: int, waveform: np.ndarray) -> JudgedTake:
        if request is None:
            return judge_clip(number, waveform, sample_rate, bpm)
        return judge_loop(number, waveform, request)

    at_most = wanted.best_of if request is None else wanted.tries
    return draw_takes(
        draw, judge, seed, at_least=wanted.best_of, at_most=at_most, batch_size=batch_size
    )


def takes_sentence(takes: Sequence[JudgedTake], wanted: Wanted) -> str:
    """What to tell the user if no take fits; empty if one does."""
    best, n_takes = takes[0], len(takes)
    if not best.faults:
        return ""
    none = f"none of {n_takes} takes fits; the best is kept, but" if n_takes > 1 else "the take"
    if wanted.keeps_level:
        tries = ODDS_FACTOR * n_takes
        return f"{none} {' and '.join(best.faults)}. --loop_tries {tries} raises the odds."
    option = "--best_of" if wanted.n_bars is None else "--loop_tries"
    return (
        f"{none} {' and '.join(best.faults)}. {option} {ODDS_FACTOR * n_takes} raises the odds, "
        "and so does an adapter trained on captions with tempos near this one."
    )


def loudness_sentence(clip: GeneratedClip) -> str:
    """What to tell the user if a clip is quieter than requested; empty if it isn't."""
    wanted, is_now = clip.wanted.loudness_lufs, clip.loudness_lufs
    if wanted is None or is_now is None or is_now > wanted - LOUDNESS_SLACK:
        return ""
    return (
        f"its peaks keep it at {is_now:.1f} LUFS, below --loudness {wanted:g}; to get louder, use "
        "a limiter in your audio software."
    )


def level_sentence(clip: GeneratedClip) -> str:
    """What to tell the user if a recording doesn't keep its level; empty if it does."""
    if not clip.wanted.keeps_level or clip.facts["gain_db"] == 0.0:
        return ""
    return (
        f"its peaks are {-clip.gain_db:.2g} dB above full scale, so the whole file, including the "
        "recording, is turned down by as much; --format wav_float keeps its level."
    )


def seams_sentence(take: JudgedTake) -> str:
    """Where new music meets the recording, and the levels before and after."""
    seams = take.figures["seams"].values()
    parts = [
        f"{begin_s:.3f} to {end_s:.3f} s ({before:.1f} dB before, {after:.1f} after)"
        for seam in seams
        for (begin_s, end_s), (before, after) in [(seam["fade_s"], seam["levels_db"])]
    ]
    if not parts:
        return "no crossfades: nothing is before or after the new music."
    return f"crossfades at {'; '.join(parts)}."


def write_clip(folder: Path, clip: GeneratedClip) -> Path:
    """Writes a clip and the requested files beside it, all of them or none, under a name that
    different audio never shares.

    Returns:
        The path of the sound.
    """
    kind = clip.wanted.format
    contents = clip.files(kind)
    with locked(folder, wait_s=WAIT_S):
        stem = _stem(folder, clip)
        write_contents({folder / f"{stem}{ending}": made for ending, made in contents.items()})
    return folder / f"{stem}{FORMATS[kind].suffix}"


def _stem(folder: Path, clip: GeneratedClip) -> str:
    """File name without ending. A clip's has the prompt's words, the seed and a hash of everything
    that affects the samples; a loop's is in the style of sample packs, with a unique number."""
    made, wanted = clip.made, clip.wanted
    if wanted.n_bars is None:
        words = re.sub(r"[^\w]+", "-", made["prompt"].lower()).strip("-")[:48].strip("-")
        return f"{words or 'clip'}_seed{made['seed']}_{clip.identity}"
    key = file_key(wanted.key) if wanted.key else ""
    name = pack_name(english_of(made["prompt"]), bpm=wanted.bpm, key=key)
    for path in sorted(folder.glob("*.json")):
        number = path.stem.removeprefix(f"{name}_")
        if number != path.stem and number.isdigit() and clip.is_of(path):
            return path.stem
    return free_stem(folder, name)
