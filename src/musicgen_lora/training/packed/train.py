"""Training from one packed file of tokens with few libraries: the whole language model or an
adapter, on a GPU for ten minutes or on two cores for hours, resumable on either.

    python -m musicgen_lora.training.packed --tokens beats.safetensors --model_path tiny-beats \
        --output_dir out --trainable full --batch_size 64 --max_steps 4000 --max_minutes 9

It needs torch, transformers, peft, accelerate, safetensors and numpy, but no library for audio,
tables or command lines. Everything drawn is a function of (seed, step), so the same command resumes
a run that was stopped by a signal or by `--max_minutes`; `--device`, `--max_steps`, `--max_minutes`
and the intervals may then change. Text states are encoded once, and the text encoder is not
trained.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from musicgen_lora import atomic
from musicgen_lora.dataset.batches import DRAWS_VERSION, WindowSampler
from musicgen_lora.dataset.packed import PackedTokens, read_packed
from musicgen_lora.errors import RunError, UserError, printable
from musicgen_lora.language.translate import translated
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.runtime.precision import DTYPES, choose_training_precision
from musicgen_lora.runtime.seeds import drawing_from, seed_of
from musicgen_lora.training.checkpoints import (
    IDENTITY,
    LoopState,
    Trained,
    newest_checkpoint,
    read_state,
    restore,
    save_checkpoint,
)
from musicgen_lora.training.memory import peak_memory_bytes
from musicgen_lora.training.optimizers import make_optimizers
from musicgen_lora.training.packed.captured import (
    CapturedGradients,
    DeviceData,
    held_out_loss,
    step_totals,
)
from musicgen_lora.training.packed.draws import Draws
from musicgen_lora.training.packed.settings import PackedSettings, parse_packed_settings
from musicgen_lora.training.record import run_folder
from musicgen_lora.training.schedule import set_learning_rate
from musicgen_lora.training.signals import StopSignals
from musicgen_lora.training.weights import LoraWeights, make_weights

POSITION_REST = 1e-4
"""Share of the positions' energy that may lie outside their directions."""


class Windows(NamedTuple):
    """Windows of one length: how many make a batch, how they are drawn, and their gradients."""

    batch_size: int
    draws: Draws
    gradients: CapturedGradients


