"""What stretching does to 808 beats: attacks, level, and the pitch of a held bass.

    python benchmarks/audio/stretch.py    # bungee-python and librosa are compared where installed

Each beat is stretched to another tempo and compared with the same beat played at that tempo, whose
hits are as sharp as recorded. "Rise" is the steepest one within 0.25 ms above 1 kHz at each hit,
"before" the level 4 to 20 ms ahead of it, where a vocoder smears the attack.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable

import numpy as np
import soxr
from python_stretch.Signalsmith import Stretch
from scipy.signal import butter, sosfiltfilt

from musicgen_lora.audio.loudness import integrated_loudness
from musicgen_lora.audio.stretch import stretch
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.sequencer import step_time_s
from musicgen_lora.listening.rhythm.loops import weighted_onsets
from musicgen_lora.listening.rhythm.metre import onset_strengths

RATE = 32_000
SEEDS = range(40, 48)
SPEEDS = (1.02, 0.97)
LOUD = 0.6
BASS_HZ = 50.0

Method = Callable[[np.ndarray, float], np.ndarray]


def ours(waveform: np.ndarray, speed: float) -> np.ndarray:
    onsets_s, _ = weighted_onsets(onset_strengths(waveform, RATE))
    return stretch(waveform, RATE, speed, onsets_s.tolist())


def signalsmith(waveform: np.ndarray, speed: float) -> np.ndarray:
    stretcher = Stretch(0)
    stretcher.preset(len(waveform), RATE)
    stretcher.setTimeFactor(speed)
    return np.asarray(stretcher.process(np.ascontiguousarray(waveform)))


def signalsmith_short(waveform: np.ndarray, speed: float) -> np.ndarray:
    stretcher = Stretch(0)
    stretcher.configure(len(waveform), 1024, 256)
    stretcher.setTimeFactor(speed)
    return np.asarray(stretcher.process(np.ascontiguousarray(waveform)))


def librosa_vocoder(waveform: np.ndarray, speed: float) -> np.ndarray:
    import librosa  # pyright: ignore[reportMissingImports]

    return librosa.effects.time_stretch(waveform, rate=speed)


def bungee(waveform: np.ndarray, speed: float) -> np.ndarray:
    from bungee_python.bungee import Bungee  # pyright: ignore[reportMissingImports]

    stretcher = Bungee(sample_rate=RATE, channels=1)
    stretcher.set_speed(speed)
    return stretcher.process(waveform.T.astype(np.float32)).T


def resampled(waveform: np.ndarray, speed: float) -> np.ndarray:
    return soxr.resample(waveform.T, RATE * speed, RATE, quality="VHQ").T


def methods() -> dict[str, Method]:
    """The methods that are compared, by name."""
    found: dict[str, Method] = {
        "ours": ours,
        "Signalsmith": signalsmith,
        "Signalsmith, 32 ms": signalsmith_short,
        "resampled (pitch moves)": resampled,
    }
    if importlib.util.find_spec("bungee_python"):
        found["Bungee"] = bungee
    if importlib.util.find_spec("librosa"):
        found["librosa"] = librosa_vocoder
    return found


def played_pair(seed: int, speed: float) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """A beat, the same at `speed` times its tempo, and the times of the latter's loud hits."""
    beat = dataclasses.replace(make_beat(seed, duration_s=8.0), humanise_ms=0.0)
    pattern = dataclasses.replace(beat.pattern, bpm=beat.pattern.bpm * speed)
    faster = dataclasses.replace(beat, pattern=pattern)
    drums = [hits for track, hits in pattern.tracks.items() if track != "sub"]
    times_s = {
        step_time_s(hit.step, pattern.bpm, pattern.swing)
        for hits in drums
        for hit in hits
        if hit.velocity > LOUD
    }
    return render_beat(beat, RATE, seed=seed), render_beat(faster, RATE, seed=seed), sorted(times_s)


def attacks(waveform: np.ndarray, times_s: list[float]) -> np.ndarray:
    """The level before, peak and steepest rise of each hit, in dB: `[M, 3]`."""
    high = sosfiltfilt(butter(2, 1000.0, "highpass", fs=RATE, output="sos"), waveform[0])
    power = np.convolve(high**2, np.ones(32) / 32, "same") + 1e-10
    level = 10.0 * np.log10(power)
    rows = []
    for at in (round(time_s * RATE) for time_s in times_s):
        if at < 800 or at + 700 > len(power):
            continue
        before = 10.0 * np.log10(power[at - 640 : at - 130].mean())
        rise = np.diff(level[at - 320 : at + 500 : 8]).max()
        rows.append((before, level[at - 160 : at + 500].max(), rise))
    return np.array(rows)


def aligned(waveform: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A waveform shifted by up to 20 ms to align its treble with another's, at the same length."""
    short = max(0, like.shape[1] - waveform.shape[1])
    waveform = np.pad(waveform, ((0, 0), (0, short)))[:, : like.shape[1]]
    filters = butter(2, 1000.0, "highpass", fs=RATE, output="sos")
    envelopes = [
        np.sqrt(np.convolve(sosfiltfilt(filters, one[0]) ** 2, np.ones(32) / 32, "same"))[::8]
        for one in (like, waveform)
    ]
    lags = range(-80, 81)
    best = max(lags, key=lambda lag: float((envelopes[0] * np.roll(envelopes[1], lag)).sum()))
    return np.roll(waveform, 8 * best, axis=1)


def off_pitch_db(method: Method) -> float:
    """The power of a stretched, held bass off its pitch relative to that on it, in dB."""
    time_s = np.arange(4 * RATE) / RATE
    sound = 0.5 * np.sin(2.0 * np.pi * BASS_HZ * time_s) * np.exp(-time_s / 2.0)
    rng = np.random.default_rng(0)
    for start in range(0, 4 * RATE, RATE // 4):
        sound[start : start + 1600] += (
            0.1 * rng.standard_normal(1600) * np.exp(-np.arange(1600) / 300)
        )
    made = method(sound[None].astype(np.float32), 0.97)
    low = sosfiltfilt(butter(4, 180.0, "lowpass", fs=RATE, output="sos"), made[0])
    inner = low[RATE // 2 : -RATE // 2]
    power = np.abs(np.fft.rfft(inner * np.hanning(len(inner)))) ** 2
    on_pitch = np.abs(np.fft.rfftfreq(len(inner), 1.0 / RATE) - BASS_HZ) < 3.0
    return 10.0 * float(np.log10(power[~on_pitch].sum() / power[on_pitch].sum()))


def main() -> None:
    print("dB against the played beat: before, peak, rise, loudness; a bass beside its pitch")
    for name, method in methods().items():
        for speed in SPEEDS:
            rows = []
            for seed in SEEDS:
                waveform, played, times_s = played_pair(seed, speed)
                made = aligned(method(waveform, speed), played)
                change = np.median(attacks(made, times_s) - attacks(played, times_s), axis=0)
                louder = integrated_loudness(made, RATE) - integrated_loudness(played, RATE)
                rows.append([*change, louder])
            figures = "  ".join(f"{value:6.2f}" for value in np.mean(rows, axis=0))
            print(f"{name:24s} x {speed:.2f}  {figures}")
        print(f"{name:24s} a bass beside its pitch {off_pitch_db(method):6.1f}")


if __name__ == "__main__":
    main()
