"""A generated clip as a value: its sound, how it was made, and the files of both.

The command and Python write the same bytes. In a notebook a clip shows as a player with the sound
embedded, so that it plays wherever the page is shown, without this project and without a file.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lora import atomic
from musicgen_lora.audio.loudness import integrated_loudness
from musicgen_lora.audio.writing import (
    CEILING_DB,
    FORMATS,
    Format,
    SoundFacts,
    levelled,
    sound_bytes,
)
from musicgen_lora.config.kinds import at_home
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips.beside import clip_midi, clip_picture
from musicgen_lora.generation.clips.takes import JudgedTake, takes_figures
from musicgen_lora.generation.clips.written import read_facts
from musicgen_lora.generation.wanted import Wanted
from musicgen_lora.listening.pitch.key_names import root_pitch_class, short_key

TITLE_LETTERS = 120


@dataclass(frozen=True, eq=False, repr=False)
class GeneratedClip:
    """A generated clip or loop.

    Args:
        waveform: `[C, N]` float32, at the requested level and never beyond full scale.
        made: everything that affects the samples.
        wanted: what was asked for: format, tempo, key, and the files beside the sound.
        gain_db: gain applied to the model's own samples.
        takes: the takes that it was chosen from, itself first; empty if there was no choice.
    """

    waveform: np.ndarray
    sample_rate: int
    made: Mapping[str, Any]
    wanted: Wanted
    gain_db: float = 0.0
    takes: tuple[JudgedTake, ...] = ()

    @classmethod
    def of(
        cls,
        made: Mapping[str, Any],
        waveform: np.ndarray,
        sample_rate: int,
        wanted: Wanted,
        takes: Sequence[JudgedTake] = (),
    ) -> GeneratedClip:
        """Make a clip of the model's waveform, brought to the requested level; see the class for
        the arguments."""
        sound, gain_db = levelled(
            waveform,
            sample_rate,
            wanted.loudness_lufs,
            ceiling_db=_ceiling_db(wanted, wanted.format),
            kind=wanted.format,
        )
        # Takes keep what was measured, not their sound.
        told = (dataclasses.replace(take, waveform=sound[:, :0], loop=None) for take in takes)
        return cls(sound, sample_rate, made, wanted, gain_db, tuple(told))

    @property
    def duration_s(self) -> float:
        return self.waveform.shape[1] / self.sample_rate

    @cached_property
    def identity(self) -> str:
        """A hash of everything that affects the samples."""
        return identity_of(self.made)

    @cached_property
    def loudness_lufs(self) -> float | None:
        """The resulting loudness, if one was requested and it can be measured."""
        if self.wanted.loudness_lufs is None:
            return None
        loudness = integrated_loudness(self.waveform, self.sample_rate)
        return loudness if math.isfinite(loudness) else None

    @property
    def facts(self) -> dict[str, Any]:
        """The contents of the JSON beside the sound."""
        facts = {**self.made, "sample_rate": self.sample_rate, "gain_db": round(self.gain_db, 2)}
        if self.wanted.n_bars is not None:
            # The take that the model played is longer than the loop that was cut from it.
            facts |= {"duration_s": self.duration_s, "take_s": self.made.get("duration_s")}
        if self.loudness_lufs is not None:
            facts["loudness_lufs"] = round(self.loudness_lufs, 1)
        if self.takes:
            # The kept take's own seed is not the clip's if a later take was better.
            facts |= {"faults": list(self.takes[0].faults), "takes": takes_figures(self.takes)}
        return facts | {"id": self.identity}

    def files(self, kind: Format) -> dict[str, bytes]:
        """The contents of its files by ending: the sound, the requested files beside it, and its
        JSON, which has the hashes of the others."""
        sound, rate = self.waveform, self.sample_rate
        facts, contents = self.facts, dict[str, bytes]()
        if self.wanted.midi:
            contents[".mid"], bpm = clip_midi(sound, rate, self.wanted.bpm, self.wanted.key)
            facts["midi_bpm"] = round(bpm, 2)
        if self.wanted.spectrogram:
            contents[".png"] = clip_picture(sound, rate)
        contents[FORMATS[kind].suffix] = sound_bytes(
            sound, rate, kind, self._sound_facts(), ceiling_db=_ceiling_db(self.wanted, kind)
        )
        facts["sha256"] = {
            ending: hashlib.sha256(content).hexdigest() for ending, content in contents.items()
        }
        contents[".json"] = atomic.json_bytes(facts)
        return contents

    def save(self, path: str | Path) -> Path:
        """Writes the clip, its JSON and the requested files beside them: all of them or none.

        Args:
            path: ends in .wav, .flac, .ogg or .mp3.

        Raises:
            UserError: another ending, or another file has this name.
            RunError: the disk is full; nothing is half written.
        """
        path = at_home(path)
        # If several formats share an ending, the first is the plain one.
        endings: dict[str, Format] = {
            FORMATS[kind].suffix: kind for kind in reversed(list(FORMATS))
        }
        if path.suffix not in endings:
            raise UserError(f"{path}: unknown format; use one of {', '.join(endings)}.")
        own = self.wanted.format
        kind = own if FORMATS[own].suffix == path.suffix else endings[path.suffix]
        contents = {path.with_suffix(ending): made for ending, made in self.files(kind).items()}
        beside = path.with_suffix(".json")
        taken = [other for other in contents if other.exists()]
        if taken and not self.is_of(beside):
            raise UserError(f"{taken[0]}: already exists; choose another name.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_contents(contents)
        return path

    def is_of(self, path: Path) -> bool:
        """Whether a JSON belongs to this clip; a missing one, or another program's, doesn't."""
        return read_facts(path).get("id") == self.identity

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.waveform.shape))
        return (
            f"<Clip {self.made['prompt']!r}, seed {self.made['seed']}: {self.duration_s:g} s, "
            f"{shape} samples at {self.sample_rate} Hz>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        content = base64.b64encode(sound_bytes(self.waveform, self.sample_rate)).decode()
        said = html.escape(f"{self.made['prompt']} · seed {self.made['seed']}")
        return (
            '<figure style="margin:0.5em 0"><audio controls '
            f'src="data:audio/wav;base64,{content}"></audio>'
            f"<figcaption>{said}</figcaption></figure>"
        )

    def _sound_facts(self) -> SoundFacts:
        made, wanted, takes = self.made, self.wanted, self.takes
        seed = takes[0].seed if takes else made["seed"]
        base = made["base"]["fingerprint"]
        parts = [f"prompt: {made['prompt']}", f"seed: {seed}", f"base: {base}"]
        for adapter in made["adapters"]:
            name, mark = Path(adapter["path"]).name, adapter["fingerprint"]
            parts.append(f"adapter: {name} {mark} x {adapter['strength']:g}")
        # A loop has its tempo by its length; a clip only if it was measured to keep it.
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


class GeneratedClips(list[GeneratedClip]):
    """Several clips; a notebook shows a player for each."""

    def _repr_html_(self) -> str:
        return "".join(clip._repr_html_() for clip in self)


def identity_of(made: Mapping[str, Any]) -> str:
    """A hash of everything that affects a clip's samples."""
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]


def _ceiling_db(wanted: Wanted, kind: Format) -> float:
    """The highest peak allowed; a recording's own peaks stay as far as the format can hold
    them."""
    if not wanted.keeps_level:
        return CEILING_DB
    return math.inf if kind == "wav_float" else 0.0


def write_contents(contents: Mapping[Path, bytes]) -> None:
    """Writes files that belong together: all of them or none."""
    atomic.write_files(
        {
            path: lambda temporary, content=content: temporary.write_bytes(content)
            for path, content in contents.items()
        }
    )
