"""The files of an input folder, with what is written about them, and exact copies among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.audio.files import AUDIO_EXTENSIONS, find_audio
from musicgen_lora.data.facts import Facts
from musicgen_lora.data.readers import (
    facts_beside,
    facts_from_path,
    facts_from_record,
    listed_facts,
)
from musicgen_lora.data.tables import extract_parquet_audio, find_parquet
from musicgen_lora.errors import UserError

PARQUET_FOLDER = "analysis/parquet"
"""In the dataset: audio out of parquet files. It can be deleted and is made again."""


@dataclass(frozen=True)
class Input:
    """A file of the input folder.

    Args:
        path: the file.
        name: its path below the input folder, with `/`.
        digest: SHA-256 of its bytes.
        in_place: its path below the dataset, where it lies in it; such a file is never rewritten.
        stated: what metadata and files beside it say, the most trusted first.
        named: what its name and its folders' names say.
    """

    path: Path
    name: str
    digest: str
    in_place: str | None
    stated: tuple[Facts, ...]
    named: tuple[Facts, ...]


@dataclass(frozen=True)
class Dropped:
    """A file that is left out, why, and the file that it equals, if it is a copy."""

    name: str
    reason: str
    equals: str | None = None


def find_inputs(
    input_dir: Path, output_dir: Path, metadata: Path
) -> tuple[list[Input], list[Dropped]]:
    """The files below a folder, and those that can't be read or whose side file is broken.

    Args:
        input_dir: searched with its subfolders.
        output_dir: the dataset; if it lies in `input_dir`, what was made from it is no input.
        metadata: of the dataset; it says nothing about the input.

    Raises:
        UserError: no audio, or a metadata file of the folder that is broken.
    """
    files = find_audio(input_dir)
    dataset, own_metadata = output_dir.resolve(), metadata
    if dataset.is_relative_to(input_dir.resolve()) and dataset != input_dir.resolve():
        files = [file for file in files if not file.resolve().is_relative_to(dataset)]
        own_metadata = dataset
    extracted = dataset / PARQUET_FOLDER
    files = [file for file in files if not file.resolve().is_relative_to(extracted)]
    inputs, dropped = _parquet_inputs(input_dir, output_dir)
    if not files and not inputs:
        raise UserError(
            f"{input_dir}: no audio in it (WAV, MP3, FLAC, OGG, Opus, AIFF, M4A or AAC, or parquet "
            "with audio inside, in any subfolder)."
        )
    names = {file: file.relative_to(input_dir).as_posix() for file in files}
    listed = listed_facts(input_dir, list(names.values()), without=own_metadata)
    for file, name in names.items():
        try:
            name.encode()
            stated = (*listed.get(name, ()), *facts_beside(file, input_dir))
            digest = atomic.sha256_file(file)
        except UnicodeEncodeError:
            # As bytes of another encoding come out of archives; JSON has no way to write them.
            dropped.append(Dropped(printable(name), "its name is not valid text; rename it."))
        except UserError as error:
            dropped.append(Dropped(name, str(error)))
        except OSError as error:
            dropped.append(Dropped(name, f"cannot be read ({error.strerror})."))
        else:
            # What training can't read becomes WAV, wherever it lies.
            is_usable = file.suffix.lower() in AUDIO_EXTENSIONS
            in_place = _path_inside(file, dataset) if is_usable else None
            named = tuple(facts_from_path(name))
            inputs.append(Input(file, name, digest, in_place, stated, named))
    return inputs, dropped


def _parquet_inputs(input_dir: Path, output_dir: Path) -> tuple[list[Input], list[Dropped]]:
    """The audio inside a Hugging Face dataset's parquet files, written to files of their own in
    the dataset's `PARQUET_FOLDER`; what each row says is stated of it."""
    inputs, dropped = [], []
    extracted = output_dir / PARQUET_FOLDER
    for parquet in find_parquet(input_dir, without=output_dir):
        try:
            for file, record in extract_parquet_audio(parquet, input_dir, extracted):
                name = file.relative_to(extracted).as_posix()
                stated = (facts_from_record(record, f"{parquet}, row {int(file.stem)}"),)
                inputs.append(Input(file, name, atomic.sha256_file(file), None, stated, ()))
        except UserError as error:
            dropped.append(Dropped(parquet.relative_to(input_dir).as_posix(), str(error)))
    return inputs, dropped


def _path_inside(file: Path, folder: Path) -> str | None:
    """Path of a file relative to a folder, if it lies in it."""
    resolved = file.resolve()
    if not resolved.is_relative_to(folder):
        return None
    return resolved.relative_to(folder).as_posix()


def printable(name: str) -> str:
    """A name on one line: line breaks, escape sequences and broken bytes are spelled out."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )


def without_copies(
    inputs: Sequence[Input], entries: Iterable[Mapping[str, Any]]
) -> tuple[list[Input], list[Dropped]]:
    """One file of each content: the one that the dataset lists, else the first."""
    listed = {(entry.get("made_from"), entry.get("source")) for entry in entries}
    in_dataset = {entry.get("audio") for entry in entries}
    kept: dict[str, Input] = {}
    for file in inputs:
        first = kept.setdefault(file.digest, file)
        is_listed = (file.digest, file.name) in listed or file.in_place in in_dataset
        if is_listed and (first.digest, first.name) not in listed:
            kept[file.digest] = file
    dropped = [
        Dropped(file.name, f"the same bytes as {kept[file.digest].name}.", kept[file.digest].name)
        for file in inputs
        if file is not kept[file.digest] and file.in_place not in in_dataset - {None}
    ]
    order = [file for file in inputs if kept[file.digest] is file]
    return order, dropped
