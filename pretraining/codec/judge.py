"""Judges a codec by how well a small language model predicts its tokens.

    python -m pretraining.codec.judge --codec work/codec        # a line of JSON

Equal tokens and few bits are not an end in themselves: what counts is how much better than a
unigram a model predicts them in unheard music. The run is the same for each codec: a decoder of
four layers without text, on windows of ten seconds, for the same number of steps; then its loss on
held-out clips, on the codec's grid and off it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretraining.codec.network import codes, load_codec
from pretraining.paths import WORK

N_CODEBOOKS, SPECIAL = 4, 2048
WINDOW = 500


class Judge(nn.Module):
    """A causal transformer over four delayed streams of tokens."""

    def __init__(self, width: int = 192, n_layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(SPECIAL + 1, width) for _ in range(N_CODEBOOKS))
        self.place = nn.Parameter(torch.randn(WINDOW + N_CODEBOOKS, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 6, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(width), False)
        self.heads = nn.ModuleList(nn.Linear(width, SPECIAL) for _ in range(N_CODEBOOKS))
        for table in self.embed:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        """The losses `[K]` on `tokens [B, K, T]`, in nats per token."""
        n_batch, _, n_frames = tokens.shape
        n_steps = n_frames + N_CODEBOOKS - 1
        delayed = torch.full((n_batch, N_CODEBOOKS, n_steps), SPECIAL)
        for k in range(N_CODEBOOKS):
            delayed[:, k, k : k + n_frames] = tokens[:, k]
        before = F.pad(delayed[..., :-1], (1, 0), value=SPECIAL)
        hidden = self.place[:n_steps] + sum(
            table(before[:, k]) for k, table in enumerate(self.embed)
        )
        mask = nn.Transformer.generate_square_subsequent_mask(n_steps)
        hidden = self.body(hidden, mask=mask, is_causal=True)
        losses = [
            F.cross_entropy(
                head(hidden[:, k : k + n_frames]).flatten(0, 1).float(), tokens[:, k].flatten()
            )
            for k, head in enumerate(self.heads)
        ]
        return torch.stack(losses)


def encode_clips(codec_dir: Path, paths: list[Path], n_s: float) -> list[np.ndarray]:
    """Codes `[K, T]` of the first `n_s` seconds of each clip."""
    model = load_codec(codec_dir).eval()
    clips = []
    for path in paths:
        rate = sf.info(path).samplerate
        samples, _ = sf.read(path, dtype="float32", frames=round(n_s * rate))
        clips.append(codes(model, samples).astype(np.int16))
    return clips


def windows(clips: list[np.ndarray], rng: np.random.Generator, n: int) -> Tensor:
    chosen = []
    for i in rng.integers(len(clips), size=n):
        start = int(rng.integers(clips[i].shape[1] - WINDOW + 1))
        chosen.append(clips[i][:, start : start + WINDOW])
    return torch.from_numpy(np.stack(chosen).astype(np.int64))


def unigram_nats(train: list[np.ndarray], held_out: list[np.ndarray]) -> np.ndarray:
    """The loss `[K]` on held-out clips of the token shares in the training clips."""
    losses = []
    for k in range(N_CODEBOOKS):
        counts = np.bincount(np.concatenate([c[k] for c in train]), minlength=SPECIAL) + 0.5
        shares = np.log(counts / counts.sum())
        losses.append(-shares[np.concatenate([c[k] for c in held_out])].mean())
    return np.array(losses)


def fit(model: Judge, train: list[np.ndarray], n_steps: int, n_batch: int) -> None:
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    for step in range(n_steps):
        rate = 1e-3 * min(1.0, (step + 1) / 50, (n_steps - step) / (0.3 * n_steps))
        optimizer.param_groups[0]["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(windows(train, rng, n_batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def held_out_nats(model: Judge, clips: list[np.ndarray]) -> np.ndarray:
    losses = [
        model(torch.from_numpy(clip[None, :, :WINDOW].astype(np.int64))).numpy() for clip in clips
    ]
    return np.mean(losses, 0)


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    began = time.monotonic()
    rows = json.loads((options.corpus / "metadata.json").read_text(encoding="utf-8"))
    train_rows = [row for row in rows if row["split"] == "train"][: options.n_clips]
    held_rows = [row for row in rows if row["split"] == "validation"][: options.n_held_out]
    paths = [[options.corpus / row["audio"] for row in part] for part in (train_rows, held_rows)]
    train = encode_clips(options.codec, paths[0], options.seconds)
    held_out = encode_clips(options.codec, paths[1], WINDOW / 50)
    sets = {
        "off the grid": [c for c, r in zip(held_out, held_rows, strict=True) if not r["on_grid"]]
    }
    sets["on the grid"] = [c for c, r in zip(held_out, held_rows, strict=True) if r["on_grid"]]
    if options.beats_808.is_dir():
        beats = sorted(options.beats_808.glob("*.flac"))[:16]
        sets["808 beats"] = encode_clips(options.codec, beats, WINDOW / 50)
    tokenised_s = time.monotonic() - began
    model = Judge()
    fit(model, train, options.n_steps, options.batch_size)
    report: dict[str, object] = {"codec": str(options.codec), "tokenised_s": round(tokenised_s)}
    for name, clips in sets.items():
        if clips:
            unigram, loss = unigram_nats(train, clips), held_out_nats(model, clips)
            report[name] = {
                "loss": [round(float(x), 3) for x in loss],
                "unigram": [round(float(x), 3) for x in unigram],
                "mean": round(float(loss.mean()), 3),
                "under": round(float((unigram - loss).mean()), 3),
            }
    report["bits_a_second"] = round(50 * float(held_out_nats(model, held_out).sum()) / math.log(2))
    report["elapsed_s"] = round(time.monotonic() - began)
    print(json.dumps(report))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--codec", type=Path, default=WORK / "codec")
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    parser.add_argument("--beats-808", type=Path, default=WORK / "codec_808" / "validation")
    parser.add_argument("--n-clips", type=int, default=480)
    parser.add_argument("--n-held-out", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each training clip")
    parser.add_argument("--n-steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
