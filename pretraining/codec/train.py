"""Trains the embedded base model's codec, a small EnCodec, on rendered beats, in two parts.

    python -m pretraining.codec.train --recipe waveform     # work/codec_waveform
    python -m pretraining.codec.train --recipe consistent   # work/codec, from the first part's

The first part learns to reconstruct the waveform; the second lets go of its phase, so that equal
sounds get equal tokens (see `consistency`). Run again, a part resumes from its newest checkpoint.
With each checkpoint it also writes a folder for `EncodecModel.from_pretrained`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecEuclideanCodebook

from pretraining.codec.checkpoints import export, load_newest, newest_step, save
from pretraining.codec.consistency import MARGIN, Consistency, Perturbation, pair
from pretraining.codec.crops import SAMPLE_RATE, CropSource, load_clips
from pretraining.codec.losses import (
    Discriminator,
    LowPass,
    Spectra,
    discriminator_loss,
    generator_losses,
    spectral_losses,
    waveform_loss,
)
from pretraining.codec.network import decode, encode, initialise, load_codec, small_codec_config
from pretraining.codec.quantiser import NOWHERE, ResidualQuantiser
from pretraining.codec.threads import ThreadChooser
from pretraining.paths import WORK

SPECTRAL = {
    "log": 1.0,
    "linear": 0.5,
    "level": 0.6,
    "band": 1.0,
    "commitment": 0.25,
    "adversarial": 0.05,
    "features": 0.3,
}


@dataclass(frozen=True)
class Recipe:
    """The loss weights and schedule of one part of the training.

    Args:
        weights: of the losses; a waveform loss without one is not computed.
        balance: largest size of the states' gradient towards entries (the other copy's and
            their own) relative to that of the reconstruction.
        n_steps: of the part.
        lr: peak learning rate.
        critic_from: step from which the critic counts.
        quantise_from: step at which the codebooks are initialised by k-means.
        n_live: entries of each codebook that may be used.
        start: folder of the codec that it starts from; None for none.
        out: folder of the result.
    """

    weights: dict[str, float]
    balance: float
    n_steps: int
    lr: float
    critic_from: int
    quantise_from: int
    n_live: tuple[int, int, int, int]
    start: Path | None
    out: Path


RECIPES = {
    "waveform": Recipe(
        {**SPECTRAL, "wave": 0.2, "low": 0.7},
        10.0, 5200, 1e-3, 1800, 150, (2048, 2048, 2048, 2048), None, WORK / "codec_waveform",
    ),
    "consistent": Recipe(
        {**SPECTRAL, "consistency": 0.6, "uneven": 0.12, "apart": 0.3, "size": 1.0},
        1.5, 6000, 2e-4, 600, 20, (256, 1024, 2048, 2048), WORK / "codec_waveform", WORK / "codec",
    ),
}  # fmt: skip
NUMBERS = ("n_steps", "quantise_from", "lr", "balance")
"""Fields of a recipe that options may set."""


def learning_rate(step: int, recipe: Recipe) -> float:
    """Warm-up, the peak, and a linear decay to a hundredth over the last quarter."""
    left = (recipe.n_steps - step) / (0.25 * recipe.n_steps)
    return recipe.lr * min(1.0, (step + 1) / 100) * min(1.0, max(0.01, left))


class Trainer:
    """Model, quantiser, discriminator and optimizers, and one step of all of them."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.quantiser = ResidualQuantiser(4, 2048, 64, n_live=recipe.n_live)
        # Growing states would drag the codebooks and the decoder along.
        self.size = 1.0
        if recipe.start is None:
            self.model = EncodecModel(small_codec_config())
            initialise(self.model)
        else:
            self.model = load_codec(recipe.start)
            codebook = self.model.quantizer.layers[0].codebook
            assert isinstance(codebook, EncodecEuclideanCodebook)
            self.size = codebook.embed[codebook.embed[:, 0] < NOWHERE].pow(2).mean().item()
        self.model.train()
        self.discriminator = Discriminator()
        self.consistency = Consistency(4, 2048)
        self.spectra = Spectra(SAMPLE_RATE, phase_free="wave" not in recipe.weights)
        self.low_pass = LowPass(SAMPLE_RATE, cutoff_hz=300.0, stride=16)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            weights, lr=recipe.lr, betas=(0.8, 0.99), weight_decay=1e-3, fused=True
        )
        self.critic_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=recipe.lr, betas=(0.5, 0.9), fused=True
        )
        self.warmup: list[Tensor] = []

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that a checkpoint holds."""
        return {
            "model": self.model,
            "quantiser": self.quantiser,
            "critic": self.discriminator,
            "consistency": self.consistency,
            "optimizer": self.optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def step(self, crops: Tensor, copies: Tensor, step: int) -> dict[str, float]:
        """One update on `crops [B, N]` and their copies; returns the losses."""
        figures: dict[str, float] = {}
        rate = learning_rate(step, self.recipe)
        for group in self.optimizer.param_groups + self.critic_optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        consistent = "consistency" in self.recipe.weights
        quantises = step >= self.recipe.quantise_from
        with torch.autocast("cpu", torch.bfloat16):
            states = encode(self.model, torch.cat([crops, copies]) if consistent else crops)
        # The encoder's gradient is combined at the states, where the sizes of the reconstruction's
        # and of the consistency's parts can be compared.
        leaf = states.detach().requires_grad_()
        quantised, near = self._quantise(leaf, step)
        if consistent and quantises:
            more, equal = self.consistency(*leaf.chunk(2), self.quantiser.embed.clone())
            near |= more
            near["size"] = F.relu(leaf.pow(2).mean() / self.size - 1.0)
            figures |= {f"equal_{k}": share for k, share in enumerate(equal)}
        (towards_entries,) = torch.autograd.grad(self._weighed(near), leaf, retain_graph=True)
        heard = self._heard(quantised[: len(crops)], crops, step, figures)
        loss = self._weighed(heard)
        if not bool(torch.isfinite(loss)):
            raise SystemExit(f"step {step}: the loss is not finite")
        loss.backward()
        assert leaf.grad is not None
        ratio = (towards_entries.norm() / leaf.grad.norm().clamp_min(1e-12)).item()
        figures["ratio"] = ratio
        share = min(1.0, self.recipe.balance / max(ratio, 1e-12))
        states.backward(leaf.grad + share * towards_entries)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()
        figures |= {name: term.item() for name, term in (near | heard).items()}
        return figures | {"loss": loss.item(), "norm": norm.item(), "lr": rate}

    def _weighed(self, terms: dict[str, Tensor]) -> Tensor:
        weights = self.recipe.weights
        return torch.stack([weights[name] * term.float() for name, term in terms.items()]).sum()

    def _heard(
        self, quantised: Tensor, crops: Tensor, step: int, figures: dict[str, float]
    ) -> dict[str, Tensor]:
        """The losses of the decoded crops."""
        # Every other step is enough for the critic, at half of the cost.
        use_critic = step >= self.recipe.critic_from // 2 and step % 2 == 0
        with torch.autocast("cpu", torch.bfloat16):
            decoded = decode(self.model, quantised)
        real_powers, fake_powers = self.spectra(crops), self.spectra(decoded)
        terms = spectral_losses(fake_powers, real_powers)
        if "wave" in self.recipe.weights:
            terms["wave"] = waveform_loss(decoded, crops)
            terms["low"] = waveform_loss(self.low_pass(decoded), self.low_pass(crops))
        if use_critic:
            figures["critic"] = self._train_critic(real_powers, fake_powers)
            if step >= self.recipe.critic_from:
                with torch.autocast("cpu", torch.bfloat16):
                    with torch.no_grad():
                        real = self.discriminator(real_powers)
                    fake = self.discriminator(fake_powers)
                    terms["adversarial"], terms["features"] = generator_losses(real, fake)
        return terms

    def _quantise(self, states: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        begin = self.recipe.quantise_from
        if step < begin:
            if step >= begin - 15:
                self.warmup.append(states.detach().transpose(1, 2).reshape(-1, states.shape[1]))
            # Keeps the scale of the states near one before codebooks tie it down.
            return states, {"commitment": F.relu(states.pow(2).mean() / self.size - 1.0)}
        if not bool(self.quantiser.embed.any()):
            vectors = states.detach().transpose(1, 2).reshape(-1, states.shape[1])
            self.quantiser.initialise(torch.cat([*self.warmup, vectors]))
            self.warmup = []
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


def train(trainer: Trainer, source: CropSource, options: argparse.Namespace) -> None:
    """Runs the remaining steps of a part, with checkpoints and a line of figures now and then."""
    recipe, out = trainer.recipe, options.out
    checkpoints = run_folder(out)
    step, elapsed_s = load_newest(checkpoints, trainer.parts)
    threads = ThreadChooser(options.threads)
    saved_s = elapsed_s
    checkpoints.mkdir(parents=True, exist_ok=True)
    with (checkpoints / "log.jsonl").open("a", encoding="utf-8") as log:
        clock = time.monotonic()
        while step < recipe.n_steps:
            threads.choose()
            torch.manual_seed(options.seed * 1_000_000 + step)
            rng = np.random.default_rng((options.seed, step, 1))
            crops, copies = pair(rng, source.batch(step, options.batch_size), Perturbation())
            figures = trainer.step(torch.from_numpy(crops), torch.from_numpy(copies), step)
            step += 1
            # Entries revived at the very end would have no time to settle.
            may_revive = recipe.quantise_from < step < 0.9 * recipe.n_steps
            if step % 25 == 0 and may_revive:
                figures |= {f"revived_{k}": n for k, n in enumerate(trainer.quantiser.revive())}
            now = time.monotonic()
            elapsed_s, clock = elapsed_s + now - clock, now
            if step % 25 == 0:
                line = {"step": step, "elapsed_s": elapsed_s, **figures}
                rounded = {name: round(value, 5) for name, value in line.items()}
                log.write(json.dumps(rounded) + "\n")
                log.flush()
            if elapsed_s - saved_s > 60.0 * options.save_minutes or step == recipe.n_steps:
                save(checkpoints, trainer.parts, step, elapsed_s)
                export(trainer.model, trainer.quantiser, out)
                saved_s = elapsed_s


def run_folder(out: Path) -> Path:
    """The folder for checkpoints and figures of the run whose result goes to `out`."""
    return out.with_name(out.name + "_run")


def main() -> None:
    options = parse_arguments()
    checkpoints = run_folder(options.out)
    if newest_step(checkpoints) >= options.recipe.n_steps:
        # A run killed between its last checkpoint and its export has yet to write the codec.
        trainer = Trainer(options.recipe)
        load_newest(checkpoints, trainer.parts)
        export(trainer.model, trainer.quantiser, options.out)
        print(f"{options.out} is trained: {options.recipe.n_steps} steps")
        return
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    source = CropSource(
        beats_808=load_clips(options.beats_808, int(0.3 * options.max_clips), rng),
        others=load_clips(options.corpus, int(0.7 * options.max_clips), rng),
        one_shots=[],
        n_crop=SAMPLE_RATE + 2 * MARGIN,
        share_808=0.3,
        seed=options.seed,
    )
    print(f"{len(source.beats_808)} 808 clips, {len(source.others)} others", flush=True)
    train(Trainer(options.recipe), source, options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", choices=RECIPES, default="consistent")
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus" / "train")
    parser.add_argument("--beats-808", type=Path, default=WORK / "codec_808" / "train")
    parser.add_argument("--start", type=Path, help="another codec to start from")
    parser.add_argument("--out", type=Path, help="another folder for the result")
    parser.add_argument("--n-steps", type=int)
    parser.add_argument("--quantise-from", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--balance", type=float)
    parser.add_argument(
        "--weights", type=json.loads, default={}, help="JSON: loss weights to change"
    )
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--batch-size", type=int, default=8, help="crops of one second")
    parser.add_argument("--max-clips", type=int, default=1600)
    parser.add_argument("--threads", type=int, default=2, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recipe = RECIPES[options.recipe]
    changes = {"start": options.start, "out": options.out}
    changes |= {name: getattr(options, name) for name in NUMBERS}
    changes = {name: value for name, value in changes.items() if value is not None}
    weights = {**recipe.weights, **options.weights}
    options.recipe = Recipe(**{**vars(recipe), **changes, "weights": weights})
    options.out = options.recipe.out
    return options


if __name__ == "__main__":
    main()
