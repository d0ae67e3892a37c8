"""Trains the embedded base model's codec, a small EnCodec, on rendered beats.

    python pretraining/train_codec.py --minutes 75

Started again, it goes on where its newest checkpoint is. Each checkpoint also leaves a
folder that `EncodecModel.from_pretrained` reads, `work/codec`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from codec_checkpoints import export, load_newest, save
from codec_data import SAMPLE_RATE, CropSource, load_clips
from codec_losses import (
    Discriminator,
    LowPass,
    Spectra,
    discriminator_loss,
    generator_losses,
    spectral_losses,
    waveform_loss,
)
from codec_model import codec_config, decode, encode, initialise
from codec_quantiser import ResidualQuantiser
from codec_threads import ThreadChooser
from torch import Tensor, nn
from transformers import EncodecModel

HERE = Path(__file__).parent
WEIGHTS = {
    "log": 1.0,
    "linear": 0.5,
    "level": 0.6,
    "band": 1.0,
    "wave": 0.2,
    "low": 0.7,
    "commitment": 0.25,
    "adversarial": 0.05,
    "features": 0.3,
}


def learning_rate(elapsed_s: float, step: int, options: argparse.Namespace) -> float:
    """Warm-up by steps, then a cosine by the time used, down to 1/200 of the peak."""
    progress = min(1.0, elapsed_s / (60.0 * options.minutes))
    cosine = 0.005 + 0.995 * 0.5 * (1.0 + math.cos(math.pi * progress))
    return options.lr * min(1.0, (step + 1) / 100) * cosine


class Trainer:
    """Model, quantiser, discriminator and optimizers, and one step of all of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.model = EncodecModel(codec_config())
        initialise(self.model)
        self.quantiser = ResidualQuantiser(4, 2048, 64)
        self.discriminator = Discriminator()
        self.spectra = Spectra(SAMPLE_RATE)
        self.low_pass = LowPass(SAMPLE_RATE, cutoff_hz=300.0, stride=16)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            weights, lr=options.lr, betas=(0.8, 0.99), weight_decay=1e-3, fused=True
        )
        self.critic_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=options.lr, betas=(0.5, 0.9), fused=True
        )
        self.warmup: list[Tensor] = []

    def step(self, batch: Tensor, step: int, elapsed_s: float) -> dict[str, float]:
        """One update on `batch [B, N]`; returns the losses."""
        rate = learning_rate(elapsed_s, step, self.options)
        progress = elapsed_s / (60.0 * self.options.minutes)
        # Every other step is enough for it to say its say, at half of the price.
        use_critic = progress >= self.options.critic_from and step % 2 == 0
        for group in self.optimizer.param_groups + self.critic_optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=progress < self.options.bf16_until):
            states = encode(self.model, batch)
            quantised, terms = self._quantise(states, step)
            decoded = decode(self.model, quantised)
        real_powers, fake_powers = self.spectra(batch), self.spectra(decoded)
        terms |= spectral_losses(fake_powers, real_powers)
        terms["wave"] = waveform_loss(decoded, batch)
        terms["low"] = waveform_loss(self.low_pass(decoded), self.low_pass(batch))
        figures: dict[str, float] = {}
        if use_critic:
            figures["critic"] = self._train_critic(real_powers, fake_powers)
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    real = self.discriminator(real_powers)
                fake = self.discriminator(fake_powers)
                terms["adversarial"], terms["features"] = generator_losses(real, fake)
        loss = torch.stack([WEIGHTS[name] * term.float() for name, term in terms.items()]).sum()
        if not bool(torch.isfinite(loss)):
            raise SystemExit(f"step {step}: the loss is not finite")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()
        figures |= {name: term.item() for name, term in terms.items()}
        return figures | {"loss": loss.item(), "norm": norm.item(), "lr": rate}

    def _quantise(self, states: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        begin = self.options.quantise_from
        if step < begin:
            if step >= begin - 15:
                self.warmup.append(states.detach().transpose(1, 2).reshape(-1, states.shape[1]))
            # Keeps the scale of the states near one before codebooks tie it down.
            return states, {"commitment": F.relu(states.pow(2).mean() - 1.0)}
        if not bool(self.quantiser.embed.any()):
            vectors = states.detach().transpose(1, 2).reshape(-1, states.shape[1])
            self.quantiser.initialise(torch.cat([*self.warmup, vectors]))
            self.warmup = []
        with torch.autocast("cpu", enabled=False):
            quantised, _, commitment = self.quantiser(states)
        return quantised, {"commitment": commitment}

    def _train_critic(self, real_powers: list[Tensor], fake_powers: list[Tensor]) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            real = self.discriminator(real_powers)
            fake = self.discriminator([power.detach() for power in fake_powers])
            loss = discriminator_loss(real, fake)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.discriminator.parameters(), 5.0)
        self.critic_optimizer.step()
        # Its gradients from the codec's loss are not its own.
        self.critic_optimizer.zero_grad(set_to_none=True)
        return loss.item()


