"""Numbers that describe a beat's waveform: level, balance of bands, onsets, tempo, bass.

What makes an 808 beat is hardly visible to music embeddings: how much energy lies below 60 Hz, how
fast the hats roll. These numbers are measured from the signal, without any model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal.windows import hann

from musicgen_lora.audio.loudness import decibels, integrated_loudness
from musicgen_lora.audio.spectra import magnitudes, welch_spectrum
from musicgen_lora.audio.waveforms import check_waveform
from musicgen_lora.listening.pitch.bass import BassNote, find_bass_notes
from musicgen_lora.listening.rhythm.onsets import find_onsets, rolled_share
from musicgen_lora.listening.rhythm.swing import find_swing
from musicgen_lora.listening.rhythm.tempo import estimate_tempo

BANDS_HZ = ((20, 60), (60, 120), (120, 250), (250, 2000), (2000, 6000), (6000, 14000))
CLIPPED_AT = 0.999
SILENT_FRAME_DB = -60.0
FRAME_S = 0.05
POWER_WINDOW_S = 0.5
SUB_HZ = (25.0, 120.0)
SUB_FLOOR_DB = -40.0
"""A sub bass further below the whole signal is too weak for its pitch to matter."""


def describe(
    waveform: np.ndarray, sample_rate: int, *, notes: Sequence[BassNote] | None = None
) -> dict[str, float]:
    """The descriptors of one clip.

    Args:
        waveform: `[C, N]` float32, full scale at 1.
        sample_rate: Hz; below 28 kHz the top band is cut off at half of it.
        notes: its bass notes, if they are known already.

    Returns:
        By name; NaN if it is undefined for the clip (the loudness of silence or of less than 0.4 s,
        the tempo of less than 1.2 s, the pitch of a missing bass):

        - `peak_db`, `rms_db`: dBFS, a full-scale square wave is 0 in both; -120 for silence.
        - `crest_db`: peak over RMS.
        - `loudness_lufs`: integrated, BS.1770-4 (pyloudnorm).
        - `clipped_share`: of samples at full scale (0.999 or more).
        - `silence_share`: of 50 ms frames below -60 dBFS RMS.
        - `dc_offset`: mean sample of the channel with the largest offset.
        - `band_20_60_share` ...: share of the power between 20 Hz and 14 kHz, and
          `band_20_60_db` the same in dB.
        - `spectral_centroid_hz`, `spectral_flatness`: means over the frames that are not
          silent, 20 Hz to 14 kHz; flatness is the geometric over the arithmetic mean of the
          power spectrum, 0 for a tone, 0.56 for white noise.
        - `onset_rate_hz`, `hat_onset_rate_hz` (6-14 kHz), `kick_onset_rate_hz` (20-120 Hz):
          onsets per second. Snares also count in the hats' band, bass notes in the kicks'.
        - `roll_density`: share of the hats' onsets less than 90 ms after the previous one (1/32
          notes, fast triplets).
        - `tempo_bpm`: see `tempo.estimate_tempo`.
        - `tempo_confidence`: how well the onsets repeat with the beat or the bar, 0 to 1, see
          `metre.repetition`.
        - `swing`: see `swing.find_swing`.
        - `sub_f0_hz`: strongest frequency from 25 to 120 Hz.
        - `bass_glide_semitones`: mean size of the bass notes' glides, 0 for steady notes.
        - `bass_decay_s`: median time in which a bass note decays by 8.7 dB, see `bass.BassNote`.
        - `side_share`: share of the power in the difference of left and right; 0 is mono.

    Raises:
        ValueError: not `[C, N]`, empty, or with NaN or infinite samples.
    """
    check_waveform(waveform)
    waveform = waveform.astype(np.float64)
    mono = waveform.mean(axis=0)
    return {
        **_levels(waveform, sample_rate),
        **_spectrum(waveform, sample_rate),
        **_brightness(mono, sample_rate),
        **_rhythm(waveform, sample_rate),
        **_bass(find_bass_notes(waveform, sample_rate) if notes is None else notes),
        "side_share": _side_share(waveform),
    }


def band_name(low_hz: int, high_hz: int) -> str:
    """A band's name among the descriptors: `band_20_60`."""
    return f"band_{low_hz}_{high_hz}"


def clipped_share(waveform: np.ndarray) -> float:
    """The descriptor of that name, of `[C, N]`."""
    return float((np.abs(waveform) >= CLIPPED_AT).mean())


