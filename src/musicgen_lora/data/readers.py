"""Captions and facts that come with a folder of audio, wherever they stand.

Read for each file, the most trusted first:

1. metadata files, the one nearest to the audio first: `metadata.json` (a list of entries, or an
   object by path), `metadata.jsonl`, `.csv`, `.parquet` (Hugging Face's audiofolder), and the
   same called `captions`; audiocraft's manifest `data.jsonl` or `data.jsonl.gz`;
2. `x.json`, then `x.txt` beside `x.wav` (or `x.wav.json`, `x.wav.txt`);
3. tags inside the file: ID3, Vorbis, RIFF, MP4;
4. the file's name;
5. the names of its folders, the nearest first.

Of each field the surest value wins, among equals the earlier source; every caption is kept in
`texts`. Captions come from 1 and 2 only: a title or a tag's comment is none.

Everything here was made by others. Paths stay inside the folder, sizes are bounded, and what is
broken is named with its line.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from tinytag import TinyTag, TinyTagException

from musicgen_lora.audio.files import find_audio
from musicgen_lora.data.facts import (
    GENRES,
    GUESSED,
    STATED,
    Facts,
    facts_from_name,
    find_words,
    make_facts,
    merge_facts,
    normalise_bpm,
    normalise_key,
)
from musicgen_lora.data.tables import read_json, read_rows, read_text
from musicgen_lora.errors import UserError

METADATA_NAMES = (
    *(f"metadata{suffix}" for suffix in (".json", ".jsonl", ".csv", ".parquet")),
    *(f"captions{suffix}" for suffix in (".json", ".jsonl", ".csv", ".parquet")),
    *("data.jsonl", "data.jsonl.gz"),
)
"""In this order where a folder has several."""
PATH_FIELDS = ("file_name", "audio", "path", "file", "filename", "audio_path", "file_path")
TEXT_FIELDS = ("text", "caption", "description", "prompt")
TEXTS_FIELDS = ("texts", "captions", "descriptions")
TAG_FIELDS = ("tags", "keywords", "moods", "mood", "instrument", "instruments")
MAX_CAPTION = 10_000
"""Characters; T5 reads a few hundred words."""
MAX_WORD = 200
"""Of a tag, a genre or a title."""
MAX_TAG_BYTES = 16 << 20
"""What is read of a file for its tags; covers are skipped."""


def read_captions(folder: Path) -> dict[str, Facts]:
    """Facts about the audio below a folder.

    Returns:
        By path relative to `folder` (with `/`): every audio file, and what else the metadata
        lists, though it is missing.

    Raises:
        UserError: no such folder; metadata that is broken or points outside the folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the one with your audio.")
    audio = {file.relative_to(folder).as_posix(): file for file in find_audio(folder)}
    listed = listed_facts(folder, list(audio))
    captions = {}
    for name in sorted(audio.keys() | listed.keys()):
        found = listed.get(name, [])
        if name in audio:
            found = [*found, *facts_beside(audio[name], folder), facts_from_tags(audio[name])]
        captions[name] = merge_facts([*found, *facts_from_path(name)])
    return captions


def facts_from_path(name: str) -> list[Facts]:
    """What a relative path says: the file's name, then its folders', the nearest first."""
    path = PurePosixPath(name)
    folders = [facts_from_name(part, f"folder {part!r}") for part in reversed(path.parts[:-1])]
    return [facts_from_name(path.name), *folders]


def listed_facts(
    folder: Path, audio: list[str], without: Path | None = None
) -> dict[str, list[Facts]]:
    """What the metadata files below a folder say, by relative path; the nearest file first.

    Args:
        folder: searched with its subfolders.
        audio: paths of the audio in it, relative to it.
        without: a file, or a folder, that is passed over: the dataset that is being made.

    Raises:
        UserError: metadata that is broken or points outside the folder.
    """
    root = folder.resolve()
    passed_over = without.resolve() if without is not None else None
    files = [
        path
        for path in folder.rglob("*")
        if path.name.lower() in METADATA_NAMES
        and path.is_file()
        and path.resolve().is_relative_to(root)
        and (passed_over is None or not path.resolve().is_relative_to(passed_over))
    ]
    files.sort(key=lambda path: (-len(path.parts), METADATA_NAMES.index(path.name.lower()), path))
    by_file_name: dict[str, list[str]] = {}
    for name in audio:
        by_file_name.setdefault(PurePosixPath(name).name, []).append(name)
    listed: dict[str, list[Facts]] = {}
    for path in files:
        for where, row in read_rows(path):
            record = {str(field).strip().lower(): value for field, value in row.items()}
            given = next((record[name] for name in PATH_FIELDS if record.get(name)), None)
            if isinstance(given, Mapping):
                # As Hugging Face's datasets print an audio cell.
                given = given.get("path")
            if not isinstance(given, str) or not given.strip():
                raise UserError(f"{where}: names no file; give one as {PATH_FIELDS[0]!r}.")
            name = _relative_path(given, path.parent, folder, by_file_name, where)
            listed.setdefault(name, []).append(facts_from_record(record, where))
    return listed


