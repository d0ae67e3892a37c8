"""Which clips an adapter has never heard, found through what it recorded of its training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from musicgen_lora.dataset.clip_ids import clip_ids, kept_ids
from musicgen_lora.dataset.metadata import Clip, is_held_out, load_dataset
from musicgen_lora.errors import UserError
from musicgen_lora.model.lora.facts import AdapterFacts
from musicgen_lora.plural import count


@dataclass(frozen=True)
class HeldOut:
    """Clips to measure on.

    Args:
        clips: may be none.
        data_dir: of their dataset; None without clips.
        origin: a sentence that says how they were chosen.
        why_none: a sentence, where there are none.
        is_unseen: whether training is known to have left them out.
        chose_best: whether training took its best weights for their loss on these very clips.
        max_duration_s: training's longest window.
        max_windows: as many as training's validation read.
        missing: names of recorded clips that are not in the dataset any more.
        trained: clips of the dataset that training read, where it is the dataset of the training.
        why_not_trained: a sentence, where there are none.
    """

    clips: Sequence[Clip] = ()
    data_dir: Path | None = None
    origin: str = ""
    why_none: str = ""
    is_unseen: bool = False
    chose_best: bool = False
    max_duration_s: float = 30.0
    max_windows: int = 200
    missing: list[str] = field(default_factory=list)
    trained: Sequence[Clip] = ()
    why_not_trained: str = "which clips it was trained on is not known"

    @property
    def n_sources(self) -> int:
        """Number of independent recordings among the clips."""
        return len({clip.source for clip in self.clips})


def find_held_out(
    facts: AdapterFacts | None,
    data_dir: Path | None,
    metadata_file: str,
    *,
    from_tokens: bool = False,
    own_run: bool = False,
) -> HeldOut:
    """The held-out clips of an adapter.

    With a `data_dir`: the clips that training recorded as held out, matched by name, then by
    audio path; if none of them is there, the dataset's validation split; without one, all its
    clips. Without a `data_dir`: the recorded clips in the recorded folder, if it is this user's
    own training that recorded it.

    Args:
        facts: of the adapter; None for one that another tool made.
        data_dir: given by the user; None takes the recorded folder.
        from_tokens: the audio is not looked at.
        own_run: whether the adapter lies where this user trained it (`run_folder.is_own_run`).

    Raises:
        UserError: the `data_dir` that was given is not usable.
    """
    recorded = facts.held_out if facts is not None else []
    if data_dir is None:
        found = _in_recorded_folder(facts, from_tokens, own_run)
        # Whatever is measured on, the windows are training's own.
        return replace(found, **_windows(facts))
    clips = load_dataset(data_dir, metadata_file, look_at_files=not from_tokens)
    matched = _match(clips, recorded, data_dir, from_tokens)
    if facts is not None and matched:
        return _matched(matched, clips, data_dir, facts)
    validation = [clip for clip in clips if clip.split == "validation"]
    unmatched = (
        f"None of the {count(len(recorded), 'clip')} that training held out is in {data_dir}"
        if recorded
        else "The adapter names no held-out clips"
    )
    if validation:
        origin = (
            f"{unmatched}; measured on its validation split ({count(len(validation), 'clip')})."
        )
        return HeldOut(validation, data_dir, origin, **_windows(facts))
    named = facts.data_dir if facts is not None else None
    trained_here = named is not None and Path(named).resolve() == data_dir.resolve()
    doubt = (
        "the adapter was trained on them, so a lower loss proves nothing"
        if trained_here
        else "whether the adapter was trained on some of them is not known"
    )
    origin = (
        f"{unmatched}, and it has no validation split; measured on all its clips "
        f"({len(clips)}): {doubt}."
    )
    return HeldOut(clips, data_dir, origin, **_windows(facts))


def _in_recorded_folder(facts: AdapterFacts | None, from_tokens: bool, own_run: bool) -> HeldOut:
    if facts is None:
        return HeldOut(
            why_none="the adapter has no musicgen_lora.json that names its data (another tool "
            "made it); --data_dir names a dataset to measure on"
        )
    recorded = facts.held_out
    if not recorded:
        return HeldOut(
            why_none="training held no clips out; --data_dir names a dataset to measure on"
        )
    folder = Path(facts.data_dir or "")
    if not own_run:
        return HeldOut(
            why_none=f"the adapter names {folder} as its dataset, but does not lie in the folder "
            "where it was trained here, and another's adapter may name any folder; --data_dir "
            "says which dataset to measure on"
        )
    # Whatever the path is: of a file that a stranger made, it may be none at all.
    if not os.path.isdir(folder):
        return HeldOut(
            why_none=f"the dataset of the training is not in {folder} any more; --data_dir says "
            "where it is now"
        )
    try:
        clips = load_dataset(
            folder,
            facts.metadata_file or "metadata.json",
            look_at_files=not from_tokens,
        )
    except UserError as error:
        return HeldOut(why_none=f"the dataset of the training is not usable: {error}")
    matched = _match(clips, recorded, folder, from_tokens)
    if not matched:
        return HeldOut(
            why_none=f"none of the {count(len(recorded), 'clip')} that training held out is in "
            f"{folder} any more; --data_dir names another dataset"
        )
    return _matched(matched, clips, folder, facts)


def _match(
    clips: Sequence[Clip],
    recorded: Sequence[dict[str, Any]],
    data_dir: Path,
    from_tokens: bool,
) -> list[Clip]:
    """Clips that are recorded by name (or path) and, where ids are known, hold the same audio:
    another dataset may well have a `train/001.wav` too."""
    ids = {str(entry["id"]).split("@")[0] for entry in recorded if "id" in entry}
    for field_name, value_of in (("name", lambda clip: clip.name), ("audio", lambda c: c.audio)):
        known = {entry.get(field_name) for entry in recorded}
        found = [clip for clip in clips if value_of(clip) in known]
        if ids:
            ids_now = (kept_ids if from_tokens else clip_ids)(found, data_dir)
            hashes = [i.split("@")[0] for i in ids_now]
            found = [clip for clip, digest in zip(found, hashes, strict=True) if digest in ids]
        if found:
            return found
    return []


def _matched(
    matched: list[Clip], clips: Sequence[Clip], data_dir: Path, facts: AdapterFacts
) -> HeldOut:
    recorded = facts.held_out
    found = {clip.name for clip in matched} | {clip.audio for clip in matched}
    missing = [
        str(entry.get("name", entry.get("audio")))
        for entry in recorded
        if entry.get("name") not in found and entry.get("audio") not in found
    ]
    origin = f"Measured on the clips that training held out ({len(matched)})."
    if missing:
        origin = (
            f"Measured on {len(recorded) - len(missing)} of the {count(len(recorded), 'clip')} "
            "that training held out; the others are not in the dataset any more."
        )
    elif facts.n_held_out > len(recorded):
        origin = (
            f"Measured on {count(len(recorded), 'clip')} of the {facts.n_held_out:,} that training "
            "held out, evenly spread over them."
        )
    trained, n_trained = _trained(clips, matched, facts), facts.n_trained
    if n_trained is not None and len(trained) > n_trained:
        origin = (
            f"{origin} {count(len(trained), 'clip')} of the dataset may be those that training "
            f"read, which were {n_trained:,}: where clips were added since, figures of training "
            "clips are of some of those too."
        )
    return HeldOut(
        matched,
        data_dir,
        origin,
        is_unseen=True,
        chose_best=facts.chose_best,
        missing=missing,
        trained=trained,
        why_not_trained="the dataset has no clip but held-out ones",
        **_windows(facts),
    )


def _trained(clips: Sequence[Clip], matched: Sequence[Clip], facts: AdapterFacts) -> list[Clip]:
    """The clips of the dataset that no source or record says were held out."""
    recorded = facts.held_out
    sources = {clip.source for clip in matched}
    names = {entry.get(name) for entry in recorded for name in ("name", "audio")}
    found = [
        clip
        for clip in clips
        if clip.source not in sources and clip.name not in names and clip.audio not in names
    ]
    if facts.n_held_out <= len(recorded):
        return found
    # Not all of them are named.
    return [clip for clip in found if not is_held_out(clip, *facts.held_out_rule)]


def _windows(facts: AdapterFacts | None) -> dict[str, Any]:
    """Training's own windows, so that the loss here is the one that training printed."""
    if facts is None:
        return {}
    return {"max_duration_s": facts.max_duration_s, "max_windows": facts.max_validation_windows}
