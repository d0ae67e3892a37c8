"""New music within a recording: the context that the model hears, its level, and its seams.

The model hears the context at its own rate; what it plays is resampled to the recording's rate and
joined. Outside the new part and the crossfades before its bar lines no sample changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
import torch

from musicgen_lora.audio.crossfade import most_alike_at, pass_into
from musicgen_lora.audio.fold import fold_to_mono
from musicgen_lora.audio.loudness import level_db
from musicgen_lora.audio.writing import CEILING
from musicgen_lora.generation.recordings.continuation import (
    FADE_S,
    HOLE_DB,
    below_peak,
    hole_db_at,
    join_continuation,
)
from musicgen_lora.model.codec import Codec
from musicgen_lora.model.shape import Shape

BACK_WITHIN_S = 0.1
"""The crossfade back into the recording lies within this long before the bar line ..."""
BACK_BEFORE_S = 0.01
"""... and ends this long before it, so that the hit on the line stays intact."""
LEVEL_S = 0.1
"""Length on each side of a seam over which levels are measured."""
SLACK_DB, RAISED_MOST_DB = 2.0, 6.0
"""New music may be up to `SLACK_DB` louder or quieter than what it continues or replaces; beyond
that it is brought nearer, by at most `RAISED_MOST_DB` ..."""
RISE_S = 0.25
"""... ramped over this long from the seam, where the earlier music may still ring out."""


@dataclass(frozen=True)
class ExtensionSeam:
    """Where new music meets the recording.

    Args:
        fade: first sample of the crossfade, and the one after its last.
        levels_db: levels of the tenths of a second before and after it.
        hole_db: the quietest moment of the new music there, relative to quiet moments of the
            recording; at the end, relative to what was there, as most music is quiet before a bar.
    """

    fade: tuple[int, int]
    levels_db: tuple[float, float]
    hole_db: float

    @classmethod
    def of(
        cls,
        waveform: np.ndarray,
        fade: tuple[int, int],
        line: int,
        sample_rate: int,
        was: np.ndarray | None = None,
    ) -> ExtensionSeam:
        """The seam of a crossfade before a bar line of `[C, N]`. New music begins at the line, or,
        given the recording `[C, N]` as it `was`, ends there and leads back to it."""
        n_level = round(LEVEL_S * sample_rate)
        sides = (
            waveform[:, max(0, fade[0] - n_level) : fade[0]],
            waveform[:, fade[1] : fade[1] + n_level],
        )
        before, after = (level_db(side) for side in sides)
        if was is None:
            return cls(fade, (before, after), hole_db_at(waveform, line, sample_rate))
        line = waveform.shape[1] - line
        is_now, own = (hole_db_at(one[:, ::-1], line, sample_rate) for one in (waveform, was))
        return cls(fade, (before, after), is_now - min(0.0, own))


@dataclass(frozen=True)
class Extended:
    """A recording with its new music.

    Args:
        waveform: `[C, N]`.
        new: the new part of it, `[C, n]`.
        gain_db: gain that makes up for the codec's change of level.
        raised_db: gain that brought the new music near the recording's level.
        quieter_db: how much quieter it stays than what it continues or replaces, because its peaks
            or the limit allow no more gain; 0 within `SLACK_DB`.
        seams: by name, "begin" and "end".
    """

    waveform: np.ndarray
    new: np.ndarray
    sample_rate: int
    gain_db: float
    raised_db: float
    quieter_db: float
    seams: Mapping[str, ExtensionSeam]

    @property
    def faults(self) -> list[str]:
        """What is wrong with it, each as a verb phrase."""
        said = {"begin": "leaves a hole where it begins", "end": "leaves a hole where it ends"}
        return [said[name] for name, seam in self.seams.items() if seam.hole_db < HOLE_DB]

    def facts(self) -> dict[str, Any]:
        """For the JSON."""
        seams = {
            name: {
                "fade_s": [round(at / self.sample_rate, 4) for at in seam.fade],
                "levels_db": [round(level, 1) for level in seam.levels_db],
                "hole_db": round(seam.hole_db, 1),
            }
            for name, seam in self.seams.items()
        }
        levels = {
            "gain_db": round(self.gain_db, 2),
            "raised_db": round(self.raised_db, 2),
            "quieter_db": round(self.quieter_db, 2),
        }
        return {"onto": levels, "seams": seams}


@dataclass(frozen=True)
class Extension:
    """Where new music goes in a recording: from `begin` up to `end`.

    Args:
        recording: `[C, N]`.
        begin: first new sample.
        end: sample at which the recording resumes; N or more if nothing follows.
        n_frames: codec frames that the model hears before `begin`.
        wraps: the recording is a loop, whose beginning follows its end.
    """

    recording: np.ndarray
    sample_rate: int
    begin: int
    end: int
    n_frames: int
    wraps: bool = False

    @property
    def seconds(self) -> float:
        """How long the new music is."""
        return (self.end - self.begin) / self.sample_rate

    @property
    def n_samples(self) -> int:
        """Samples of the recording with the new music."""
        return max(self.end, self.recording.shape[1])

    @property
    def _turn(self) -> int:
        """Samples by which a loop is rotated to the left, so that a part at its very beginning has
        something before it."""
        return self.end if self.wraps and self.begin == 0 else 0

    def _turned(self) -> tuple[np.ndarray, int, int]:
        """The rotated recording, with its begin and end."""
        waveform, turn, n_samples = self.recording, self._turn, self.recording.shape[1]
        if not turn:
            return waveform, self.begin, self.end
        return np.roll(waveform, -turn, axis=1), n_samples - turn, n_samples

    def n_heard(self, shape: Shape) -> int:
        """Samples of the recording that the model hears before `begin`."""
        return round(self.n_frames / shape.frame_rate * self.sample_rate)

    def heard(self, shape: Shape) -> np.ndarray:
        """What the model hears, `[C, n_heard]` of the recording."""
        waveform, begin, _ = self._turned()
        return waveform[:, begin - self.n_heard(shape) : begin]

    def codes(self, codec: Codec, shape: Shape) -> torch.Tensor | None:
        """What the model hears, as codes `[1, K, P]`; None if nothing."""
        if not self.n_frames:
            return None
        heard = _resampled(self.heard(shape), self.sample_rate, shape.sample_rate)
        if shape.n_channels == 1:
            # The plain mean of channels in opposite phase is silence.
            heard, _ = fold_to_mono(heard, shape.sample_rate)
        codes = codec.encode([heard])[0][:, : self.n_frames]
        return torch.from_numpy(codes.astype(np.int64))[None]

    def finish(self, take: np.ndarray, shape: Shape) -> Extended:
        """Joins a take to the recording.

        Args:
            take: `[C', n]` at the model's rate: first the codec's version of what was heard, then
                the new music.
        """
        rate, (waveform, begin, end) = self.sample_rate, self._turned()
        n_heard = self.n_heard(shape)
        played = _resampled(np.nan_to_num(take), shape.sample_rate, rate)
        if len(played) != len(waveform):
            played = np.repeat(played.mean(axis=0, keepdims=True), len(waveform), axis=0)
        n_wanted = n_heard + end - begin
        # Resampling may lose a sample.
        played = np.pad(played, ((0, 0), (0, max(0, n_wanted - played.shape[1]))))[:, :n_wanted]
        most = max(CEILING, float(np.abs(waveform).max(initial=0.0)))
        fades: dict[str, tuple[int, int]] = {}
        # What is replaced, or what is continued.
        like = (
            waveform[:, begin:end]
            if self.begin < self.recording.shape[1]
            else waveform[:, -n_heard:]
        )
        if n_heard:
            joined = join_continuation(waveform[:, :begin], played, n_heard, rate, peak_most=most)
            found, gain_db, fades["begin"] = joined.waveform, joined.gain_db, joined.fade
        else:
            found, gain_db = np.concatenate([waveform[:, :begin], played], axis=1), 0.0
        found, raised_db, quieter_db = self._raised(found, begin, like, most)
        if end < waveform.shape[1] or self.wraps:
            found, fades["end"] = self._lead_back(found, waveform, begin, end)
        found = np.concatenate([found, waveform[:, end:]], axis=1).astype(np.float32)
        seams = self._seams(found, waveform, {"begin": begin, "end": end}, fades)
        new = found[:, begin:end]
        turned = np.roll(found, self._turn, axis=1) if self._turn else found
        return Extended(turned, new, rate, gain_db, raised_db, quieter_db, seams)

    def _seams(
        self,
        found: np.ndarray,
        was: np.ndarray,
        lines: Mapping[str, int],
        fades: Mapping[str, tuple[int, int]],
    ) -> dict[str, ExtensionSeam]:
        """Measures the crossfades before the bar `lines` of the new version `found`, against the
        recording as it `was`; their positions are those in the recording, not rotated."""
        rate, n_samples, seams = self.sample_rate, found.shape[1], {}
        if self.wraps:
            found, was = (np.concatenate([one, one[:, :rate]], axis=1) for one in (found, was))
        for name, (first, stop) in fades.items():
            leads_back = was if name == "end" else None
            seam = ExtensionSeam.of(found, (first, stop), lines[name], rate, leads_back)
            at = (first + self._turn) % n_samples
            seams[name] = ExtensionSeam((at, at + stop - first), seam.levels_db, seam.hole_db)
        return seams

    def _raised(
        self, found: np.ndarray, begin: int, like: np.ndarray, most: float
    ) -> tuple[np.ndarray, float, float]:
        """The recording `[C, N]` with its new music, from `begin` on, brought near the level of
        `like`; the gain in dB; and by how many dB it stays quieter. See `Extended`."""
        new = found[:, begin:]
        levels = [level_db(sound) for sound in (like, new)]
        beyond = levels[0] - levels[1]
        raised_db = float(np.sign(beyond)) * max(0.0, abs(beyond) - SLACK_DB)
        raised_db = float(np.clip(raised_db, -RAISED_MOST_DB, RAISED_MOST_DB))
        raised_db = below_peak(raised_db, new, most)
        gains = np.full(new.shape[1], 10.0 ** (raised_db / 20.0), dtype=np.float32)
        n_rise = min(len(gains), round(RISE_S * self.sample_rate)) if self.n_frames else 0
        gains[:n_rise] = np.linspace(1.0, 10.0 ** (raised_db / 20.0), n_rise, dtype=np.float32)
        quieter_db = beyond - raised_db
        # What is left at the slack exactly is rounding.
        quieter_db = quieter_db if quieter_db > SLACK_DB + 0.05 else 0.0
        return np.concatenate([found[:, :begin], new * gains], axis=1), raised_db + 0.0, quieter_db

    def _lead_back(
        self, found: np.ndarray, waveform: np.ndarray, begin: int, end: int
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """The music `[C, end]`, crossfaded into the old recording where the two are most alike, and
        the samples of the crossfade."""
        rate = self.sample_rate
        stop = max(begin + 2, end - round(BACK_BEFORE_S * rate))
        n_pass = min(stop - begin, round(BACK_WITHIN_S * rate))
        n_fade = max(1, min(n_pass // 2, round(FADE_S * rate)))
        other = waveform[:, stop - n_pass : stop]
        at = stop - n_pass + most_alike_at(found[:, stop - n_pass : stop], other, n_fade)
        back = pass_into(found[:, :stop], other, n_fade)
        return np.concatenate([back, waveform[:, stop:end]], axis=1), (at, at + n_fade)


def quieter_sentence(onto: Mapping[str, Any]) -> str:
    """What to tell the user if new music stays quieter than the recording, by a take's figures of
    it; empty if it doesn't."""
    if not onto["quieter_db"]:
        return ""
    return (
        f"the new music is {onto['quieter_db']:.1f} dB quieter than what it continues or replaces: "
        f"its peaks, or the limit of {RAISED_MOST_DB:g} dB, allow no more gain than "
        f"{onto['raised_db']:+.1f} dB."
    )


def _resampled(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """`[C, N]` at another rate."""
    if rate == wanted:
        return waveform
    return np.ascontiguousarray(soxr.resample(waveform.T, rate, wanted, quality="VHQ").T)
