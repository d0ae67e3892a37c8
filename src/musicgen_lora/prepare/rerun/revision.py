"""What a run changes about files that the dataset already has clips of.

Settings apply to all clips, not only new ones: a file that they would cut or treat differently is
recut. A file that was exported again replaces its earlier version; the clips of one that has left
the folder are marked `skip`. Every change is reported, with the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicgen_lora.config import PrepareSettings
from musicgen_lora.prepare.clips.cleaning import unusable_reason
from musicgen_lora.prepare.clips.cut import ClipPlan, plan_clips
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.reading.inputs import Dropped, Input
from musicgen_lora.prepare.rerun.ledger import (
    WORDS,
    Ledger,
    made_with,
    sound_settings,
    spans_by_file,
    with_defaults,
)
from musicgen_lora.prepare.rerun.succession import GONE, SKIP_FIELD, Entry, is_marked, mark, unmark
from musicgen_lora.prepare.words.captions import MADE_FIELD, is_edited
from musicgen_lora.prepare.words.facts import FilePart
from musicgen_lora.urls import shown


@dataclass(frozen=True)
class Change:
    """Something about listed clips that the user should know, and the files or clips by name."""

    told: str
    names: tuple[str, ...] = ()


class Revision:
    """Compares a dataset with its input folder and with this run's settings."""

    def __init__(
        self, settings: PrepareSettings, input_dir: Path, metadata: Path, ledger: Ledger
    ) -> None:
        self.made_with = made_with(settings)
        self.metadata = metadata
        # A local copy may lie elsewhere on another machine, so its URL names the folder.
        self.folder = Path(shown(input_dir.resolve()))
        self.changes: list[Change] = []
        self.known: set[str] = set()
        """Digests of the files in the folder that the dataset has, or had, clips of."""
        self.replaced: dict[str, list[str]] = {}
        """Digests of earlier versions, by the digest of the file that replaces them."""
        self.gone: set[str] = set()
        """Digests of files that have left the folder."""
        self._settings, self._ledger = settings, ledger
        self._restored: set[str] = set()

    def compare(
        self, entries: Sequence[Entry], inputs: Sequence[Input], dropped: Sequence[Dropped]
    ) -> list[Entry]:
        """Finds out which files are known, replaced and gone. Returns the entries, marked."""
        present = {file.digest for file in inputs}
        if self._settings.restore_removed:
            self._restored = self._ledger.restore(present)
        listed = spans_by_file(entries).keys() | self._ledger.files.keys()
        audio: dict[Any, set[str]] = {}
        for entry in entries:
            audio.setdefault(entry.get("audio"), set()).add(str(entry.get("made_from")))
        places = {self.folder / file.name: file for file in inputs}
        earlier: dict[str, list[str]] = {}
        # A file that can't be read this time isn't gone.
        unread = [self.folder / drop.name for drop in dropped if not drop.equals]
        for digest, made in self._ledger.files.items():
            place = Path(made.folder) / made.name
            if digest in present or not place.is_relative_to(self.folder):
                continue
            if place in places and places[place].digest not in listed:
                earlier.setdefault(places[place].digest, []).append(digest)
            elif not any(place.is_relative_to(other) for other in unread):
                self.gone.add(digest)
        self.replaced = earlier
        self.known = {
            file.digest
            for file in inputs
            if file.digest in listed or (file.in_place in audio and file.digest not in earlier)
        }
        return self._marked(entries, present)

    def _marked(self, entries: Sequence[Entry], present: set[str]) -> list[Entry]:
        """The entries: clips of files that are gone get a mark, those of files that are back lose
        theirs."""
        marked, left, back = [], [], []
        for entry in entries:
            digest = str(entry.get("made_from"))
            if digest in self.gone:
                if SKIP_FIELD not in entry:
                    left.append(str(entry.get("audio")))
                entry = mark(entry, GONE)
            elif digest in present and is_marked(entry, GONE):
                entry = unmark(entry)
                back.append(str(entry.get("audio")))
            marked.append(entry)
        self._tell(
            left,
            "{clips} taken out of training, because {their} file is no longer in the input folder: "
            'marked "skip" in the metadata. Put the file back, or set "skip": false to keep {them}',
        )
        self._tell(back, "{clips} back in training with {their} file")
        return marked

    def tell_replaced(self, names: Sequence[str], aside: Sequence[Entry]) -> None:
        """Reports files that replaced their earlier version, and entries that no clip took over."""
        self._tell(
            names,
            "{n_files} {were} exported again and {have} replaced the earlier version; your edits "
            "are carried over, so check that they still fit",
        )
        self._tell(
            [str(entry.get("audio")) for entry in aside],
            '{clips} kept in the metadata only for what you wrote, marked "skip": no clip covers '
            "the same part of the file any more",
        )

    def give_up(self, entries: Sequence[Entry], digests: set[str], reason: str) -> list[Entry]:
        """The entries, with those of earlier versions marked whose successor is unusable."""
        names = [
            str(entry.get("audio"))
            for entry in entries
            if str(entry.get("made_from")) in digests and SKIP_FIELD not in entry
        ]
        self._tell(
            names,
            "{clips} taken out of training: the file was exported again and is now left out "
            f"({reason.rstrip('.')})",
        )
        self.gone |= digests
        return [mark(e, GONE) if str(e.get("made_from")) in digests else e for e in entries]

    def plans(self, file: Input, record: Analysis) -> list[ClipPlan]:
        """The clips of a file with this run's settings."""
        return plans_with(self.made_with, record, file.parts, file)

    def unusable_reason(self, file: Input, record: Analysis) -> str | None:
        """Why a file is left out with this run's settings; None for a usable one."""
        return _unusable_reason(self.made_with, record, file)

    def must_cut(
        self,
        known: Sequence[Input],
        records: Mapping[str, Analysis],
        entries: Sequence[Entry],
    ) -> list[Input]:
        """The known files with a record whose clips must be cut again."""
        lost = self._lost(entries, {file.digest for file in known})
        with_clips = spans_by_file(entries).keys() | self._restored
        settings: dict[str, list[str]] = {}
        unknown, restored, chosen = [], [], []
        for file in known:
            if file.digest not in records or file.digest not in with_clips:
                continue
            old = self._ledger.settings_of(file.digest)
            if file.digest in self._restored:
                restored.append(file.name)
            elif old is None:
                unknown.append(file.name)
            elif told := self._differences(file, records[file.digest], old):
                settings.setdefault(told, []).append(file.name)
            elif file.digest not in lost:
                continue
            chosen.append(file)
        for told, names in settings.items():
            self._tell(names, f"{{files}} recut for {told}; your edits are carried over")
        self._tell(
            unknown,
            "{files} recut, because it isn't known which settings {they} {were} prepared with; "
            "your edits are carried over",
        )
        self._tell(restored, "{files} recut to bring back clips that were removed")
        return chosen

    def _lost(self, entries: Sequence[Entry], known: set[str]) -> set[str]:
        """Digests of known files whose clips lack their audio."""
        made, orphans, digests = [], [], set()
        for entry in entries:
            audio, digest = entry.get("audio"), str(entry.get("made_from"))
            if not isinstance(audio, str) or entry.get(SKIP_FIELD):
                continue
            if (self._settings.output_dir / audio).is_file():
                continue
            if digest in known:
                made.append(audio)
                digests.add(digest)
            else:
                orphans.append(audio)
        self._tell(made, "{clips} made again, because {their} audio was missing")
        self._tell(
            orphans,
            "{clips} without audio, and the file that {they} {were} cut from is not in the input "
            "folder: prepare the folder that has it, or delete {their} entry",
        )
        return digests

    def _differences(self, file: Input, record: Analysis, old: dict[str, Any]) -> str:
        """The settings that would change this file's clips; "" if none would."""
        new = self.made_with
        old = with_defaults(old)
        is_in_place = file.in_place is not None
        made = self._ledger.files[file.digest]
        before = plans_with(old, record, made.parts, file)
        is_other = before != self.plans(file, record)
        is_other |= not is_in_place and sound_settings(old) != sound_settings(new)
        is_other |= old["vocals"] == "keep" != new["vocals"]
        if not is_other:
            return ""
        told = [
            f"--{name} {_plain(new[name])} (was {_plain(old[name])})"
            for name in new
            if name not in WORDS and new[name] != old[name]
        ]
        if made.parts != list(file.parts):
            told.append("the parts that the input's metadata now describes")
        return ", ".join(told)

    def tell_rest(self, entries: Sequence[Entry], was_edited: bool) -> None:
        """Reports what stays as it is, whatever this run's settings say."""
        if was_edited:
            told = "the metadata was edited while this ran; the edits are kept"
            self.changes.append(Change(told))
        self._tell_unused(entries)
        self._tell_elsewhere()
        removed = [
            f"{made.name} ({start_s:.1f}-{stop_s:.1f} s)"
            for digest, made in self._ledger.files.items()
            if digest not in self.gone
            for start_s, stop_s in made.removed
        ]
        self._tell(
            removed,
            "{clips} left out, because you deleted {their} entry; --restore_removed brings {them} "
            "back",
        )
        trigger = self._settings.trigger_word.strip()
        if trigger:
            own = [
                str(entry.get("audio"))
                for entry in entries
                if _has_own_caption(entry) and trigger not in str(entry.get("text"))
            ]
            self._tell(own, f"{{clips}} captioned by you without {trigger!r}; add it there")

    def _tell_elsewhere(self) -> None:
        """Reports files from other folders, which this run's settings can't change."""
        elsewhere: dict[str, list[str]] = {}
        for digest, made in self._ledger.files.items():
            old = self._ledger.settings_of(digest)
            is_here = (Path(made.folder) / made.name).is_relative_to(self.folder)
            if not is_here and old is not None and made.clips:
                for name, value in with_defaults(old).items():
                    if value != self.made_with[name]:
                        elsewhere.setdefault(f"--{name} {_plain(value)}, {made.folder}", []).append(
                            made.name
                        )
        for told, names in elsewhere.items():
            setting, _, folder = told.partition(", ")
            self._tell(
                names,
                f"{{files}} not in the input folder and {{were}} prepared with {setting}; prepare "
                f"{folder} with the new setting to change that",
            )

    def _tell_unused(self, entries: Sequence[Entry]) -> None:
        """Reports audio that was written for clips that no longer exist."""
        listed = {entry.get("audio") for entry in entries}
        folder, unused, n_bytes = self._settings.output_dir, [], 0
        for name in dict.fromkeys(self._ledger.written):
            if name not in listed and (folder / name).is_file():
                unused.append(name)
                n_bytes += (folder / name).stat().st_size
        told = f"no longer used ({n_bytes / 1e6:.1f} MB in {folder / 'train'}); delete {{them}}"
        self._tell(unused, f"{{files}} {told} if no other metadata lists {{them}}")

    def _tell(self, names: Sequence[str], told: str) -> None:
        """Adds a change, if there are names. In `told`, {files} and {clips} become the number of
        names with its noun and "is" or "are"."""
        if not names:
            return
        n = len(names)
        one = n == 1
        words = {
            "n_files": f"{n} file" if one else f"{n} files",
            "files": f"{n} file is" if one else f"{n} files are",
            "clips": f"{n} clip is" if one else f"{n} clips are",
            "their": "its" if one else "their",
            "they": "it" if one else "they",
            "them": "it" if one else "them",
            "were": "was" if one else "were",
            "have": "has" if one else "have",
        }
        for word, value in words.items():
            told = told.replace(f"{{{word}}}", value)
        self.changes.append(Change(told, tuple(names)))


def _plain(value: object) -> str:
    """A setting as a user writes it."""
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"


def _has_own_caption(entry: Entry) -> bool:
    made = entry.get(MADE_FIELD)
    return isinstance(made, Mapping) and "text" in made and is_edited(entry, "text", made)


def _unusable_reason(values: Mapping[str, Any], record: Analysis, file: Input) -> str | None:
    return unusable_reason(
        record,
        values["min_clip"],
        to_mono=values["mono_fold"] and file.in_place is None,
        # A file that somebody captioned is meant to be a clip.
        keeps_hits=values["one_shots"] == "caption" or file.is_captioned,
    )


def plans_with(
    values: Mapping[str, Any], record: Analysis, parts: Sequence[FilePart], file: Input
) -> list[ClipPlan]:
    """The clips of a file with these settings, in the form of `ledger.made_with`, and parts."""
    if _unusable_reason(values, record, file) is not None:
        return []
    return plan_clips(
        record,
        max_s=values["max_clip"],
        min_window_s=values["min_window"],
        min_clip_s=values["min_clip"],
        # A file inside the dataset is never rewritten, so it can't be repeated.
        repeat_to_s=None if file.in_place is not None else values["repeat_to"],
        parts=parts,
    )
