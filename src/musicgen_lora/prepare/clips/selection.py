"""Selects the files that become clips, without unusable ones and copies; finds their sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from musicgen_lora.dataset.splits import source_of
from musicgen_lora.prepare.clips.cleaning import near_duplicates
from musicgen_lora.prepare.clips.entries import listed_sides, listed_sources
from musicgen_lora.prepare.clips.sources import hear_sources, settle_sources
from musicgen_lora.prepare.hearing.analyse import read_fingerprint, read_record
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.reading.inputs import Dropped, Input, with_split_of
from musicgen_lora.prepare.reading.remarks import HIT_KEPT, WORDS_CARRIED, Remarks
from musicgen_lora.prepare.rerun.revision import Revision
from musicgen_lora.prepare.rerun.succession import Entry
from musicgen_lora.prepare.words.facts import Facts, make_facts, merge_facts

CARRIED = ("text", "bpm", "key", "genre", "title", "artist", "tags")


@dataclass
class Selection:
    """Chooses among the files of a folder, given what the dataset lists."""

    revision: Revision
    entries: Sequence[Entry]
    records: Mapping[str, Analysis]
    folder: Path
    remarks: Remarks
    dropped: list[Dropped] = field(default_factory=list)
    """Files that were left out so far."""

    def __post_init__(self) -> None:
        left = self.revision.gone.union(*self.revision.replaced.values())
        sources = listed_sources(self.entries)
        self.listed = {digest: name for digest, name in sources.items() if digest not in left}
        """The source of each file that the dataset has clips of, by digest."""

    def without_unusable(self, files: Sequence[Input]) -> list[Input]:
        """The new files without those that are too short, silent or single hits."""
        usable = []
        for file in files:
            reason = self.revision.unusable_reason(file, self.records[file.digest])
            if reason is not None:
                self.dropped.append(Dropped(file.name, reason))
                continue
            usable.append(file)
            if self.records[file.digest].is_one_shot and file.is_captioned:
                self.remarks.add(HIT_KEPT, file.name)
        return usable

    def without_copies(
        self, known: Sequence[Input], new: Sequence[Input]
    ) -> tuple[list[Input], list[Input]]:
        """The files without near copies among the new ones. A kept file is held out if a copy of it
        is, and takes over the facts about the copy that it lacks."""
        pool, prints = self._heard_before(new)
        copies = near_duplicates(pool, prints, set(self.listed)) if new else {}
        names = {file.digest: file.name for file in (*known, *new)}
        stay = {file.digest: file for file in (*known, *new) if file.digest not in copies}
        for file in new:
            copy = copies.get(file.digest)
            if copy is None:
                continue
            equal = names.get(copy.of) or self.listed[copy.of]
            reason = f"sounds like {equal}, which is {copy.why}."
            self.dropped.append(Dropped(file.name, reason, equal))
            if copy.of in stay:
                original = with_split_of(stay[copy.of], file, self.remarks)
                stay[copy.of] = self._with_words_of(original, file)
        return (
            [stay[file.digest] for file in known],
            [stay[file.digest] for file in new if file.digest in stay],
        )

    def sources(
        self, new: Sequence[Input], analysed: set[str]
    ) -> tuple[dict[str, str], list[Entry]]:
        """The source of each file by digest, and the dataset's entries with their sources; files
        that share audio get one source.

        Args:
            new: files that become clips.
            analysed: digests of the files that this run analysed, including known ones.
        """
        pool, prints = self._heard_before(new)
        own = {file.digest: file.name for file in new}
        sides = listed_sides(self.entries, self.revision.metadata)
        heard = hear_sources(
            pool,
            prints,
            own,
            self.listed,
            fresh={*own, *analysed},
            sides=sides,
            remarks=self.remarks,
        )
        entries = [_of_source(entry, heard.renamed) for entry in self.entries]
        listed = {digest: heard.renamed.get(name, name) for digest, name in self.listed.items()}
        sides = listed_sides(entries, self.revision.metadata)
        return listed | settle_sources(new, heard.sources, sides, self.remarks), entries

    def _heard_before(
        self, new: Sequence[Input]
    ) -> tuple[dict[str, Analysis], dict[str, np.ndarray]]:
        """Records and fingerprints of the dataset's files and the new ones, by digest."""
        pool = {}
        for digest in dict.fromkeys([*self.listed, *(file.digest for file in new)]):
            record = self.records.get(digest) or read_record(self.folder, digest)
            if record is not None:
                pool[digest] = record
        prints = {digest: read_fingerprint(self.folder, digest) for digest in pool}
        return pool, {digest: row for digest, row in prints.items() if row is not None}

    def _with_words_of(self, file: Input, copy: Input) -> Input:
        """A kept file with the facts that are stated only about its copy."""
        own, other = self._said_of(file), self._said_of(copy)
        carried = {
            name: getattr(other, name)
            for name in CARRIED
            if not getattr(own, name) and getattr(other, name)
        }
        if not carried:
            return file
        self.remarks.add(
            WORDS_CARRIED, f"{file.name} takes over {', '.join(carried)} from {copy.name}"
        )
        if "text" in carried:
            carried["texts"] = other.texts
        facts = make_facts(copy.name, other.confidence, **carried)
        return replace(file, stated=(*file.stated, facts))

    def _said_of(self, file: Input) -> Facts:
        """What metadata, tags and names say about a whole file."""
        stated = [facts for facts in file.stated if facts.part is None]
        return merge_facts([*stated, self.records[file.digest].tags, *file.named])


def _of_source(entry: Entry, renamed: Mapping[str, str]) -> Entry:
    source = source_of(entry)
    return {**entry, "source": renamed[source]} if source in renamed else entry
