"""Measures the codec: onsets, levels by band, codebook use, token stability.

    python -m pretraining.codec.check                     # work/codec_check
    python -m pretraining.codec.check --codec src/musicgen_lora/assets/tiny_beats

On held-out beats of the corpus, on 808 beats, and on the unheard ones of `corpus.unheard`.

The codec is loaded as any user would, with `EncodecModel.from_pretrained`.
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
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecDecoderOutput

from pretraining.codec.crops import SAMPLE_RATE, audio_files, load_mono
from pretraining.codec.network import HOP, codes, load_codec
from pretraining.codec.shifts import CHANGES, equal_tokens
from pretraining.paths import WORK

matplotlib.use("Agg")
from matplotlib import pyplot

BANDS_HZ = ((20, 60), (60, 120), (120, 250), (250, 2000), (2000, 6000), (6000, 14000))
SILENT_DB = -65.0
"""A band below this level is too quiet for a ratio."""
TARGET_F1, TARGET_BAND_DB, TARGET_SILENCE_DB = 0.90, 2.0, -60.0
TARGET_EQUAL = {"2 ms": 0.6, "10 ms": 0.4, "-3 dB": 0.7}
"""Targets for the share of the first codebook's tokens that don't change, on 808 beats."""
SHIFTED_S = 8.0
"""Seconds of each clip that are shifted to count unchanged tokens."""


@dataclass
class Figures:
    """The results for one folder of clips."""

    f1: list[float] = field(default_factory=list)
    band_db: list[list[float]] = field(default_factory=list)
    low_snr_db: list[float] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros((4, 2048), dtype=np.int64))
    equal: dict[str, list[float]] = field(default_factory=dict)

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
            "equal": self.equal,
        }


def through_codec(model: EncodecModel, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[4, T]` and decoded samples `[N]` of `samples [N]`."""
    coded = codes(model, samples)
    # One None per frame, as the codec doesn't normalise; the annotation allows only tensors.
    scales = cast(torch.Tensor, [None])
    audio_codes = cast(torch.LongTensor, torch.from_numpy(coded)[None, None])
    with torch.inference_mode():
        output = model.decode(audio_codes, scales)
    assert isinstance(output, EncodecDecoderOutput)
    assert output.audio_values is not None
    return coded, output.audio_values[0, 0, : len(samples)].numpy()


def onsets_s(samples: np.ndarray) -> np.ndarray:
    return librosa.onset.onset_detect(y=samples, sr=SAMPLE_RATE, units="time", backtrack=False)


def band_levels_db(samples: np.ndarray) -> np.ndarray:
    """The level of each of BANDS_HZ, in dBFS."""
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
    clips = [load_mono(path) for path in paths]
    for path, original in zip(paths, clips, strict=True):
        coded, decoded = through_codec(model, original)
        if coded.shape != (4, math.ceil(len(original) / HOP)):
            raise SystemExit(f"{path}: codes {coded.shape} for {len(original)} samples")
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
        for k in range(len(coded)):
            figures.counts[k] += np.bincount(coded[k], minlength=2048)
    n_shifted = round(SHIFTED_S * SAMPLE_RATE)
    figures.equal = equal_tokens(model, [samples[:n_shifted] for samples in clips])
    return figures


def silence_db(model: EncodecModel) -> float:
    """The level of two seconds of decoded digital silence."""
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


def passed(report: dict[str, dict], silence: float) -> dict[str, bool]:
    return {
        "onset_f1": all(f["onset_f1"] >= TARGET_F1 for f in report.values()),
        "bands": all(
            abs(db) <= TARGET_BAND_DB for f in report.values() for db in f["band_db"].values()
        ),
        "equal tokens": all(
            report["808"]["equal"][change][0] >= share for change, share in TARGET_EQUAL.items()
        ),
        "silence": silence <= TARGET_SILENCE_DB,
    }


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    model = load_codec(options.codec).eval()
    folders = {"808": options.beats_808, "other": options.corpus}
    folders |= {f"unheard {f.name}": f for f in sorted(options.unheard.iterdir()) if f.is_dir()}
    report: dict[str, dict] = {}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, folder in folders.items():
        paths = audio_files(folder)[: options.n_clips]
        report[name] = measure(model, paths).summary()
        for path in paths[: options.n_pictures]:
            draw(model, path, options.out / f"{name}_{path.stem}.png")
    silence = silence_db(model)
    checks = passed(report, silence)
    whole = {**report, "silence_db": round(silence, 1), "passed": checks}
    (options.out / "check_codec.json").write_text(json.dumps(whole, indent=2), encoding="utf-8")
    print_table(report)
    print(f"silence decodes to {silence:.1f} dBFS")
    print("  ".join(f"{name}: {'pass' if ok else 'FAIL'}" for name, ok in checks.items()))


def print_table(report: dict[str, dict]) -> None:
    rows: list[tuple[str, list[str]]] = []
    figures = list(report.values())
    for row in ("n_clips", "n_frames", "onset_f1", "onset_f1_p10", "below_250_snr_db"):
        rows.append((row, [str(f[row]) for f in figures]))
    for band in figures[0]["band_db"]:
        rows.append((f"{band} Hz, dB", [f"{f['band_db'][band]:.2f}" for f in figures]))
    for k in range(4):
        rows.append((f"codebook {k + 1} used", [f"{f['usage'][k]:.1%}" for f in figures]))
        rows.append((f"codebook {k + 1}, bits", [f"{f['entropy_bits'][k]:.2f}" for f in figures]))
    for change in CHANGES:
        shares = [" ".join(f"{share:.2f}" for share in f["equal"][change]) for f in figures]
        rows.append((f"equal, {change}", shares))
    print(f"{'':20}" + "".join(f"{name:>21}" for name in report))
    for label, cells in rows:
        print(f"{label:20}" + "".join(f"{cell:>21}" for cell in cells))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--codec", type=Path, default=WORK / "codec")
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus" / "validation")
    parser.add_argument("--beats-808", type=Path, default=WORK / "codec_808" / "validation")
    parser.add_argument("--unheard", type=Path, default=WORK / "codec_unheard")
    parser.add_argument("--out", type=Path, default=WORK / "codec_check")
    parser.add_argument("--n-clips", type=int, default=None, help="of each folder (default: all)")
    parser.add_argument("--n-pictures", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
