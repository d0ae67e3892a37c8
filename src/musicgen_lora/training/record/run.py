"""A run as one value: what `run.json` holds, and whether an adapter is from one's own run."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import AN_OBJECT, LARGE, read_json
from musicgen_lora.formats.kinds import fields, integer, one_of, or_null, real, text
from musicgen_lora.training.record.run_folder import PREVIOUS, RUN_FILE

RUNNING, INTERRUPTED, FAILED, FINISHED = "running", "interrupted", "failed", "finished"
_KINDS = fields(
    {"identity": text(), "status": text()},
    {
        **dict.fromkeys(("output_dir", "started", "device", "verdict"), text()),
        "precision": one_of("fp32", "bf16", "fp16"),
        **dict.fromkeys(("settings", "versions", "base", "data"), AN_OBJECT),
        "base_loss": or_null(fields({"loss": real(0.0, 1e6)})),
        "computing": fields(
            {},
            {
                "chip": text(),
                "threads": or_null(integer(1, 10**6)),
                "processes": integer(1, 10**6),
            },
        ),
        "steps": integer(0, 10**12),
        "best": or_null(AN_OBJECT),
        "effect": AN_OBJECT,
    },
)
_TRAVELS = ("base", "data", "settings", "versions", "precision", "base_loss", "best", "identity")
"""What is stored with the weights."""


@dataclass
class Run:
    """The content of `run.json`.

    Args:
        status: "running", "interrupted", "failed" or "finished".
        identity: hash of settings, base and data: the same hash gives the same results.
        output_dir: absolute path.
        started: start time, local.
        settings: as JSON values, with those decided for this run filled in.
        device: the device that it was last started on.
        precision: of the frozen base.
        computing: `chip`, `threads` and `processes` (`record/computing.py`).
        base: `path`, `fingerprint`, `class` and `trained_duration_s`.
        data: what it uses of its dataset, with the held-out clips by name.
        base_loss: the base's before the first step: `loss`, `codebooks`, `held_out`.
        steps: steps done when the file was last written.
        best: `step`, `loss` and `codebooks` of the best validation; None if nothing is held out.
        effect: of the adapter on the predictions, once measured.
        verdict: a sentence, at the end.
        other: fields of unknown names, which are kept.
    """

    status: str
    identity: str
    output_dir: str = ""
    started: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    precision: str = "fp32"
    computing: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    base_loss: dict[str, Any] | None = None
    steps: int | None = None
    best: dict[str, Any] | None = None
    effect: dict[str, Any] | None = None
    verdict: str | None = None
    other: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, output_dir: Path) -> Run | None:
        """The run in a folder; None if there is none, or none that can be read: it is then moved
        aside like any other."""
        try:
            content = read_json(output_dir / RUN_FILE, _KINDS, max_bytes=LARGE)
        except UserError:
            return None
        names = {each.name for each in dataclasses.fields(cls)} - {"other"}
        known = {name: value for name, value in content.items() if name in names}
        return cls(**known, other={n: v for n, v in content.items() if n not in names})

    def write(self, output_dir: Path) -> None:
        """Writes `run.json`, whole or not at all."""
        atomic.write_json(output_dir / RUN_FILE, self.content())

    def content(self) -> dict[str, Any]:
        """The content of `run.json`."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        found |= found.pop("other")
        # Only at the end is it certain that there is no best step.
        maybe = ["steps", "effect", "verdict", *(["best"] if self.status != FINISHED else [])]
        return {n: v for n, v in found.items() if n not in maybe or v is not None}

    def facts(self, best: dict[str, Any] | None) -> dict[str, Any]:
        """The part of it that is stored with the weights.

        Args:
            best: the validation that chose the weights, if any.
        """
        content = dataclasses.replace(self, best=best).content()
        return {n: content[n] for n in _TRAVELS if content.get(n) is not None}

    @property
    def is_resumable(self) -> bool:
        """Whether it has everything that resuming needs."""
        return isinstance(self.base.get("path"), str) and self.base_loss is not None


def is_own_run(adapter: Path, facts: dict[str, Any]) -> bool:
    """Whether an adapter is still where this user trained it, so that the folders named in its
    facts may be read and written: facts travel with an adapter, and could name any folder. The
    folder around it must hold the run of the same identity and data, and be named in that run."""
    folder = Path(os.path.abspath(adapter)).parent
    run = Run.read(folder)
    if run is None or run.identity != facts.get("identity"):
        return False
    if hasattr(os, "getuid") and (folder / RUN_FILE).stat().st_uid != os.getuid():
        return False
    named = facts.get("data")
    if not run.data or not isinstance(named, dict):
        return False
    place = folder.resolve()
    homes = [place, place.parent.parent] if place.parent.name == PREVIOUS else [place]
    same_data = run.data.get("data_dir") == named.get("data_dir")
    return same_data and run.output_dir in [str(home) for home in homes]
