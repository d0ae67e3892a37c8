"""Finds the files of an input folder, the facts written about them, and exact copies."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.audio.files import AUDIO_EXTENSIONS, find_audio, find_unread, hidden_part
from musicgen_lora.dataset.splits import find_split, split_of_folders
from musicgen_lora.errors import RunError, UserError, printable
from musicgen_lora.plural import count
from musicgen_lora.prepare.reading.fields import Columns, facts_from_record
from musicgen_lora.prepare.reading.parquet import extract_parquet_audio, find_parquet
from musicgen_lora.prepare.reading.readers import StatedFacts, facts_from_path
from musicgen_lora.prepare.reading.remarks import (
    COPY_HELD_OUT,
    FOLDER_SPLIT,
    GENERATED,
    PREPARED,
    SPLIT_CONTRADICTED,
    Remarks,
)
from musicgen_lora.prepare.words.facts import Facts, FilePart

COPY_NAME = re.compile(r"( ?\(\d+\)| copy( \d+)?|[ -]+副本( ?\(?\d+\)?)?)$", re.IGNORECASE)
"""The names that systems give to second copies or downloads."""
PARQUET_FOLDER = "analysis/parquet"
"""The dataset's folder for audio from parquet files. It can be deleted and is made again."""
OF_GENERATED = {"musicgen_lora", "model", "seed"}
"""What the JSON beside a generated clip has."""
OWN_NAMES = ("analysis", "tokens", "report.json")
"""Files and folders written into the dataset that are not metadata of the input."""


@dataclass(frozen=True)
class Input:
    """A file of the input folder.

    Args:
        name: its path below the input folder, with `/`.
        in_place: its path in the dataset, if it lies there; such a file is never rewritten.
        stated: facts from metadata and from files beside it, the most trusted first.
        named: facts from its name and its folders' names.
        split: the split's name in its metadata or folder; None if neither gives one.
    """

    path: Path
    name: str
    digest: str
    in_place: str | None
    stated: tuple[Facts, ...]
    named: tuple[Facts, ...]
    split: str | None = None

    @property
    def is_held_out(self) -> bool:
        """Whether its split is held out."""
        return self.split is not None and find_split(self.split) == "validation"

    @property
    def is_captioned(self) -> bool:
        """Whether somebody wrote a caption for it."""
        return any(facts.text for facts in self.stated)

    @property
    def source(self) -> str | None:
        """The recording that it comes from, if the metadata names one."""
        return next((facts.source for facts in self.stated if facts.source), None)

    @property
    def parts(self) -> tuple[FilePart, ...]:
        """The parts that the metadata describes, in their order in the file."""
        by_start = {facts.part[0]: facts.part for facts in self.stated if facts.part is not None}
        return tuple(by_start[start_s] for start_s in sorted(by_start))


@dataclass(frozen=True)
class Dropped:
    """A file that is left out, the reason, and the file that it is a copy of, if it is one."""

    name: str
    reason: str
    equals: str | None = None


