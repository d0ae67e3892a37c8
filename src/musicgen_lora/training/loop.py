"""The training loop: steps, validation, previews, checkpoints, progress.

What is drawn at a step is a function of (seed, step), so a resumed run equals an unbroken one.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.config import TrainSettings
from musicgen_lora.console import LINE_EVERY_S
from musicgen_lora.dataset.batches import Batch, ClipDataset, collate, epoch_order, grouped_order
from musicgen_lora.errors import RunError
from musicgen_lora.model.delays import n_predicted
from musicgen_lora.model.musicgen import model_shape
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.seeds import seed_of
from musicgen_lora.training import run_folder, validation
from musicgen_lora.training.checkpoints import save_checkpoint, step_name
from musicgen_lora.training.ema import averaged, update_average
from musicgen_lora.training.material import Material
from musicgen_lora.training.memory import peak_memory_bytes
from musicgen_lora.training.optimise import (
    StepResult,
    is_out_of_memory,
    learning_rate_at,
    optimise_step,
)
from musicgen_lora.training.optimizers import RATE_SHARE
from musicgen_lora.training.previews import make_previews
from musicgen_lora.training.sharding import local
from musicgen_lora.training.weights import Trainee

Record = Callable[[dict[str, Any]], None]


def run_steps(
    settings: TrainSettings,
    model: MusicgenForConditionalGeneration,
    trainee: Trainee,
    optimizers: Sequence[torch.optim.Optimizer],
    average: list[torch.Tensor] | None,
    material: Material,
    run: dict[str, Any],
    state: dict[str, Any],
    record: Record,
    console: Console,
) -> None:
    """Trains from `state["step"]` to the end, publishing the best weights on the way.

    Args:
        settings: of the run.
        model: on its device, with the trainee's weights in it.
        trainee: what is trained.
        optimizers: over the trainee's parameters.
        average: of the weights, if there is one; at the end the model has it for its weights.
        material: the data.
        run: what `run.json` holds; `steps` and `best` are added at the end.
        state: of the checkpoint that is resumed; `step` 0 and `best` None for a fresh run.
        record: takes a row of `metrics.jsonl`.
        console: for progress.
    """
    dataset, first = material.dataset, processes.rank() == 0
    lengths = dataset.n_frames()
    per_step = settings.batch_size * settings.gradient_accumulation_steps
    steps_per_epoch = math.ceil(len(dataset) / per_step)
    n_steps = min(steps_per_epoch * settings.num_epochs, settings.max_steps or sys.maxsize)
    validate_every = settings.validate_every or steps_per_epoch
    save_every = settings.save_every or steps_per_epoch
    preview_every = settings.preview_every or steps_per_epoch
    scaler = torch.amp.GradScaler(model.decoder.device.type) if run["precision"] == "fp16" else None
    if scaler is not None and "scale" in state:
        scaler.load_state_dict(state["scale"])
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(run["precision"])
    # A checkpoint holds all of this, and nothing else of the loop.
    best: dict[str, Any] | None = state["best"]
    n_worse: int = state.get("validations_since_best", 0)
    batch_size: int = state.get("batch_size", settings.batch_size)
    begun, began, frames_read = state["step"], time.monotonic(), 0
    said_s = began
    patience = settings.early_stopping_patience or sys.maxsize
    order: np.ndarray | None = None
    run["steps"] = begun

    def save(step: int) -> None:
        content: dict[str, Any] = {
            "best": best,
            "validations_since_best": n_worse,
            "batch_size": batch_size,
        }
        save_checkpoint(
            settings.output_dir / run_folder.CHECKPOINTS,
            step,
            save_weights=trainee.gather(),
            optimizers=optimizers,
            average=average,
            state=content | ({} if scaler is None else {"scale": scaler.state_dict()}),
            keep=settings.keep_checkpoints,
            best_step=best["step"] if best is not None else None,
        )

    def preview(name: str) -> None:
        nonlocal previews
        assert settings.preview_duration is not None
        folder, since = settings.output_dir / run_folder.PREVIEWS / name, time.monotonic()
        try:
            make_previews(
                model,
                material.text,
                settings.preview_prompts,
                folder,
                duration_s=settings.preview_duration,
                seed=settings.seed,
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            previews = False
            console.print("Out of memory for previews: there are no more.", style="yellow")
            return
        console.print(f"Previews: {folder} ({time.monotonic() - since:.0f} s)")

    def step_of(indices: list[int], where: str) -> StepResult:
        """Steps once, with smaller batches from the moment on when memory runs out."""
        nonlocal batch_size
        # A clip counts alike in each step, also where an epoch's last one has few: divided by its
        # own few frames, that one's gradient would be as large as any other's.
        share = len(indices) / min(per_step, len(dataset))
        totals = n_predicted(torch.from_numpy(lengths[indices]), model_shape(model).delays).sum(0)
        while True:
            seed_dropout(settings.seed, step)
            batches = step_batches(dataset, indices, batch_size)
            if settings.fsdp:
                batches = _evened_out(dataset, batches, indices, batch_size)
            result = optimise_step(
                model,
                batches,
                material.text,
                optimizers,
                trainee.parameters,
                totals=totals / share,
                max_grad_norm=settings.max_grad_norm,
                scaler=scaler,
                codebook_weights=settings.codebook_weights,
                autocast=half if settings.trainable != "lora" else None,
                where=where,
            )
            if result is not None:
                return replace(result, codebooks=[loss / share for loss in result.codebooks])
            if batch_size == 1:
                raise RunError(
                    f"Out of memory with a single clip {where}; lower --max_duration or give "
                    "--gradient_checkpointing."
                )
            batch_size = batch_size // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            console.print(
                f"Out of memory: batches of {batch_size} from here on; a step still has "
                f"{per_step} clips.",
                style="yellow",
            )

    previews = first and bool(settings.preview_prompts)
    if previews and begun == 0:
        with trainee.base_alone():
            preview("base")
    progress = Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        disable=not console.is_terminal or not first,
    )
    grace_s = run_folder.LAUNCHER_GRACE_S if processes.world_size() > 1 else 0.0
    with progress, run_folder.StopSignals(grace_s) as stop:
        task = progress.add_task("training", total=n_steps, completed=begun, figures="")
        for step in range(begun, n_steps if n_worse < patience else begun):
            epoch, inside = divmod(step, steps_per_epoch)
            if order is None or inside == 0:
                dataset.set_epoch(epoch)
                order = (
                    grouped_order(lengths, settings.seed, epoch, per_step)
                    if settings.group_by_length
                    else epoch_order(len(dataset), settings.seed, epoch)
                )
            chosen = order[inside * per_step : (inside + 1) * per_step].tolist()
            assert settings.learning_rate is not None
            rate = learning_rate_at(
                step,
                n_steps,
                peak=settings.learning_rate,
                schedule=settings.lr_schedule,
                warmup_share=settings.warmup_share,
            )
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * group.get(RATE_SHARE, 1.0)
            trainee.train_mode(True)
            done = step + 1
            result = step_of(chosen, f"at step {done} (clips: {', '.join(dataset.names(chosen))})")
            trainee.train_mode(False)
            if average is not None and settings.ema_decay is not None:
                update_average(average, trainee.parameters, settings.ema_decay, done)
            frames_read += int(lengths[chosen].sum())
            elapsed = time.monotonic() - began
            row = {
                "event": "train",
                "step": done,
                "epoch": round(done / steps_per_epoch, 4),
                "loss": result.loss,
                "codebooks": result.codebooks,
                "learning_rate": rate,
                # An overflow, which the scaler of fp16 answers by skipping the step, is no number.
                "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
                "audio_s_per_s": frames_read / model_shape(model).frame_rate / elapsed,
                "tokens_per_s": frames_read * len(result.codebooks) / elapsed,
                "peak_memory_bytes": peak_memory_bytes(model.decoder.device),
                "elapsed_s": round(elapsed, 3),
            }
            record(row)
            line = (
                f"loss {result.loss:.3f}  rate {rate:.2e}  {row['tokens_per_s']:.0f} tokens/s  "
                f"{row['peak_memory_bytes'] / 1e9:.2f} GB"
            )
            progress.update(task, completed=done, figures=line)
            is_due = done % 10 == 0 or time.monotonic() - said_s >= LINE_EVERY_S
            if not console.is_terminal and (is_due or done in (n_steps, begun + 1)):
                said_s = time.monotonic()
                left = elapsed / (done - begun) * (n_steps - done)
                console.print(
                    f"step {done}/{n_steps}  epoch {row['epoch']:.2f}  {line}  {left:.0f} s left"
                )
            last = done == n_steps
            validates = bool(material.windows) and (done % validate_every == 0 or last)
            if validates or last or done % save_every == 0:
                _check_weights(trainee.parameters, done)
            if validates:
                with averaged(average, trainee.parameters):
                    found = _validate(model, material, batch_size, done, best, run, record, console)
                    better = found is not best
                    if better:
                        trainee.publish(
                            settings.output_dir / run_folder.BEST_MODEL, run | {"best": found}
                        )
                best, n_worse = found, 0 if better else n_worse + 1
                if n_worse >= patience and not last:
                    last = True
                    console.print(
                        f"Stopped early after step {done}: the last {n_worse} validations were no "
                        f"better than that of step {best['step']}."
                    )
            stopped = processes.largest(stop.received)
            if stopped:
                _check_weights(trainee.parameters, done)
            if done % save_every == 0 or last or stopped:
                save(done)
            if previews and (done % preview_every == 0 or last):
                with averaged(average, trainee.parameters):
                    preview(step_name(done))
            run["steps"] = done
            if last:
                break
            if stopped:
                console.print(
                    f"Stopped after step {done} of {n_steps}; saved. The same command goes on."
                )
                if first:
                    run_folder.write_run(settings.output_dir, run | {"status": "interrupted"})
                raise SystemExit(128 + stopped)
    if average is not None:
        with torch.no_grad():
            for parameter, mean in zip(trainee.parameters, average, strict=True):
                parameter.copy_(mean)
    if best is None:
        trainee.publish(settings.output_dir / run_folder.BEST_MODEL, run)
    run["best"] = best


def seed_dropout(seed: int, step: int) -> None:
    """Dropout masks belong to (seed, step, process), not to how often this process has drawn."""
    torch.manual_seed(seed_of("dropout", seed, step, processes.rank()))


def _check_weights(parameters: Sequence[torch.Tensor], step: int) -> None:
    """Weights that a step has broken must not push out the sound ones."""
    sound = all(bool(torch.isfinite(local(parameter)).all()) for parameter in parameters)
    if processes.largest(int(not sound)):
        raise RunError(
            f"The weights are not finite after step {step}; they were not saved. Lower "
            "--learning_rate; the same command goes on from the checkpoint before."
        )


def _validate(
    model: MusicgenForConditionalGeneration,
    material: Material,
    batch_size: int,
    step: int,
    best: dict[str, Any] | None,
    run: dict[str, Any],
    record: Record,
    console: Console,
) -> dict[str, Any]:
    """Held-out loss now. Returns the best so far: `best` itself, or this one where it is better."""
    codebooks = validation.held_out_losses(model, material.windows, material.text, batch_size)
    loss = sum(codebooks) / len(codebooks)
    if not math.isfinite(loss):
        raise RunError(f"The validation loss after step {step} is {loss}: the weights are broken.")
    found = {"step": step, "loss": loss, "codebooks": codebooks}
    record({"event": "validation", **found})
    base_loss = run["base_loss"]["loss"]
    better = best is None or loss < best["loss"]
    console.print(
        f"step {step}: validation loss {loss:.4f} (base {base_loss:.4f}, "
        f"{100 * (loss - base_loss) / base_loss:+.1f} %){'  best so far' if better else ''}"
    )
    return found if best is None or better else best


def step_batches(dataset: ClipDataset, chosen: Sequence[int], batch_size: int) -> list[Batch]:
    """This process's share of a step's samples in batches, like lengths together: less padding,
    same gradient.

    Args:
        dataset: to draw from.
        chosen: the step's samples.
        batch_size: of each batch; the last one may be smaller.
    """
    by_length = np.argsort(dataset.n_frames()[chosen], kind="stable").tolist()
    share = [chosen[place] for place in by_length][processes.rank() :: processes.world_size()]
    batches: list[Batch] = []
    for start in range(0, len(share), batch_size):
        part = share[start : start + batch_size]
        samples = [dataset[index] for index in part]
        batches.append(
            collate(
                [codes for codes, _ in samples],
                [caption for _, caption in samples],
                [dataset.melody(index) for index in part],
            )
        )
    return batches


def _evened_out(
    dataset: ClipDataset, batches: list[Batch], chosen: Sequence[int], batch_size: int
) -> list[Batch]:
    """As many batches as the busiest process has, which sharded weights need. Those added have a
    clip that counts as empty, of which nothing is learned."""
    n_batches = math.ceil(math.ceil(len(chosen) / processes.world_size()) / batch_size)
    codes, caption = dataset[chosen[0]]
    spare = collate([codes], [caption], [dataset.melody(chosen[0])])
    spare = replace(spare, n_frames=torch.zeros_like(spare.n_frames))
    return [*batches, *[spare] * (n_batches - len(batches))]
