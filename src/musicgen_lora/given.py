"""Checks of a command's input before its libraries load, which takes seconds: a mistyped folder is
refused at once. The modules that read these folders use the same checks, for callers from
Python."""

from __future__ import annotations

import os
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.errors import UserError, no_file, no_folder
from musicgen_lora.extras import LIBRARIES, require_extra
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.misspelt import nearest
from musicgen_lora.plural import count
from musicgen_lora.urls import as_list, check_is_folder, places_in, url_of

if TYPE_CHECKING:
    from musicgen_lora.config import GenerateSettings

EMBEDDED = Path(__file__).resolve().parent / "assets" / "tiny_beats"
"""What `EMBEDDED_NAME` stands for."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASES = ("model_path", "base_model_path", "clap", "embeddings")
"""Settings that name models by folder or hub id."""
NO_CAPTIONS = "--from_captions: the captions come from an adapter; pass --lora_model_path."


def check_given(settings: Any) -> None:
    """Checks the folders, files, prompts and libraries that a command's settings name.

    Raises:
        UserError: one of them is missing, is of the wrong kind, or can't be written.
    """
    names = vars(settings)
    check_extras(settings)
    for name, place in places_in(settings):
        if name != "data_dir":
            check_is_folder(place)
    for path in models_of(settings):
        local_model(path)
    if "prompts_file" in names:
        check_playing(settings)
        if names["from_captions"] and not names["lora_model_path"]:
            raise UserError(NO_CAPTIONS)
    elif "prompts" in names:
        check_prompts(names["prompts"], needed=False)
    if "format" in names and "input_dir" in names:
        check_export_folder(names["input_dir"])
        check_is_apart(names["output_dir"], names["input_dir"])
        check_is_free(names["output_dir"])
    elif "create_example" in names and not names["create_example"]:
        check_input_folder(names["input_dir"])
    if names.get("data_dir") is not None and url_of(names["data_dir"]) is None:
        check_metadata_file(names["data_dir"], names["metadata_file"])
    if names.get("other_data_dir") is not None:
        check_data_folder(names["other_data_dir"])
    for folder in as_list(names.get("lora_model_path")):
        check_adapter_folder(folder)
        check_is_apart(names["output_dir"], folder)
    if "strength" in names:
        check_strengths(names["lora_model_path"], names["strength"])
    else:
        check_each_once(as_list(names.get("lora_model_path")))
    if "hub_base" in names:
        check_is_free(names["output_dir"])
        check_hub_base(names["model_path"], names["hub_base"])
    if names.get("melody") is not None and not names["melody"].is_file():
        raise no_file(names["melody"], f"--melody {names['melody']}: no such file.")
    if "output_dir" in names:
        check_can_be_written(names["output_dir"])


def check_extras(settings: Any) -> None:
    """Raises a UserError if a setting needs a library that is not installed."""
    names = vars(settings)
    if names.get("play"):
        require_extra("play", "--play")
    if names.get("optimizer") in LIBRARIES:
        require_extra(names["optimizer"], f"--optimizer {names['optimizer']}")
    for tracker in names.get("report_to", ()):
        require_extra(tracker, f"--report_to {tracker}")
    if names.get("quantise", "none") != "none":
        require_extra("quantise", f"quantise {names['quantise']}")
    if names.get("vocals", "keep") != "keep":
        require_extra("vocals", f"--vocals {names['vocals']}")
    if names.get("ray") is not None:
        require_extra("scale", f"--ray {names['ray']}")


def hub_ids(settings: Any) -> list[str]:
    """The models in the settings that no local folder has."""
    return [path for path in models_of(settings) if local_model(path) is None]


def models_of(settings: Any) -> list[str]:
    """The models in the settings: hub ids, folders and the embedded one."""
    return [path for name in BASES for path in as_list(vars(settings).get(name) or None)]


def local_model(model_path: str) -> Path | None:
    """The folder that a model path names; None for a hub id.

    Raises:
        UserError: it is a path, but there is no such folder.
    """
    folder = EMBEDDED if model_path == EMBEDDED_NAME else Path(model_path)
    if folder.is_dir():
        return folder
    looks_like_path = model_path.startswith((".", "/", "~", "\\")) or model_path.count("/") != 1
    if looks_like_path or folder.exists():
        absent = (
            f"{model_path}: no such model folder; give a folder in Hugging Face format or a hub id "
            "such as facebook/musicgen-small."
        )
        if "/" not in model_path and nearest(model_path, [EMBEDDED_NAME]):
            absent = f"{model_path}: no such model folder; did you mean {EMBEDDED_NAME}?"
        raise no_folder(folder, absent)
    return None


def check_prompts(prompts: list[str], *, needed: bool) -> None:
    """Raises a UserError if one is empty, or if there are none and some are `needed`."""
    if needed and not prompts:
        raise UserError("--prompts is empty; give at least one, in quotes.")
    if not all(prompt.strip() for prompt in prompts):
        raise UserError("--prompts has an empty one; say what to generate.")


def check_playing(settings: GenerateSettings) -> None:
    """Raises a UserError if there is nothing to generate, or a named file is missing."""
    others = (settings.prompts_file, settings.from_captions, settings.regenerate)
    check_prompts(settings.prompts, needed=not any(others))
    for name in ("continue_from", "regenerate"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            raise no_file(path, f"--{name} {path}: no such file.")
    if settings.prompts_file is not None:
        # Training and decoding run without pydantic, which it needs.
        from musicgen_lora.config.prompts import read_prompts

        read_prompts(settings.prompts_file)


def check_input_folder(folder: Path | None) -> None:
    """Raises a UserError if `prepare` has no folder to read."""
    if folder is None:
        raise UserError("Give --input_dir, the folder with your audio, or --create_example.")
    check_is_folder(folder)
    if not folder.is_dir():
        raise no_folder(folder, f"{folder}: no such folder; give the one with your audio.")


def check_data_folder(folder: Path) -> None:
    """Raises a UserError if there is no such folder."""
    if not folder.is_dir():
        raise no_folder(folder, f"{folder}: no such data folder; make one with prepare_data.py.")


def check_metadata_file(folder: Path, name: str) -> None:
    """Raises a UserError if a dataset has no metadata of that name."""
    check_data_folder(folder)
    if not (folder / name).is_file():
        raise no_file(
            folder / name,
            f"{folder / name}: no such metadata file; make one with prepare_data.py.",
        )


def check_adapters(adapters: list[Path]) -> None:
    """Raises a UserError where a command that needs an adapter is given none."""
    if not adapters:
        raise UserError("--lora_model_path is empty; give at least one adapter.")


def check_each_once(adapters: list[Path]) -> None:
    """Raises a UserError if one is given twice."""
    for folder in _repeated(adapters):
        raise UserError(f"{folder}: is given twice in --lora_model_path; list each adapter once.")


def _repeated(adapters: list[Path]) -> list[Path]:
    places = [os.path.realpath(folder) for folder in adapters]
    return [folder for n, folder in enumerate(adapters) if places[n] in places[:n]]


def added_strengths(adapters: list[Path], strengths: list[float]) -> list[tuple[Path, float]]:
    """Each adapter once, with its strength: 1 by default, the sum where it is given repeatedly, so
    that two halves of an adapter are the adapter.

    Raises:
        UserError: a sum is out of range.
    """
    sums: dict[str, tuple[Path, float]] = {}
    for folder, strength in zip(adapters, strengths or [1.0] * len(adapters), strict=True):
        first, before = sums.get(os.path.realpath(folder), (folder, 0.0))
        check_strength(before + strength)
        sums[os.path.realpath(folder)] = first, before + strength
    return list(sums.values())


def added_sentence(adapters: list[Path], strengths: list[float]) -> str:
    """Says which adapters are given repeatedly, and their strengths; empty if none is."""
    repeated = {os.path.realpath(folder) for folder in _repeated(adapters)}
    return " ".join(
        f"{folder}: is given more than once; its strengths add up to {strength:g}."
        for folder, strength in added_strengths(adapters, strengths)
        if os.path.realpath(folder) in repeated
    )


def check_adapter_folder(folder: Path) -> None:
    """Raises a UserError if there is no adapter."""
    if not folder.is_dir():
        raise no_folder(
            folder, f"{folder}: no such adapter folder; training writes output_dir/best_model."
        )
    if not (folder / ADAPTER_CONFIG).is_file():
        if (folder / "best_model" / ADAPTER_CONFIG).is_file():
            raise UserError(f"{folder}: is a run's folder; its adapter is {folder / 'best_model'}.")
        raise UserError(f"{folder}: no {ADAPTER_CONFIG} in it; this is not a LoRA adapter.")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{folder}: no {ADAPTER_WEIGHTS} in it; pickled adapters are refused.")


def check_strengths(adapters: list[Path], strengths: list[float]) -> None:
    """Raises a UserError if there are strengths, but not one for each adapter, or if those of one
    adapter add up to more than 2."""
    if strengths and len(strengths) != len(adapters):
        raise UserError(
            f"--strength has {count(len(strengths), 'value')} for "
            f"{count(len(adapters), 'adapter')}; give one for each --lora_model_path, in their "
            "order, or none."
        )
    added_strengths(adapters, strengths)


def check_strength(strength: float) -> None:
    """Raises a UserError if a strength is out of range, or no number."""
    is_number = isinstance(strength, Real)
    if not (is_number and 0.0 <= strength <= 2.0):
        said = f"{strength:g}" if is_number else shortened(strength)
        raise UserError(
            f"strength = {said}: must be from 0 (the base alone) to 2; 1 is the adapter as trained."
        )


def check_is_free(folder: Path) -> None:
    """Raises a UserError if the folder for an export is not empty."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; pass another --output_dir, or empty it yourself.")


