"""The training loop: steps, validation, previews, checkpoints.

Everything drawn at a step is a function of (seed, step): a resumed run equals an unbroken one.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from musicgen_lora.config import TrainSettings
from musicgen_lora.console import working
from musicgen_lora.dataset.batches import epoch_order, grouped_order
from musicgen_lora.errors import RunError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.plural import count
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.allocator import return_freed_memory
from musicgen_lora.runtime.precision import DTYPES
from musicgen_lora.runtime.seeds import drawing_from, seed_of
from musicgen_lora.training import validation
from musicgen_lora.training.checkpoints import (
    IDENTITY,
    LoopState,
    Trained,
    restore,
    save_checkpoint,
    step_name,
)
from musicgen_lora.training.data import RunInputs
from musicgen_lora.training.memory import peak_memory_bytes
from musicgen_lora.training.previews import clip_names, make_previews
from musicgen_lora.training.record import run_folder
from musicgen_lora.training.record.log import RunLog, StepLog, StepReport
from musicgen_lora.training.record.run import INTERRUPTED, Run
from musicgen_lora.training.schedule import set_learning_rate
from musicgen_lora.training.signals import LAUNCHER_GRACE_S, StopSignals
from musicgen_lora.training.step import (
    Learner,
    StepResult,
    evened_out,
    is_out_of_memory,
    optimise_step,
    step_batches,
)


class Trainer:
    """Trains a run to its end, publishing the best weights on the way.

    Args:
        trained: weights, their optimizers and average; the model ends up with the average.
        run: `steps` and `best` are set at the end.
    """

    def __init__(self, inputs: RunInputs, trained: Trained, run: Run, log: RunLog) -> None:
        self.settings, self.model, self.data = settings, model, data = inputs
        self.trained, self.weights = trained, trained.weights
        self.run, self.log = run, log
        # In checkpoints, so that no other run resumes from them.
        self.state = LoopState(settings.batch_size, other={IDENTITY: run.identity})
        self.per_step = settings.batch_size * settings.gradient_accumulation_steps
        self.steps_per_epoch = math.ceil(len(data.dataset) / self.per_step)
        n_steps = self.steps_per_epoch * settings.num_epochs
        self.n_steps = min(n_steps, settings.max_steps or sys.maxsize)
        self.learner = _learner(settings, model, trained, run.precision)
        self._lengths = data.dataset.n_frames()
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)
        self._previews = processes.rank() == 0 and bool(settings.preview_prompts)

    def resume(self, checkpoint: Path) -> None:
        """Resumes from a checkpoint.

        Raises:
            UserError: it is damaged, or belongs to another run.
        """
        base = self.settings.output_dir / run_folder.PREVIEWS / run_folder.BASE
        names = clip_names(self.settings.preview_prompts)
        if not all((base / name).is_file() for name in names):
            # Previews are new to the run, or have other prompts; in full training the base is gone
            # after this.
            self._preview_base()
        restore(checkpoint, self.state, self.trained)
        if self.learner.scaler is not None and self.state.scale is not None:
            self.learner.scaler.load_state_dict(self.state.scale)
        if processes.rank() == 0:
            run_folder.cut_metrics(self.settings.output_dir, self.state.step)
        self.log.say(f"Resuming after step {self.state.step} from {checkpoint}.")

    def train(self) -> None:
        """Steps to the end of the run.

        Raises:
            RunError: a loss, gradient or weight is not finite, or memory runs out.
            SystemExit: 128 plus the signal's number after a signal, with a checkpoint saved.
        """
        settings, state = self.settings, self.state
        frame_rate = self.model.shape.frame_rate
        if settings.max_steps is not None and settings.max_steps > self.n_steps:
            self.log.say(
                f"--max_steps {settings.max_steps} is never reached: --num_epochs "
                f"{settings.num_epochs} makes {count(self.n_steps, 'step')} of these clips. For "
                "more, raise --num_epochs.",
                warns=True,
            )
        steps = StepLog(self.log, begun=state.step, n_steps=self.n_steps, frame_rate=frame_rate)
        if state.step == 0:
            self._preview_base()
        with steps, StopSignals(LAUNCHER_GRACE_S if processes.world_size() > 1 else 0.0) as stop:
            while not self.is_done:
                steps.tell(self.step())
                if self.data.windows and self._is_due(settings.validate_every):
                    self.validate()
                stopped = processes.all_reduce_max(stop.received)
                if stopped or self._is_due(settings.save_every):
                    self.save()
                if self._is_due(settings.preview_every):
                    self.preview(step_name(state.step))
                if stopped and not self.is_done:
                    self._leave(stopped)
        self._finish()

    @property
    def is_done(self) -> bool:
        """Whether no step is left, or validations have stopped improving."""
        patience = self.settings.early_stopping_patience or sys.maxsize
        return self.state.step >= self.n_steps or self.state.n_worse >= patience

    def _is_due(self, every: int | None) -> bool:
        """Whether something is due that happens every so many steps (None: every epoch) and at the
        end."""
        return self.is_done or self.state.step % (every or self.steps_per_epoch) == 0

    def step(self) -> StepReport:
        """Takes the next optimizer step."""
        state, dataset = self.state, self.data.dataset
        chosen = self._clips_of_step()
        rate = set_learning_rate(self.trained.optimizers, self.settings, state.step, self.n_steps)
        where = f"at step {state.step + 1} (clips: {', '.join(dataset.names(chosen))})"
        self.weights.train_mode(True)
        result = self._optimise(chosen, where)
        self.weights.train_mode(False)
        state.step += 1
        if self.trained.ema is not None:
            self.trained.ema.update(state.step)
        return StepReport(
            result,
            step=state.step,
            epoch=state.step / self.steps_per_epoch,
            rate=rate,
            n_frames=int(self._lengths[chosen].sum()),
            memory_bytes=peak_memory_bytes(self.model.device),
        )

    def validate(self) -> None:
        """Measures the held-out loss; the best weights so far become `best_model`.

        Raises:
            RunError: weights or loss are not finite.
        """
        self._check_weights()
        state = self.state
        with working(self.log.console, "measuring the held-out loss"), self._averaged():
            codebooks = validation.held_out_losses(
                self.model,
                self.data.windows,
                self.state.batch_size,
                sharded=self.weights.sharded,
            )
            # Tensors of many lengths leave ever more gaps that no other tensor fits into.
            return_freed_memory()
            loss = sum(codebooks) / len(codebooks)
            if not math.isfinite(loss):
                raise RunError(
                    f"The validation loss after step {state.step} is {loss}: the weights are "
                    "broken; lower --learning_rate and train again."
                )
            found = {"step": state.step, "loss": loss, "codebooks": codebooks}
            self.log.record({"event": "validation", **found})
            is_better = state.best is None or loss < state.best["loss"]
            self._say_validation(loss, is_better)
            is_better = is_better or self._has_lost_best()
            if is_better:
                self._publish(found)
        state.best, state.n_worse = (found, 0) if is_better else (state.best, state.n_worse + 1)
        if self.is_done and state.step < self.n_steps and state.best is not None:
            self.log.say(
                f"Stopped early after step {state.step}: {count(state.n_worse, 'validation')} in a "
                f"row found nothing better than step {state.best['step']}."
            )

    def save(self) -> None:
        """Writes a checkpoint.

        Raises:
            RunError: the weights are not finite.
        """
        self._check_weights()
        if self.learner.scaler is not None:
            self.state.scale = self.learner.scaler.state_dict()
        save_checkpoint(
            self.settings.output_dir / run_folder.CHECKPOINTS,
            self.state,
            self.trained,
            keep=self.settings.keep_checkpoints,
        )

    def _preview_base(self) -> None:
        """Plays them with the base, whose weights are untouched so far."""
        with self.weights.base_alone():
            self.preview(run_folder.BASE)

    def preview(self, name: str) -> None:
        """Plays the preview prompts, if any, into a folder of that name."""
        if not self._previews:
            return
        settings, since = self.settings, time.monotonic()
        assert settings.preview_duration is not None
        folder = settings.output_dir / run_folder.PREVIEWS / name
        try:
            with working(self.log.console, "playing previews"), self._averaged():
                make_previews(
                    self.model,
                    settings.preview_prompts,
                    folder,
                    duration_s=settings.preview_duration,
                    seed=settings.seed,
                )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._previews = False
            self.log.say("Out of memory for previews: no more are made.", warns=True)
            return
        self.log.say(f"Previews: {folder} ({time.monotonic() - since:.0f} s)")

    def _clips_of_step(self) -> list[int]:
        """Rows of the clips of the next step."""
        settings = self.settings
        epoch, inside = divmod(self.state.step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self.data.dataset.set_epoch(epoch)
            self._order = (
                grouped_order(self._lengths, settings.seed, epoch, self.per_step)
                if settings.group_by_length
                else epoch_order(len(self._lengths), settings.seed, epoch)
            )
        return self._order[inside * self.per_step : (inside + 1) * self.per_step].tolist()

    def _optimise(self, chosen: list[int], where: str) -> StepResult:
        """Steps once, with smaller batches from then on if memory runs out."""
        dataset = self.data.dataset
        # A clip counts the same in every step, even an epoch's last one with only a few: divided by
        # their own few frames, its gradient would be as large as any other step's.
        share = len(chosen) / min(self.per_step, len(dataset))
        lengths = torch.from_numpy(self._lengths[chosen])
        totals = self.model.delays.n_predicted(lengths).sum(0)
        while True:
            batches = step_batches(dataset, chosen, self.state.batch_size)
            if self.weights.sharded:
                batches = evened_out(dataset, batches, chosen, self.state.batch_size)
            with dropout_of(self.settings.seed, self.state.step):
                result = optimise_step(self.learner, batches, totals / share, where)
            if result is not None:
                return replace(result, codebooks=[loss / share for loss in result.codebooks])
            self._halve_batches(where)

    def _halve_batches(self, where: str) -> None:
        if self.state.batch_size == 1:
            raise RunError(
                f"Out of memory with a single clip {where}; lower --max_duration or add "
                "--gradient_checkpointing."
            )
        self.state.batch_size = self.state.batch_size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.log.say(
            f"Out of memory: batches of {self.state.batch_size} from now on; each step still has "
            f"{self.per_step} clips.",
            warns=True,
        )

    def _averaged(self) -> AbstractContextManager[None]:
        """A context in which the model has the average as its weights, if there is one."""
        return nullcontext() if self.trained.ema is None else self.trained.ema.applied()

    def _publish(self, best: dict[str, object] | None) -> None:
        folder = self.settings.output_dir / run_folder.BEST_MODEL
        self.weights.publish(folder, self.run.facts(best))

    def _has_lost_best(self) -> bool:
        """Whether the best weights so far are no longer whole on the disk; says so."""
        folder = self.settings.output_dir
        faults = run_folder.best_model_faults(folder) if processes.rank() == 0 else []
        if faults:
            self.log.say(
                f"{folder / run_folder.BEST_MODEL}: missing or damaged ({', '.join(faults[:3])}); "
                f"the weights of step {self.state.step} take its place.",
                warns=True,
            )
        return bool(processes.all_reduce_max(int(bool(faults))))

    def _say_validation(self, loss: float, is_better: bool) -> None:
        assert self.run.base_loss is not None
        base_loss = self.run.base_loss["loss"]
        line = (
            f"step {self.state.step}: validation loss {loss:.4f} (base {base_loss:.4f}, "
            f"{100 * (loss - base_loss) / base_loss:+.1f} %)"
        )
        best = "best so far" if loss <= base_loss else "best so far, but worse than the base"
        self.log.say(f"{line}  {best}" if is_better else line)

    def _check_weights(self) -> None:
        """Raises before weights broken by a step can replace sound ones."""
        if processes.all_reduce_max(int(not self.weights.are_finite())):
            raise RunError(
                f"The weights are not finite after step {self.state.step}; they were not saved. "
                "Train again with a lower --learning_rate; the same command would resume from the "
                "checkpoint before."
            )

    def _leave(self, signal_number: int) -> None:
        self.log.say(
            f"Stopped after step {self.state.step} of {self.n_steps}; checkpoint saved. Run the "
            "same command to resume."
        )
        if processes.rank() == 0:
            stopped = replace(self.run, status=INTERRUPTED, steps=self.state.step)
            stopped.write(self.settings.output_dir)
        raise SystemExit(128 + signal_number)

    def _finish(self) -> None:
        """Leaves the model with its last weights, and publishes them if nothing was validated."""
        if self.trained.ema is not None:
            self.trained.ema.apply()
        if self.state.best is None:
            self._publish(None)
        elif self._has_lost_best():
            self.state.best = None
            self.validate()
        self.run.steps, self.run.best = self.state.step, self.state.best


def _learner(
    settings: TrainSettings,
    model: BaseModel,
    trained: Trained,
    precision: str,
) -> Learner:
    adapts, is_half = settings.trainable == "lora", precision != "fp32"
    return Learner(
        model,
        trained.weights.parameters,
        trained.optimizers,
        max_grad_norm=settings.max_grad_norm,
        scaler=torch.amp.GradScaler(model.device.type) if precision == "fp16" else None,
        codebook_weights=settings.codebook_weights,
        autocast=DTYPES[precision] if is_half and not adapts else None,
        sharded=trained.weights.sharded,
    )


def dropout_of(seed: int, step: int) -> AbstractContextManager[None]:
    """A context in which dropout masks are a function of (seed, step, process), and not of draws
    before or in other threads."""
    return drawing_from(seed_of("dropout", seed, step, processes.rank()))
