"""Versions of the software that can change a result."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform

import peft
import torch
import transformers

from musicgen_lora import __version__


def library_versions() -> dict[str, str]:
    """The versions of this package, Python and the libraries that can change a result."""
    extras = {
        name: importlib.metadata.version(name)
        for name in ("bitsandbytes",)
        if importlib.util.find_spec(name) is not None
    }
    return {
        "musicgen_lora": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        **extras,
    }
