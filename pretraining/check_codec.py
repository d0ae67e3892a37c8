"""Measures the codec on held-out beats: onsets, levels by band, use of the codebooks.

    python pretraining/check_codec.py

The codec is loaded as any user of it loads it, by `EncodecModel.from_pretrained`.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import librosa
import matplotlib
import mir_eval
import numpy as np
import torch
from codec_data import SAMPLE_RATE, audio_files, load_mono
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import (
    EncodecDecoderOutput,
    EncodecEncoderOutput,
)

matplotlib.use("Agg")
from matplotlib import pyplot

BANDS_HZ = ((20, 60), (60, 120), (120, 250), (250, 2000), (2000, 6000), (6000, 14000))
HOP = 640
SILENT_DB = -65.0
"""A band below this level has nothing that a ratio could be taken of."""
TARGET_F1, TARGET_BAND_DB, TARGET_USAGE, TARGET_SILENCE_DB = 0.90, 2.0, 0.70, -60.0


@dataclass
class Figures:
    """What one folder of clips gave."""

    f1: list[float] = field(default_factory=list)
    band_db: list[list[float]] = field(default_factory=list)
    low_snr_db: list[float] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros((4, 2048), dtype=np.int64))

    def summary(self) -> dict[str, object]:
        bands = np.array(self.band_db)
        shares = self.counts / np.maximum(1, self.counts.sum(1, keepdims=True))
        entropy = -(shares * np.log2(np.maximum(shares, 1e-12))).sum(1)
        return {
            "n_clips": len(self.f1),
            "n_frames": int(self.counts[0].sum()),
            "onset_f1": round(float(np.mean(self.f1)), 4),
            "onset_f1_p10": round(float(np.quantile(self.f1, 0.1)), 4),
            "band_db": {
                f"{low}-{high}": round(float(np.nanmean(bands[:, i])), 2)
                for i, (low, high) in enumerate(BANDS_HZ)
            },
            "below_250_snr_db": round(float(np.mean(self.low_snr_db)), 2),
            "usage": [round(float(u), 4) for u in (self.counts > 0).mean(1)],
            "entropy_bits": [round(float(e), 2) for e in entropy],
        }


def through_codec(model: EncodecModel, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[4, T]` and decoded samples `[N]` of `samples [N]`."""
    with torch.inference_mode():
        waveform = torch.from_numpy(samples.astype(np.float32))[None, None]
        encoded = model.encode(waveform)
        assert isinstance(encoded, EncodecEncoderOutput)
        audio_codes, scales = encoded.audio_codes, encoded.audio_scales
        assert audio_codes is not None
        # One None a frame, as the codec doesn't normalise; the annotation knows only tensors.
        output = model.decode(audio_codes, cast(torch.Tensor, scales))
        assert isinstance(output, EncodecDecoderOutput)
        decoded = output.audio_values
        assert decoded is not None
    codes = audio_codes[0, 0].numpy()
    return codes, decoded[0, 0, : len(samples)].numpy()


def onsets_s(samples: np.ndarray) -> np.ndarray:
    return librosa.onset.onset_detect(y=samples, sr=SAMPLE_RATE, units="time", backtrack=False)


def band_levels_db(samples: np.ndarray) -> np.ndarray:
    """Level of each of BANDS_HZ, in dB of full scale."""
    power = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2 * 2.0 / len(samples) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    levels = [power[(frequencies >= lo) & (frequencies < hi)].sum() for lo, hi in BANDS_HZ]
    return 10.0 * np.log10(np.maximum(levels, 1e-12))


def below_hz(samples: np.ndarray, cutoff_hz: float) -> np.ndarray:
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE) > cutoff_hz] = 0.0
    return np.fft.irfft(spectrum, len(samples))


def measure(model: EncodecModel, paths: list[Path]) -> Figures:
    figures = Figures()
    for path in paths:
        original = load_mono(path)
        codes, decoded = through_codec(model, original)
        if codes.shape != (4, math.ceil(len(original) / HOP)):
            raise SystemExit(f"{path}: codes {codes.shape} for {len(original)} samples")
        figures.f1.append(
            float(mir_eval.onset.f_measure(onsets_s(original), onsets_s(decoded), window=0.05)[0])
        )
        level, level_decoded = band_levels_db(original), band_levels_db(decoded)
        figures.band_db.append(
            [
                d - o if o > SILENT_DB else math.nan
                for o, d in zip(level, level_decoded, strict=True)
            ]
        )
        low, low_decoded = below_hz(original, 250.0), below_hz(decoded, 250.0)
        error = float(np.sum((low - low_decoded) ** 2)) + 1e-9
        figures.low_snr_db.append(10.0 * math.log10((float(np.sum(low**2)) + 1e-9) / error))
        for k in range(len(codes)):
            figures.counts[k] += np.bincount(codes[k], minlength=2048)
    return figures


