"""Optional libraries: named, with the command that installs them, before any work is done."""

from __future__ import annotations

from importlib.util import find_spec

from musicgen_lora.errors import UserError

LIBRARIES = {
    "adamw8bit": "bitsandbytes",
    "prodigy": "prodigyopt",
    "quantise": "bitsandbytes",
    "tensorboard": "tensorboard",
    "vocals": "demucs",
    "wandb": "wandb",
}
"""What each extra of the package installs."""


def require_extra(extra: str, setting: str) -> None:
    """Raises a UserError unless the library of an extra is installed.

    Args:
        extra: a name of `LIBRARIES`.
        setting: that asks for it, as the user wrote it.
    """
    library = LIBRARIES[extra]
    if find_spec(library) is None:
        raise UserError(f"{setting} needs {library}: pip install 'musicgen-lora[{extra}]'")
