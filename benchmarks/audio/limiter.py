"""What `prepare --limit` does to 808 beats: the loudness reached, how much is limited for how long,
and what it does to a bass.

    python benchmarks/audio/limiter.py --n_beats 8 --target_lufs -10
"""

from __future__ import annotations

import argparse

import numpy as np

from musicgen_lora.audio.limiter import limit_peaks, raise_loudness, reduction_db
from musicgen_lora.audio.loudness import integrated_loudness, true_peak_db
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.prepare.clips.cut import MOST_GAIN_DB, MOST_LIMITED_DB, PEAK_CEILING_DB

RATE = 32_000


def off_the_tone_db(waveform: np.ndarray, tone_hz: float) -> float:
    """The energy of `[1, N]` more than 25 Hz off a tone, relative to that near it."""
    power = np.abs(np.fft.rfft(waveform[0] * np.hanning(waveform.shape[1]))) ** 2
    near = np.abs(np.fft.rfftfreq(waveform.shape[1], 1.0 / RATE) - tone_hz) <= 25.0
    return 10.0 * float(np.log10(power[~near].sum() / power[near].sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n_beats", type=int, default=8)
    parser.add_argument("--target_lufs", type=float, default=-10.0)
    args = parser.parse_args()
    ceiling = 10.0 ** (PEAK_CEILING_DB / 20.0)
    time_s = np.arange(2 * RATE) / RATE
    bass = 2.0 * np.exp(-time_s / 0.8) * np.sin(2.0 * np.pi * 50.0 * time_s)
    bass = bass[None].astype(np.float32)
    limited = limit_peaks(bass, RATE, PEAK_CEILING_DB)
    print(
        f"a dying bass of 50 Hz, 7 dB limited: {off_the_tone_db(limited, 50.0):.0f} dB off the "
        f"tone; clipped {off_the_tone_db(np.clip(bass, -ceiling, ceiling), 50.0):.0f} dB"
    )
    print("beat  plain LUFS  limited LUFS  at most dB  over 1 dB  true peak dB")
    for index in range(args.n_beats):
        wave = render_beat(make_beat((7, index), duration_s=15.0), RATE, seed=index)
        plain = integrated_loudness(wave, RATE) + PEAK_CEILING_DB - true_peak_db(wave, RATE)
        made, gain_db, limited_db = raise_loudness(
            wave,
            RATE,
            target_lufs=args.target_lufs,
            ceiling_db=PEAK_CEILING_DB,
            most_gain_db=MOST_GAIN_DB,
            most_db=MOST_LIMITED_DB,
        )
        loud = wave * np.float32(10.0 ** (gain_db / 20.0))
        share = float((reduction_db(loud, RATE, PEAK_CEILING_DB) < -1.0).mean())
        reached = integrated_loudness(made, RATE)
        print(
            f"{index:4}  {min(plain, args.target_lufs):10.1f}  {reached:12.1f}  "
            f"{limited_db:10.1f}  {share:9.0%}  {true_peak_db(made, RATE):12.2f}"
        )


if __name__ == "__main__":
    main()