def silence_share(waveform: np.ndarray, sample_rate: int) -> float:
    """The descriptor of that name, of `[C, N]`."""
    n_frame = max(1, round(FRAME_S * sample_rate))
    n_whole = max(1, waveform.shape[1] // n_frame) * n_frame
    frames = np.square(waveform[:, :n_whole], dtype=np.float64).mean(axis=0)
    frames = frames.reshape(-1, min(n_frame, frames.size)).mean(axis=1)
    return float((frames < 10.0 ** (SILENT_FRAME_DB / 10.0)).mean())


def _levels(waveform: np.ndarray, sample_rate: int) -> dict[str, float]:
    absolute = np.abs(waveform)
    peak_db = decibels(float(absolute.max()) ** 2)
    rms_db = decibels(float(np.square(waveform).mean()))
    means = waveform.mean(axis=1)
    return {
        "peak_db": peak_db,
        "rms_db": rms_db,
        "crest_db": peak_db - rms_db,
        "loudness_lufs": integrated_loudness(waveform, sample_rate),
        "clipped_share": clipped_share(waveform),
        "silence_share": silence_share(waveform, sample_rate),
        "dc_offset": float(means[np.abs(means).argmax()]),
    }


def _spectrum(waveform: np.ndarray, sample_rate: int) -> dict[str, float]:
    """Shares of the bands, and the pitch of the sub bass."""
    n_window = round(POWER_WINDOW_S * sample_rate)
    power, frequency = welch_spectrum(
        waveform, sample_rate, min(n_window, waveform.shape[1]), nfft=4 * n_window
    )
    bands = {
        band_name(low, high): float(power[(frequency >= low) & (frequency < high)].sum())
        for low, high in BANDS_HZ
    }
    total = sum(bands.values())
    result = {}
    for name, band in bands.items():
        share = band / total if total > 0.0 else float("nan")
        result[f"{name}_share"] = share
        result[f"{name}_db"] = decibels(share) if total > 0.0 else float("nan")
    result["sub_f0_hz"] = _sub_pitch(power, frequency, total)
    return result


def _sub_pitch(power: np.ndarray, frequency: np.ndarray, total: float) -> float:
    sub = np.flatnonzero((frequency >= SUB_HZ[0]) & (frequency <= SUB_HZ[1]))
    inside = float(power[sub].sum())
    if not inside > 10.0 ** (SUB_FLOOR_DB / 10.0) * total:
        return float("nan")
    peak = int(sub[power[sub].argmax()])
    if power[peak] < max(power[peak - 1], power[peak + 1]):
        # The flank of a peak outside the range.
        return float("nan")
    left, middle, right = np.log(power[peak - 1 : peak + 2] + 1e-30)
    bend = left - 2.0 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0.0 else 0.0
    return float(frequency[peak] + shift * (frequency[1] - frequency[0]))


def _brightness(mono: np.ndarray, sample_rate: int) -> dict[str, float]:
    nothing = {"spectral_centroid_hz": float("nan"), "spectral_flatness": float("nan")}
    n_window = round(0.064 * sample_rate)
    if len(mono) < n_window:
        return nothing
    hop = n_window // 2
    # Only whole windows: one that reaches past an end would see a step.
    first, n_frames = -(-(n_window // 2) // hop), (len(mono) - n_window) // hop + 1
    window = np.asarray(hann(n_window, sym=False))
    magnitude = magnitudes(mono, window, hop, n_window, first=first, n_frames=n_frames)
    frequency = np.fft.rfftfreq(n_window, 1.0 / sample_rate)
    bins = (frequency >= BANDS_HZ[0][0]) & (frequency <= BANDS_HZ[-1][1])
    magnitude, frequency = magnitude[bins].astype(np.float64), frequency[bins]
    level = np.sqrt(np.square(magnitude).sum(axis=0)) / 4.0
    heard = level > 10.0 ** (SILENT_FRAME_DB / 20.0)
    if not heard.any():
        return nothing
    magnitude = magnitude[:, heard]
    centroid = (frequency[:, None] * magnitude).sum(axis=0) / magnitude.sum(axis=0)
    power = np.square(magnitude) + 1e-20
    flatness = np.exp(np.log(power).mean(axis=0)) / power.mean(axis=0)
    return {
        "spectral_centroid_hz": float(centroid.mean()),
        "spectral_flatness": float(flatness.mean()),
    }


def _rhythm(waveform: np.ndarray, sample_rate: int) -> dict[str, float]:
    mono = waveform.mean(axis=0)
    duration_s = len(mono) / sample_rate
    onsets = find_onsets(mono, sample_rate, 20.0, 14000.0, 0.023)
    hats = find_onsets(mono, sample_rate, 6000.0, 14000.0, 0.012)
    kicks = find_onsets(mono, sample_rate, 20.0, 120.0, 0.096)
    tempo = estimate_tempo(waveform, sample_rate)
    return {
        "onset_rate_hz": len(onsets) / duration_s,
        "hat_onset_rate_hz": len(hats) / duration_s,
        "kick_onset_rate_hz": len(kicks) / duration_s,
        "roll_density": rolled_share(hats),
        "tempo_bpm": tempo.bpm,
        "tempo_confidence": tempo.repetition,
        "swing": find_swing(onsets, tempo.beats_s),
    }


def _bass(notes: Sequence[BassNote]) -> dict[str, float]:
    glides = [abs(note.glide) for note in notes]
    decays = [note.decay_s for note in notes if np.isfinite(note.decay_s)]
    return {
        "bass_glide_semitones": float(np.mean(glides)) if glides else float("nan"),
        "bass_decay_s": float(np.median(decays)) if decays else float("nan"),
    }


def _side_share(waveform: np.ndarray) -> float:
    """Share of the side channel in the power of `[C, N]`; NaN for silence."""
    if len(waveform) != 2:
        return 0.0 if np.any(waveform) else float("nan")
    middle, side = (float(np.square(waveform[0] + sign * waveform[1]).sum()) for sign in (1, -1))
    return side / (middle + side) if middle + side > 0.0 else float("nan")
