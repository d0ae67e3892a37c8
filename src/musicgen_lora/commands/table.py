"""The commands: what each is for, its function, what it says when it starts or is stopped."""

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
        purpose: its line in `musicgen-lora --help`.
        function: module and name; takes the settings and does the work.
        doing: says from the settings what it is about to do.
        kept: says what is left of the work after a stop, and how to continue.
        meanwhile: runs while the function's libraries load; yields further arguments.
        check: further checks of the settings before they load.
        ends: whether it ends by itself, and until then says that it is working.
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
    return f"Preparing the audio in {settings.input_dir} as a dataset in {settings.output_dir}"


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
            return f"Regenerating bars of {onto} using {base} with {by} into {folder}"
        return f"Generating from {prompts} using {base} with {by} into {folder}"
    if not n:
        return f"Regenerating bars of {onto} using {base} into {folder}"
    return f"Generating from {prompts} using {base} into {folder}"


def _several(settings: Any) -> str:
    return joined(map(str, settings.lora_model_path), " and ")


def _exports(settings: Any) -> str:
    base, form, folder = settings.model_path, settings.format, settings.output_dir
    if settings.lora_model_path:
        return f"Exporting {base} with {_several(settings)} as {form} to {folder}"
    return f"Exporting {base} as {form} to {folder}"


def _kept_of_data(settings: Any) -> str:
    listed = settings.output_dir / settings.metadata_file
    if settings.create_example:
        if listed.is_file():
            return f"The clips listed in {listed} are kept; rerun the command for the rest."
        return "No beat is listed yet; rerun the command for all of them."
    if not listed.is_file():
        return "No clip is listed yet; rerun the command to continue."
    return f"The clips listed in {listed} are kept; rerun the command to continue."


def _kept_of_clips(settings: Any) -> str:
    written = f"The finished clips are in {settings.output_dir}"
    if settings.play or settings.stdout is not None:
        return f"{written}; the same command makes all of them again."
    return f"{written}; rerun the command for the rest."


def _kept_of_report(settings: Any) -> str:
    cache = settings.output_dir / "cache"
    return f"What was generated and measured stays in {cache}; rerun the command to continue."


def _kept_of_model(settings: Any) -> str:
    folder = settings.output_dir
    if not folder.is_dir() or not any(folder.iterdir()):
        return "Nothing was written; rerun the command to start over."
    repository = getattr(settings, "push_to_hub", None)
    if repository is None or settings.dry_run:
        return f"The folder {folder} is complete."
    return f"{folder} is complete, the upload may not be; run: hf upload {repository} {folder}"


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
        lambda s: f"What is encoded stays in {shown(s.data_dir)}; rerun the command to continue.",
    ),
    "train": Command(
        "train an adapter on it",
        "musicgen_lora.training.train:train_lora",
        lambda s: f"Training {s.model_path} on {shown(s.data_dir)} into {s.output_dir}",
        lambda _: "Encoded audio is kept, and no run is lost; rerun the command to continue.",
        dataset_meanwhile,
    ),
    "generate": Command(
        "generate audio from prompts with it",
        "musicgen_lora.generation.generate:generate_audio",
        _plays,
        _kept_of_clips,
        check=check_fitting,
    ),
    "evaluate": Command(
        "measure what it changed",
        "musicgen_lora.evaluation.evaluate:evaluate_adapter",
        lambda s: f"Evaluating {s.base_model_path} with {_several(s)} into {s.output_dir}",
        _kept_of_report,
        check=lambda s: check_adapters(s.lora_model_path),
    ),
    "merge": Command(
        "merge adapters into a base model",
        "musicgen_lora.export.merge:merge_adapters",
        lambda s: f"Merging {_several(s)} into {s.model_path}: {s.output_dir}",
        _kept_of_model,
        check=lambda s: check_adapters(s.lora_model_path),
    ),
    "export": Command(
        "export a model for audiocraft, or an adapter to share",
        "musicgen_lora.export.export:export_model",
        _exports,
        _kept_of_model,
    ),
    "import": Command(
        "import an audiocraft model",
        "musicgen_lora.export.importing:import_model",
        lambda s: f"Importing {s.input_dir} from {s.format} to {s.output_dir}",
        _kept_of_model,
    ),
    "prefetch": Command(
        "download models ahead of time, for a machine without network",
        "musicgen_lora.model.base.prefetch:prefetch_models",
        lambda s: f"Looking for {', '.join(s.models) or 'the models'} on the hub",
        lambda _: "What is downloaded stays in the hub's cache; rerun the command to continue.",
    ),
    "ui": Command(
        "open the web page: all of this in a browser",
        "musicgen_lora.webui.ui:serve_page",
        lambda s: f"Opening the page for {s.workspace}",
        lambda _: "Running jobs continue; rerun the command to reopen the page.",
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
  --debug shows tracebacks, --language zh (or en) switches to Chinese (or English).
""",
        __version__,
        lines,
    )
