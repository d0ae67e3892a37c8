"""Finds the clips that an adapter was not trained on, from the record of its training."""

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
        clips: may be empty.
        data_dir: folder of their dataset; None without clips.
        origin: a sentence on how they were chosen.
        why_none: the reason if there are none.
        is_unseen: whether training is known to have left them out.
        chose_best: whether training selected its best weights by the loss on these same clips.
        max_duration_s: the longest window of training.
        max_windows: the number of windows that training's validation used.
        heard: names of the clips that are known to be in the training dataset and not held out;
            None if that dataset can't be looked at, which `origin` says.
        missing: names of recorded clips that are no longer in the dataset.
        trained: clips that training used, if this is the training dataset.
        why_not_trained: the reason if there are none.
    """

    clips: Sequence[Clip] = ()
    data_dir: Path | None = None
    origin: str = ""
    why_none: str = ""
    is_unseen: bool = False
    chose_best: bool = False
    max_duration_s: float = 30.0
    max_windows: int = 200
    heard: frozenset[str] | None = frozenset()
    missing: list[str] = field(default_factory=list)
    trained: Sequence[Clip] = ()
    why_not_trained: str = "it is not known which clips the adapter was trained on"

    @property
    def n_sources(self) -> int:
        """Number of independent recordings among the clips."""
        return len({clip.source for clip in self.clips})

    @property
    def n_heard(self) -> int | None:
        """How many of the clips training heard; None if that is not known."""
        return None if self.heard is None else sum(clip.name in self.heard for clip in self.clips)


def find_held_out(
    facts: AdapterFacts | None,
    data_dir: Path | None,
    metadata_file: str,
    *,
    from_tokens: bool = False,
    own_run: bool = False,
) -> HeldOut:
    """Find the held-out clips of an adapter.

    With a `data_dir`: the clips that training recorded as held out, matched by name, then by
    audio path; if none of them is there, the dataset's validation split; if it has none, all its
    clips. Without a `data_dir`: the recorded clips in the recorded folder, if the record is of this
    user's own training.

    Args:
        facts: the adapter's facts; None for one made by another tool.
        data_dir: given by the user; None means the recorded folder.
        from_tokens: the audio is not read.
        own_run: whether the adapter is where this user trained it, see `record.run.is_own_run`.

    Raises:
        UserError: the given `data_dir` is not usable.
    """
    recorded = facts.held_out if facts is not None else []
    if data_dir is None:
        found = _in_recorded_folder(facts, from_tokens, own_run)
        # The windows are those of training, whatever the clips.
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
            f"{unmatched}; measured on the dataset's validation split "
            f"({count(len(validation), 'clip')})."
        )
    else:
        origin = (
            f"{unmatched}, and the dataset has no validation split; measured on all its clips "
            f"({len(clips)})."
        )
    measured, heard = validation or clips, None
    try:
        given = (data_dir, metadata_file, clips)
        heard = _heard(measured, given, facts, from_tokens, own_run)
    except UserError as error:
        why = str(error).rstrip(".")
        origin = f"{origin} The adapter may have been trained on some of them: {why}."
    if not (validation or heard or heard is None):
        origin = f"{origin} The adapter may have been trained on some of them."
    return HeldOut(measured, data_dir, origin, heard=heard, **_windows(facts))


def _heard(
    measured: Sequence[Clip],
    given: tuple[Path, str, Sequence[Clip]],
    facts: AdapterFacts | None,
    from_tokens: bool,
    own_run: bool,
) -> frozenset[str]:
    """Names of the measured clips whose audio training used, under whatever name.

    Args:
        given: the folder, metadata file and clips of the dataset that is measured on.

    Raises:
        UserError: that is not known; it says why.
    """
    data_dir, metadata_file, clips = given
    if facts is None or facts.data_dir is None:
        raise UserError("it names no dataset that it was trained on")
    folder, own_metadata = Path(facts.data_dir), facts.metadata_file or "metadata.json"
    ids_of = kept_ids if from_tokens else clip_ids
    try:
        is_here = os.path.realpath(folder) == os.path.realpath(data_dir)
        if not (is_here or own_run):
            raise UserError(
                f"it names {folder} as its dataset, which is not read, since the adapter is not in "
                "the folder where it was trained here"
            )
        if not os.path.isdir(folder):
            raise UserError(
                f"its dataset is no longer in {folder}, so these clips are not compared with it"
            )
        if not (is_here and own_metadata == metadata_file):
            clips = load_dataset(folder, own_metadata, look_at_files=not from_tokens)
        trained = _trained(clips, _match(clips, facts.held_out, folder, from_tokens), facts)
        in_training = {i.split("@")[0] for i in ids_of(trained, folder)}
        hashes = [i.split("@")[0] for i in ids_of(measured, data_dir)]
    except (OSError, ValueError) as error:
        raise UserError(f"its dataset in {folder} can't be read: {error}") from error
    # Clips without tokens have no hash that is kept.
    heard = in_training.intersection(hashes) - {""}
    if not heard and "" in in_training.union(hashes):
        raise UserError(f"not all clips of {folder} and {data_dir} have tokens to compare")
    return frozenset(c.name for c, own in zip(measured, hashes, strict=True) if own in heard)


def _in_recorded_folder(facts: AdapterFacts | None, from_tokens: bool, own_run: bool) -> HeldOut:
    if facts is None:
        return HeldOut(
            why_none="the adapter has no musicgen_lora.json that names its dataset (another tool "
            "made it); pass a dataset with --data_dir"
        )
    recorded = facts.held_out
    if not recorded:
        return HeldOut(
            why_none="training held out no clips; pass a dataset to measure on with --data_dir"
        )
    folder = Path(facts.data_dir or "")
    if not own_run:
        return HeldOut(
            why_none=f"the adapter names {folder} as its dataset, but is not in the folder where "
            "it was trained here, and an adapter from elsewhere may name any folder; pass the "
            "dataset to measure on with --data_dir"
        )
    # os.path.isdir never raises: a stranger's file may hold what is not even a valid path.
    if not os.path.isdir(folder):
        return HeldOut(
            why_none=f"the training dataset is no longer in {folder}; pass its new folder with "
            "--data_dir"
        )
    try:
        clips = load_dataset(
            folder,
            facts.metadata_file or "metadata.json",
            look_at_files=not from_tokens,
        )
    except UserError as error:
        return HeldOut(why_none=f"the training dataset is not usable: {error}")
    matched = _match(clips, recorded, folder, from_tokens)
    if not matched:
        return HeldOut(
            why_none=f"none of the {count(len(recorded), 'clip')} that training held out is in "
            f"{folder} any more; pass another dataset with --data_dir"
        )
    return _matched(matched, clips, folder, facts)


def _match(
    clips: Sequence[Clip],
    recorded: Sequence[dict[str, Any]],
    data_dir: Path,
    from_tokens: bool,
) -> list[Clip]:
    """Clips that are recorded by name (or path) and, if ids are known, have the same audio:
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
            "that training held out; the others are no longer in the dataset."
        )
    elif facts.n_held_out > len(recorded):
        origin = (
            f"Measured on {count(len(recorded), 'clip')} of the {facts.n_held_out:,} that training "
            "held out, evenly spaced."
        )
    recaptioned = _recaptioned(matched, recorded)
    if recaptioned:
        origin = (
            f"{origin} {count(len(recaptioned), 'clip')} of them, such as {recaptioned[0]}, had "
            "another caption in training: losses with the new one can't be compared with those "
            "that training printed."
        )
    trained, n_trained = _trained(clips, matched, facts), facts.n_trained
    if n_trained is not None and len(trained) > n_trained:
        origin = (
            f"{origin} {count(len(trained), 'clip')} of the dataset may be training clips, but "
            f"training used only {n_trained:,}: if clips were added since, figures for training "
            "clips include some of them."
        )
    return HeldOut(
        matched,
        data_dir,
        origin,
        is_unseen=True,
        chose_best=facts.chose_best,
        missing=missing,
        trained=trained,
        why_not_trained="the dataset has only held-out clips",
        **_windows(facts),
    )


def _recaptioned(matched: Sequence[Clip], recorded: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the clips whose first caption isn't the recorded one."""
    texts = {entry.get(key): entry.get("text") for key in ("audio", "name") for entry in recorded}
    known = [(clip, texts.get(clip.name, texts.get(clip.audio))) for clip in matched]
    return [clip.name for clip, text in known if text is not None and text != clip.texts[0]]


def _trained(clips: Sequence[Clip], matched: Sequence[Clip], facts: AdapterFacts) -> list[Clip]:
    """The clips of the dataset that neither their source nor the record marks as held out."""
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
    """The window settings of training, so that the loss here is the one that training printed."""
    if facts is None:
        return {}
    return {"max_duration_s": facts.max_duration_s, "max_windows": facts.max_validation_windows}
