"""Checks the name given to a base on the Hub, as far as that is possible offline.

A card with a wrong name sends others to a model that the adapter was not trained on. The form of
the name is checked with the settings; here it is compared with the base and the adapters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rich.console import Console

from musicgen_lora.errors import UserError
from musicgen_lora.model.lora.adapter import AdapterFiles

if TYPE_CHECKING:
    from musicgen_lora.export.sources import Source

SIZES = {"small": (24, 1024), "medium": (48, 1536), "large": (48, 2048)}
"""Layers and width of the language models that Meta has released."""


def check_base_name(source: Source, console: Console) -> None:
    """Checks a given `hub_base` and tells the user what is not looked up on the Hub.

    Raises:
        UserError: the base or an adapter contradicts the name.
    """
    name = source.hub_base
    if not name:
        return
    _check_shape(source)
    others = sorted({_trained_on(part.files) for part in source.parts} - {"", name})
    if metas := [other for other in others if _metas_numbers(other)]:
        raise UserError(
            f"--hub_base {name}: the adapter says it was trained on {metas[0]}; give that name."
        )
    said = f"The card names {name} as the base; its weights on the Hub are not compared."
    if others:
        said += f" The adapter says it was trained on {', '.join(others)}."
    console.print(said, style="yellow" if others else None)


def _check_shape(source: Source) -> None:
    """Raises a UserError if Meta's model of that name has another shape."""
    expected = _metas_numbers(source.hub_base)
    decoder: Any = source.model.hf.config.decoder
    found = (
        *(decoder.num_hidden_layers, decoder.hidden_size),
        *(source.model.shape.n_channels, source.model.is_melody),
    )
    if expected is not None and found != expected:
        raise UserError(
            f"--hub_base {source.hub_base}: has {_told(*expected)}, but {source.base} has "
            f"{_told(*found)}; give the name of the base that you used."
        )


def _told(n_layers: int, width: int, n_channels: int, is_melody: bool) -> str:
    kind = f"{'stereo' if n_channels == 2 else 'mono'}{', melody' if is_melody else ''}"
    return f"{n_layers} layers x {width} ({kind})"


def _metas_numbers(name: str) -> tuple[int, int, int, bool] | None:
    """Layers, width, channels and whether it takes melodies, of Meta's model of a name; None if
    Meta has released no such model."""
    found = re.fullmatch(r"facebook/musicgen-(stereo-)?(melody-?)?(small|medium|large)?", name)
    if found is None or name.endswith("-") or not (found[2] or found[3]):
        return None
    size = found[3] or "medium"
    return *SIZES[size], 2 if found[1] else 1, found[2] is not None


def _trained_on(files: AdapterFiles) -> str:
    """The base's name on the Hub as an adapter records it; empty if it has a folder or nothing.
    A relative path of two parts looks the same and can't be told apart."""
    recorded = files.facts.base_path if files.facts is not None else None
    recorded = recorded or files.config.get("base_model_name_or_path") or ""
    return recorded if re.fullmatch(r"\w[\w.-]*/[\w.-]+", recorded) else ""
