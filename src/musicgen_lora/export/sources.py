"""The sources of an export: a base and its adapters, each with a strength."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors import SafetensorError
from torch import Tensor

from musicgen_lora import EMBEDDED_NAME, __version__
from musicgen_lora.config import ExportSettings, MergeSettings
from musicgen_lora.errors import UserError
from musicgen_lora.export.base_name import check_base_name
from musicgen_lora.given import added_sentence, added_strengths, local_model
from musicgen_lora.model.base.folder import base_folder
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import read_adapter
from musicgen_lora.model.lora.mixture import MixedAdapter, Mixture, doubts, read_part

MADE_OF_FILE = "made_of.json"
"""File that records base, adapters and strengths, beside the result."""


@dataclass(frozen=True)
class Source:
    """A base with adapters merged into it.

    Args:
        base: as the user named it.
        model: in float32 on the CPU, merged.
        changed: names of the weights that were merged.
        files: states of the base's files before it was loaded, by name.
        hub_base: the base's name on the Hub if it was given as a folder.
    """

    base: str
    folder: Path
    model: BaseModel
    parts: Sequence[MixedAdapter]
    changed: set[str]
    files: Mapping[str, tuple[int, int]]
    hub_base: str = ""

    @property
    def hub_id(self) -> str | None:
        """The base's name on the Hub; None if it has none that is known."""
        if self.hub_base:
            return self.hub_base
        return None if self.base == EMBEDDED_NAME or local_model(self.base) else self.base

    @property
    def name(self) -> str:
        """The base's name without its parent folders."""
        is_embedded = self.base == EMBEDDED_NAME
        return self.hub_id or (self.base if is_embedded else Path(self.base).resolve().name)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context that copies the base's files, which are still those that were loaded.

        Raises:
            UserError: one of them has vanished or changed, so that the copy may lack something.
        """
        try:
            yield
        except (OSError, SafetensorError):
            self._check_unchanged()
            raise
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        found = _states(self.folder)
        for name, state in self.files.items():
            if found.get(name) != state:
                raise UserError(
                    f"{self.folder / name}: changed or vanished while it was read; run the command "
                    "again once it is there."
                )

    def made_of(self) -> dict[str, Any]:
        """Where the weights come from; without paths, since checkpoints are shared."""
        return {
            "format_version": 1,
            "musicgen_lora": __version__,
            "base": {"name": self.name, "fingerprint": self.model.fingerprint},
            "adapters": [
                {
                    "name": part.files.folder.resolve().name,
                    "fingerprint": part.files.fingerprint,
                    "strength": part.strength,
                }
                for part in self.parts
            ],
        }

    def tensors(self) -> dict[str, Tensor]:
        """All weights, float32, by their names in the model."""
        return self.model.hf.state_dict()

    def changed_tensors(self) -> dict[str, Tensor]:
        """The merged weights among them."""
        tensors = self.tensors()
        return {name: tensors[name] for name in self.changed}


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each of a base's files, except what is written about it."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix != ".md" and path.is_file():
            status = path.stat()
            found[path.name] = status.st_size, status.st_mtime_ns
    return found


def read_source(settings: MergeSettings | ExportSettings, console: Console) -> Source:
    """Loads a base and merges the adapters at their strengths, 1 by default.

    Raises:
        UserError: a folder is not usable, or the base contradicts `hub_base`.
    """
    # Damaged adapters are refused before a base of gigabytes is read.
    given = settings.lora_model_path, settings.strength
    pairs = [(read_adapter(folder), strength) for folder, strength in added_strengths(*given)]
    folder = base_folder(settings.model_path)
    files = _states(folder)
    model = BaseModel.load(settings.model_path)
    mixture = Mixture(model, [read_part(model, file, strength) for file, strength in pairs])
    if line := added_sentence(*given):
        console.print(line)
    for line in doubts(model, mixture.parts):
        console.print(line, style="yellow")
    mixture.merge()
    source = Source(
        base=settings.model_path,
        folder=folder,
        model=model,
        parts=mixture.parts,
        changed=mixture.names,
        files=files,
        hub_base=settings.hub_base,
    )
    check_base_name(source, console)
    return source
