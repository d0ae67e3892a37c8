"""From a dataset to an adapter: the training run.

Codes are cached and text states computed once, so the loop holds the decoder alone. What is
drawn at a step is a function of (seed, step), so a resumed run equals an unbroken one.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.config import TrainSettings
from musicgen_lora.console import plain_console, progress
from musicgen_lora.dataset.metadata import Clips, load_dataset
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.generation.decode import windows_sentence
from musicgen_lora.model.base_facts import base_facts
from musicgen_lora.model.cpu.lora_linear import round_before_adding
from musicgen_lora.model.lora.quantise import check_quantise, quantise_decoder
from musicgen_lora.model.lora.targets import adapts_text_encoder
from musicgen_lora.model.musicgen import base_fingerprint, load_base, model_shape
from musicgen_lora.model.placement import place
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.precision import DTYPES, choose_precision
from musicgen_lora.runtime.seeds import seed_of
from musicgen_lora.runtime.versions import library_versions
from musicgen_lora.training import run_folder, validation
from musicgen_lora.training.checkpoints import (
    newest_checkpoint,
    read_state,
    restore_training,
    step_name,
)
from musicgen_lora.training.curves import draw_curves, verdict
from musicgen_lora.training.ema import start_average
from musicgen_lora.training.facts import (
    data_facts,
    plain_settings,
    run_identity,
)
from musicgen_lora.training.loop import run_steps
from musicgen_lora.training.material import Material, gather
from musicgen_lora.training.memory import checkpoint_layers
from musicgen_lora.training.optimizers import check_optimizer, make_optimizers
from musicgen_lora.training.previews import PREVIEW_S, check_previews, with_previews
from musicgen_lora.training.rates import with_rate
from musicgen_lora.training.sharding import check_sharding
from musicgen_lora.training.trackers import check_trackers, open_trackers
from musicgen_lora.training.weights import Trainee, check_frozen, lora_pattern, make_trainee

EFFECT_WINDOWS = 4
FRESH, FINISHED = -1, -2
"""What the first process finds in the output folder, where it is not the step to resume after."""


def train_lora(settings: TrainSettings, loading: Future[Clips] | None = None) -> dict[str, Any]:
    """Trains, or goes on with an unfinished run of the same settings.

    Args:
        settings: of the run.
        loading: of the dataset, where it has begun already.

    Returns:
        What `run.json` says at the end.

    Raises:
        UserError: data, model or settings are not usable.
        RunError: the loss is not finite, or the adapter has no effect.
        SystemExit: 130, 143 or 129 after SIGINT, SIGTERM or SIGHUP, with a checkpoint saved.
    """
    console = plain_console()
    first = processes.rank() == 0
    console.quiet = not first
    try:
        with run_folder.locked(settings.output_dir) if first else nullcontext():
            try:
                return _train(settings, loading, console)
            except RunError:
                run = run_folder.read_run(settings.output_dir)
                if first and run is not None and run["status"] == "running":
                    # On a full disk this fails too; the error on its way says more.
                    with suppress(RunError):
                        run_folder.write_run(settings.output_dir, run | {"status": "failed"})
                raise
    except UserError as error:
        if not processes.first_to_fail():
            raise SystemExit(error.exit_code) from error
        raise


def _train(
    settings: TrainSettings, loading: Future[Clips] | None, console: Console
) -> dict[str, Any]:
    check_optimizer(settings.optimizer, settings.learning_rate, settings.trainable)
    check_trackers(settings.report_to)
    check_previews(settings)
    _check_processes(settings)
    if loading is not None:
        clips = loading.result()
    else:
        clips = load_dataset(
            settings.data_dir, settings.metadata_file, look_at_files=not settings.from_tokens
        )
    model = load_base(settings.model_path)
    settings = _within_trained(settings, model, console)
    settings = with_rate(settings, model, console)
    _check_codebooks(settings, model_shape(model).n_codebooks)
    check_sharding(settings, model)
    check_frozen(settings.frozen_modules, settings.trainable)
    check_quantise(
        settings.quantise,
        trainable=settings.trainable,
        init=settings.lora_init,
        adapter=settings.adapter,
        device=processes.device(),
    )
    adapts_text = settings.trainable == "lora" and adapts_text_encoder(
        model, lora_pattern(model, settings)
    )
    frozen_text = settings.trainable != "full_with_text" and not adapts_text
    _check_text_rate(settings, frozen_text)
    base = {
        "path": settings.model_path,
        "fingerprint": base_fingerprint(model),
        "class": type(model).__name__,
        "trained_duration_s": base_facts(model).trained_duration_s,
    }
    material = gather(settings, clips, model, console, frozen_text=frozen_text)
    settings = with_previews(settings, material.clips, material.held_out, console)

    device = processes.device()
    n_parameters = sum(p.numel() for p in model.decoder.parameters())
    precision, why = choose_precision(settings.precision, settings.fp16, device, n_parameters)
    if settings.fsdp and precision == "fp16":
        raise UserError("--fsdp trains in bf16 or fp32: give --precision bf16 or fp32.")
    console.print(f"Training on {device} in {precision}: {why}")
    if processes.world_size() > 1:
        console.print(f"{processes.world_size()} processes share the clips of each step.")
    if settings.quantise != "none":
        quantise_decoder(model, settings.quantise, device=device, dtype=DTYPES[precision])
    place(model, device, precision, trained=settings.trainable != "lora")
    if not material.text_is_ready:
        text_encoder: Any = model.text_encoder
        text_encoder.to(device)

    identity = run_identity(settings, base["fingerprint"], material.clips, material.ids)
    found = _look_into_folder(settings, identity, console)
    previous = run_folder.read_run(settings.output_dir)
    if found == FINISHED:
        assert previous is not None
        return previous
    if found >= 0:
        assert previous is not None
        run = previous
        # It may have been moved since it began.
        run["output_dir"] = str(settings.output_dir.resolve())
        processes.largest(0)
    else:
        base_loss = _gate(settings, model, material, console)
        run = {
            "status": "running",
            "identity": identity,
            "output_dir": str(settings.output_dir.resolve()),
            "started": time.strftime("%Y%m%d-%H%M%S"),
            "settings": plain_settings(settings),
            "versions": library_versions(),
            "device": str(device),
            "precision": precision,
            "base": base,
            "data": data_facts(
                settings, material.clips, material.ids, len(material.train), material.held_out
            ),
            "base_loss": base_loss,
        }
        if processes.rank() == 0:
            aside = run_folder.put_aside(settings.output_dir, console.print)
            if aside is not None:
                console.print(f"The earlier run in {settings.output_dir} now lies in {aside}.")
            run_folder.write_run(settings.output_dir, run)

    torch.manual_seed(seed_of("adapter", settings.seed))
    trainee = make_trainee(model, settings, run)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    if trainee.adapted is not None:
        count = sum(p.numel() for p in trainee.parameters)
        console.print(f"LoRA: {count:,} trainable parameters on {n_parameters:,} frozen ones.")
        _say_how_it_adapts(trainee.adapted, precision, console)
    assert settings.learning_rate is not None
    optimizers = make_optimizers(
        settings.optimizer,
        [(name, p) for name, p in model.named_parameters() if p.requires_grad],
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        text_encoder_learning_rate=settings.text_encoder_learning_rate,
    )
    average = start_average(trainee.parameters) if settings.ema_decay is not None else None
    state: dict[str, Any] = {"step": 0, "best": None}
    if found >= 0:
        checkpoint = settings.output_dir / run_folder.CHECKPOINTS / step_name(found)
        state = read_state(checkpoint)
        trainee.load_weights(checkpoint)
        restore_training(checkpoint, state, optimizers, average)
        if processes.rank() == 0:
            run_folder.cut_metrics(settings.output_dir, state["step"])
        console.print(f"Resuming after step {state['step']} from {checkpoint}.")

    names = settings.report_to if processes.rank() == 0 else []
    with open_trackers(names, settings.output_dir, run, state["step"]) as track:

        def record(row: dict[str, Any]) -> None:
            if processes.rank() == 0:
                run_folder.append_metrics(settings.output_dir, row)
                track(row)

        if found == FRESH:
            record({"event": "base", "step": 0, **run["base_loss"]})
        run_steps(
            settings, model, trainee, optimizers, average, material, run, state, record, console
        )
        if trainee.adapted is not None:
            run["effect"] = _effect(settings, model, trainee, material, console)
            record({"event": "effect", "step": run["steps"], **run["effect"]})
    return _finish(settings, run, console)


def _say_how_it_adapts(adapted: PeftModel, precision: str, console: Console) -> None:
    config: Any = adapted.peft_config["default"]
    left_out = sorted(config.exclude_modules or [])
    if left_out:
        console.print(
            f"DoRA leaves out {len(left_out)} layers with rows of zeros, which have no "
            f"direction: {', '.join(left_out)}.",
            style="yellow",
        )
    rounded = round_before_adding(adapted) if precision != "fp32" else []
    if rounded:
        console.print(
            f"In {precision}, {len(rounded)} of the adapted layers ({rounded[0]} for one) round "
            "the base's product before the adapter's is added: its smallest changes are lost "
            "there. --precision fp32 keeps them.",
            style="yellow",
        )


def _effect(
    settings: TrainSettings,
    model: MusicgenForConditionalGeneration,
    trainee: Trainee,
    material: Material,
    console: Console,
) -> dict[str, float]:
    windows = material.gate_windows[:EFFECT_WINDOWS]
    effect = validation.adapter_effect(
        trainee.base_alone, model, windows, material.text, settings.batch_size
    )
    console.print(
        f"Effect of the adapter: KL {effect['mean_kl']:.2g} nats a token, largest logit "
        f"change {effect['max_logit_change']:.2f}."
    )
    return effect


def _finish(settings: TrainSettings, run: dict[str, Any], console: Console) -> dict[str, Any]:
    """The last word on a run, in the folder and on the screen."""
    run["status"] = "finished"
    if processes.rank() > 0:
        return run
    rows = run_folder.read_metrics(settings.output_dir)
    losses = [(row["step"], row["loss"]) for row in rows if row["event"] == "validation"]
    base_loss = run["base_loss"]["loss"]
    run["verdict"] = verdict(base_loss, losses)
    curves = settings.output_dir / run_folder.CURVES_FILE
    draw_curves(curves, rows, base_loss)
    run_folder.write_run(settings.output_dir, run)
    console.print(run["verdict"])
    console.print(f"Curves: {curves}")
    console.print(f"Done: {settings.output_dir / run_folder.BEST_MODEL}")
    return run


def _gate(
    settings: TrainSettings,
    model: MusicgenForConditionalGeneration,
    material: Material,
    console: Console,
) -> dict[str, Any]:
    with progress(console, "base on the held-out clips, windows") as on_step:
        codebooks = validation.held_out_losses(
            model, material.gate_windows, material.text, settings.batch_size, on_step
        )
    held_out = bool(material.windows)
    loss = sum(codebooks) / len(codebooks)
    each = ", ".join(f"{value:.3f}" for value in codebooks)
    console.print(
        f"Base model on the {'held-out' if held_out else 'training'} clips: loss {loss:.4f} "
        f"(codebooks {each}; chance is {math.log(model_shape(model).special):.2f})."
    )
    validation.check_base(codebooks, model_shape(model).special, settings.allow_random_base)
    return {"loss": loss, "codebooks": codebooks, "held_out": held_out}


def _look_into_folder(settings: TrainSettings, identity: str, console: Console) -> int:
    """What lies in the output folder: the step to resume after, FRESH or FINISHED. The first
    process looks, and all go by what it found."""
    found = FINISHED
    if processes.rank() == 0:
        previous = run_folder.read_run(settings.output_dir)
        if settings.resume == "never" or previous is None:
            found = FRESH
        elif previous["identity"] != identity:
            found = FRESH
            if previous["status"] != "finished":
                console.print("The unfinished run in this folder had other settings or data.")
        elif previous["status"] == "finished":
            _check_best_model(settings.output_dir)
            console.print(
                f"{settings.output_dir}: this very run is already finished; its adapter is in "
                f"{settings.output_dir / run_folder.BEST_MODEL}. To train it anew: --resume never"
            )
        else:
            folder = settings.output_dir / run_folder.CHECKPOINTS
            checkpoint = newest_checkpoint(folder, console.print)
            found = FRESH if checkpoint is None else int(checkpoint.name.removeprefix("step-"))
    return processes.largest(found)


def _check_best_model(output_dir: Path) -> None:
    """Raises a UserError where a finished run's adapter is not there, or not what it was."""
    faults = run_folder.best_model_faults(output_dir)
    if faults:
        raise UserError(
            f"{output_dir / run_folder.BEST_MODEL}: missing or damaged ({', '.join(faults[:3])}), "
            f"though {run_folder.RUN_FILE} says that this very run is finished. --resume never "
            f"trains it anew; the folders in {output_dir / run_folder.CHECKPOINTS} hold its last "
            "adapters."
        )


