"""`musicgen-lora doctor`: what this installation can do, and what to do about what it can't."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.cells import set_cell_size

from musicgen_lora import extras
from musicgen_lora.console import CommandConsole
from musicgen_lora.errors import UserError
from musicgen_lora.language.translate import word
from musicgen_lora.plural import count

REQUIRED = [
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "soundfile",
    "soxr",
    "pyloudnorm",
    "pyarrow",
    "tyro",
    "pydantic",
]
LEAST_DISK_GIB = 5.0
MARK_WIDTH = 6
"""Width of a finding's kind, in columns of a terminal."""
Finding = tuple[str, str]
"""`("ok" | "note" | "missing" | "afar" | "fault", sentence)`; "missing" is a part to install,
"afar" a model to download or the hub that has it."""
HUB_ID = "facebook/musicgen-small"


def check_installation() -> int:
    """Prints the findings and returns the exit code: 1 if something will keep the commands from
    working, else 0."""
    console = CommandConsole(soft_wrap=True, highlight=False)
    marks = {
        "ok": ("ok", "green"),
        "note": ("note", "yellow"),
        "missing": ("absent", "yellow"),
        "afar": ("absent", "yellow"),
        "fault": ("fault", "red"),
    }
    found: Counter[str] = Counter()
    with ThreadPoolExecutor(1) as pool:
        # Waits for a hub that doesn't answer while the libraries load.
        answer = pool.submit(ask_hub)
        checks = (
            *(check_versions, check_torch, check_broken, check_disk, check_optional),
            *(answer.result, check_cache),
        )
        for kind, sentence in (finding for check in checks for finding in check()):
            mark, style = marks[kind]
            console.print(set_cell_size(word(mark), MARK_WIDTH), end=" ", style=style)
            # Commands contain [brackets].
            console.print(sentence, markup=False)
            found[kind] += 1
    console.print(summing_up(found["fault"], found["missing"], found["afar"]))
    return 1 if found["fault"] else 0


def summing_up(n_faults: int, n_missing: int, n_afar: int) -> str:
    """The sentence that sums up the findings."""
    if n_faults:
        return f"Faults to fix before anything else: {n_faults}."
    if n_missing and n_afar:
        return (
            f"Ready, except for {count(n_missing, 'missing part')} and for models that have yet to "
            "be downloaded (above)."
        )
    if n_missing:
        return f"Ready, except for {count(n_missing, 'missing part')} (above)."
    if n_afar:
        return "Ready, except for models that have yet to be downloaded (above)."
    return "Ready, with every optional part."


def check_versions() -> Iterator[Finding]:
    """Checks that Python is recent enough and that the required libraries can be imported."""
    version = platform.python_version()
    yield ("ok" if sys.version_info >= (3, 11) else "fault", f"Python {version} (3.11 or later)")
    for name in REQUIRED:
        try:
            importlib.import_module(name)
            yield "ok", f"{name} {importlib.metadata.version(name)}"
        except ImportError as error:
            yield "fault", f"{name}: {error}. Run: pip install -r requirements.txt"


def check_torch() -> Iterator[Finding]:
    """Reports which device and precision training will use."""
    import torch

    from musicgen_lora.runtime import processes
    from musicgen_lora.runtime.precision import choose_training_precision, cpu_has_bf16

    device = processes.device()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        yield "ok", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    else:
        yield (
            "note",
            f"no CUDA GPU is visible, so work runs on {device.type} ({torch.get_num_threads()} "
            "threads): fine for tiny-beats; facebook/musicgen-small takes seconds per step",
        )
    bf16 = "has" if cpu_has_bf16() else "lacks"
    yield "ok", f"this CPU {bf16} native bf16"
    precision, why = choose_training_precision("auto", False, device, 10**9)
    yield "ok", f"precision for large models: {precision}, {why}"


def check_broken() -> Iterator[Finding]:
    """Looks for a torchvision or torchaudio that doesn't match torch. Either keeps transformers
    from importing MusicGen, with a message that names neither."""
    for name in ("torchvision", "torchaudio"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        try:
            importlib.import_module(name)
            yield "ok", f"{name} is installed and can be imported (it is not needed)"
        except (ImportError, RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            yield (
                "fault",
                f"{name} is installed but broken ({reason}), and breaks transformers with it. "
                f"Nothing here needs it: pip uninstall {name}",
            )
    try:
        from transformers import (  # noqa: F401
            MusicgenForConditionalGeneration,
            MusicgenMelodyForConditionalGeneration,
        )

        yield "ok", "transformers provides MusicGen and MusicGen Melody"
    except (ImportError, RuntimeError) as error:
        yield "fault", f"transformers cannot import MusicGen: {str(error).splitlines()[0]}"
    from musicgen_lora.given import EMBEDDED

    if (EMBEDDED / "model.safetensors").is_file():
        yield "ok", "the embedded base model tiny-beats is present"
    else:
        yield "fault", "the embedded base model is missing: reinstall the package"


def check_disk() -> Iterator[Finding]:
    """Checks that the disk has room for checkpoints and generated audio."""
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    kind = "ok" if free >= LEAST_DISK_GIB else "note"
    yield kind, f"{free:.0f} GiB free on this folder's disk (5 or more recommended)"


def check_optional() -> Iterator[Finding]:
    """Lists the optional parts: what each adds, and the command that installs it."""
    from musicgen_lora.audio.ffmpeg import INSTALL

    if shutil.which("ffmpeg"):
        yield "ok", "ffmpeg: prepare reads M4A and AAC"
    else:
        yield (
            "missing",
            f"ffmpeg: would let prepare read M4A and AAC. Run: {INSTALL}",
        )
    for library in dict.fromkeys(extras.LIBRARIES.values()):
        names = [extra for extra, its in extras.LIBRARIES.items() if its == library]
        given = "; ".join(extras.GIVES[extra] for extra in names)
        command = extras.install_command(names[0])
        if command is None:
            yield "ok", f"{library}: {given}"
        else:
            yield "missing", f"{library}: would add {given}. Run: {command}"


def ask_hub() -> list[Finding]:
    """Asks whether base models can be downloaded by name."""
    try:
        from musicgen_lora.model.base.hub import REMEDIES, Unreachable, ask
    except ImportError as error:
        return [("fault", f"huggingface_hub: {error}. Run: pip install -r requirements.txt")]
    try:
        ask(HUB_ID)
        return [("ok", f"{HUB_ID} can be downloaded by name")]
    except (Unreachable, UserError) as error:
        sentence = (
            f"a hub: {str(error).rstrip('.')}, so base models can't be downloaded by name "
            f"(tiny-beats needs no download): {REMEDIES}"
        )
        return [("afar", sentence)]


def check_cache() -> Iterator[Finding]:
    """Lists the hub models that the guide names: which are cached, and what the others would add to
    a machine without network."""
    from musicgen_lora.model.base.hub import PARTS, cached_folder

    for name, given in PARTS.items():
        if folder := cached_folder(name):
            yield "ok", f"{name}: {given}; in the cache: {folder}"
        else:
            yield (
                "afar",
                f"{name}: would add {given}. Run: musicgen-lora prefetch --models {name}",
            )
