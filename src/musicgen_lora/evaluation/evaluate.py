"""What did the adapter change? Held-out loss, paired generations, descriptors, one report.

What needs held-out clips and has none is "not computed", with the reason, in every output: an
evaluation never fails for lack of a reference, and never leaves a figure out without a word.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.config import EvaluateSettings
from musicgen_lora.console import plain_console, progress
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.remote import with_local_data
from musicgen_lora.dataset.tokens import TokenStore, open_tokens, tokenise_clips
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.ear import Ear
from musicgen_lora.evaluation.forgetting import OtherMusic, other_music
from musicgen_lora.evaluation.generations import (
    choose_prompts,
    describe_texts,
    play_prompts,
    write_clips,
)
from musicgen_lora.evaluation.held_out import HeldOut, find_held_out
from musicgen_lora.evaluation.losses import compare_losses, windows_to_measure
from musicgen_lora.evaluation.on_trained import HeldOutFigures, measure_on_trained
from musicgen_lora.evaluation.protocol import judge_primaries
from musicgen_lora.evaluation.references import References, hear_references
from musicgen_lora.evaluation.regressions import find_regressions
from musicgen_lora.evaluation.report.document import (
    FORMAT_VERSION,
    Generation,
    Losses,
    NoLosses,
    PlayedClip,
    PlayedPair,
    Report,
    files_of_report,
)
from musicgen_lora.evaluation.report.report import (
    HTML_FILE,
    print_report,
    write_report,
)
from musicgen_lora.evaluation.report.summary import list_not_computed, write_sentences
from musicgen_lora.evaluation.sounds import compare_sounds
from musicgen_lora.formats.documents import plain
from musicgen_lora.generation.decode import windows_sentence
from musicgen_lora.generation.sampling import Sampling
from musicgen_lora.given import check_prompts
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.lora.adapter import WEIGHTS_FILE, has_adapter, load_adapter, read_adapter
from musicgen_lora.model.musicgen import MusicGen
from musicgen_lora.model.reading import TextReader
from musicgen_lora.model.wording import english_of
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.locks import locked
from musicgen_lora.runtime.versions import library_versions
from musicgen_lora.training.record.run import is_own_run


def evaluate_adapter(settings: EvaluateSettings) -> dict[str, Any]:
    """Measures an adapter and writes `report.html`, `report.json`, `plots/` and `audio/`.

    Returns:
        What report.json holds, a `document.Report`.

    Raises:
        UserError: base, adapter, prompts, a given `data_dir` or the output folder are not usable.
    """
    check_prompts(settings.prompts, needed=False)
    console = plain_console()
    settings = with_local_data(settings, console)
    # Once and for all: whatever happens to the folder meanwhile, the report is of these files.
    files = read_adapter(settings.lora_model_path)
    facts = files.facts
    held_out = find_held_out(
        facts,
        settings.data_dir,
        settings.metadata_file,
        from_tokens=settings.from_tokens,
        own_run=facts is not None and is_own_run(settings.lora_model_path, dict(facts.content)),
    )
    with locked(settings.output_dir):
        atomic.sweep(settings.output_dir)
        model = MusicGen.load(settings.base_model_path)
        base = {"path": model.path, "fingerprint": model.fingerprint}
        adapted = load_adapter(model, files)
        adapter = {
            "path": str(settings.lora_model_path),
            "sha256": files.sha256[WEIGHTS_FILE],
            "fingerprint": files.fingerprint,
        }
        made: list[Report] = []

        def fill(staging: Path) -> None:
            report = _measure(settings, adapted, model, held_out, staging, console)
            report["base"], report["adapter"] = base, adapter
            write_report(report, staging)
            made.append(report)

        atomic.publish_files(
            settings.output_dir, fill, lambda _: files_of_report(settings.output_dir)
        )
    (report,) = made
    print_report(report, console)
    console.print(f"Report: {settings.output_dir / HTML_FILE}")
    return dict(report)


def _measure(
    settings: EvaluateSettings,
    adapted: PeftModel,
    model: MusicGen,
    held_out: HeldOut,
    folder: Path,
    console: Console,
) -> Report:
    """The report, but for base and adapter and without its plots; the clips go into `folder`."""
    device = _place(model)
    prompts = choose_prompts(settings.prompts, held_out.clips, settings.num_prompts)
    for line in describe_texts(prompts, held_out.clips, TextReader.of(model.tokenizer)):
        console.print(line, style="yellow")

    held_out = _within_trained(settings, held_out, model, console)
    held_out, codes = _open_tokens(settings, held_out, model, console)
    loss = _loss(settings, adapted, model, held_out, codes, console)
    others = other_music(settings, model, held_out.max_duration_s)
    forgetting = _forgetting(settings, adapted, model, others, console)
    ear = Ear(model)
    references = References()
    if codes is not None:
        with progress(console, "held-out clips heard") as on_clip:
            references = hear_references(
                settings, model, ear, (held_out.clips, codes), others, on_clip
            )
    generation, heard = _generation(settings, adapted, model, held_out, ear, folder, console)
    report: Report = plain(
        {
            "format_version": FORMAT_VERSION,
            "created": time.strftime("%Y-%m-%d %H:%M:%S"),
            "settings": dataclasses.asdict(settings),
            "versions": library_versions(),
            "device": str(device),
            "held_out": _told(held_out),
            "loss": loss,
            "forgetting": forgetting,
            "generation": generation,
            **compare_sounds(settings, ear, generation, heard, references, held_out.why_none),
            **measure_on_trained(
                settings,
                adapted,
                model,
                HeldOutFigures(held_out, codes, loss, references),
                heard["adapter"],
                folder,
                console,
            ),
            "primaries": [],
            "regressions": {},
            "not_computed": [],
            "findings": [],
            "plots": [],
        }
    )
    report["primaries"] = plain(judge_primaries(report))
    report["regressions"] = plain(find_regressions(report))
    report["not_computed"] = list_not_computed(report)
    report["findings"] = write_sentences(report)
    return report


def _place(model: MusicGen) -> torch.device:
    """Readies the model, with the adapter that it carries, on the device that measures."""
    device = processes.device()
    # In fp32 everywhere: differences of a percent are what is looked for.
    model.to(device, "fp32")
    enable(model.hf, "fp32")
    # An adapter on the text encoder gives captions other states than the base has for them.
    model.text.frozen = not has_adapter(model.hf.text_encoder)
    return device


def _told(held_out: HeldOut) -> dict[str, Any]:
    """What the report says of the held-out clips."""
    return {
        "origin": held_out.origin,
        "is_unseen": held_out.is_unseen,
        "chose_best": held_out.chose_best,
        "why_none": held_out.why_none,
        "n_clips": len(held_out.clips),
        "n_sources": held_out.n_sources,
        "missing": held_out.missing,
    }


def _within_trained(
    settings: EvaluateSettings,
    held_out: HeldOut,
    model: MusicGen,
    console: Console,
) -> HeldOut:
    """Windows no longer than those that the base was trained on, whatever the adapter's training
    took; says what goes past them."""
    if said := windows_sentence(model.hf, model.shape.frames(settings.duration)):
        console.print(said, style="yellow")
    longest_s = model.facts.trained_duration_s
    if held_out.max_duration_s <= longest_s:
        return held_out
    if held_out.clips:
        console.print(
            f"Losses are of windows of {longest_s:g} s, not of {held_out.max_duration_s:g} s: "
            f"{settings.base_model_path} was trained on no more.",
            style="yellow",
        )
    return dataclasses.replace(held_out, max_duration_s=longest_s)


def _open_tokens(
    settings: EvaluateSettings,
    held_out: HeldOut,
    model: MusicGen,
    console: Console,
) -> tuple[HeldOut, TokenStore | None]:
    """Codes of the held-out clips; clips that cannot be read are an error where the user named
    the dataset, and the reason for measuring nothing where it was only remembered."""
    if held_out.data_dir is None:
        return held_out, None
    shortest = model.delays.shortest
    try:
        if settings.from_tokens:
            _, codes = open_tokens(held_out.clips, model, held_out.data_dir)
        else:
            ids = clip_ids(held_out.clips, held_out.data_dir)
            with progress(console, "clips encoded") as on_clip:
                codes = tokenise_clips(held_out.clips, ids, model, held_out.data_dir, on_clip)
    except UserError as error:
        if settings.data_dir is not None:
            raise
        return _without_clips(held_out, str(error).rstrip(".")), None
    except OSError as error:
        raise UserError(
            f"{held_out.data_dir / 'tokens'}: cannot be written ({error.strerror}); make it "
            "writable or give --data_dir a copy of the dataset."
        ) from error
    rows = np.flatnonzero(codes.n_frames >= shortest)
    if not len(rows):
        why = f"every held-out clip is shorter than {shortest} frames"
        return _without_clips(held_out, why), None
    clips = [held_out.clips[row] for row in rows.tolist()]
    return dataclasses.replace(held_out, clips=clips), codes.take(rows)


def _without_clips(held_out: HeldOut, why: str) -> HeldOut:
    """None to measure on after all; the windows of other figures stay training's."""
    return HeldOut(
        why_none=why, max_duration_s=held_out.max_duration_s, max_windows=held_out.max_windows
    )


