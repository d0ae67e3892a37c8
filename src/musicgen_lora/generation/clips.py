"""From waveforms to files: which take is kept, and what is written of it.

Between a player of prompts, given as a plain function, and the folder: takes are drawn and judged,
loops are cut, and sound, JSON, MIDI and picture are written, all of them or none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lora import atomic
from musicgen_lora.audio.pictures import mel_spectrogram_png
from musicgen_lora.audio.writing import (
    FORMATS,
    Format,
    SoundFacts,
    free_stem,
    levelled,
    pack_name,
    sound_bytes,
)
from musicgen_lora.config import GenerateSettings
from musicgen_lora.dataset.caption_words import stated_bpm, with_tempo_and_key
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_json
from musicgen_lora.generation.loop import LoopRequest
from musicgen_lora.generation.takes import (
    Judged,
    draw_takes,
    judge_clip,
    judge_loop,
    takes_figures,
)
from musicgen_lora.listening.key_names import (
    file_key,
    normalise_key,
    root_pitch_class,
    short_key,
)
from musicgen_lora.listening.midi import midi_of
from musicgen_lora.listening.tempo import estimate_tempo
from musicgen_lora.model.wording import english_of
from musicgen_lora.runtime.locks import locked

WAIT_S = 30.0
"""For another `generate` that is writing into the same folder: a file takes no second."""
LONGEST_S = 30.0
PLAIN_BPM = 120.0
"""Bars of a MIDI file are drawn by this where nothing repeats."""
ODDS_FACTOR = 4
TITLE_LETTERS = 120

Play = Callable[[Sequence[str], Sequence[int], float], Sequence[np.ndarray]]
"""Plays prompts, each with a seed, for so many seconds: waveforms `[C, N]`."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of the clips beside their prompts.

    Args:
        bpm: quarter notes a minute.
        n_bars: of a loop; None for clips.
        key: as in "C# minor".
        best_of: takes that are drawn in any case.
        tries: takes of a loop that are drawn at most.
        format: of the sound.
        loudness_lufs: that it is brought to; None leaves it.
        midi: whether a MIDI file is written.
        spectrogram: whether a picture is.
    """

    bpm: float | None
    n_bars: int | None
    key: str | None
    best_of: int
    tries: int
    format: Format
    loudness_lufs: float | None
    midi: bool
    spectrogram: bool

    @property
    def is_plain(self) -> bool:
        """One take a prompt, so that prompts can be played together."""
        return self.n_bars is None and self.best_of == 1

    def request(self, sample_rate: int) -> LoopRequest | None:
        """The loop that is asked for; None for clips."""
        if self.n_bars is None or self.bpm is None:
            return None
        return LoopRequest(self.bpm, self.n_bars, sample_rate)

    def facts(self) -> dict[str, Any]:
        """What of it decides the samples, for the JSON and the names."""
        given = {
            "bpm": self.bpm,
            "bars": self.n_bars,
            "key": self.key,
            "loudness": self.loudness_lufs,
            "best_of": None if self.best_of == 1 else self.best_of,
            "loop_tries": None if self.n_bars is None else self.tries,
        }
        return {"format": self.format} | {k: v for k, v in given.items() if v is not None}


def wanted_of(settings: GenerateSettings) -> Wanted:
    """What a command asks for.

    Raises:
        UserError: a key that is none, bars without a tempo, a loop that is too long, or a prompt
            that says another tempo or key.
    """
    key = normalise_key(settings.key) if settings.key.strip() else None
    if settings.key.strip() and key is None:
        raise UserError(
            f'--key "{settings.key}": no such key; give one such as "C# minor", "Bb major" or "Fm".'
        )
    if settings.bars is not None and settings.bpm is None:
        raise UserError(f"--bars {settings.bars}: a loop needs its tempo; give --bpm as well.")
    wanted = Wanted(
        bpm=settings.bpm,
        n_bars=settings.bars,
        key=key,
        best_of=settings.best_of,
        tries=max(settings.loop_tries, settings.best_of),
        format=settings.format,
        loudness_lufs=settings.loudness,
        midi=settings.midi,
        spectrogram=settings.spectrogram,
    )
    request = wanted.request(1)
    if request is not None:
        request.take_s(LONGEST_S)
    for prompt in settings.prompts:
        read_as(prompt, wanted)
    return wanted


def read_as(prompt: str, wanted: Wanted) -> str:
    """What a prompt is read as: in English, with the tempo and the key that are asked for."""
    return with_tempo_and_key(english_of(prompt), wanted.bpm, wanted.key)


def take_s(wanted: Wanted, duration_s: float, window_s: float) -> float:
    """Seconds of a take: the clip's, or what its loop is cut from."""
    request = wanted.request(1)
    return duration_s if request is None else request.take_s(LONGEST_S, window_s)