def check_is_apart(folder: Path, read: Path) -> None:
    """Raises a UserError if the output would lie in an adapter or an export that is read: training
    replaces an adapter's folder, with everything else in it."""
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(read)):
        raise UserError(f"{folder}: lies in {read}, which is read; pass another --output_dir.")


def check_hub_base(model_path: str, hub_base: str) -> None:
    """Raises a UserError if a base from the Hub is given another name."""
    if hub_base and model_path != hub_base and local_model(model_path) is None:
        raise UserError(
            f"--hub_base {hub_base}: --model_path {model_path} is already a name on the Hub; leave "
            "--hub_base out."
        )


def check_export_folder(folder: Path) -> None:
    """Raises a UserError if there is nothing to import."""
    if not folder.is_dir():
        raise no_folder(folder, f"{folder}: no such folder; give the one with audiocraft's files.")


def check_can_be_written(folder: Path) -> None:
    """Raises a UserError if a folder can be neither made nor written to, as far as its permissions
    tell; making it is left to whoever writes there."""
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{folder}: cannot be written ({nearest} is not a folder).")
    if hasattr(os, "statvfs") and os.statvfs(nearest).f_flag & os.ST_RDONLY:
        raise UserError(
            f"{folder}: cannot be written (its disk is read-only); pass another --output_dir."
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: cannot be written; give yourself access (chmod u+rwX {nearest}), or pass "
            "another --output_dir."
        )