def _loss(
    settings: EvaluateSettings,
    adapted: PeftModel,
    model: MusicGen,
    held_out: HeldOut,
    codes: TokenStore | None,
    console: Console,
) -> Losses | NoLosses:
    if codes is None:
        return {"computed": False, "why": held_out.why_none}
    windows = windows_to_measure(model, held_out.clips, codes, held_out)
    with progress(console, "held-out loss, windows") as on_step:
        return compare_losses(
            adapted,
            model,
            windows,
            batch_size=settings.batch_size,
            seed=settings.seed,
            on_step=on_step,
        )


def _forgetting(
    settings: EvaluateSettings,
    adapted: PeftModel,
    model: MusicGen,
    others: OtherMusic,
    console: Console,
) -> Losses | NoLosses:
    if not others.windows:
        return {"computed": False, "why": others.why_none}
    with progress(console, "loss on other styles, windows") as on_step:
        return compare_losses(
            adapted,
            model,
            others.windows,
            batch_size=settings.batch_size,
            seed=settings.seed,
            on_step=on_step,
        )


def _generation(
    settings: EvaluateSettings,
    adapted: PeftModel,
    model: MusicGen,
    held_out: HeldOut,
    ear: Ear,
    output_dir: Path,
    console: Console,
) -> tuple[Generation, dict[str, Any]]:
    """The report's `generation`, and what is heard of each side's clips, which are written."""
    chosen = choose_prompts(settings.prompts, held_out.clips, settings.num_prompts)
    prompts = [item["prompt"] for item in chosen]
    codes: dict[str, list[np.ndarray]] = {}
    entries: dict[str, list[PlayedClip]] = {}
    heard: dict[str, Any] = {"base": None, "adapter": None}
    for side in ("base", "adapter") if settings.compare else ("adapter",):
        switched = adapted.disable_adapter() if side == "base" else nullcontext()
        with switched, progress(console, f"{len(prompts)} prompts, {side}, frames") as on_step:
            codes[side] = play_prompts(
                model,
                prompts,
                duration_s=settings.duration,
                seed=settings.seed,
                sampling=Sampling(
                    guidance_scale=settings.guidance_scale,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                    temperature=settings.temperature,
                ),
                batch_size=settings.batch_size,
                on_step=on_step,
            )
        folder = output_dir / "audio" / side
        paths, heard[side] = write_clips(model, ear, codes[side], prompts, folder)
        entries[side] = [
            own.played(path.relative_to(output_dir).as_posix())
            for path, own in zip(paths, heard[side], strict=True)
        ]
    clips: list[PlayedPair] = [
        {
            "prompt": item["prompt"],
            "origin": item["origin"],
            "read_as": english_of(item["prompt"]),
            "seed": settings.seed + index,
            "identical": settings.compare
            and np.array_equal(codes["base"][index], codes["adapter"][index]),
            "base": entries["base"][index] if settings.compare else None,
            "adapter": entries["adapter"][index],
        }
        for index, item in enumerate(chosen)
    ]
    n_frames = model.shape.frames(settings.duration)
    return {
        "compared": settings.compare,
        "duration_s": settings.duration,
        "windows": windows_sentence(model.hf, n_frames),
        "clips": clips,
    }, heard