def _relative_path(
    given: str, base: Path, folder: Path, by_file_name: Mapping[str, list[str]], where: str
) -> str:
    """The path relative to `folder` of a file that the metadata in `base` names.

    Metadata moves: manifests hold the absolute paths of another machine, and lists the bare names
    of files that were sorted into folders since. So where the path itself leads nowhere, the one
    file that ends in the longest part of it is meant.

    Raises:
        UserError: the path leads outside and no file inside is meant.
    """
    at_once = posixpath.normpath((base.relative_to(folder) / given).as_posix())
    if at_once in by_file_name.get(posixpath.basename(at_once), ()):
        return at_once
    root = folder.resolve()
    candidates = [given] if "\\" not in given else [given, given.replace("\\", "/")]
    inside = None
    for candidate in candidates:
        try:
            resolved = (base / candidate).resolve()
            if resolved.is_relative_to(root):
                inside = inside or resolved.relative_to(root).as_posix()
                if resolved.is_file():
                    return resolved.relative_to(root).as_posix()
        except (OSError, ValueError) as error:
            raise UserError(f"{where}: {given!r} is not a usable path ({error}).") from error
    parts = [part for part in candidates[-1].split("/") if part not in ("", ".")]
    if ".." not in parts:
        for start in range(len(parts)):
            ending = "/".join(parts[start:])
            meant = [
                name
                for name in by_file_name.get(parts[-1], ())
                if f"/{name}".endswith(f"/{ending}")
            ]
            if len(meant) == 1:
                return meant[0]
            if meant:
                break
    if inside is None:
        raise UserError(f"{where}: {given} points outside {folder}; put the audio into it.")
    return inside


def facts_beside(file: Path, folder: Path) -> list[Facts]:
    """What `.json` and `.txt` files beside an audio file say.

    Raises:
        UserError: not readable as such.
    """
    found = []
    root = folder.resolve()
    for suffix in (".json", ".txt"):
        for beside in (file.with_suffix(suffix), file.with_name(file.name + suffix)):
            if beside.name.lower() in METADATA_NAMES or not _is_file(beside):
                continue
            if not beside.resolve().is_relative_to(root):
                continue
            if suffix == ".txt":
                text = " ".join(read_text(beside).split())
                found.append(facts_from_record({"text": text}, str(beside)))
                continue
            content = read_json(beside)
            if not isinstance(content, dict):
                raise UserError(f'{beside}: must be an object such as {{"text": ...}}.')
            found.append(facts_from_record(content, str(beside)))
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A name of 255 bytes has no room for another suffix.
        return False


def facts_from_record(record: Mapping[str, Any], where: str) -> Facts:
    """Facts of one entry of metadata, whatever it calls them.

    Args:
        record: by field name; unknown fields, null, NaN and "" are ignored. A list of captions
            may stand where one is expected.
        where: file and line, for messages and as the source.

    Raises:
        UserError: a caption that isn't text, or is beyond 10,000 characters.
    """
    fields = {name.strip().lower(): value for name, value in record.items()}
    texts = [
        text
        for name in (*TEXT_FIELDS, *TEXTS_FIELDS)
        for text in _texts(fields.get(name), f"{where}: {name!r}")
    ]
    tags = []
    for name in TAG_FIELDS:
        value = fields.get(name)
        # Tables hold lists as "dark, piano".
        words = value.split(",") if isinstance(value, str) else value
        tags += [tag.lower() for tag in _words(words)]
    genres = [genre.lower() for genre in _words(fields.get("genre"))]
    return make_facts(
        where,
        {},
        text=texts[0] if texts else None,
        texts=tuple(dict.fromkeys(texts)),
        bpm=normalise_bpm(fields.get("bpm") or fields.get("tempo")),
        key=normalise_key(fields.get("key") or fields.get("initial_key")),
        genre=genres[0] if genres else None,
        tags=tuple(dict.fromkeys([*genres[1:], *tags])),
        title=next(iter(_words(fields.get("title"))), None),
        artist=next(iter(_words(fields.get("artist"))), None),
    )


def _texts(value: object, where: str) -> list[str]:
    """The captions in a value, spaces tidied, empty ones left out."""
    found = []
    for item in _items(value):
        if not isinstance(item, str):
            raise UserError(f"{where} must be text, not {str(item)[:40]!r}.")
        tidy = " ".join(item.split())
        if len(tidy) > MAX_CAPTION:
            raise UserError(f"{where} has {len(tidy)} characters; {MAX_CAPTION} are the most.")
        if tidy:
            found.append(tidy)
    return found


def _words(value: object) -> list[str]:
    """The short texts in a value; others call other things so, those are left out."""
    words = [str(item) for item in _items(value) if isinstance(item, (str, int))]
    return [" ".join(word.split()) for word in words if word.strip() and len(word) <= MAX_WORD]


def _items(value: object) -> list[object]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    # NaN is what tables have for nothing; it differs from itself.
    return [item for item in values if item is not None and item == item]


def facts_from_tags(file: Path) -> Facts:
    """What the tags inside an audio file say. Files without tags, or with broken ones, say
    nothing: whether the audio is usable is for its decoder to tell."""
    try:
        with open(file, "rb") as stream:
            bounded = cast(BinaryIO, _BoundedReader(stream, MAX_TAG_BYTES))
            tag = TinyTag.get(file_obj=bounded, duration=False)
    except (TinyTagException, OSError, ValueError):
        return Facts()
    other = {name: values[0] for name, values in tag.other.items() if values}
    genre = next(iter(_words(tag.genre)), None)
    known = find_words(genre or "", GENRES)
    return make_facts(
        "tags",
        {
            "bpm": STATED,
            "key": STATED,
            # Many programs write a genre that nobody chose.
            "genre": STATED if known else GUESSED,
        },
        bpm=normalise_bpm(other.get("bpm")),
        key=normalise_key(other.get("initial_key")),
        genre=known[0] if known else genre and genre.lower(),
        tags=known[1:],
        title=next(iter(_words(tag.title)), None),
        artist=next(iter(_words(tag.artist)), None),
    )


class _BoundedReader:
    """A binary file of which no more than so many bytes can be read, all reads together.

    Headers lie about how long a tag is."""

    def __init__(self, stream: BinaryIO, max_bytes: int) -> None:
        self._stream, self._left = stream, max_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("The tags are too long.")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
