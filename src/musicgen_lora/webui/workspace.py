"""The page's folder, with subfolders for audio, datasets, runs, generated clips and jobs. Whatever
the browser may name in it is looked up here."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.dataset.metadata import is_skipped, read_entries, window_name
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import AN_OBJECT, LARGE, read_json
from musicgen_lora.given import ADAPTER_WEIGHTS
from musicgen_lora.training.record.run import Run
from musicgen_lora.training.record.run_folder import BEST_MODEL, CHECKPOINTS, PREVIEWS
from musicgen_lora.webui.safety import (
    AUDIO_SUFFIXES,
    delete_folder,
    find,
    folders_of,
    id_of,
    inside,
    is_text,
)
from musicgen_lora.webui.work.jobs import Jobs, start_supervisor

BASES = (
    EMBEDDED_NAME,
    "facebook/musicgen-small",
    "facebook/musicgen-medium",
    "facebook/musicgen-melody",
    "facebook/musicgen-stereo-small",
)
"""The bases that the page offers; all but the first are downloaded once."""
METADATA, REPORT = "metadata.json", "report.html"
REMOVED = "removed"
MAX_LISTED = 1_000
Choices = list[tuple[str, str]]
"""What a list shows, and the id behind it."""


@dataclass(frozen=True)
class Sound:
    """A generated clip.

    Args:
        made: when, seconds since 1970.
    """

    name: str
    facts: dict[str, Any]
    made: float


class Workspace:
    """The folders of a page.

    Args:
        root: holds everything the page writes; created if needed.
        audio_dirs: more folders that audio may be chosen from, with their subfolders.
        start: as for `Jobs`.
    """

    def __init__(
        self,
        root: Path,
        audio_dirs: Sequence[Path] = (),
        start: Callable[[Path], None] = start_supervisor,
    ) -> None:
        self.root = root.resolve()
        self.audio, self.datasets = self.root / "audio", self.root / "datasets"
        self.runs, self.generated = self.root / "runs", self.root / "generated"
        self.models, self.evaluations = self.root / "models", self.root / "evaluations"
        homes = (self.audio, self.datasets, self.runs, self.generated, self.models)
        for folder in (*homes, self.evaluations):
            folder.mkdir(parents=True, exist_ok=True)
        self.trial = self.root / "trial"
        self.jobs = Jobs(self.root / "jobs", start)
        self._audio_dirs = [self.audio, *(folder.resolve() for folder in audio_dirs)]

    def audio_folders(self) -> dict[str, Path]:
        """Folders that audio may be chosen from, by their names on the page."""
        found = {}
        for home in self._audio_dirs:
            prefix = "" if home == self.audio else f"{home.name} / "
            if prefix:
                found[home.name] = home
            found |= {prefix + name: home / name for name in folders_of(home)[:MAX_LISTED]}
        return found

    def audio_folder(self, wanted: object) -> Path:
        folders = self.audio_folders()
        return folders[find(folders, wanted)]

    def dataset(self, wanted: object) -> Path:
        return inside(self.datasets, find(folders_of(self.datasets), wanted))

    def run(self, wanted: object) -> Path:
        return inside(self.runs, find(folders_of(self.runs), wanted))

    def check_idle(self, folder: Path) -> None:
        """Raises a UserError if a job that has not ended reads or writes a folder."""
        if self.jobs.uses(folder):
            raise UserError(f"{folder.name}: is in use by a command; stop that first.")

    def delete(self, home: Path, wanted: object, typed: object) -> str:
        """Deletes the dataset or run of an id, and returns its name.

        Args:
            home: `datasets` or `runs`.
            typed: its name, as typed to confirm.

        Raises:
            UserError: no such folder, another name was typed, or a command is using it.
        """
        self.check_idle(inside(home, find(folders_of(home), wanted)))
        return delete_folder(home, wanted, typed)

    def adapter(self, wanted: object) -> Path:
        """The adapter of the run of an id.

        Raises:
            UserError: it has none.
        """
        run = self.run(wanted)
        if not has_adapter(run):
            raise UserError(f"{run.name}: has no adapter yet; train it until its first validation.")
        return run / BEST_MODEL

    def adapters(self) -> dict[str, Path]:
        """All adapters by their names on the page, newest first: `RUN` for a run's best,
        `RUN/step-000100` for a checkpoint."""
        found = {}
        for name in adapter_names(self.runs):
            run = inside(self.runs, name)
            steps = sorted(folders_of(run / CHECKPOINTS), reverse=True)
            kept = (step for step in steps if is_adapter(run / CHECKPOINTS / step))
            found |= {name: run / BEST_MODEL}
            found |= {f"{name}/{step}": inside(run, f"{CHECKPOINTS}/{step}") for step in kept}
        return found

    def reports(self) -> dict[str, Path]:
        """Folders that have a report or may get one, by their names on the page: `RUN` for a run's
        own, `evaluations/NAME`, which no run can be called, for those of several runs."""
        found = {name: self.runs / name / "evaluation" for name in folders_of(self.runs)}
        own = {
            name: folder
            for name, folder in found.items()
            if has_adapter(folder.parent) or (folder / REPORT).is_file()
        }
        names = folders_of(self.evaluations)
        return own | {f"{self.evaluations.name}/{n}": self.evaluations / n for n in names}

    def report(self, wanted: object) -> Path:
        """A report by the id of its folder.

        Raises:
            UserError: there is none.
        """
        reports = self.reports()
        folder = reports[find(reports, wanted)]
        return inside(self.root, (folder / REPORT).relative_to(self.root).as_posix())

    def bases(self) -> Choices:
        """The base models that the page offers: `BASES`, and those merged here."""
        return [*((name, name) for name in BASES), *choices(self._merged())]

    def base(self, wanted: object) -> str:
        """A base model by its name in `bases`, or by the folder of one that was merged here; any
        other path or address is refused.

        Raises:
            UserError: there is none of that name.
        """
        if isinstance(wanted, str) and wanted in BASES:
            return wanted
        for name in self._merged():
            if wanted in (id_of(name), str(self.models / name)):
                return str(inside(self.models, name))
        raise UserError("The page has no such base model.")

    def base_of(self, run: object) -> str:
        """The base model that the run of an id was trained on.

        Raises:
            UserError: its `run.json` can't be read, or the base is not one of the page's.
        """
        folder = self.run(run)
        found = Run.read(folder)
        if found is None:
            raise UserError(f"{folder.name}: its run.json can't be read.")
        return self.base(found.base.get("path"))

    def _merged(self) -> list[str]:
        """Names of folders that hold a complete base."""
        names = folders_of(self.models)
        return [name for name in names if (self.models / name / "config.json").is_file()]

    def preparation(self, wanted: object) -> Path:
        """The preparation report of the dataset of an id."""
        return inside(self.dataset(wanted), REPORT)

    def clip(self, dataset: object, wanted: object) -> Path:
        """The audio of a clip, by the ids of dataset and clip."""
        folder = self.dataset(dataset)
        audio = {clip_name(entry): str(entry.get("audio")) for entry in entries_of(folder)}
        return inside(folder, audio[find(audio, wanted)])

    def sound(self, wanted: object) -> Path:
        """A generated file by its id."""
        names = (path.name for path in self.generated.iterdir())
        return inside(self.generated, find(_audio_names(names), wanted))

    def remove_sound(self, wanted: object) -> Path:
        """Moves a generated file, and its companions of the same name, into the folder for removed
        clips, which the page ignores, and returns that folder.

        Raises:
            UserError: it is missing, a job that has not ended reads it, or it can't be moved.
        """
        sound = self.sound(wanted)
        self.check_idle(sound)
        removed = self.generated / REMOVED
        beside = (path for path in self.generated.iterdir() if path.stem == sound.stem)
        try:
            removed.mkdir(exist_ok=True)
            # Sound first: a JSON without its sound is not a clip.
            for path in [sound, *(path for path in beside if path != sound)]:
                os.replace(path, removed / path.name)
        except OSError as error:
            raise UserError(f"{sound.name}: cannot be moved ({error.strerror}).") from error
        return removed

    def preview(self, run: object, wanted: object) -> Path:
        """A preview of a run, by both ids."""
        folder = self.run(run) / PREVIEWS
        return inside(folder, find(preview_names(folder), wanted))

    def dated_sounds(self) -> list[tuple[float, str]]:
        """When each generated clip was written, and its name, newest first. One without its JSON is
        half of a pair that is being moved or removed."""
        names = {path.name for path in self.generated.iterdir()}
        pairs = [name for name in _audio_names(names) if f"{Path(name).stem}.json" in names]
        dated = sorted(_dated(self.generated / name for name in pairs), reverse=True)
        return [(made, path.name) for made, path in dated]

    def sounds(self, count: int) -> list[Sound]:
        found = []
        for made, name in self.dated_sounds():
            facts = facts_of(self.generated / name)
            if facts is not None:
                found.append(Sound(name, facts, made))
            if len(found) == count:
                break
        return found


def choices(names: Sequence[str]) -> Choices:
    """Names with their ids, for a list."""
    return [(name, id_of(name)) for name in names]


def entries_of(dataset: Path) -> list[dict[str, Any]]:
    """The entries of a dataset; none if it has no metadata yet."""
    path = dataset / METADATA
    return read_entries(path) if path.is_file() else []


def clip_name(entry: dict[str, Any]) -> str:
    """A clip's unique name: its file and, if it is only a part, which part."""
    start_s, duration_s = entry.get("start_s"), entry.get("duration_s")
    numbers = [value for value in (start_s, duration_s) if isinstance(value, (int, float))]
    is_part = start_s is not None and len(numbers) == 2
    return str(entry.get("audio")) + (window_name(*numbers) if is_part else "")


