"""A step sequencer: a pattern of hits in, a waveform out.

This module plays both the example data and the corpus of the embedded base model, with different
kits and patterns. It handles time (tempo, swing, humanising), mixing (gain, pan, choke, ducking)
and level, and knows nothing of styles.

Time is counted in steps of a sixteenth note; a bar of 4/4 has 16 of them. Fractions are
welcome: 0.5 is a 1/32, 2/3 an eighth triplet's third part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

STEPS_PER_BAR = 16
NOTE_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FADE_S = 0.004
"""A cut sound fades out over this time, so that a choke never clicks."""

PEAK_DB = -1.0
"""Level of the loudest sample of a mix, in dBFS."""


@dataclass(frozen=True)
class Hit:
    """One stroke of one track.

    Args:
        step: time in sixteenths from the start of the pattern.
        pitch: MIDI note number, for pitched voices.
        length: how long it is held, in sixteenths; None lets it ring out.
        glide_to: MIDI note number that the pitch reaches at the end of the hit.
    """

    step: float
    velocity: float = 1.0
    pitch: float | None = None
    length: float | None = None
    glide_to: float | None = None


@dataclass(frozen=True)
class Pattern:
    """The hits to play, by track name.

    Args:
        swing: share of an eighth note taken by its first sixteenth: 0.5 is straight, 2/3 a
            full triplet shuffle.
    """

    bpm: float
    n_bars: int
    tracks: Mapping[str, Sequence[Hit]]
    swing: float = 0.5

    @property
    def duration_s(self) -> float:
        return self.n_bars * STEPS_PER_BAR * 15.0 / self.bpm


Voice = Callable[[Hit, float | None, int], np.ndarray]
"""Plays a hit: `(hit, held_s, sample_rate)` to samples `[N]`, velocity not yet applied."""


@dataclass(frozen=True)
class Channel:
    """How one track sounds in the mix.

    Args:
        pan: -1 left to 1 right, equal power; unused in a mono render.
        chokes: names of tracks whose ringing sound this track's hits cut; its own name makes it
            monophonic.
        ducked_by: name of the track (usually the kick) whose hits push this one down.
    """

    voice: Voice
    gain_db: float = 0.0
    pan: float = 0.0
    chokes: tuple[str, ...] = ()
    ducked_by: str | None = None
    duck_db: float = 6.0


Kit = Mapping[str, Channel]


@dataclass
class _Event:
    start: int
    samples: np.ndarray
    gain: float
    stop: int | None = None


def step_time_s(step: float, bpm: float, swing: float = 0.5) -> float:
    """Time in seconds of a step: each pair of sixteenths is warped so that the second one starts at
    `swing` of the pair."""
    pair, inside = divmod(step, 2.0)
    warped = inside * swing if inside <= 1.0 else swing + (inside - 1.0) * (1.0 - swing)
    return (pair + warped) * 30.0 / bpm


def one_shot(samples: np.ndarray, root_pitch: float | None = None) -> Voice:
    """A voice that plays a recording `[N]` (at the render's sample rate).

    With a `root_pitch` (MIDI note of the recording), hits with a pitch are transposed by
    resampling, as in a sampler. Soft hits are duller than hard ones.
    """

    def play(hit: Hit, held_s: float | None, sample_rate: int) -> np.ndarray:
        sound = samples
        if root_pitch is not None and hit.pitch is not None and hit.pitch != root_pitch:
            ratio = 2.0 ** ((hit.pitch - root_pitch) / 12.0)
            positions = np.arange(0, len(samples) - 1, ratio)
            sound = np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)
        if held_s is not None:
            sound = fade_out(sound, int(held_s * sample_rate), sample_rate)
        return soften(sound, hit.velocity)

    return play


def soften(sound: np.ndarray, velocity: float) -> np.ndarray:
    """Blend in a two-sample average, as a softer stroke has less treble."""
    amount = 0.5 * (1.0 - min(max(velocity, 0.0), 1.0))
    if amount == 0.0 or len(sound) < 2:
        return sound
    dulled = sound.copy()
    dulled[1:] = 0.5 * (sound[1:] + sound[:-1])
    return (1.0 - amount) * sound + amount * dulled


def fade_out(sound: np.ndarray, n_samples: int, sample_rate: int) -> np.ndarray:
    """Cut `sound` to `n_samples` and fade out its last 4 ms."""
    if len(sound) <= n_samples:
        return sound
    cut = sound[: max(n_samples, 1)].copy()
    n_fade = min(len(cut), int(FADE_S * sample_rate))
    cut[len(cut) - n_fade :] *= np.linspace(1.0, 0.0, n_fade, dtype=np.float32)
    return cut


def render(
    pattern: Pattern,
    kit: Kit,
    sample_rate: int,
    *,
    seed: int = 0,
    n_channels: int = 1,
    humanise_ms: float = 4.0,
    drive: float = 0.0,
) -> np.ndarray:
    """Plays a pattern on a kit.

    Args:
        pattern: the hits; tracks that the kit lacks are an error, unused channels are fine.
        sample_rate: Hz, of the result and of the kit's recordings.
        seed: for the humanising; the same seed gives the same samples.
        humanise_ms: standard deviation of each hit's time.
        drive: 0 is clean; above it the mix is driven into a tanh, like a loud master.

    Returns:
        Waveform `[n_channels, N]`, float32, N = the pattern's length rounded to a sample. A
        sound that rings past the end is cut there.

    Raises:
        KeyError: the pattern has a track that the kit lacks.
    """
    rng = np.random.default_rng(seed)
    n_samples = round(pattern.duration_s * sample_rate)
    events = _schedule(pattern, kit, sample_rate, rng, humanise_ms)
    mix = np.zeros((n_channels, n_samples), dtype=np.float32)
    for track, track_events in events.items():
        channel = kit[track]
        line = np.zeros(n_samples, dtype=np.float32)
        for event in track_events:
            sound = event.samples
            if event.stop is not None:
                sound = fade_out(sound, event.stop - event.start, sample_rate)
            stop = min(n_samples, event.start + len(sound))
            if stop > event.start:
                line[event.start : stop] += event.gain * sound[: stop - event.start]
        if channel.ducked_by in events:
            starts = [event.start for event in events[channel.ducked_by]]
            line *= _duck_envelope(starts, n_samples, sample_rate, channel.duck_db)
        line *= 10.0 ** (channel.gain_db / 20.0)
        mix += line if n_channels == 1 else _pan(line, channel.pan)
    if drive > 0.0:
        mix = np.tanh(mix * (1.0 + drive)) / np.tanh(1.0 + drive)
    peak = float(np.abs(mix).max(initial=0.0))
    if peak > 0.0:
        mix *= 10.0 ** (PEAK_DB / 20.0) / peak
    return mix.astype(np.float32)


def _schedule(
    pattern: Pattern, kit: Kit, sample_rate: int, rng: np.random.Generator, humanise_ms: float
) -> dict[str, list[_Event]]:
    events: dict[str, list[_Event]] = {}
    step_s = 15.0 / pattern.bpm
    for track in sorted(pattern.tracks):
        channel = kit[track]
        line = events.setdefault(track, [])
        for hit in sorted(pattern.tracks[track], key=lambda hit: hit.step):
            time_s = step_time_s(hit.step, pattern.bpm, pattern.swing)
            time_s += rng.normal(0.0, humanise_ms / 1000.0) if humanise_ms else 0.0
            start = max(0, round(time_s * sample_rate))
            held_s = None if hit.length is None else hit.length * step_s
            samples = channel.voice(hit, held_s, sample_rate)
            # Perceived loudness is closer to a power of the velocity.
            line.append(_Event(start, samples, hit.velocity**1.5))
    for track, line in events.items():
        for choked in kit[track].chokes:
            _choke(events.get(choked, []), [event.start for event in line])
    return events


def _choke(ringing: list[_Event], cuts: list[int]) -> None:
    cuts = sorted(cuts)
    for event in ringing:
        later = [cut for cut in cuts if cut > event.start]
        if later and (event.stop is None or later[0] < event.stop):
            event.stop = later[0]


def _duck_envelope(
    starts: list[int], n_samples: int, sample_rate: int, duck_db: float
) -> np.ndarray:
    """Gain `[N]` that falls by `duck_db` within 2 ms at each start and recovers over 120 ms."""
    attack, release = int(0.002 * sample_rate), int(0.12 * sample_rate)
    shape = np.concatenate([np.linspace(0, 1, attack), np.linspace(1, 0, release)])
    depth = np.zeros(n_samples, dtype=np.float32)
    for start in starts:
        stop = min(n_samples, start + len(shape))
        if stop > start:
            depth[start:stop] = np.maximum(depth[start:stop], shape[: stop - start])
    return 10.0 ** (-duck_db * depth / 20.0)


def _pan(line: np.ndarray, pan: float) -> np.ndarray:
    angle = (pan + 1.0) * np.pi / 4.0
    return np.stack([line * np.cos(angle), line * np.sin(angle)]) * np.sqrt(2.0)
