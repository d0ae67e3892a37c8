"""Clips of the same audio under several names: they have one source, whatever the metadata says.

`prepare` leaves copies out, but metadata written by hand may list them, and a clip that is both
trained on and held out makes the held-out loss wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from musicgen_lora.dataset.metadata import Clip, Clips


def join_copies(clips: Sequence[Clip], ids: Sequence[str]) -> tuple[Clips, list[str]]:
    """Joins sources that have a clip in common.

    Args:
        ids: of the clips, see `clip_ids`.

    Returns:
        The clips in order, and the names of those whose audio an earlier clip has.
    """
    clips = Clips.of(clips)
    if len(set(ids)) == len(ids):
        return clips, []
    sources: list[str] = clips.column("source").to_pylist()
    joined: dict[str, str] = {}

    def root(source: str) -> str:
        while source in joined:
            source = joined[source]
        return source

    first: dict[str, int] = {}
    copies: list[str] = []
    for row, own in enumerate(ids):
        if own not in first:
            first[own] = row
            continue
        copies.append(clips[row].name)
        one, other = root(sources[first[own]]), root(sources[row])
        if one != other:
            joined[max(one, other)] = min(one, other)
    renamed = (clip._replace(source=root(clip.source)) for clip in clips)
    return Clips.of(list(renamed)), copies
