"""Adapters, checkpoints of a run and strengths to compare side by side, and their names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.formats.documents import LARGE, read_bytes
from musicgen_lora.model.lora.adapter import AdapterFiles, read_adapter
from musicgen_lora.model.lora.facts import FACTS_FILE, AdapterFacts
from musicgen_lora.plural import count

ALONE = "adapter"
"""Name of the variant if there is only one."""
CHECKPOINTS, BEST = "checkpoints", "best_model"
"""Folders of a run."""


@dataclass(frozen=True)
class Variant:
    """An adapter at a strength.

    Args:
        name: unique name in report.json, also of the folder of its clips.
        strength: 0 is the base, 1 the adapter as it was trained.
    """

    name: str
    label: str
    files: AdapterFiles
    strength: float


def read_variant(folder: Path) -> AdapterFiles:
    """Read an adapter; a checkpoint of a run gets the facts of the run's best model, except for its
    weights, and is measured on the same clips.

    Raises:
        UserError: there is no adapter, or a damaged one.
    """
    files = read_adapter(folder)
    path = home_of(folder) / FACTS_FILE
    if files.facts is not None or path.parent == folder or not path.is_file():
        return files
    return replace(files, facts=AdapterFacts.parse(read_bytes(path, LARGE), path))


def home_of(folder: Path) -> Path:
    """The folder that has an adapter's facts: for a checkpoint, the run's best model."""
    run = Path(os.path.abspath(folder)).parents
    return run[1] / BEST if len(run) > 1 and run[0].name == CHECKPOINTS else folder


def list_variants(adapters: Sequence[AdapterFiles], strengths: Sequence[float]) -> list[Variant]:
    """Each adapter at each strength, in the given order, without duplicates.

    Args:
        adapters: at least one.
        strengths: empty means 1.
    """
    strengths = list(dict.fromkeys(strengths)) or [1.0]
    adapters = list({own.fingerprint: own for own in adapters}.values())
    labels = _labels([own.folder for own in adapters])
    if len(adapters) == len(strengths) == 1:
        return [Variant(ALONE, _label(labels[0], strengths[0]), adapters[0], strengths[0])]
    variants = []
    for label, own in zip(labels, adapters, strict=True):
        for strength in strengths:
            told = _label(label, strength)
            slug = re.sub(r"[^a-z0-9.]+", "-", told.lower()).strip("-.")[:40]
            name = f"{len(variants) + 1:02d}_{slug}"
            variants.append(Variant(name, told, own, strength))
    return variants


def _label(label: str, strength: float) -> str:
    return label if strength == 1.0 else f"{label} x {strength:g}"


def _labels(folders: Sequence[Path]) -> list[str]:
    """Labels of adapters: the shortest path endings that distinguish them."""
    parts = [folder.absolute().parts for folder in folders]
    for n in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(own[-n:]) for own in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def common_held_out(found: Sequence[HeldOut], names: Sequence[str]) -> HeldOut:
    """The clips that all of several adapters can be measured on: none was trained on them.

    Args:
        found: the held-out clips of each adapter; at least one.
    """
    first = found[0]
    for own, name in zip(found, names, strict=True):
        if not own.clips:
            return replace(first, clips=(), data_dir=None, why_none=f"{name}: {own.why_none}")
        if own.data_dir != first.data_dir:
            why = f"{names[0]} and {name} have no dataset in common; pass one with --data_dir"
            return replace(first, clips=(), data_dir=None, why_none=why)
    if all(list(own.clips) == list(first.clips) for own in found):
        return replace(_least_sure(found), heard=_heard_by_any(found))
    in_all = set.intersection(*({clip.name for clip in own.clips} for own in found))
    clips = [clip for clip in first.clips if clip.name in in_all]
    if not clips:
        why = "no clip was held out from all training runs; pass another dataset with --data_dir"
        return replace(first, clips=(), data_dir=None, why_none=why)
    trained = set.intersection(*({clip.name for clip in own.trained} for own in found))
    is_unseen = all(own.is_unseen for own in found)
    origin = f"Measured on the {count(len(clips), 'clip')} that all training runs held out."
    if not is_unseen:
        origin = (
            f"Measured on the {count(len(clips), 'clip')} that can be measured for all adapters. "
            f"{_least_sure(found).origin}"
        )
    return replace(
        first,
        clips=clips,
        origin=origin,
        is_unseen=is_unseen,
        heard=_heard_by_any(found),
        chose_best=any(own.chose_best for own in found),
        max_duration_s=min(own.max_duration_s for own in found),
        max_windows=min(own.max_windows for own in found),
        trained=[clip for clip in first.trained if clip.name in trained],
        why_not_trained="no clip was used in all training runs",
    )


def _heard_by_any(found: Sequence[HeldOut]) -> frozenset[str] | None:
    """The clips that any of the trainings is known to have heard; None if none is known, and what
    one of them heard is not."""
    known = frozenset().union(*(own.heard or () for own in found))
    return None if not known and any(own.heard is None for own in found) else known


def _least_sure(found: Sequence[HeldOut]) -> HeldOut:
    """The one whose doubts are to be told."""
    return min(found, key=lambda own: (own.heard is not None, own.is_unseen))
