"""Whether an adapter can fit a base at all, from the shapes in the headers of both.

This detects a base of another size before torch loads; one of the same size is recognised by its
fingerprint once it is loaded (`adapter.load_adapter`).
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import LARGE, read_bytes
from musicgen_lora.given import ADAPTER_WEIGHTS, local_model
from musicgen_lora.model.lora.facts import FACTS_FILE, AdapterFacts

_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_SIDES = {"A": 1, "B": 0}
"""The axis of a weight `[out, in]` that LoRA's matrix shares with it."""


def check_fits(adapter: Path, base: str) -> None:
    """Raises a UserError if the widths of an adapter's matrices differ from the base's layers.
    Anything that the headers don't tell is left to loading.

    Args:
        base: a folder or `tiny-beats`; a hub id is not checked.
    """
    folder = local_model(base)
    if folder is None:
        return
    weights: dict[str, list[int]] = {}
    for path in folder.glob("*.safetensors"):
        weights |= _shapes(path)
    for name, shape in _shapes(adapter / ADAPTER_WEIGHTS).items():
        found = _NAME.fullmatch(name)
        layer = weights.get(f"{found[1]}.weight", []) if found else []
        if found is None or len(layer) != 2 or len(shape) != 2:
            continue
        side = _SIDES[found[2]]
        if shape[side] != layer[side]:
            raise UserError(
                f"{adapter}: this adapter was trained on another base{_named(adapter)}: its "
                f"{found[1]} is {shape[side]} wide, but that of {base} {layer[side]}; use the "
                "adapter's own base model."
            )


def _shapes(path: Path) -> dict[str, list[int]]:
    """Shapes by name; empty if the file can't be read."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return {}


def _named(adapter: Path) -> str:
    path = adapter / FACTS_FILE
    if not path.is_file():
        return ""
    return f" ({AdapterFacts.parse(read_bytes(path, LARGE), path).base_path})"
