"""What each file must not be parted from by a split: what the metadata says, and what is heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from musicgen_lora.data.inputs import Input
from musicgen_lora.data.remarks import SOURCE_DIVIDED, SOURCES_JOINED, Remarks
from musicgen_lora.data.splits import Split, find_split


def settle_sources(
    files: Sequence[Input],
    heard: Mapping[str, str],
    listed_sides: Mapping[str, set[Split]],
    remarks: Remarks,
) -> dict[str, str]:
    """The source of each file, by digest.

    Files are of one source where the metadata says so, and where they are versions of one beat.
    Where stated splits part such files the splits stand; what is trained on then counts as a
    source of its own, so that training goes on, and it is said.

    Args:
        files: new ones, that become clips.
        heard: by digest, the source that `cleaning.shared_sources` finds.
        listed_sides: by source, the splits of the clips that the dataset lists already.
        remarks: where joined and divided sources are said.
    """
    named = _joined(files, heard, set(listed_sides), remarks)
    sides: dict[str, set[Split]] = {}
    for file in files:
        source = named[file.digest]
        split = find_split(file.split) if file.split is not None else None
        stated = sides.setdefault(source, set(listed_sides.get(source, ())))
        stated |= {split} if split is not None else set()
    divided = {source for source, splits in sides.items() if len(splits) > 1}
    remarks.add_all(SOURCE_DIVIDED, sorted(divided))
    sources = {}
    for file in files:
        source = named[file.digest]
        # Clips without a split follow the one that their source keeps its name for.
        keeps = next(iter(listed_sides.get(source) or {"validation"}))
        split = find_split(file.split) if file.split is not None else keeps
        apart = f"{source} ({'train' if split == 'train' else 'held out'})"
        sources[file.digest] = apart if source in divided and split != keeps else source
    return sources


def _joined(
    files: Sequence[Input], heard: Mapping[str, str], listed: set[str], remarks: Remarks
) -> dict[str, str]:
    """The source of each file where all that belong together are one."""
    parent: dict[str, str] = {}

    def root(source: str) -> str:
        while parent.setdefault(source, source) != source:
            source = parent[source]
        return source

    stated_sources = {file.source for file in files if file.source is not None}
    for file in files:
        own, other = root(file.source or file.name), root(heard[file.digest])
        if own == other:
            continue
        # A source that the dataset has stays, else the first one that somebody stated.
        other_stays = other in listed or (other in stated_sources and own not in listed)
        stays, goes = (other, own) if other_stays or file.source is None else (own, other)
        parent[goes] = stays
    for source in sorted(stated_sources):
        if root(source) != source:
            remarks.add(SOURCES_JOINED, f"{source} with {root(source)}")
    return {file.digest: root(heard[file.digest]) for file in files}
