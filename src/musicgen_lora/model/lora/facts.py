"""`musicgen_lora.json`: what an adapter says about itself beyond PEFT's files.

It holds the base, the data with the held-out clips by name, settings, versions and figures. It
travels with the adapter, so it is untrusted: it is checked here, once for all its readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import parse_json
from musicgen_lora.formats.kinds import check_kind, fields, integer, many, or_null, path_text, text
from musicgen_lora.model.base.bounds import DURATION_S

FACTS_FILE = "musicgen_lora.json"
FACTS_VERSION = 1
_CLIP = fields(optional=dict.fromkeys(("id", "name", "audio"), or_null(text())))
_DATA = fields(
    optional={
        "data_dir": path_text(),
        "metadata_file": path_text(),
        "validation": or_null(many(_CLIP)),
        "captions": or_null(many(text(), at_most=10_000)),
        "n_train": or_null(integer(0, 10**9)),
        "n_validation": or_null(integer(0, 10**9)),
        "held_out_seed": or_null(integer(0, 2**63 - 1)),
        "held_out_bound": or_null(text(64)),
    }
)
_SETTINGS = fields(
    optional={"max_duration": DURATION_S, "max_validation_windows": integer(1, 10**9)}
)
_FACTS = fields(
    {
        "format_version": integer(0, FACTS_VERSION),
        "base": fields({"path": path_text(), "fingerprint": text()}),
    },
    {"data": or_null(_DATA), "settings": or_null(_SETTINGS)},
)
"""The parts that are read again, and their kinds."""
_IN_HEADER = (
    *("adapter", "lora_init", "lora_rank", "lora_alpha", "lora_targets", "quantise", "seed"),
)
"""Settings that are also written to the header of the weights."""


@dataclass(frozen=True)
class AdapterFacts:
    """The document, with typed access to the parts that are read again.

    Args:
        content: the file's content; parts that are not read here are kept as they are.
    """

    content: Mapping[str, Any]

    @classmethod
    def of_run(cls, facts: Mapping[str, Any]) -> AdapterFacts:
        """The facts of a run, from the part of its run.json that travels (`Run.facts`)."""
        return cls({"format_version": FACTS_VERSION, **facts})

    @classmethod
    def parse(cls, content: bytes, path: Path) -> AdapterFacts:
        """The facts in a file's bytes.

        Raises:
            UserError: not JSON, of a later format, or not valid facts.
        """
        facts = parse_json(content, path)
        version = facts.get("format_version") if isinstance(facts, dict) else None
        if isinstance(version, int) and version > FACTS_VERSION:
            raise UserError(
                f"{path}: format {version} is newer than this release; update musicgen-lora."
            )
        check_kind(facts, _FACTS, f"{path}: not readable as adapter facts")
        return cls(facts)

    def header(self) -> dict[str, Any]:
        """The part that goes into the header of the weights, in case they are separated from their
        folder."""
        content = self.content
        header = {
            name: content[name] for name in ("base", "versions", "identity") if name in content
        }
        header["settings"] = {
            name: self._settings[name] for name in _IN_HEADER if name in self._settings
        }
        if "data" in content:
            header["data"] = {"fingerprint": content["data"]["fingerprint"]}
        if self.chose_best:
            header["best"] = content["best"]
        return header

    def write(self, folder: Path) -> None:
        """Writes the file to an adapter's folder."""
        atomic.write_json(folder / FACTS_FILE, dict(self.content))

    @property
    def base_path(self) -> str:
        """Folder or hub id of the base."""
        return self.content["base"]["path"]

    @property
    def base_fingerprint(self) -> str:
        """Identity of the base."""
        return self.content["base"]["fingerprint"]

    @property
    def data_dir(self) -> str | None:
        """The dataset's folder, if it is named."""
        return self._data.get("data_dir")

    @property
    def metadata_file(self) -> str | None:
        """Name of the metadata file in the dataset, if it is named."""
        return self._data.get("metadata_file")

    @property
    def held_out(self) -> list[dict[str, Any]]:
        """`id`, `name` and `audio` of clips that training held out; if there are many, not all."""
        return [entry for entry in self._data.get("validation") or [] if isinstance(entry, dict)]

    @property
    def captions(self) -> list[str]:
        """Some of the captions that it was trained on; empty if it was trained by an earlier
        release, or published without its training data."""
        return [text for text in self._data.get("captions") or [] if text.strip()]

    @property
    def n_held_out(self) -> int:
        """How many clips training held out, including those not named."""
        return self._data.get("n_validation") or len(self.held_out)

    @property
    def n_trained(self) -> int | None:
        """How many clips it was trained on; None if unknown."""
        return self._data.get("n_train")

    @property
    def held_out_rule(self) -> tuple[int, str | None]:
        """The seed and bound that tell which sources were held out, see `held_out_bound`."""
        return self._data.get("held_out_seed") or 0, self._data.get("held_out_bound")

    @property
    def chose_best(self) -> bool:
        """Whether the weights are those that did best on the held-out clips."""
        return self.content.get("best") is not None

    @property
    def max_duration_s(self) -> float:
        """Length of the longest windows that it was trained on."""
        return float(self._settings.get("max_duration", 30.0))

    @property
    def max_validation_windows(self) -> int:
        """The most windows that validation scored."""
        return int(self._settings.get("max_validation_windows", 200))

    @property
    def _data(self) -> Mapping[str, Any]:
        return self.content.get("data") or {}

    @property
    def _settings(self) -> Mapping[str, Any]:
        return self.content.get("settings") or {}