@dataclass(frozen=True)
class TakePlayer:
    """How takes are played.

    Args:
        play: plays them.
        sample_rate: Hz.
        seconds: of each.
        batch_size: how many together.
    """

    play: Play
    sample_rate: int
    seconds: float
    batch_size: int


def draw_best(player: TakePlayer, prompt: str, seed: int, wanted: Wanted) -> list[Judged]:
    """Takes of a prompt, the best first, from the clip's seed on; see `draw_takes`."""
    text, sample_rate = read_as(prompt, wanted), player.sample_rate
    request = wanted.request(sample_rate)
    bpm = wanted.bpm if wanted.bpm is not None else stated_bpm(text)

    def draw(seeds: Sequence[int]) -> Sequence[np.ndarray]:
        return player.play([text] * len(seeds), seeds, player.seconds)

    def judge(number: int, waveform: np.ndarray) -> Judged:
        if request is None:
            return judge_clip(number, waveform, sample_rate, bpm)
        return judge_loop(number, waveform, request)

    at_most = wanted.best_of if request is None else wanted.tries
    return draw_takes(
        draw, judge, seed, at_least=wanted.best_of, at_most=at_most, batch_size=player.batch_size
    )


def takes_sentence(takes: Sequence[Judged], wanted: Wanted) -> str:
    """What to tell the user where no take fits; empty where one does."""
    best, n_takes = takes[0], len(takes)
    if not best.faults:
        return ""
    none = f"none of {n_takes} takes fits; the best is kept, which" if n_takes > 1 else "the take"
    option = "--best_of" if wanted.n_bars is None else "--loop_tries"
    return (
        f"{none} {' and '.join(best.faults)}. {option} {ODDS_FACTOR * n_takes} raises the odds, "
        "and so does an adapter that was trained on captions with tempi near this one."
    )


def write_clip(
    folder: Path,
    made: Mapping[str, Any],
    waveform: np.ndarray,
    sample_rate: int,
    wanted: Wanted,
    takes: Sequence[Judged] = (),
) -> Path:
    """Writes a clip `[C, N]` and what is asked for beside it, all of it or nothing.

    Args:
        folder: where to.
        made: how it was made; it decides the name, so that different audio never shares one.
        waveform: the clip.
        sample_rate: Hz.
        wanted: format, level, and what is written beside it.
        takes: that it was the best of, itself first; none where there was no choice.

    Returns:
        The path of the sound.
    """
    suffix = FORMATS[wanted.format].suffix
    sound, gain_db = levelled(waveform, sample_rate, wanted.loudness_lufs)
    document = {**made, "sample_rate": sample_rate, "gain_db": round(gain_db, 2)}
    identity = _digest(made)
    contents: dict[str, bytes] = {}
    if takes:
        # Its own seed, which is not the clip's where a later take was better.
        document |= {"faults": list(takes[0].faults), "takes": takes_figures(takes)}
    if wanted.midi:
        bpm = _midi_bpm(sound, sample_rate, wanted)
        contents[".mid"] = midi_of(sound, sample_rate, bpm, wanted.key)
        document["midi_bpm"] = round(bpm, 2)
    if wanted.spectrogram:
        contents[".png"] = mel_spectrogram_png(sound, sample_rate)
    facts = _sound_facts(made, wanted, takes)
    contents[suffix] = sound_bytes(sound, sample_rate, wanted.format, facts)
    with locked(folder, wait_s=WAIT_S):
        stem = _stem(folder, made, wanted, identity)
        contents[".json"] = atomic.json_bytes(document | {"id": identity})
        atomic.write_files(
            {
                folder / f"{stem}{ending}": lambda path, content=content: path.write_bytes(content)
                for ending, content in contents.items()
            }
        )
    return folder / f"{stem}{suffix}"


