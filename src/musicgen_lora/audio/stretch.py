"""Plays a recording slightly faster or slower at the same pitch, with its drums as sharp as before.

Below `SPLIT_HZ` the Signalsmith stretcher keeps the bass intact. Like every phase vocoder it smears
attacks, so everything above is sliced before each onset and the slices are moved, as in drum
samplers. On eight 808 beats at 1.02 and 0.97 times their tempo, against the same beats played at
that tempo (`benchmarks/audio/stretch.py`), the level just before a hit rose by 0.6 dB at most here,
by 5 to 20 dB with Signalsmith or Bungee alone and 40 dB with librosa's phase vocoder; the steepest
rise of hits changed by +0.8 to +1.8 dB here, by -3 to -7, -5 and -11 dB there. With slices alone,
a held 50 Hz bass has side tones at -7 dB, here at -40 dB. Rubber Band is under the GPL.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import butter, sosfiltfilt

from musicgen_lora.errors import UserError

SPLIT_HZ = 200.0
LEAD_S = 0.008
"""A slice begins this long before its onset."""
FADE_S = 0.004
LONGEST_SLICE_S = 0.25
"""Longer stretches without an onset are cut too, so that nothing is far from its place."""
MOST = 0.1
"""Slices don't sound good beyond this change of speed; callers ask for less."""


Lateness = Callable[[np.ndarray], np.ndarray]
"""By how many seconds the sound at times `[M]`, in seconds, lags the tempo as counted from the
beginning; negative where it is early."""


def stretch(
    waveform: np.ndarray,
    sample_rate: int,
    speed: float,
    onsets_s: Sequence[float],
    late_s: Lateness = np.zeros_like,
) -> np.ndarray:
    """Plays `[C, N]` at `speed` times its tempo, straightening tempo drift.

    Args:
        waveform: float32.
        speed: above 1 is faster.
        late_s: the sound at t seconds moves to (t - late_s(t)) / speed. The bass follows that as on
            tape, so its pitch changes as much as its tempo does.

    Returns:
        `[C, M]` float32, N / speed samples if nothing was late.

    Raises:
        ValueError: the local speed differs from 1 by more than `MOST` anywhere.
        UserError: the stretcher isn't installed.
    """
    edges = _edges(waveform.shape[1], sample_rate, onsets_s)
    on_time = np.array(edges) - sample_rate * late_s(np.array(edges) / sample_rate)
    places = np.round(on_time / speed).astype(int).tolist()
    if not np.abs(np.diff(on_time) / np.diff(edges) / speed - 1.0).max() <= MOST:
        raise ValueError(f"A speed of {speed:g} is beyond what slices can do.")
    if places == edges or waveform.shape[1] < sample_rate * LONGEST_SLICE_S:
        return _to_length(waveform, places[-1])
    filters = butter(2, SPLIT_HZ, "lowpass", fs=sample_rate, output="sos")
    low = np.asarray(sosfiltfilt(filters, waveform, axis=1), dtype=np.float32)
    high = _moved_slices(waveform - low, edges, places, round(FADE_S * sample_rate))
    if speed != 1.0:
        low = _by_signalsmith(low, sample_rate, speed)
    if late_s is not np.zeros_like:
        low = _at_places(low, np.array(edges) / speed, on_time / speed)
    return (_to_length(low, places[-1]) + high).astype(np.float32)


def _by_signalsmith(waveform: np.ndarray, sample_rate: int, speed: float) -> np.ndarray:
    """Raises a UserError if the library is missing: there is no wheel for Linux on ARM."""
    try:
        from python_stretch.Signalsmith import Stretch
    except ImportError as error:
        raise UserError(
            "Stretching a loop needs python-stretch: pip install python-stretch"
        ) from error
    stretcher = Stretch(0)
    stretcher.preset(len(waveform), sample_rate)
    stretcher.setTimeFactor(speed)
    return np.asarray(stretcher.process(np.ascontiguousarray(waveform)), dtype=np.float32)


def _at_places(waveform: np.ndarray, from_: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Moves the sound at samples `from_` of `[C, N]` to `to`, interpolating linearly, which is
    accurate to -70 dB below `SPLIT_HZ`."""
    old = np.interp(np.arange(round(to[-1])), to, from_)
    samples = np.arange(waveform.shape[1])
    return np.array([np.interp(old, samples, channel) for channel in waveform])


def _to_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    short = max(0, n_samples - waveform.shape[1])
    return np.pad(waveform, ((0, 0), (0, short)))[:, :n_samples]


def _moved_slices(
    waveform: np.ndarray, edges: Sequence[int], places: Sequence[int], n_fade: int
) -> np.ndarray:
    """Puts the slices between edges at their new places, with equal-power crossfades; a slice that
    has to be longer repeats its end."""
    moved = np.zeros((len(waveform), places[-1] + n_fade), dtype=np.float32)
    ramp = np.sin(np.linspace(0.0, 0.5 * np.pi, n_fade, dtype=np.float32))
    for (start, stop), (place, end) in zip(
        itertools.pairwise(edges), itertools.pairwise(places), strict=True
    ):
        missing = max(0, (end - place) - (stop - start))
        piece = waveform[:, start : stop + n_fade]
        if missing:
            piece = _with_echo(waveform[:, start:stop], piece[:, stop - start :], missing, ramp)
        piece = _to_length(piece, end - place + n_fade).copy()
        piece[:, -n_fade:] *= ramp[::-1]
        if start:
            piece[:, :n_fade] *= ramp
        moved[:, place : end + n_fade] += piece
    return moved[:, : places[-1]]


def _with_echo(
    piece: np.ndarray, following: np.ndarray, missing: int, ramp: np.ndarray
) -> np.ndarray:
    """A piece `[C, N]` with its end repeated, longer by `missing`; then what follows it, for the
    crossfade to the next slice."""
    n_fade = len(ramp)
    again = piece.shape[1] - missing
    seam = piece[:, -n_fade:] * ramp[::-1] + piece[:, again - n_fade : again] * ramp
    return np.concatenate([piece[:, :-n_fade], seam, piece[:, again:], following], axis=1)


def _edges(n_samples: int, sample_rate: int, onsets_s: Sequence[float]) -> list[int]:
    """The edges of slices, each long enough for its fades."""
    shortest, longest = 4 * round(FADE_S * sample_rate), round(LONGEST_SLICE_S * sample_rate)
    edges = [0]
    cuts = (round((onset_s - LEAD_S) * sample_rate) for onset_s in sorted(onsets_s))
    for cut in [*cuts, n_samples]:
        while cut - edges[-1] > longest + shortest:
            edges.append(edges[-1] + longest)
        if cut - edges[-1] >= shortest and n_samples - cut >= shortest:
            edges.append(cut)
    return [*edges, n_samples]