def find_inputs(
    input_dir: Path, output_dir: Path, metadata: Path, remarks: Remarks
) -> tuple[list[Input], list[Dropped]]:
    """The files below a folder, and those that can't be read or have a broken file beside them.

    Args:
        output_dir: the dataset; if it lies in `input_dir`, its files are not input.

    Raises:
        UserError: no audio, or a broken metadata file in the folder.
    """
    files = find_audio(input_dir)
    dataset = output_dir.resolve()
    own = [metadata, *(dataset / name for name in OWN_NAMES), *dataset.glob("*.ledger.json")]
    if dataset.is_relative_to(input_dir.resolve()) and dataset != input_dir.resolve():
        files = [file for file in files if not file.resolve().is_relative_to(dataset)]
        own = [dataset]
    extracted = dataset / PARQUET_FOLDER
    files = [file for file in files if not file.resolve().is_relative_to(extracted)]
    _say_datasets(input_dir, files, remarks)
    inputs, dropped = _parquet_inputs(input_dir, output_dir, remarks)
    dropped += _unreadable_folders(input_dir)
    # The dataset may lie in a hidden folder.
    unread = [
        (path, why)
        for path, why in find_unread(input_dir)
        if not dataset.is_relative_to(os.path.realpath(path))
    ]
    if not files and not inputs:
        hint = f"; {unread[0][0].relative_to(input_dir)} {unread[0][1]}" if unread else "."
        raise UserError(
            f"{input_dir}: no audio in it (WAV, MP3, FLAC, OGG, Opus, AIFF, CAF, AU, M4A or AAC, "
            f"or parquet with audio inside, in any subfolder){hint}"
        )
    dropped += [Dropped(path.relative_to(input_dir).as_posix(), why) for path, why in unread]
    facts = StatedFacts(input_dir, files, remarks, without=own)
    for file in files:
        name = file.relative_to(input_dir).as_posix()
        if fault := _name_fault(name):
            dropped.append(Dropped(printable(name), fault))
            continue
        try:
            stated = tuple(facts.about(file))
            _check_parts(stated)
            digest = atomic.sha256_file(file)
        except UserError as error:
            dropped.append(Dropped(name, str(error)))
        except OSError as error:
            dropped.append(Dropped(name, f"cannot be read ({error.strerror})."))
        else:
            # Files that training can't read become WAV, wherever they lie.
            is_usable = file.suffix.lower() in AUDIO_EXTENSIONS
            in_place = _path_inside(file, dataset) if is_usable else None
            named = tuple(facts_from_path(name))
            if any(each.other.keys() >= OF_GENERATED for each in stated):
                remarks.add(GENERATED, name)
            inputs.append(Input(file, name, digest, in_place, stated, named))
    facts.say_unread()
    return _with_splits(inputs, remarks), dropped


def _say_datasets(input_dir: Path, files: Iterable[Path], remarks: Remarks) -> None:
    """Says which folders below the input are datasets that an earlier run made elsewhere."""
    folders = {file.parent for file in files}
    for folder in sorted(folders | {parent for one in folders for parent in one.parents}):
        is_below = folder != input_dir and folder.is_relative_to(input_dir)
        if is_below and any(folder.glob("*.ledger.json")):
            remarks.add(PREPARED, str(folder))


def _name_fault(name: str) -> str:
    """What is wrong with a file's name; "" for nothing."""
    encoding = sys.getfilesystemencoding()
    if encoding.lower() != "utf-8" and not name.isascii():
        # Read otherwise, it may be valid and mean something else.
        with suppress(UnicodeError):
            os.fsencode(name).decode()
            return (
                f"its name is in UTF-8, but this system's locale has names read as {encoding}; set "
                "PYTHONUTF8=1 in the environment."
            )
    try:
        name.encode()
    except UnicodeEncodeError:
        # Archives may yield names in another encoding, which JSON can't hold.
        return "its name is not valid text; rename it."
    return ""


def _unreadable_folders(input_dir: Path) -> list[Dropped]:
    """Folders that can't be opened, which the search for files silently skips. Hidden ones, such as
    a system's own on a disk, aren't searched anyway."""
    errors: list[OSError] = []
    for _ in os.walk(input_dir, onerror=errors.append):
        pass
    return [
        Dropped(
            Path(error.filename).relative_to(input_dir).as_posix(),
            f"a folder that can't be opened ({error.strerror}); give yourself permission "
            "(chmod u+rx).",
        )
        for error in errors
        if hidden_part(Path(error.filename), input_dir) is None
    ]


def _check_parts(stated: Iterable[Facts]) -> None:
    """Checks that parts with the same start, which identifies a clip, have the same end.

    Raises:
        UserError: two parts begin at the same time and end at different times.
    """
    ends: dict[float, tuple[float | None, str]] = {}
    for facts in stated:
        if facts.part is None:
            continue
        start_s, end_s = facts.part
        where = facts.sources["part"]
        other_end_s, other = ends.setdefault(start_s, (end_s, where))
        if other_end_s != end_s:
            raise UserError(
                f"{where} and {other} describe parts that both begin at {start_s:g} s and end at "
                "different times; keep only one of them."
            )