def find_clip(folder: Path, made: Mapping[str, Any], wanted: Wanted) -> Path | None:
    """The clip of `write_clip` that an earlier run has made, with all that is asked for beside it;
    None where there is none."""
    suffix = FORMATS[wanted.format].suffix
    endings = [suffix, ".json", *[".mid"] * wanted.midi, *[".png"] * wanted.spectrogram]
    identity = _digest(made)
    with locked(folder, wait_s=WAIT_S):
        stem = _stem(folder, made, wanted, identity)
        files = [folder / f"{stem}{ending}" for ending in endings]
        is_there = all(map(Path.is_file, files)) and _is(files[1], identity)
    return files[0] if is_there else None


def _digest(made: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]


def _stem(folder: Path, made: Mapping[str, Any], wanted: Wanted, identity: str) -> str:
    """File name. A clip's has the prompt's words, the seed and a hash of everything that decides
    the samples; a loop's is that of a sample pack, with a number that no other has."""
    if wanted.n_bars is None:
        words = re.sub(r"[^\w]+", "-", made["prompt"].lower()).strip("-")[:48].strip("-")
        return f"{words or 'clip'}_seed{made['seed']}_{identity}"
    key = file_key(wanted.key) if wanted.key else ""
    name = pack_name(english_of(made["prompt"]), bpm=wanted.bpm, key=key)
    for path in sorted(folder.glob("*.json")):
        number = path.stem.removeprefix(f"{name}_")
        if number != path.stem and number.isdigit() and _is(path, identity):
            return path.stem
    return free_stem(folder, name)


def _is(path: Path, identity: str) -> bool:
    """Whether a JSON in the folder is of the same clip; another program's is not."""
    try:
        document = read_json(path)
    except UserError:
        return False
    return isinstance(document, dict) and document.get("id") == identity


def _sound_facts(made: Mapping[str, Any], wanted: Wanted, takes: Sequence[Judged]) -> SoundFacts:
    seed = takes[0].seed if takes else made["seed"]
    parts = [f"prompt: {made['prompt']}", f"seed: {seed}", f"base: {made['base']['fingerprint']}"]
    parts += [
        f"adapter: {Path(adapter['path']).name} {adapter['fingerprint']} x {adapter['strength']:g}"
        for adapter in made["adapters"]
    ]
    # A loop has its tempo by its length; a clip only where it was measured to obey.
    obeys = wanted.n_bars is not None or (bool(takes) and not takes[0].faults)
    return SoundFacts(
        title=" ".join(made["prompt"].split())[:TITLE_LETTERS],
        comment="; ".join(parts),
        software=f"musicgen-lora {made['musicgen_lora']}",
        bpm=wanted.bpm if obeys else None,
        key=short_key(wanted.key) if wanted.key else "",
        root_pitch_class=root_pitch_class(wanted.key) if wanted.key else None,
        n_bars=wanted.n_bars,
    )


def _midi_bpm(waveform: np.ndarray, sample_rate: int, wanted: Wanted) -> float:
    if wanted.bpm is not None:
        return wanted.bpm
    bpm = estimate_tempo(waveform, sample_rate).bpm
    return bpm if np.isfinite(bpm) else PLAIN_BPM