def silence_db(model: EncodecModel) -> float:
    """Level of two seconds of decoded digital silence."""
    _, decoded = through_codec(model, np.zeros(2 * SAMPLE_RATE, dtype=np.float32))
    return 20.0 * math.log10(float(np.sqrt(np.mean(decoded**2))) + 1e-9)


def draw(model: EncodecModel, path: Path, target: Path) -> None:
    """Spectrograms of a clip's first five seconds, original above decoded."""
    original = load_mono(path)[: 5 * SAMPLE_RATE]
    _, decoded = through_codec(model, original)
    figure, axes = pyplot.subplots(2, 1, figsize=(12, 9), sharex=True)
    for axis, samples, title in zip(
        axes, (original, decoded), (f"{path.name}: original", "decoded"), strict=True
    ):
        power = librosa.feature.melspectrogram(
            y=samples, sr=SAMPLE_RATE, n_fft=1024, hop_length=160, n_mels=128, fmin=20
        )
        level = 10.0 * np.log10(np.maximum(power, 1e-8))
        axis.imshow(level, origin="lower", aspect="auto", vmin=-60, vmax=30, cmap="magma")
        axis.set_title(title)
    figure.tight_layout()
    figure.savefig(target, dpi=70)
    pyplot.close(figure)


def passed(overall: dict, silence: float) -> dict[str, bool]:
    return {
        "onset_f1": all(f["onset_f1"] >= TARGET_F1 for f in overall.values()),
        "bands": all(
            abs(db) <= TARGET_BAND_DB for f in overall.values() for db in f["band_db"].values()
        ),
        "usage": min(overall["all"]["usage"]) >= TARGET_USAGE,
        "silence": silence <= TARGET_SILENCE_DB,
    }


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    model = EncodecModel.from_pretrained(options.codec, dtype=torch.float32).eval()
    report: dict[str, dict] = {}
    total = Figures()
    for name, folder in (("808", options.beats_808), ("other", options.corpus)):
        paths = audio_files(folder)[: options.n_clips]
        figures = measure(model, paths)
        report[name] = figures.summary()
        total.f1 += figures.f1
        total.band_db += figures.band_db
        total.low_snr_db += figures.low_snr_db
        total.counts += figures.counts
        options.out.mkdir(parents=True, exist_ok=True)
        for path in paths[: options.n_pictures]:
            draw(model, path, options.out / f"{name}_{path.stem}.png")
    report["all"] = total.summary()
    silence = silence_db(model)
    checks = passed(report, silence)
    size_mb = (options.codec / "model.safetensors").stat().st_size / 1e6
    whole = {**report, "silence_db": round(silence, 1), "size_mb": round(size_mb, 2)} | {
        "passed": checks
    }
    (options.out / "check_codec.json").write_text(json.dumps(whole, indent=2), encoding="utf-8")
    print_table(report)
    print(f"silence decodes to {silence:.1f} dBFS; weights are {size_mb:.2f} MB")
    print("  ".join(f"{name}: {'pass' if ok else 'FAIL'}" for name, ok in checks.items()))


def print_table(report: dict[str, dict]) -> None:
    columns = list(report)
    print(f"{'':24}" + "".join(f"{name:>10}" for name in columns))
    for row in ("n_clips", "n_frames", "onset_f1", "onset_f1_p10", "below_250_snr_db"):
        print(f"{row:24}" + "".join(f"{report[name][row]:>10}" for name in columns))
    for band in report["all"]["band_db"]:
        label = f"{band} Hz, dB"
        print(f"{label:24}" + "".join(f"{report[n]['band_db'][band]:>10.2f}" for n in columns))
    for k in range(4):
        label = f"codebook {k} used"
        print(f"{label:24}" + "".join(f"{report[n]['usage'][k]:>10.1%}" for n in columns))


def parse_arguments() -> argparse.Namespace:
    work = Path(__file__).parent / "work"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--codec", type=Path, default=work / "codec")
    parser.add_argument("--corpus", type=Path, default=work / "corpus" / "validation")
    parser.add_argument("--beats-808", type=Path, default=work / "codec_808" / "validation")
    parser.add_argument("--out", type=Path, default=work / "codec_check")
    parser.add_argument("--n-clips", type=int, default=None, help="of each folder; all")
    parser.add_argument("--n-pictures", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