def _within_trained(
    settings: TrainSettings, model: MusicgenForConditionalGeneration, console: Console
) -> TrainSettings:
    """Windows no longer than those that the base was trained on: past them it predicts nothing, and
    an adapter would learn to live with its noise. What is recorded are the windows that are taken,
    so that evaluation takes the same."""
    longest_s = base_facts(model).trained_duration_s
    if settings.previews == "auto":
        preview_s = settings.preview_duration or PREVIEW_S
        n_frames = round(preview_s * model_shape(model).frame_rate)
        if said := windows_sentence(model, n_frames):
            console.print(f"Previews: {said}", style="yellow")
    if settings.max_duration <= longest_s:
        return settings
    console.print(
        f"Longer clips give windows of {longest_s:g} s, not of the {settings.max_duration:g} s of "
        f"--max_duration: {settings.model_path} was trained on no more."
    )
    return replace(settings, max_duration=longest_s)


def _check_processes(settings: TrainSettings) -> None:
    per_step = settings.batch_size * settings.gradient_accumulation_steps
    if per_step < processes.world_size():
        raise UserError(
            f"A step has {per_step} clips (batch_size x gradient_accumulation_steps) for "
            f"{processes.world_size()} processes; raise --gradient_accumulation_steps."
        )


def _check_text_rate(settings: TrainSettings, frozen_text: bool) -> None:
    if settings.text_encoder_learning_rate is None:
        return
    if frozen_text:
        raise UserError(
            "--text_encoder_learning_rate is given, but the text encoder is not trained: add it "
            "to --lora_targets, or leave the rate out."
        )
    if settings.optimizer == "prodigy":
        raise UserError(
            "--optimizer prodigy finds one rate for all; leave --text_encoder_learning_rate out."
        )


def _check_codebooks(settings: TrainSettings, n_codebooks: int) -> None:
    weights = settings.codebook_weights
    if weights is not None and (len(weights) != n_codebooks or not any(weights)):
        raise UserError(
            f"--codebook_weights {' '.join(f'{weight:g}' for weight in weights)}: the model has "
            f"{n_codebooks} codebooks, which need a weight each, one above 0 at least."
        )
