"""Optional libraries: a missing one is named, with its install command, before any work is done."""

from __future__ import annotations

from importlib.util import find_spec

from musicgen_lora.errors import UserError

LIBRARIES = {
    "adamw8bit": "bitsandbytes",
    "play": "sounddevice",
    "prodigy": "prodigyopt",
    "quantise": "bitsandbytes",
    "scale": "ray",
    "tensorboard": "tensorboard",
    "ui": "gradio",
    "vocals": "demucs",
    "wandb": "wandb",
}
"""What each extra of the package installs."""
GIVES = {
    "adamw8bit": "--optimizer adamw8bit, which needs less memory in full training",
    "play": "generate --play, which plays clips while they are made",
    "prodigy": "--optimizer prodigy, which finds its own learning rate",
    "quantise": "--quantise 8bit and 4bit, for bases that don't fit otherwise",
    "scale": "--ray, which prepares, encodes and generates on the machines of a cluster",
    "tensorboard": "--report_to tensorboard",
    "ui": "ui, the web page: all of this in a browser",
    "vocals": "prepare --vocals, which flags or removes vocals",
    "wandb": "--report_to wandb",
}
"""What can be done with each."""


def install_command(extra: str) -> str | None:
    """The command that installs an extra, a name of `LIBRARIES`; None where it is installed."""
    return f"pip install 'musicgen-lora[{extra}]'" if find_spec(LIBRARIES[extra]) is None else None


def require_extra(extra: str, setting: str) -> None:
    """Raises a UserError unless the library of an extra is installed.

    Args:
        extra: a name of `LIBRARIES`.
        setting: the one that needs it, as the user wrote it.
    """
    command = install_command(extra)
    if command is not None:
        raise UserError(f"{setting} needs {LIBRARIES[extra]}: {command}")
