"""What a dataset was made from: which files, with which settings, into which clips.

The metadata says what is in a dataset, not what was. Without this record, a clip that the user
removed would come back at the next run, a loop that was exported again would appear beside its
earlier version, and changed settings would reach some clips and not others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from musicgen_lora import atomic
from musicgen_lora.config import PrepareSettings
from musicgen_lora.errors import UserError
from musicgen_lora.listening.rhythm.bars import Span
from musicgen_lora.prepare.reading.inputs import Input
from musicgen_lora.prepare.rerun.succession import (
    CUT_ANEW,
    Entry,
    is_marked,
    lies_in,
    span_of,
)

WORDS = frozenset(("default_text", "trigger_word", "caption_variants", "seed", "tagger"))
"""Settings that decide captions, which each run brings up to date."""
NOT_MADE_WITH = frozenset(
    ("input_dir", "output_dir", "metadata_file", "create_example", "num_samples", "clap_path")
) | {"num_workers", "ray", "restore_removed"}
"""Settings that don't affect clips."""
CUTS = frozenset(("max_clip", "min_window", "min_clip", "repeat_to"))
"""Settings that decide where a file is cut; the remaining ones decide how clips sound."""


EARLIER = {"one_shots": "caption"}
"""What releases before a setting existed did, where that isn't its default."""


def made_with(settings: PrepareSettings) -> dict[str, Any]:
    """The settings that decide what a clip is."""
    values = dataclasses.asdict(settings)
    return {name: value for name, value in values.items() if name not in NOT_MADE_WITH}


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """`made_with` of an earlier run, completed: a setting that was added since gets its default, or
    the value in `EARLIER`."""
    added = made_with(PrepareSettings()) | EARLIER
    return {name: values.get(name, value) for name, value in added.items()}


def sound_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `made_with` that decide how a clip sounds."""
    sound = {name: v for name, v in values.items() if name not in WORDS | CUTS}
    # Vocals that are only flagged stay in the sound.
    return sound | {"vocals": values.get("vocals") == "remove"}


class MadeFile(BaseModel):
    """A file that clips were made from.

    Args:
        folder: where it was found, absolute.
        name: its path below that folder.
        settings: index into the ledger's settings; None where they are not known.
        parts: those that the input's metadata described, start and end in seconds.
        clips: stretches that the dataset's metadata listed.
        removed: stretches that the user removed.
    """

    model_config = ConfigDict(extra="forbid")
    folder: str
    name: str
    settings: int | None = None
    parts: list[tuple[float, float | None]] = []
    clips: list[Span] = []
    removed: list[Span] = []


class Ledger(BaseModel):
    """The files of a dataset by the SHA-256 of their bytes, the settings that their clips were made
    with, and the audio that was written."""

    model_config = ConfigDict(extra="forbid")
    format_version: Literal[1] = 1
    settings: list[dict[str, Any]] = []
    files: dict[str, MadeFile] = {}
    written: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Reads a ledger; returns an empty one if the file doesn't exist.

        Raises:
            UserError: not readable.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{path}: not readable ({reason}); delete it: you only lose the record of which "
                "clips you removed from the metadata."
            ) from error

    def write(self, path: Path) -> None:
        """Writes the ledger, whole or not at all."""
        atomic.write_bytes(path, self.model_dump_json().encode())

    def settings_of(self, digest: str) -> dict[str, Any] | None:
        """What a file's clips were made with; None where that isn't known."""
        file = self.files.get(digest)
        if file is None or file.settings is None or not 0 <= file.settings < len(self.settings):
            return None
        return self.settings[file.settings]

    def note(
        self, file: Input, folder: Path, settings: dict[str, Any], clips: Iterable[Span]
    ) -> None:
        """Enters a file with its clips and keeps what was removed from it. A file with neither is
        not part of the dataset."""
        if settings not in self.settings:
            self.settings.append(settings)
        removed, clips = self.removed_of(file.digest), list(clips)
        if not removed and not clips:
            self.files.pop(file.digest, None)
            return
        self.files[file.digest] = MadeFile(
            folder=str(folder),
            name=file.name,
            settings=self.settings.index(settings),
            parts=list(file.parts),
            clips=clips,
            removed=removed,
        )

    def removed_of(self, digest: str) -> list[Span]:
        """The parts of a file that the user removed."""
        file = self.files.get(digest)
        return [] if file is None else file.removed

    def note_removals(self, entries: Sequence[Entry]) -> None:
        """Compares with the metadata: clips that are no longer listed were removed by the user;
        removed ones that are listed were brought back."""
        listed = spans_by_file(entries)
        for digest, file in self.files.items():
            there = listed.get(digest, [])
            lost = [span for span in file.clips if not lies_in(span, there)]
            file.removed = [span for span in [*file.removed, *lost] if not lies_in(span, there)]
            file.clips = [span for span in file.clips if span not in lost]

    def restore(self, present: set[str]) -> set[str]:
        """Forgets what was removed from the files that are present, by their digests. Returns the
        digests of those that now lack clips."""
        lacking = {digest for digest in present if self.removed_of(digest)}
        for digest in lacking:
            self.files[digest].removed = []
            if not self.files[digest].clips:
                del self.files[digest]
        return lacking


def spans_by_file(entries: Iterable[Entry]) -> dict[str, list[Span]]:
    """The parts of each file that entries list, without entries kept only for a user's edits."""
    spans: dict[str, list[Span]] = {}
    for entry in entries:
        if "made_from" in entry and not is_marked(entry, CUT_ANEW):
            spans.setdefault(str(entry["made_from"]), []).append(span_of(entry))
    return spans
