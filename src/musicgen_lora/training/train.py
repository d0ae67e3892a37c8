"""From a dataset to an adapter: the training run.

Codes are cached and text states computed once, so the loop holds the decoder alone. What is
drawn at a step is a function of (seed, step), so a resumed run equals an unbroken one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.config import TrainSettings
from musicgen_lora.console import plain_console
from musicgen_lora.data.batches import ClipDataset, fixed_windows
from musicgen_lora.data.metadata import Clip, load_dataset, split_clips
from musicgen_lora.data.tokens import TokenStore, clip_ids, tokenise_clips
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.model.musicgen import base_fingerprint, load_base, load_tokenizer, model_shape
from musicgen_lora.model.quantise import check_quantise, quantise_decoder
from musicgen_lora.model.targets import adapts_text_encoder
from musicgen_lora.model.text import TextStates
from musicgen_lora.training import run_folder, validation
from musicgen_lora.training.checkpoints import newest_checkpoint, read_state, restore_optimizer
from musicgen_lora.training.device import DTYPES, choose_precision, place, training_device
from musicgen_lora.training.facts import (
    data_facts,
    library_versions,
    plain_settings,
    run_identity,
)
from musicgen_lora.training.loop import run_steps
from musicgen_lora.training.weights import Trainee, lora_pattern, make_trainee

GATE_WINDOWS = 32
"""Training windows that the gate reads where nothing is held out."""
EFFECT_WINDOWS = 4


def train_lora(settings: TrainSettings) -> dict[str, Any]:
    """Trains, or goes on with an unfinished run of the same settings.

    Returns:
        What `run.json` says at the end.

    Raises:
        UserError: data, model or settings are not usable.
        RunError: the loss is not finite, or the adapter has no effect.
        SystemExit: 130 or 143 after SIGINT or SIGTERM, with a checkpoint saved.
    """
    console = plain_console()
    with run_folder.locked(settings.output_dir):
        try:
            return _train(settings, console)
        except RunError:
            run = run_folder.read_run(settings.output_dir)
            if run is not None and run["status"] == "running":
                run_folder.write_run(settings.output_dir, run | {"status": "failed"})
            raise


def _train(settings: TrainSettings, console: Console) -> dict[str, Any]:
    clips = load_dataset(settings.data_dir, settings.metadata_file)
    model = load_base(settings.model_path)
    check_quantise(settings.quantise, trainable=settings.trainable, init=settings.lora_init)
    adapts_text = settings.trainable == "lora" and adapts_text_encoder(
        model, lora_pattern(model, settings)
    )
    shape = model_shape(model)
    base = {"path": settings.model_path, "fingerprint": base_fingerprint(model)}
    ids, store = _tokenise(clips, model, settings.data_dir, console)
    clips, ids = _long_enough(clips, ids, store, shape.delays, console)
    train_clips, held_out = split_clips(clips, settings.validation_fraction, settings.seed)
    id_of = {clip.name: clip_id for clip, clip_id in zip(clips, ids, strict=True)}
    console.print(
        f"{len(train_clips)} clips to train on, {len(held_out)} held out "
        f"({len({c.source for c in held_out})} sources)."
    )
    if not held_out:
        console.print(
            "Too few sources to hold any out: nothing can be validated, and the last "
            "step becomes best_model. Two sources are the least, 50 clips are advised.",
            style="yellow",
        )
    max_frames = max(round(settings.max_duration * shape.frame_rate), max(shape.delays) + 1)

    def windows_of(chosen: Sequence[Clip], limit: int) -> list[tuple[Any, str, str]]:
        found = fixed_windows(
            chosen,
            [id_of[clip.name] for clip in chosen],
            store,
            max_frames=max_frames,
            min_frames=max(shape.delays) + 1,
        )
        return found[:: max(1, math.ceil(len(found) / limit))]

    windows = windows_of(held_out, settings.max_validation_windows)
    gate_windows = windows or windows_of(train_clips, GATE_WINDOWS)
    dataset = ClipDataset(
        train_clips,
        [id_of[clip.name] for clip in train_clips],
        store,
        max_frames=max_frames,
        seed=settings.seed,
        condition_dropout=settings.condition_dropout,
    )
    frozen_text = settings.trainable != "full_with_text" and not adapts_text
    text = TextStates(model, load_tokenizer(settings.model_path), frozen=frozen_text)
    if frozen_text:
        text.prepare([caption for clip in clips for caption in clip.texts])

    device = training_device()
    n_parameters = sum(p.numel() for p in model.decoder.parameters())
    precision, why = choose_precision(settings.precision, settings.fp16, device, n_parameters)
    console.print(f"Training on {device} in {precision}: {why}")
    if settings.quantise != "none":
        quantise_decoder(model, settings.quantise, device=device, dtype=DTYPES[precision])
    # Weights that are trained stay in fp32; only a frozen base is held in less.
    place(model, device, precision if settings.trainable == "lora" else "fp32")
    if adapts_text:
        text_encoder: Any = model.text_encoder
        text_encoder.to(device)

    identity = run_identity(settings, base["fingerprint"], clips, id_of)
    previous = run_folder.read_run(settings.output_dir)
    checkpoint = _checkpoint_to_resume(settings, previous, identity, console)
    if _is_finished(previous, identity) and settings.resume == "auto":
        console.print(
            f"{settings.output_dir}: this very run is already finished; its adapter is in "
            f"{settings.output_dir / run_folder.BEST_MODEL}. To train it anew: --resume never"
        )
        assert previous is not None
        return previous

    if checkpoint is not None and previous is not None:
        run = previous
    else:
        base_loss = _gate(settings, model, gate_windows, bool(windows), text, console)
        aside = run_folder.put_aside(settings.output_dir)
        if aside is not None:
            console.print(f"The earlier run in {settings.output_dir} now lies in {aside}.")
        run = {
            "status": "running",
            "identity": identity,
            "settings": plain_settings(settings),
            "versions": library_versions(),
            "device": str(device),
            "precision": precision,
            "base": base,
            "data": data_facts(settings, clips, train_clips, held_out, id_of),
            "base_loss": base_loss,
        }
        run_folder.append_metrics(
            settings.output_dir, {"event": "base", "step": 0, **run["base_loss"]}
        )
        run_folder.write_run(settings.output_dir, run)

    torch.manual_seed(settings.seed)
    trainee = make_trainee(model, settings, run)
    if trainee.adapted is not None:
        count = sum(p.numel() for p in trainee.parameters)
        console.print(f"LoRA: {count:,} trainable parameters on {n_parameters:,} frozen ones.")
    optimizer = torch.optim.AdamW(
        trainee.parameters,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    state: dict[str, Any] = {"best": None}
    if checkpoint is not None:
        state = read_state(checkpoint)
        trainee.load_weights(checkpoint)
        restore_optimizer(checkpoint, optimizer)
        run_folder.cut_metrics(settings.output_dir, state["step"])
        console.print(f"Resuming after step {state['step']} from {checkpoint}.")

    run_steps(settings, model, trainee, optimizer, dataset, windows, text, run, state, console)
    return _finish(settings, model, trainee, gate_windows, text, run, console)


def _finish(
    settings: TrainSettings,
    model: MusicgenForConditionalGeneration,
    trainee: Trainee,
    windows: validation.Windows,
    text: TextStates,
    run: dict[str, Any],
    console: Console,
) -> dict[str, Any]:
    if trainee.adapted is not None:
        effect = validation.adapter_effect(
            trainee.base_alone, model, windows[:EFFECT_WINDOWS], text
        )
        run["effect"] = effect
        run_folder.append_metrics(
            settings.output_dir, {"event": "effect", "step": run["steps"], **effect}
        )
        console.print(
            f"Effect of the adapter: KL {effect['mean_kl']:.2g} nats a token, largest logit "
            f"change {effect['max_logit_change']:.2f}."
        )
    run["status"] = "finished"
    run_folder.write_run(settings.output_dir, run)
    target = settings.output_dir / run_folder.BEST_MODEL
    if run["best"] is not None:
        base_loss, loss = run["base_loss"]["loss"], run["best"]["loss"]
        change = 100 * (loss - base_loss) / base_loss
        verdict = (
            "it learned." if change < -1 else "it hardly learned: train longer or raise the rate."
        )
        console.print(
            f"Held-out loss {base_loss:.4f} -> {loss:.4f} ({change:+.1f} %) at step "
            f"{run['best']['step']}: {verdict}"
        )
    console.print(f"Done: {target}")
    return run


def _tokenise(
    clips: Sequence[Clip],
    model: MusicgenForConditionalGeneration,
    data_dir: Path,
    console: Console,
) -> tuple[list[str], TokenStore]:
    ids = clip_ids(clips, data_dir)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("tokenising", total=None)
        on_clip: Callable[[int, int], None] = lambda done, total: progress.update(  # noqa: E731
            task, completed=done, total=total
        )
        return ids, tokenise_clips(clips, ids, model, data_dir, on_clip)


def _long_enough(
    clips: Sequence[Clip],
    ids: Sequence[str],
    store: TokenStore,
    delays: list[int],
    console: Console,
) -> tuple[list[Clip], list[str]]:
    """Without the clips in which the last codebook has nothing to predict."""
    pairs = [
        (clip, clip_id)
        for clip, clip_id in zip(clips, ids, strict=True)
        if store.n_frames(clip_id) > max(delays)
    ]
    for clip in set(clips) - {clip for clip, _ in pairs}:
        line = f"{clip.name}: shorter than {max(delays) + 1} frames; left out."
        console.print(line, style="yellow")
    if not pairs:
        raise UserError("Every clip is shorter than 0.1 s; nothing is left to train on.")
    return [clip for clip, _ in pairs], [clip_id for _, clip_id in pairs]


def _gate(
    settings: TrainSettings,
    model: MusicgenForConditionalGeneration,
    windows: validation.Windows,
    held_out: bool,
    text: TextStates,
    console: Console,
) -> dict[str, Any]:
    codebooks = validation.codebook_means(
        *validation.window_losses(model, windows, text, settings.batch_size)
    )
    loss = sum(codebooks) / len(codebooks)
    each = ", ".join(f"{value:.3f}" for value in codebooks)
    console.print(
        f"Base model on the {'held-out' if held_out else 'training'} clips: loss {loss:.4f} "
        f"(codebooks {each}; chance is {math.log(model_shape(model).special):.2f})."
    )
    validation.check_base(codebooks, model_shape(model).special, settings.allow_random_base)
    return {"loss": loss, "codebooks": codebooks, "held_out": held_out}


def _is_finished(previous: dict[str, Any] | None, identity: str) -> bool:
    return (
        previous is not None
        and previous["identity"] == identity
        and previous["status"] == "finished"
    )


def _checkpoint_to_resume(
    settings: TrainSettings,
    previous: dict[str, Any] | None,
    identity: str,
    console: Console,
) -> Path | None:
    if settings.resume == "never" or previous is None or previous["status"] == "finished":
        return None
    if previous["identity"] != identity:
        console.print("The unfinished run in this folder had other settings or data.")
        return None
    return newest_checkpoint(settings.output_dir / run_folder.CHECKPOINTS, console.print)