def facts_of(sound: Path) -> dict[str, Any] | None:
    """The JSON beside a generated clip; None if there is none, or it is not an object."""
    try:
        return read_json(sound.with_suffix(".json"), AN_OBJECT)
    except UserError:
        return None


def saved_name(path: Path, facts: dict[str, Any] | None) -> str:
    """A clip's name when downloaded: with its tempo, which a loop's name already has."""
    bpm = (facts or {}).get("bpm")
    if not isinstance(bpm, (int, float)) or "bpm" in path.stem.lower():
        return path.name
    return f"{path.stem}_{bpm:g}bpm{path.suffix}"


def trained_entries(dataset: Path) -> list[dict[str, Any]]:
    return [entry for entry in entries_of(dataset) if not is_skipped(entry)]


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter that plays."""
    return (folder / ADAPTER_WEIGHTS).is_file()


def has_adapter(run: Path) -> bool:
    return is_adapter(run / BEST_MODEL)


def adapter_names(runs: Path) -> list[str]:
    """Names of the runs that have an adapter, newest first."""
    return [name for name in folders_of(runs) if has_adapter(runs / name)]


def preview_names(folder: Path) -> list[str]:
    """Paths of a run's previews below their folder, newest first."""
    sounds = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    found = sorted(_dated(sounds), reverse=True)
    names = [path.relative_to(folder).as_posix() for _, path in found]
    # What begins with a dot is still being written, under a temporary name.
    return [name for name in names if "/." not in f"/{name}"][:MAX_LISTED]


def written_at(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 if it no longer exists."""
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return 0


def _dated(paths: Iterable[Path]) -> Iterator[tuple[float, Path]]:
    """Regular files with when they were written; those that no longer exist are left out."""
    for path in paths:
        try:
            state = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(state.st_mode):
            yield state.st_mtime, path


def prepared(dataset: Path) -> dict[str, Any]:
    """The report of the last preparation; empty if it can't be read."""
    try:
        return read_json(dataset / "report.json", AN_OBJECT, max_bytes=LARGE)
    except UserError:
        return {}


def warnings_of(dataset: Path) -> dict[str, list[str]]:
    """What the last preparation found wrong, by file; empty if its report can't be read."""
    faults = prepared(dataset).get("faults", [])
    found: dict[str, list[str]] = {}
    for fault in faults if isinstance(faults, list) else []:
        if isinstance(fault, dict) and isinstance(fault.get("files"), list):
            for name in fault["files"]:
                found.setdefault(str(name), []).append(str(fault.get("name", "")))
    return found


def _audio_names(names: Iterable[str]) -> list[str]:
    sounds = (name for name in names if Path(name).suffix in AUDIO_SUFFIXES)
    return [name for name in sounds if is_text(name) and not name.startswith(".")]