class PackedRun:
    """A run: its model, data and optimizers.

    Raises:
        UserError: the file, the model or a setting is unusable.
    """

    def __init__(self, settings: PackedSettings) -> None:
        self.settings = settings
        self.device = _device(settings.device)
        self.tokens = read_packed(settings.tokens)
        base = BaseModel.load(settings.model_path)
        _check_fit(settings, self.tokens, base)
        self.base, model = base, base.hf
        n_parameters = sum(p.numel() for p in model.decoder.parameters())
        self.precision, why = choose_training_precision(
            settings.precision, False, self.device, n_parameters
        )
        _say(f"Training on {self.device} in {self.precision}: {why}")
        full = settings.trainable == "full"
        self.identity = _identity(settings, self.tokens, base.fingerprint)
        self.n_frames = round(self._window_s() * self.tokens.frame_rate)
        self.data = DeviceData(self.tokens, base.text, self.n_frames, self.device)
        base.to(self.device, self.precision, trained=full)
        enable(model, self.precision)
        self.autocast = DTYPES[self.precision] if full and self.precision != "fp32" else None
        with drawing_from(seed_of("adapter", settings.seed)):
            self.weights = make_weights(base, settings, settings.model_path)  # pyright: ignore[reportArgumentType]
        self.optimizers = make_optimizers(
            settings.optimizer,
            [(name, p) for name, p in model.named_parameters() if p.requires_grad],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.long = self._windows(self.n_frames, settings.batch_size)
        self.short = self._short_windows()
        self.held_out = self.long.draws.held_out(
            settings.max_validation_windows, settings.batch_size
        )
        self._positions = position_directions(base) if settings.tokens_off_positions else None
        self._bound_embeddings()
        self.trained = Trained(self.weights, self.optimizers)
        # Kept in checkpoints, so that no other run resumes from them.
        marks = {IDENTITY: self.identity, "draws_version": DRAWS_VERSION}
        self.state = LoopState(settings.batch_size, other=marks)

    def _windows(self, n_frames: int, batch_size: int) -> Windows:
        settings = self.settings
        return Windows(
            batch_size,
            Draws(
                self.tokens,
                self.data.captions,
                WindowSampler(n_frames, settings.seed, settings.condition_dropout),
                bar_start_share=settings.bar_start_share,
                loop_share=settings.loop_share,
            ),
            CapturedGradients(
                self.base,
                self.data.of_windows(n_frames),
                batch_size,
                autocast=self.autocast,
                capture=self.device.type == "cuda",
                wrong_tokens=settings.wrong_tokens,
            ),
        )

    def _short_windows(self) -> Windows | None:
        """The windows of steps with short ones: about as many frames in all."""
        if not self.settings.short_share:
            return None
        wanted = round(self.settings.short_duration * self.tokens.frame_rate)
        n_frames = min(wanted, self.n_frames)
        return self._windows(n_frames, self.settings.batch_size * self.n_frames // n_frames)

    def _windows_of(self, step: int) -> Windows:
        """A function of (seed, step), as all draws are."""
        if self.short is None:
            return self.long
        rng = np.random.default_rng(seed_of("short", self.settings.seed, step))
        return self.short if rng.random() < self.settings.short_share else self.long

    def _window_s(self) -> float:
        """Length of the windows: beyond its base's training length, an adapter learns noise."""
        longest_s, wanted_s = self.base.facts.trained_duration_s, self.settings.max_duration
        if self.settings.trainable == "full" or wanted_s <= longest_s:
            return wanted_s
        _say(
            f"Windows are at most {longest_s:g} s long, not {wanted_s:g} s: the base was trained "
            "on no longer ones."
        )
        return longest_s

    def resume(self) -> None:
        """Resumes from the newest intact checkpoint of this same run, if there is one."""
        found = newest_checkpoint(self.settings.output_dir / run_folder.CHECKPOINTS, _say)
        if found is None:
            return
        marks = read_state(found)
        if marks.get(IDENTITY) != self.identity:
            raise UserError(
                f"{self.settings.output_dir}: holds a run with other settings, tokens or base; "
                "pass another --output_dir, or the settings in its run.json."
            )
        if marks.get("draws_version") != DRAWS_VERSION:
            raise UserError(
                f"{self.settings.output_dir}: holds a run of another release, which draws its "
                "windows differently; finish it with that release, or pass another --output_dir."
            )
        restore(found, self.state, self.trained)
        _say(f"Resuming after step {self.state.step} from {found}.")

    def train(self) -> None:
        """Trains until `max_steps`, `max_minutes` or a signal; validates and saves on the way."""
        settings, state = self.settings, self.state
        began, begun = time.monotonic(), state.step
        with StopSignals() as stop:
            while state.step < settings.max_steps:
                codebooks, norm, rate = self._step()
                state.step += 1
                elapsed_s = time.monotonic() - began
                last = state.step == settings.max_steps
                leaves = bool(stop.received) or elapsed_s > 60 * settings.max_minutes
                if state.step % settings.log_every == 0 or last or state.step == begun + 1:
                    self._log(codebooks, norm, rate, (state.step - begun) / elapsed_s)
                if state.step % settings.validate_every == 0 or last:
                    self.validate()
                if state.step % settings.save_every == 0 or last or leaves:
                    self.save()
                if leaves and not last:
                    _say(
                        f"Stopped after step {state.step}; checkpoint saved. Run the same command "
                        "to resume."
                    )
                    if stop.received:
                        raise SystemExit(128 + stop.received)
                    return

    def _step(self) -> tuple[list[float], float, float]:
        settings = self.settings
        windows = self._windows_of(self.state.step)
        draws = windows.draws.step(
            self.state.step, windows.batch_size, settings.gradient_accumulation_steps
        )
        totals = step_totals(draws, self.base.delays)
        rate = set_learning_rate(self.optimizers, settings, self.state.step, settings.max_steps)
        gradients = windows.gradients
        gradients.zero_gradients()
        for draw in draws:
            gradients.add(draw, totals)
        norm = torch.nn.utils.clip_grad_norm_(self.weights.parameters, settings.max_grad_norm)
        # The only wait for the device in a step: non-finite values must not reach the weights.
        *codebooks, length = torch.cat([gradients.codebooks, norm[None]]).tolist()
        if not math.isfinite(sum(codebooks) + length):
            raise RunError(
                f"Step {self.state.step + 1}: the loss or its gradient is not finite; the step was "
                "not taken. Lower --learning_rate."
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self._bound_embeddings()
        return codebooks, length, rate

    @torch.no_grad()
    def _bound_embeddings(self) -> None:
        """Keeps the norms of token embeddings within `max_embedding_norm`, and the embeddings
        orthogonal to the positions if asked to, so that they don't drown the positions that they
        are added to."""
        most, positions = self.settings.max_embedding_norm, self._positions
        decoder: Any = self.base.hf.decoder.model.decoder
        for table in decoder.embed_tokens:
            if positions is not None:
                table.weight.sub_(table.weight @ positions.T @ positions)
            if most != math.inf:
                table.weight.renorm_(2, 0, most)

    def validate(self) -> None:
        """Records the held-out loss; the best weights so far go to `best_model`."""
        if not self.held_out:
            return
        codebooks = held_out_loss(self.base, self.data, self.held_out, self.autocast)
        loss = sum(codebooks) / len(codebooks)
        if not math.isfinite(loss):
            raise RunError(
                f"The held-out loss after step {self.state.step} is {loss}: the weights are "
                "broken; lower --learning_rate and train again."
            )
        found = {"step": self.state.step, "loss": loss, "codebooks": codebooks}
        self._record({"event": "validation", **found})
        best = self.state.best
        better = best is None or loss < best["loss"]
        _say(f"step {self.state.step}: held-out loss {loss:.4f}{'  best so far' if better else ''}")
        if better:
            self.state.best = found
            self._publish()

    def _publish(self) -> None:
        folder = self.settings.output_dir / run_folder.BEST_MODEL
        if isinstance(self.weights, LoraWeights):
            # No model card: it describes the dataset, which is not here.
            atomic.publish_folder(folder, self.weights.save)
        else:
            base = {"path": self.settings.model_path}
            self.weights.publish(folder, {"base": base, "best": self.state.best})

    def save(self) -> None:
        """Saves a checkpoint."""
        folder = self.settings.output_dir / run_folder.CHECKPOINTS
        save_checkpoint(folder, self.state, self.trained, keep=2)

    def _log(self, codebooks: list[float], norm: float, rate: float, steps_per_s: float) -> None:
        frames = self.settings.batch_size * self.settings.gradient_accumulation_steps
        audio_s = frames * self.n_frames / self.tokens.frame_rate * steps_per_s
        loss = sum(codebooks) / len(codebooks)
        row = {
            "event": "train",
            "step": self.state.step,
            "loss": loss,
            "codebooks": codebooks,
            "learning_rate": rate,
            "grad_norm": norm,
            "steps_per_s": steps_per_s,
            "peak_memory_bytes": peak_memory_bytes(self.device),
        }
        self._record(row)
        _say(
            f"step {self.state.step}/{self.settings.max_steps}  loss {loss:.3f}  rate {rate:.2e}  "
            f"{steps_per_s:.2f} steps/s  {audio_s:.0f} s of audio/s"
        )

    def _record(self, row: dict[str, Any]) -> None:
        run_folder.append_metrics(self.settings.output_dir, row)


def train_packed(settings: PackedSettings) -> LoopState:
    """Trains, or resumes a run of the same settings.

    Returns:
        The final state: `step`, and `best`, the best validation.

    Raises:
        UserError: the file, the model or a setting is unusable.
        RunError: the loss is not finite.
        SystemExit: 130 or 143 after a signal, with a checkpoint saved.
    """
    with run_folder.held(settings.output_dir):
        run = PackedRun(settings)
        run.resume()
        if run.state.step == 0:
            content = {"settings": settings.plain(), "identity": run.identity}
            atomic.write_json(settings.output_dir / run_folder.RUN_FILE, content)
            run.validate()
        else:
            run_folder.cut_metrics(settings.output_dir, run.state.step)
        run.train()
        return run.state


def position_directions(base: BaseModel) -> torch.Tensor:
    """Orthonormal directions `[n, D]` that span the position embeddings: half of the width holds
    all but a ten-thousandth of the energy of MusicGen's 2,048 sinusoidal positions."""
    decoder: Any = base.hf.decoder.model.decoder
    table = decoder.embed_positions.weights
    _, sizes, directions = torch.linalg.svd(table.double(), full_matrices=False)
    energy = sizes.square().cumsum(0) / sizes.square().sum()
    n = int((energy < 1.0 - POSITION_REST).sum()) + 1
    return directions[:n].to(base.device, torch.float32)


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check_fit(settings: PackedSettings, tokens: PackedTokens, base: BaseModel) -> None:
    if base.is_melody:
        raise UserError(
            f"{settings.model_path}: melody models need audio; use musicgen-lora train."
        )
    if tokens.codec != base.codec.fingerprint:
        raise UserError(
            f"{settings.tokens}: encoded by a different codec from that of {settings.model_path}; "
            "pack tokens of this model's codec."
        )
    if tokens.codes.shape[1] != base.shape.n_codebooks:
        raise UserError(
            f"{settings.tokens}: has a different number of codebooks from the model; pack tokens "
            "of this model's codec."
        )
    if tokens.held_out.all():
        raise UserError(f"{settings.tokens}: all clips are held out; none is left to train on.")
    if settings.bar_start_share and (tokens.bars is None or np.isnan(tokens.bars).all()):
        raise UserError(
            f"{settings.tokens}: has no bar lines, which --bar_start_share needs: add bpm to the "
            "dataset's metadata, and first_bar_s for clips that don't begin on a bar, and pack it "
            "again with musicgen-lora tokenise --pack."
        )
    shortest = int(tokens.n_frames.min())
    if shortest < base.delays.shortest:
        raise UserError(
            f"{settings.tokens}: a clip has {shortest} frames, too few to predict; take it out of "
            "the dataset and pack it again."
        )


def _identity(settings: PackedSettings, tokens: PackedTokens, base: str) -> str:
    """A hash that identifies a run: the same hash gives the same results."""
    texts = [list(captions) for captions in tokens.texts]
    digest = hashlib.sha256(json.dumps([settings.lasting(), base, texts]).encode())
    for part in (tokens.codes, tokens.n_frames, tokens.held_out):
        digest.update(np.ascontiguousarray(part).tobytes())
    if tokens.bars is not None:
        digest.update(tokens.bars.tobytes())
    return digest.hexdigest()[:16]


def _say(line: str) -> None:
    print(printable(translated(line)), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs as a command and returns the exit code."""
    try:
        train_packed(parse_packed_settings(arguments, (__doc__ or "").split("\n\n")[0]))
    except UserError as error:
        print(f"training.packed: {printable(translated(str(error)))}", file=sys.stderr)
        return error.exit_code
    return 0
