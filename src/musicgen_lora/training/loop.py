"""The training loop: steps, validation, checkpoints, progress.

What is drawn at a step is a function of (seed, step), so a resumed run equals an unbroken one.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.config import TrainSettings
from musicgen_lora.data.batches import Batch, ClipDataset, collate, epoch_order
from musicgen_lora.errors import RunError
from musicgen_lora.model.musicgen import model_shape
from musicgen_lora.model.text import TextStates
from musicgen_lora.training import run_folder, validation
from musicgen_lora.training.checkpoints import save_checkpoint
from musicgen_lora.training.optimise import learning_rate_at, optimise_step
from musicgen_lora.training.weights import Trainee


def run_steps(
    settings: TrainSettings,
    model: MusicgenForConditionalGeneration,
    trainee: Trainee,
    optimizer: torch.optim.Optimizer,
    dataset: ClipDataset,
    windows: validation.Windows,
    text: TextStates,
    run: dict[str, Any],
    state: dict[str, Any],
    console: Console,
) -> None:
    """Trains from `state["step"]` to the end, publishing the best weights on the way.

    Args:
        settings: of the run.
        model: on its device, with the trainee's weights in it.
        trainee: what is trained.
        optimizer: over the trainee's parameters.
        dataset: the training clips.
        windows: for validation; empty where nothing is held out.
        text: gives the conditions.
        run: what `run.json` holds; `steps` and `best` are added at the end.
        state: of the checkpoint that is resumed; `{"best": None}` for a fresh run.
        console: for progress.
    """
    per_step = settings.batch_size * settings.gradient_accumulation_steps
    steps_per_epoch = math.ceil(len(dataset) / per_step)
    n_steps = min(steps_per_epoch * settings.num_epochs, settings.max_steps or sys.maxsize)
    validate_every = settings.validate_every or steps_per_epoch
    save_every = settings.save_every or steps_per_epoch
    scaler = torch.amp.GradScaler("cuda") if run["precision"] == "fp16" else None
    if scaler is not None and "scale" in state:
        scaler.load_state_dict(state["scale"])
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(run["precision"])
    autocast = half if settings.trainable != "lora" else None
    best: dict[str, Any] | None = state["best"]
    output_dir, frame_rate = settings.output_dir, model_shape(model).frame_rate
    first, began, frames_read = state.get("step", 0), time.monotonic(), 0

    def save(step: int) -> None:
        extra = {"best": best} | ({} if scaler is None else {"scale": scaler.state_dict()})
        save_checkpoint(
            output_dir / run_folder.CHECKPOINTS,
            step,
            save_weights=trainee.save_weights,
            optimizer=optimizer,
            state=extra,
            keep=settings.keep_checkpoints,
        )

    progress = Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        disable=not console.is_terminal,
    )
    with progress, run_folder.StopSignals() as stop:
        task = progress.add_task("training", total=n_steps, completed=first, figures="")
        for step in range(first, n_steps):
            epoch, inside = divmod(step, steps_per_epoch)
            dataset.set_epoch(epoch)
            order = epoch_order(len(dataset), settings.seed, epoch)
            chosen = order[inside * per_step : (inside + 1) * per_step].tolist()
            rate = learning_rate_at(
                step,
                n_steps,
                peak=settings.learning_rate,
                schedule=settings.lr_schedule,
                warmup_share=settings.warmup_share,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            # Dropout masks belong to the step, not to how often this process has drawn.
            torch.manual_seed((settings.seed << 32) + step)
            trainee.train_mode(True)
            result = optimise_step(
                model,
                _batches(dataset, chosen, settings.batch_size),
                text,
                optimizer,
                trainee.parameters,
                max_grad_norm=settings.max_grad_norm,
                scaler=scaler,
                autocast=autocast,
                where=f"at step {step + 1} (clips: {', '.join(dataset.names(chosen))})",
            )
            trainee.train_mode(False)
            frames_read += result.n_frames
            elapsed = time.monotonic() - began
            done = step + 1
            row = {
                "event": "train",
                "step": done,
                "epoch": round(done / steps_per_epoch, 4),
                "loss": result.loss,
                "codebooks": result.codebooks,
                "learning_rate": rate,
                "grad_norm": result.grad_norm,
                "audio_s_per_s": frames_read / frame_rate / elapsed,
                "elapsed_s": round(elapsed, 3),
            }
            run_folder.append_metrics(output_dir, row)
            line = (
                f"loss {result.loss:.3f}  rate {rate:.2e}  "
                f"{row['audio_s_per_s']:.0f} s of audio a second"
            )
            progress.update(task, completed=done, figures=line)
            if not console.is_terminal and (done % 10 == 0 or done == n_steps or done == first + 1):
                left = elapsed / (done - first) * (n_steps - done)
                console.print(
                    f"step {done}/{n_steps}  epoch {row['epoch']:.2f}  {line}  {left:.0f} s left"
                )
            last = done == n_steps
            if windows and (done % validate_every == 0 or last):
                best = _validate(settings, model, windows, text, run, trainee, done, best, console)
            if done % save_every == 0 or last or stop.received:
                save(done)
            if stop.received and not last:
                console.print(
                    f"Stopped after step {done} of {n_steps}; saved. The same command goes on."
                )
                run_folder.write_run(output_dir, run | {"status": "interrupted"})
                raise SystemExit(128 + stop.received)
    if best is None:
        trainee.publish(output_dir / run_folder.BEST_MODEL, run)
    run["steps"] = n_steps
    run["best"] = best


def _validate(
    settings: TrainSettings,
    model: MusicgenForConditionalGeneration,
    windows: validation.Windows,
    text: TextStates,
    run: dict[str, Any],
    trainee: Trainee,
    step: int,
    best: dict[str, Any] | None,
    console: Console,
) -> dict[str, Any]:
    """Held-out loss now; a new best one becomes best_model. Returns the best so far."""
    codebooks = validation.codebook_means(
        *validation.window_losses(model, windows, text, settings.batch_size)
    )
    loss = sum(codebooks) / len(codebooks)
    if not math.isfinite(loss):
        raise RunError(f"The validation loss after step {step} is {loss}: the weights are broken.")
    found = {"step": step, "loss": loss, "codebooks": codebooks}
    run_folder.append_metrics(settings.output_dir, {"event": "validation", **found})
    base_loss = run["base_loss"]["loss"]
    better = best is None or loss < best["loss"]
    console.print(
        f"step {step}: validation loss {loss:.4f} (base {base_loss:.4f}, "
        f"{100 * (loss - base_loss) / base_loss:+.1f} %){'  best so far' if better else ''}"
    )
    if better:
        best = found
        trainee.publish(settings.output_dir / run_folder.BEST_MODEL, run | {"best": best})
    assert best is not None
    return best


def _batches(dataset: ClipDataset, chosen: Sequence[int], batch_size: int) -> list[Batch]:
    """A step's samples in batches, like lengths together: less padding, same gradient."""
    samples = sorted((dataset[index] for index in chosen), key=lambda sample: len(sample[0]))
    return [
        collate([codes for codes, _ in part], [caption for _, caption in part])
        for part in (
            samples[start : start + batch_size] for start in range(0, len(samples), batch_size)
        )
    ]