def _with_splits(inputs: Sequence[Input], remarks: Remarks) -> list[Input]:
    """The files with their splits: the metadata's, otherwise that of their folders' names.

    Folders called `train` count only if others are held out: alone they are just where the audio
    happens to be.
    """
    folders = {f.name: split_of_folders(PurePosixPath(f.name).parts[:-1]) for f in inputs}
    if all(split is None or find_split(split) == "train" for split in folders.values()):
        folders = {}
    counts: dict[str, int] = {}
    found = []
    for file in inputs:
        stated = list(dict.fromkeys(facts.split for facts in file.stated if facts.split))
        if len({find_split(split) for split in stated}) > 1:
            remarks.add(SPLIT_CONTRADICTED, f"{file.name}: {', '.join(stated)}")
        # If splits contradict each other, hold out: nothing that someone tests with is trained on.
        stated.sort(key=lambda split: find_split(split) != "validation")
        split = stated[0] if stated else folders.get(file.name)
        if not stated and split is not None:
            counts[split] = counts.get(split, 0) + 1
        found.append(replace(file, split=split))
    for split, number in counts.items():
        files = count(number, "file")
        if find_split(split) == "validation":
            remarks.add(FOLDER_SPLIT, f"{split}: {files} held out from training")
        else:
            remarks.add(FOLDER_SPLIT, f"{split}: {files} for training")
    return found


def _parquet_inputs(
    input_dir: Path, output_dir: Path, remarks: Remarks
) -> tuple[list[Input], list[Dropped]]:
    """The audio in a Hugging Face dataset's parquet files, extracted to the dataset's
    `PARQUET_FOLDER`, with the facts from each row."""
    inputs, dropped = [], []
    extracted = output_dir / PARQUET_FOLDER
    for parquet in find_parquet(input_dir, without=output_dir):
        columns = Columns()
        try:
            for file, record in extract_parquet_audio(parquet, input_dir, extracted):
                name = file.relative_to(extracted).as_posix()
                columns.see(record)
                facts = facts_from_record(record, f"{parquet}, row {int(file.stem)}", remarks)
                # A start is a position in the file that this audio was cut from.
                stated = (replace(facts, part=None),)
                inputs.append(Input(file, name, atomic.sha256_file(file), None, stated, ()))
        except RunError:
            # The disk's fault, not the file's.
            raise
        except UserError as error:
            dropped.append(Dropped(parquet.relative_to(input_dir).as_posix(), str(error)))
        columns.say(str(parquet), remarks, needs_captions=True)
    return inputs, dropped


def _path_inside(file: Path, folder: Path) -> str | None:
    """The path of a file relative to a folder, if it lies in it."""
    resolved = file.resolve()
    if not resolved.is_relative_to(folder):
        return None
    return resolved.relative_to(folder).as_posix()


def without_copies(
    inputs: Sequence[Input], entries: Iterable[Mapping[str, Any]], remarks: Remarks
) -> tuple[list[Input], list[Dropped]]:
    """Keeps one file of each content: the one that the dataset lists, otherwise the first in order,
    with names of copies last and links, which may break, after them. The facts about its copies
    apply to it too, and it is held out if one of them is."""
    inputs = sorted(
        inputs,
        key=lambda file: (file.path.is_symlink(), bool(COPY_NAME.search(Path(file.name).stem))),
    )
    listed = {(entry.get("made_from"), entry.get("source")) for entry in entries}
    in_dataset = {entry.get("audio") for entry in entries}
    kept: dict[str, Input] = {}
    for file in inputs:
        first = kept.setdefault(file.digest, file)
        is_listed = (file.digest, file.name) in listed or file.in_place in in_dataset
        if is_listed and (first.digest, first.name) not in listed:
            kept[file.digest] = file
    dropped = []
    told: dict[str, Input] = {}
    for file in inputs:
        stays = kept[file.digest]
        if file is stays:
            continue
        if file.in_place not in in_dataset - {None}:
            dropped.append(Dropped(file.name, f"the same bytes as {stays.name}.", stays.name))
        so_far = told.get(file.digest, stays)
        told[file.digest] = with_split_of(
            replace(
                so_far,
                stated=(*so_far.stated, *file.stated),
                named=(*so_far.named, *file.named),
            ),
            file,
            remarks,
        )
    order = [told.get(f.digest, f) for f in inputs if kept[f.digest] is f]
    return order, dropped


def with_split_of(file: Input, copy: Input, remarks: Remarks) -> Input:
    """A kept file, held out if its copy, which is left out, is."""
    if copy.is_held_out and not file.is_held_out:
        remarks.add(COPY_HELD_OUT, f"{file.name} (as {copy.name})")
        return replace(file, split=copy.split)
    return replace(file, split=file.split or copy.split)
