"""Which files a split must keep together: by their metadata and by their sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from musicgen_lora.dataset.splits import Split, find_split
from musicgen_lora.listening.duplicates import VARIANT_THRESHOLD
from musicgen_lora.listening.overlaps import find_overlaps
from musicgen_lora.prepare.clips.cleaning import sounding_alike
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.reading.inputs import Input
from musicgen_lora.prepare.reading.remarks import (
    AUDIO_SHARED,
    SOURCE_DIVIDED,
    SOURCES_JOINED,
    Remarks,
)


@dataclass(frozen=True)
class HeardSources:
    """Sources found by sound.

    Args:
        sources: of each file, by digest.
        renamed: sources of the dataset that are merged into another, with its name.
    """

    sources: dict[str, str]
    renamed: dict[str, str]


def hear_sources(
    records: Mapping[str, Analysis],
    prints: Mapping[str, np.ndarray],
    own: Mapping[str, str],
    listed: Mapping[str, str],
    *,
    fresh: Set[str],
    sides: Mapping[str, set[Split]],
    remarks: Remarks,
) -> HeardSources:
    """Finds files that belong together by sound: versions of a beat, and files that share audio.

    Args:
        own: the path of each new file, by digest.
        listed: the source that the dataset states for each file that it lists, by digest.
        fresh: digests of files that weren't compared before.
        sides: by source, the splits of the clips that the dataset lists.
        remarks: get the files that share audio, and the sources that can't be joined.
    """
    sources, renamed = {**own, **listed}, {}
    for group in _heard_groups(records, prints, sources, set(listed), fresh, remarks):
        stated = list(dict.fromkeys(listed[digest] for digest in group if digest in listed))
        source = stated[0] if stated else own[group[0]]
        sources |= {digest: source for digest in group if digest not in listed}
        splits = set[Split]().union(*(sides.get(name, set()) for name in stated))
        if len(splits) <= 1:
            renamed |= dict.fromkeys(stated[1:], source)
        elif len(stated) > 1:
            remarks.add(SOURCE_DIVIDED, ", ".join(stated))
    sources |= {digest: renamed.get(name, name) for digest, name in listed.items()}
    return HeardSources(sources, renamed)


def _heard_groups(
    records: Mapping[str, Analysis],
    prints: Mapping[str, np.ndarray],
    named: Mapping[str, str],
    listed: Set[str],
    fresh: Set[str],
    remarks: Remarks,
) -> list[list[str]]:
    """The files' digests, grouped by source; `named` has each file's own source."""
    groups = _Groups()
    first_of: dict[str, str] = {}
    for digest, source in named.items():
        groups.join(first_of.setdefault(source, digest), digest)
    for group in sounding_alike(records, prints, VARIANT_THRESHOLD) if fresh else ():
        # Versions that the dataset lists keep the sources in its metadata.
        anchor = next((digest for digest in group if digest in listed), group[0])
        for digest in group:
            if digest not in listed and groups.root(digest) != groups.root(anchor):
                groups.join(anchor, digest)
                remarks.add(AUDIO_SHARED, f"{named[anchor]} with {named[digest]}, from their start")
    digests = list(prints) if fresh else []
    for overlap in find_overlaps(
        [prints[digest] for digest in digests],
        [records[digest].duration_s for digest in digests],
        [groups.root(digest) for digest in digests],
        fresh={index for index, digest in enumerate(digests) if digest in fresh},
    ):
        one, other = digests[overlap.first], digests[overlap.second]
        groups.join(one, other)
        remarks.add(
            AUDIO_SHARED,
            f"{named[one]} (from {overlap.first_s:.1f} s) with {named[other]} "
            f"(from {overlap.second_s:.1f} s)",
        )
    members: dict[str, list[str]] = {}
    for digest in named:
        members.setdefault(groups.root(digest), []).append(digest)
    return list(members.values())


class _Groups:
    """Groups of names; each group has a root, one of its names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        while self._parent.setdefault(name, name) != name:
            name = self._parent[name]
        return name

    def join(self, stays: str, goes: str) -> None:
        """Merges two groups; the root of `stays` remains."""
        self._parent[self.root(goes)] = self.root(stays)


def settle_sources(
    files: Sequence[Input],
    heard: Mapping[str, str],
    listed_sides: Mapping[str, set[Split]],
    remarks: Remarks,
) -> dict[str, str]:
    """The source of each file, by digest.

    Files have the same source if the metadata says so or if they are versions of one beat. Where
    stated splits separate such files, the splits are kept; the training files then count as a
    source of their own, so that training can proceed, and this is reported.

    Args:
        files: new ones that become clips.
        heard: by digest, the source found by `hear_sources`.
        listed_sides: by source, the splits of the clips that the dataset already lists.
        remarks: get joined and divided sources.
    """
    named = _joined(files, heard, set(listed_sides), remarks)
    sides: dict[str, set[Split]] = {}
    for file in files:
        source = named[file.digest]
        split = find_split(file.split) if file.split is not None else None
        stated = sides.setdefault(source, set(listed_sides.get(source, ())))
        stated |= {split} if split is not None else set()
    divided = {source for source, splits in sides.items() if len(splits) > 1}
    for source in sorted(divided):
        remarks.add(SOURCE_DIVIDED, source)
    sources = {}
    for file in files:
        source = named[file.digest]
        # Clips without a split go to the side that keeps their source's name.
        keeps = next(iter(listed_sides.get(source) or {"validation"}))
        split = find_split(file.split) if file.split is not None else keeps
        apart = f"{source} ({'train' if split == 'train' else 'held out'})"
        sources[file.digest] = apart if source in divided and split != keeps else source
    return sources


def _joined(
    files: Sequence[Input], heard: Mapping[str, str], listed: set[str], remarks: Remarks
) -> dict[str, str]:
    """The source of each file, the same for all files that belong together."""
    groups = _Groups()
    stated_sources = {file.source for file in files if file.source is not None}
    for file in files:
        own, other = groups.root(file.source or file.name), groups.root(heard[file.digest])
        if own == other:
            continue
        # Keep a source that the dataset has, else the first one that somebody stated.
        other_stays = other in listed or (other in stated_sources and own not in listed)
        stays, goes = (other, own) if other_stays or file.source is None else (own, other)
        groups.join(stays, goes)
    for source in sorted(stated_sources):
        if groups.root(source) != source:
            remarks.add(SOURCES_JOINED, f"{source} with {groups.root(source)}")
    return {file.digest: groups.root(heard[file.digest]) for file in files}
