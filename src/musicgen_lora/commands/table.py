"""The commands, a line each: what each is for, its settings, its function, what it says first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from musicgen_lora import __version__
from musicgen_lora.commands.loading import check_fitting, dataset_meanwhile
from musicgen_lora.given import check_adapters
from musicgen_lora.language.translate import filled, joined, word
from musicgen_lora.plural import count
from musicgen_lora.urls import shown


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        purpose: what `--help` says of it among the others.
        function: module and name; it is given the settings and does the work.
        doing: what it is about to do, of its settings.
        kept: what there is of its work once it has been stopped, and how to go on.
        meanwhile: what goes on while the function's libraries load; gives further arguments.
        check: what else can be told of its settings before they load.
        ends: it comes to an end by itself, and says until then that it is at work.
    """

    purpose: str
    function: str
    doing: Callable[[Any], str]
    kept: Callable[[Any], str]
    meanwhile: Callable[[Any], AbstractContextManager[dict[str, Any]]] = lambda _: (
        contextlib.nullcontext({})
    )
    check: Callable[[Any], None] = lambda _: None
    ends: bool = True


def _prepares(settings: Any) -> str:
    if settings.create_example:
        n = settings.num_samples
        return f"Making {count(n, 'example beat')} in {settings.output_dir}"
    return f"Preparing the audio of {settings.input_dir} into {settings.output_dir}"


def _plays(settings: Any) -> str:
    base, n, folder = settings.base_model_path, len(settings.prompts), settings.output_dir
    n += settings.from_captions
    if settings.prompts_file is not None:
        from musicgen_lora.config.prompts import read_prompts

        n += len(read_prompts(settings.prompts_file)[0])
    onto, prompts = settings.regenerate, count(n, "prompt")
    if settings.lora_model_path:
        by = _several(settings)
        if not n:
            return f"Playing onto {onto} by {base} with {by} into {folder}"
        return f"Playing {prompts} by {base} with {by} into {folder}"
    if not n:
        return f"Playing onto {onto} by {base} into {folder}"
    return f"Playing {prompts} by {base} into {folder}"


def _several(settings: Any) -> str:
    return joined(map(str, settings.lora_model_path), " and ")


def _exports(settings: Any) -> str:
    base, form, folder = settings.model_path, settings.format, settings.output_dir
    if settings.lora_model_path:
        return f"Writing {base} with {_several(settings)} for {form}: {folder}"
    return f"Writing {base} for {form}: {folder}"


def _kept_of_data(settings: Any) -> str:
    listed = settings.output_dir / settings.metadata_file
    if settings.create_example:
        if listed.is_file():
            return f"The clips that {listed} lists are kept; the same command makes the others."
        return "No beat is listed yet; the same command makes them all."
    if not listed.is_file():
        return "No clip is listed yet; the same command goes on."
    return f"The clips that {listed} lists are kept; the same command goes on."


def _kept_of_clips(settings: Any) -> str:
    written = f"The clips that are finished are in {settings.output_dir}"
    if settings.play or settings.stdout is not None:
        return f"{written}; the same command plays all of them anew."
    return f"{written}; the same command plays the others."


def _kept_of_report(settings: Any) -> str:
    cache = settings.output_dir / "cache"
    return f"What is played and measured stays in {cache}; the same command goes on."


def _kept_of_model(settings: Any) -> str:
    folder = settings.output_dir
    if not folder.is_dir() or not any(folder.iterdir()):
        return "Nothing is written; the same command begins anew."
    repository = getattr(settings, "push_to_hub", None)
    if repository is None or settings.dry_run:
        return f"The folder {folder} is whole."
    return f"{folder} is whole, the upload may not be: hf upload {repository} {folder}"


COMMANDS = {
    "prepare": Command(
        "turn a folder of audio into a dataset",
        "musicgen_lora.prepare.prepare:prepare_dataset",
        _prepares,
        _kept_of_data,
    ),
    "tokenise": Command(
        "encode its audio ahead of training",
        "musicgen_lora.dataset.tokenise:tokenise_dataset",
        lambda s: f"Encoding the audio of {shown(s.data_dir)} with {s.model_path}",
        lambda s: f"What is encoded stays in {shown(s.data_dir)}; the same command goes on.",
    ),
    "train": Command(
        "train an adapter on it",
        "musicgen_lora.training.train:train_lora",
        lambda s: f"Training {s.model_path} on {shown(s.data_dir)} into {s.output_dir}",
        lambda _: "Audio stays encoded, and no run is lost; the same command goes on.",
        dataset_meanwhile,
    ),
    "generate": Command(
        "play prompts with it",
        "musicgen_lora.generation.generate:generate_audio",
        _plays,
        _kept_of_clips,
        check=check_fitting,
    ),
    "evaluate": Command(
        "measure what it changed",
        "musicgen_lora.evaluation.evaluate:evaluate_adapter",
        lambda s: f"Measuring {s.base_model_path} with {_several(s)} into {s.output_dir}",
        _kept_of_report,
        check=lambda s: check_adapters(s.lora_model_path),
    ),
    "merge": Command(
        "fold adapters into a base",
        "musicgen_lora.export.merge:merge_adapters",
        lambda s: f"Merging {_several(s)} into {s.model_path}: {s.output_dir}",
        _kept_of_model,
        check=lambda s: check_adapters(s.lora_model_path),
    ),
    "export": Command(
        "write a model for audiocraft, or an adapter for others",
        "musicgen_lora.export.export:export_model",
        _exports,
        _kept_of_model,
    ),
    "import": Command(
        "read a model of audiocraft's",
        "musicgen_lora.export.importing:import_model",
        lambda s: f"Reading {s.input_dir} of {s.format}: {s.output_dir}",
        _kept_of_model,
    ),
    "prefetch": Command(
        "fetch what a hub would give, for a machine without network",
        "musicgen_lora.model.base.prefetch:prefetch_models",
        lambda s: f"Looking for {', '.join(s.models) or 'the models'} at the hub",
        lambda _: "What is fetched stays in the hub's cache; the same command goes on.",
    ),
    "ui": Command(
        "open the page, where all of this works in a browser",
        "musicgen_lora.webui.ui:serve_page",
        lambda s: f"Opening the page of {s.workspace}",
        lambda _: "Jobs that are running go on; the same command opens the page again.",
        ends=False,
    ),
}
"""Commands by name; the settings of each are in `config.SETTINGS`, which takes longer to load."""
DOCTOR = "doctor"
"""The command without settings: it must start where libraries are broken."""


def usage() -> str:
    """What `musicgen-lora --help` says."""
    purposes = {name: command.purpose for name, command in COMMANDS.items()}
    purposes[DOCTOR] = "check this installation"
    lines = "".join(f"  musicgen-lora {name:<11}{word(said)}\n" for name, said in purposes.items())
    return filled(
        """musicgen-lora {0}: LoRA fine-tuning of MusicGen

{1}
  Each command: --help lists its flags, --config FILE.yaml reads them from a file (flags win),
  --debug shows tracebacks, --language zh (or en) speaks Chinese (English) on any system.
""",
        __version__,
        lines,
    )
