"""From a dataset to an adapter: the training run.

Codes are cached and text states computed once, so the loop runs the decoder alone. Everything drawn
at a step is a function of (seed, step), so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from musicgen_lora.cluster.places import at_any_place
from musicgen_lora.config import TrainSettings
from musicgen_lora.config.train import FSDP_PRECISION
from musicgen_lora.console import plain_console, progress, working
from musicgen_lora.dataset.metadata import Clips, load_dataset
from musicgen_lora.dataset.remote import with_local_data
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.fonts import missing_font
from musicgen_lora.generation.decoding.decode import windows_sentence
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.lora.quantise import quantise_decoder
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.precision import DTYPES, choose_training_precision
from musicgen_lora.runtime.seeds import drawing_from, seed_of
from musicgen_lora.runtime.versions import library_versions
from musicgen_lora.training import validation
from musicgen_lora.training.checkpoints import Trained, newest_checkpoint, step_name
from musicgen_lora.training.checks import check_fit, check_settings, trains_text
from musicgen_lora.training.data import RunInputs, open_data
from musicgen_lora.training.ema import EMA
from musicgen_lora.training.memory import checkpoint_layers
from musicgen_lora.training.optimizers import make_optimizers
from musicgen_lora.training.previews import PREVIEW_S, with_previews
from musicgen_lora.training.record import run_folder
from musicgen_lora.training.record.computing import computing, what_changed
from musicgen_lora.training.record.curves import draw_curves
from musicgen_lora.training.record.identity import (
    data_facts,
    plain_settings,
    run_identity,
    what_differs,
)
from musicgen_lora.training.record.log import RunLog, open_trackers
from musicgen_lora.training.record.run import FAILED, FINISHED, RUNNING, Run
from musicgen_lora.training.record.verdict import verdict
from musicgen_lora.training.schedule import with_rate
from musicgen_lora.training.trainer import Trainer
from musicgen_lora.training.weights import LoraWeights, make_weights

EFFECT_WINDOWS = 4


class Found(IntEnum):
    """What the output folder holds. Numbers, so that processes can exchange them."""

    NOTHING = 0
    """Nothing that this run could resume from."""
    UNFINISHED = 1
    """A checkpoint of this same run."""
    FINISHED = 2
    """This same run, finished."""


@at_any_place("train")
def train_lora(
    settings: TrainSettings,
    loading: Future[Clips] | None = None,
) -> dict[str, Any]:
    """Trains, or resumes an unfinished run of the same settings.

    Args:
        loading: the dataset, if loading has already begun.

    Returns:
        The final content of `run.json`.

    Raises:
        UserError: data, model or settings are unusable.
        RunError: the loss is not finite, or the adapter has no effect.
        SystemExit: 130, 143 or 129 after SIGINT, SIGTERM or SIGHUP, with a checkpoint saved.
    """
    console = plain_console()
    first = processes.rank() == 0
    console.quiet = not first
    try:
        with run_folder.held(settings.output_dir) if first else nullcontext():
            try:
                settings = with_local_data(settings, console)
                return _train(settings, loading, console).content()
            except RunError:
                run = Run.read(settings.output_dir)
                if first and run is not None and run.status == RUNNING:
                    # On a full disk this fails too; the original error says more.
                    with suppress(RunError):
                        replace(run, status=FAILED).write(settings.output_dir)
                raise
    except UserError as error:
        if not processes.first_to_fail():
            raise SystemExit(error.exit_code) from error
        raise


def _train(settings: TrainSettings, loading: Future[Clips] | None, console: Console) -> Run:
    """Checks, opens the data, gates the base, begins or resumes the run, trains and finishes."""
    check_settings(settings)
    with working(console, "reading the dataset and the base model"):
        clips = (
            loading.result()
            if loading is not None
            else load_dataset(
                settings.data_dir, settings.metadata_file, look_at_files=not settings.from_tokens
            )
        )
        model = BaseModel.load(settings.model_path)
    settings = with_rate(_within_trained(settings, model, console), model, console)
    check_fit(settings, model)
    base = {
        "path": settings.model_path,
        "fingerprint": model.fingerprint,
        "class": type(model.hf).__name__,
        "trained_duration_s": model.facts.trained_duration_s,
    }
    frozen_text = not trains_text(settings, model)
    data = open_data(settings, clips, model, console, frozen_text=frozen_text)
    settings = with_previews(settings, data.clips, data.held_out, console)
    inputs = RunInputs(settings, model, data)
    precision = _place(inputs, console)
    identity = run_identity(settings, base["fingerprint"], data.clips, data.ids)
    found, step = _look_into_folder(settings, identity, base["fingerprint"], console)
    previous = Run.read(settings.output_dir)
    if found is Found.NOTHING:
        base_loss = _gate(inputs, console)
        run = _begin(inputs, identity, precision, base, base_loss, previous, console)
    else:
        assert previous is not None
        if found is Found.FINISHED:
            return previous
        run = _going_on(previous, settings, precision, console)
        # All processes must have read it before it is written again.
        processes.barrier()
    trained = _make_trained(inputs, run, console)
    names = settings.report_to if processes.rank() == 0 else ()
    with open_trackers(names, settings.output_dir, run, step) as trackers:
        log = RunLog(console, settings.output_dir, trackers)
        trainer = Trainer(inputs, trained, run, log)
        if found is Found.UNFINISHED:
            trainer.resume(settings.output_dir / run_folder.CHECKPOINTS / step_name(step))
        else:
            log.record({"event": "base", "step": 0, **(run.base_loss or {})})
        trainer.train()
        if isinstance(trained.weights, LoraWeights):
            run.effect = _measure_effect(inputs, trained.weights, log)
            log.record({"event": "effect", "step": run.steps, **run.effect})
    return _finish(settings, run, console)


def _place(inputs: RunInputs, console: Console) -> str:
    """Puts the model on its device, quantised if asked for. Returns the precision."""
    settings, model, data = inputs
    device = processes.device()
    n_parameters = sum(p.numel() for p in model.hf.decoder.parameters())
    precision, why = choose_training_precision(
        settings.precision, settings.fp16, device, n_parameters
    )
    if settings.fsdp and precision == "fp16":
        raise UserError(FSDP_PRECISION)
    console.print(f"Training on {device} in {precision}: {why}")
    if processes.world_size() > 1:
        console.print(f"{processes.world_size()} processes share the clips of each step.")
    if settings.quantise != "none":
        quantise_decoder(model.hf, settings.quantise, device=device, dtype=DTYPES[precision])
    model.to(device, precision, trained=settings.trainable != "lora")
    enable(model.hf, precision)
    if not data.text_is_ready:
        text_encoder: Any = model.hf.text_encoder
        text_encoder.to(device)
    return precision


def _look_into_folder(
    settings: TrainSettings, identity: str, base: str, console: Console
) -> tuple[Found, int]:
    """What the output folder holds, and the step to resume after. The first process looks, and all
    follow what it found."""
    found, step = Found.NOTHING, 0
    if processes.rank() == 0:
        previous = Run.read(settings.output_dir)
        if settings.resume == "never" or previous is None:
            pass
        elif not previous.is_resumable:
            console.print(
                f"{settings.output_dir / run_folder.RUN_FILE}: lacks what is needed to resume its "
                "run, which is moved aside."
            )
        elif previous.identity != identity:
            if previous.status != FINISHED:
                differs = what_differs(
                    settings, base, previous.settings, previous.base.get("fingerprint")
                )
                console.print(f"The unfinished run in this folder had {differs}.", style="yellow")
        elif previous.status == FINISHED:
            _check_best_model(settings.output_dir)
            found = Found.FINISHED
            console.print(
                f"{settings.output_dir}: this same run is already finished; its adapter is in "
                f"{settings.output_dir / run_folder.BEST_MODEL}. To train it again: --resume never"
            )
        else:
            folder = settings.output_dir / run_folder.CHECKPOINTS
            checkpoint = newest_checkpoint(folder, console.print)
            if checkpoint is not None:
                found, step = Found.UNFINISHED, int(checkpoint.name.removeprefix("step-"))
    # The other processes looked for nothing and pass on 0.
    return Found(processes.all_reduce_max(found)), processes.all_reduce_max(step)


def _begin(
    inputs: RunInputs,
    identity: str,
    precision: str,
    base: dict[str, Any],
    base_loss: dict[str, Any],
    earlier: Run | None,
    console: Console,
) -> Run:
    """Writes a new run to the folder, moving an earlier one aside."""
    settings, _, data = inputs
    run = Run(
        status=RUNNING,
        identity=identity,
        output_dir=str(settings.output_dir.resolve()),
        started=time.strftime("%Y%m%d-%H%M%S"),
        settings=plain_settings(settings),
        versions=library_versions(),
        device=str(processes.device()),
        precision=precision,
        computing=computing(),
        base=base,
        data=data_facts(settings, data.clips, data.ids, data.train, data.held_out),
        base_loss=base_loss,
    )
    if processes.rank() == 0:
        aside = run_folder.put_aside(settings.output_dir, console.print)
        if aside is not None:
            console.print(f"The earlier run in {settings.output_dir} was moved to {aside}.")
            if earlier is not None and earlier.status != FINISHED and earlier.is_resumable:
                console.print(f"To resume it, use its settings and data with --output_dir {aside}")
        run.write(settings.output_dir)
    return run


def _going_on(run: Run, settings: TrainSettings, precision: str, console: Console) -> Run:
    """An unfinished run as it goes on here, perhaps in another folder and on another device. Says
    so if that changes how it is computed."""
    now = replace(
        run,
        output_dir=str(settings.output_dir.resolve()),
        device=str(processes.device()),
        precision=precision,
        computing=computing(),
        versions=library_versions(),
    )
    for said in what_changed(run, now):
        console.print(said, style="yellow")
    return now


def _make_trained(inputs: RunInputs, run: Run, console: Console) -> Trained:
    """The weights that the settings name, with their optimizers and average."""
    settings, model, _ = inputs
    n_parameters = sum(p.numel() for p in model.hf.decoder.parameters())
    with drawing_from(seed_of("adapter", settings.seed)):
        weights = make_weights(model, settings, run.base["path"])
    if settings.gradient_checkpointing:
        checkpoint_layers(model.hf)
    if isinstance(weights, LoraWeights):
        count = sum(p.numel() for p in weights.parameters)
        console.print(f"LoRA: {count:,} trainable parameters on {n_parameters:,} frozen ones.")
        for said in weights.remarks(run.precision):
            console.print(said, style="yellow")
    assert settings.learning_rate is not None
    optimizers = make_optimizers(
        settings.optimizer,
        [(name, p) for name, p in model.hf.named_parameters() if p.requires_grad],
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        text_encoder_learning_rate=settings.text_encoder_learning_rate,
    )
    decay = settings.ema_decay
    ema = EMA(weights.parameters, decay) if decay is not None else None
    return Trained(weights, optimizers, ema)


def _measure_effect(inputs: RunInputs, weights: LoraWeights, log: RunLog) -> dict[str, float]:
    settings, model, data = inputs
    windows = data.gate_windows[:EFFECT_WINDOWS]
    with working(log.console, "measuring the adapter's effect"):
        effect = validation.adapter_effect(weights.base_alone, model, windows, settings.batch_size)
    log.say(
        f"Effect of the adapter: KL {effect['mean_kl']:.2g} nats per token, largest logit "
        f"change {effect['max_logit_change']:.2f}."
    )
    return effect


def _finish(settings: TrainSettings, run: Run, console: Console) -> Run:
    """Writes and prints the outcome of a run."""
    run = replace(run, status=FINISHED)
    if processes.rank() > 0:
        return run
    assert run.base_loss is not None
    rows = run_folder.read_metrics(settings.output_dir)
    losses = [(row["step"], row["loss"]) for row in rows if row["event"] == "validation"]
    if run.best is not None:
        # A lower loss is of an adapter that was lost on the way.
        losses = [each for each in losses if each[1] >= run.best["loss"]]
    run.verdict = verdict(run.base_loss["loss"], losses)
    curves = settings.output_dir / run_folder.CURVES_FILE
    draw_curves(curves, rows, run.base_loss["loss"])
    run.write(settings.output_dir)
    console.print(run.verdict)
    console.print(f"Curves: {curves}")
    if said := missing_font():
        console.print(said, style="yellow")
    console.print(f"Done: {settings.output_dir / run_folder.BEST_MODEL}")
    return run


def _gate(inputs: RunInputs, console: Console) -> dict[str, Any]:
    """The base's loss, which must be better than chance."""
    settings, model, data = inputs
    with progress(console, "scoring the base, windows") as on_step:
        codebooks = validation.held_out_losses(
            model, data.gate_windows, settings.batch_size, on_step
        )
    held_out = bool(data.windows)
    loss = sum(codebooks) / len(codebooks)
    each = ", ".join(f"{value:.3f}" for value in codebooks)
    console.print(
        f"Base model on the {'held-out' if held_out else 'training'} clips: loss {loss:.4f} "
        f"(codebooks {each}; chance is {math.log(model.shape.special):.2f})."
    )
    validation.check_base(codebooks, model.shape.special, settings.allow_random_base)
    return {"loss": loss, "codebooks": codebooks, "held_out": held_out}


