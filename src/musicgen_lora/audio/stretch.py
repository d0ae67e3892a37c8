"""A recording a little faster or slower, at its pitch, with its drums as sharp as they were.

Below `SPLIT_HZ` the Signalsmith stretcher keeps the bass whole. It and every phase vocoder smear
attacks, so what is above is cut before each onset, and the slices are moved, as drum samplers do.
On eight 808 beats at 1.02 and 0.97 times their tempo, against the same beats played at that tempo
(`benchmarks/audio/stretch.py`), the level just before a hit rose by 0.6 dB at most here, by 5 to
20 dB with Signalsmith or Bungee alone and 40 dB with librosa's phase vocoder; hits' steepest rise
changed by +0.8 to +1.8 dB here, by -3 to -7, -5 and -11 dB there. Slices alone put a held bass of
50 Hz at -7 dB beside its pitch, this at -40 dB. Rubber Band is under the GPL.
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
"""Where there is no onset for longer, it is cut nevertheless, so that nothing is far from its
place."""
MOST = 0.1
"""Slices are no good for more than this; what is asked for stays below."""


Lateness = Callable[[np.ndarray], np.ndarray]
"""By how many seconds what sounds at times `[M]` in seconds comes later than the beginning does, by
the tempo; negative where earlier."""


def stretch(
    waveform: np.ndarray,
    sample_rate: int,
    speed: float,
    onsets_s: Sequence[float],
    late_s: Lateness = np.zeros_like,
) -> np.ndarray:
    """Plays `[C, N]` at `speed` times its tempo, in time where it wandered.

    Args:
        waveform: float32.
        speed: above 1 is faster.
        late_s: what was at t seconds comes at (t - late_s(t)) / speed. A bass follows that as on a
            tape, so its pitch moves by as much as its tempo does.

    Returns:
        `[C, M]` float32, N / speed samples where nothing was late.

    Raises:
        ValueError: the speed is anywhere further from 1 than `MOST`.
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
    """Raises a UserError where the library is missing: Linux on ARM has no wheel of it."""
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
    """What was at samples `from_` of `[C, N]` comes at `to`; a line joins its samples, which is
    right to -70 dB below `SPLIT_HZ`."""
    old = np.interp(np.arange(round(to[-1])), to, from_)
    samples = np.arange(waveform.shape[1])
    return np.array([np.interp(old, samples, channel) for channel in waveform])


def _to_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    short = max(0, n_samples - waveform.shape[1])
    return np.pad(waveform, ((0, 0), (0, short)))[:, :n_samples]


def _moved_slices(
    waveform: np.ndarray, edges: Sequence[int], places: Sequence[int], n_fade: int
) -> np.ndarray:
    """Slices from edge to edge at their new places. Ends are faded into each other at equal power;
    a slice that has to be longer plays its last moments twice."""
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
    """A piece `[C, N]` with its end once more, longer by `missing`; then what follows it, which the
    fade to the next slice takes up."""
    n_fade = len(ramp)
    again = piece.shape[1] - missing
    seam = piece[:, -n_fade:] * ramp[::-1] + piece[:, again - n_fade : again] * ramp
    return np.concatenate([piece[:, :-n_fade], seam, piece[:, again:], following], axis=1)


def _edges(n_samples: int, sample_rate: int, onsets_s: Sequence[float]) -> list[int]:
    """Where slices begin and end, each long enough for its fades."""
    shortest, longest = 4 * round(FADE_S * sample_rate), round(LONGEST_SLICE_S * sample_rate)
    edges = [0]
    cuts = (round((onset_s - LEAD_S) * sample_rate) for onset_s in sorted(onsets_s))
    for cut in [*cuts, n_samples]:
        while cut - edges[-1] > longest + shortest:
            edges.append(edges[-1] + longest)
        if cut - edges[-1] >= shortest and n_samples - cut >= shortest:
            edges.append(cut)
    return [*edges, n_samples]
