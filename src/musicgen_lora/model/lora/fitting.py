"""Whether an adapter can be of a base at all, told by the shapes in the headers of both.

A base of another size is found out so before torch loads; one of the same size is told by its
fingerprint, once it is there (`adapter.load_adapter`).
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
"""Which side of a weight `[out, in]` a matrix of LoRA's has in common with it."""


def check_fits(adapter: Path, base: str) -> None:
    """Raises a UserError where an adapter's matrices have not the widths of the base's layers. What
    the headers don't tell is left to those who load it.

    Args:
        base: a folder or `tiny-beats`; of a hub id nothing is asked.
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
                f"{found[1]} is {shape[side]} wide, and that of {base} {layer[side]}; give its own "
                "as the base model."
            )


def _shapes(path: Path) -> dict[str, list[int]]:
    """Shapes by names; none, where it can't be read."""
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