def main() -> None:
    options = parse_arguments()
    torch.manual_seed(options.seed)
    threads = ThreadChooser(options.threads)
    trainer = Trainer(options)
    parts = {
        "model": trainer.model,
        "quantiser": trainer.quantiser,
        "critic": trainer.discriminator,
        "optimizer": trainer.optimizer,
        "critic_optimizer": trainer.critic_optimizer,
    }
    step, elapsed_s = load_newest(options.out / "codec_run", parts)
    rng = np.random.default_rng(options.seed)
    one_shots = [c for folder in options.one_shots for c in load_clips(folder, 1000, rng)]
    source = CropSource(
        beats_808=load_clips(options.beats_808, int(0.3 * options.max_clips), rng),
        others=load_clips(options.corpus, int(0.7 * options.max_clips), rng),
        one_shots=one_shots,
        n_crop=SAMPLE_RATE,
        share_808=0.3,
        seed=options.seed,
    )
    print(f"{len(source.beats_808)} 808 clips, {len(source.others)} others", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    last_save_s = elapsed_s
    with (options.out / "codec_log.jsonl").open("a", encoding="utf-8") as log:
        clock = time.monotonic()
        while elapsed_s < 60.0 * options.minutes:
            threads.choose()
            batch = torch.from_numpy(source.batch(step, options.batch_size))
            figures = trainer.step(batch, step, elapsed_s)
            step += 1
            # Entries revived at the very end would never find their place.
            may_revive = elapsed_s < 0.92 * 60.0 * options.minutes
            if step % 25 == 0 and step > options.quantise_from and may_revive:
                figures |= {f"revived_{k}": n for k, n in enumerate(trainer.quantiser.revive())}
            now = time.monotonic()
            elapsed_s, clock = elapsed_s + now - clock, now
            if step % 25 == 0:
                rounded = {name: round(value, 5) for name, value in figures.items()}
                line = {
                    "step": step,
                    "elapsed_s": round(elapsed_s, 1),
                    "threads": torch.get_num_threads(),
                    **rounded,
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
            if elapsed_s - last_save_s > 60.0 * options.save_minutes:
                save(options.out / "codec_run", parts, step, elapsed_s)
                export(trainer.model, trainer.quantiser, options.out / "codec")
                last_save_s = elapsed_s
    save(options.out / "codec_run", parts, step, elapsed_s)
    export(trainer.model, trainer.quantiser, options.out / "codec")


def parse_arguments() -> argparse.Namespace:
    work = HERE / "work"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=work / "corpus" / "train")
    parser.add_argument("--beats-808", type=Path, default=work / "codec_808" / "train")
    parser.add_argument("--one-shots", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=work)
    parser.add_argument("--minutes", type=float, default=75.0, help="of training, in all")
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--batch-size", type=int, default=8, help="crops of one second")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--max-clips", type=int, default=1600)
    parser.add_argument("--quantise-from", type=int, default=150, help="step")
    parser.add_argument("--critic-from", type=float, default=0.35, help="share of the time")
    parser.add_argument("--bf16-until", type=float, default=1.0, help="share of the time")
    parser.add_argument("--threads", type=int, default=2, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
