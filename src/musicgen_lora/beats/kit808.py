"""The TR-808 kit: its recorded drums, and the bass that developed from its kick.

The drums are recordings. The "808 bass" of hip-hop is that machine's kick, tuned and left to ring
for a second or two; the recorded kicks last 0.2 to 0.4 s, so the bass is synthesised here the way
the circuit made it: a decaying sine whose pitch drops at the attack, slightly overdriven so that it
is audible on small speakers.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import numpy as np
import soundfile as sf
import soxr

from musicgen_lora.beats.sequencer import Channel, Hit, Kit, Voice, one_shot

COWBELL_PITCH = 78.44
"""MIDI note of the cowbell's stronger tone, 759 Hz; the weaker one is about a fifth below."""

_RECORDINGS: dict[str, tuple[str, float]] = {
    # track: (file, gain in dB). All recordings peak at full scale, so the gains are the mix.
    "kick": ("808_Kick_1", -2.0),
    "kick_long": ("808_Kick_2", -4.0),
    "snare": ("808_Snare_1", -7.0),
    "snare_tight": ("808_Snare_2", -7.0),
    "clap": ("808_Clap", -5.0),
    "closed_hat": ("808_Closed_Hat", -11.0),
    "open_hat": ("808_Open_Hat", -14.0),
    "ride": ("808_Ride", -15.0),
    "cowbell": ("808_Cowbell", -14.0),
    "clave": ("808_Clave", -17.0),
    "tom_low": ("808_Tom_1", -9.0),
    "tom_mid": ("808_Tom_3", -9.0),
    "tom_high": ("808_Tom_5", -10.0),
    "conga_low": ("808_Low_Conga", -13.0),
    "conga_mid": ("808_Mid_Conga", -13.0),
    "conga_high": ("808_High_Conga", -14.0),
}
_CHOKES = {"closed_hat": ("open_hat",), "open_hat": ("open_hat",)}
_PANS = {
    "closed_hat": 0.15,
    "open_hat": 0.15,
    "ride": -0.3,
    "cowbell": -0.25,
    "clave": 0.35,
    "tom_low": 0.3,
    "tom_high": -0.3,
    "conga_low": -0.35,
    "conga_high": 0.3,
}


def load_kit808(sample_rate: int, *, bass_decay_s: float = 1.2, bass_drive: float = 1.5) -> Kit:
    """The kit, ready for `sequencer.render` at `sample_rate` (Hz).

    Tracks: kick, kick_long, sub, snare, snare_tight, clap, closed_hat, open_hat, ride, cowbell,
    clave, tom_low, tom_mid, tom_high, conga_low, conga_mid, conga_high. `sub` and `cowbell`
    follow a hit's pitch. A closed hat cuts the open one, and a bass note the previous one.

    Args:
        bass_decay_s: time constant of the bass notes' decay.
    """
    kit = {
        track: Channel(
            one_shot(_recording(name, sample_rate), COWBELL_PITCH if track == "cowbell" else None),
            gain_db=gain_db,
            pan=_PANS.get(track, 0.0),
            chokes=_CHOKES.get(track, ()),
        )
        for track, (name, gain_db) in _RECORDINGS.items()
    }
    # The kick is the attack of the note: the bass ducks under it and swells after it.
    kit["sub"] = Channel(
        bass_voice(bass_decay_s, bass_drive),
        gain_db=-8.0,
        chokes=("sub",),
        ducked_by="kick",
        duck_db=4.0,
    )
    return kit


@cache
def _recording(name: str, sample_rate: int) -> np.ndarray:
    """One recording `[N]`, float32, resampled to `sample_rate`; read-only, as it is shared."""
    with as_file(files("musicgen_lora") / "assets" / "kit808" / f"{name}.wav") as path:
        samples, recorded_rate = sf.read(path, dtype="float32")
    samples = soxr.resample(samples, recorded_rate, sample_rate, quality="VHQ")
    samples = samples / np.abs(samples).max()
    samples.flags.writeable = False
    return samples


def bass_voice(decay_s: float, drive: float) -> Voice:
    """A voice that plays the 808 bass; hits need a pitch (MIDI, about 24 to 40).

    Args:
        decay_s: time constant of the note's exponential decay; it rings for five of them
            when the hit has no length.
        drive: 0 is a clean sine; at 1.5 the third harmonic starts about 20 dB below the
            fundamental and dies away with the note.
    """

    def play(hit: Hit, held_s: float | None, sample_rate: int) -> np.ndarray:
        if hit.pitch is None:
            raise ValueError("the 808 bass needs a pitch in every hit")
        ring_s = 5.0 * decay_s
        sounding_s = ring_s if held_s is None else min(held_s, ring_s)
        release_s = 0.03
        time_s = np.arange(round((sounding_s + release_s) * sample_rate)) / sample_rate
        glide_s = 2.0 * decay_s if held_s is None else held_s
        frequency = _pitch_hz(time_s, hit.pitch, hit.glide_to, glide_s)
        phase = 2.0 * np.pi * np.cumsum(frequency) / sample_rate
        envelope = np.exp(-time_s / decay_s) * np.clip(time_s / 0.002, 0.0, 1.0)
        envelope *= 0.5 + 0.5 * np.cos(np.pi * np.clip((time_s - sounding_s) / release_s, 0.0, 1.0))
        # A touch of the octave gives the saturation even harmonics as well as odd ones.
        note = envelope * (np.sin(phase) + 0.06 * np.sin(2.0 * phase))
        if drive > 0.0:
            note = np.tanh(drive * note) / np.tanh(drive)
        return note.astype(np.float32)

    return play


def _pitch_hz(
    time_s: np.ndarray, pitch: float, glide_to: float | None, glide_s: float
) -> np.ndarray:
    """Frequency at each time `[N]`: an attack that drops from above within 30 ms, the note,
    then a portamento from 45 % to 85 % of `glide_s`."""
    note = np.full(len(time_s), float(pitch))
    if glide_to is not None:
        part = np.clip((time_s / glide_s - 0.45) / 0.4, 0.0, 1.0)
        note += (glide_to - pitch) * part * part * (3.0 - 2.0 * part)
    sweep = 1.0 + 2.5 * np.exp(-time_s / 0.008)
    return 440.0 * 2.0 ** ((note - 69.0) / 12.0) * sweep