def _check_best_model(output_dir: Path) -> None:
    """Raises a UserError if a finished run's adapter is missing or altered."""
    faults = run_folder.best_model_faults(output_dir)
    if faults:
        raise UserError(
            f"{output_dir / run_folder.BEST_MODEL}: missing or damaged ({', '.join(faults[:3])}), "
            f"though {run_folder.RUN_FILE} says that this same run is finished. To train it again: "
            f"--resume never. The folders in {output_dir / run_folder.CHECKPOINTS} hold its last "
            "adapters."
        )


def _within_trained(settings: TrainSettings, model: BaseModel, console: Console) -> TrainSettings:
    """Limits the windows to the length that the base was trained on: beyond it the base predicts
    nothing, and an adapter would learn to live with its noise. The limited length is recorded, so
    that evaluation uses it too."""
    longest_s = model.facts.trained_duration_s
    if settings.previews == "auto":
        preview_s = settings.preview_duration or PREVIEW_S
        n_frames = round(preview_s * model.shape.frame_rate)
        if said := windows_sentence(model, n_frames):
            console.print(f"Previews: {said}", style="yellow")
    if settings.max_duration <= longest_s:
        return settings
    console.print(
        f"Windows are at most {longest_s:g} s long, not {settings.max_duration:g} s as "
        f"--max_duration says: {settings.model_path} was trained on no longer ones."
    )
    return replace(settings, max_duration=longest_s)
