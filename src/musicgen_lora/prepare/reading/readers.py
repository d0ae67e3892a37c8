"""Reads the captions and facts that come with a folder of audio, wherever they are.

Read for each file, the most trusted first:

1. metadata files, the one nearest to the audio first: `metadata.json` (a list of entries, or an
   object by path), `metadata.jsonl`, `.csv`, `.parquet` (Hugging Face's audiofolder), and the
   same named `captions`; audiocraft's manifest `data.jsonl` or `data.jsonl.gz`; the dataset
   that ACE-Step saves, a JSON file of any name;
2. `x.json`, `x.caption`, `x.caption.txt` and `x.txt` beside `x.wav` (or `x.wav.json`, ...);
3. tags inside the file: ID3, Vorbis, RIFF, MP4;
4. the file's name;
5. the names of its folders, the nearest first.

For each field the surest value wins, and the earlier source in a tie; every caption is kept in
`texts`. Captions come only from 1 and 2: a title or a comment tag is not a caption.

All of this input is untrusted. Paths stay inside the folder, sizes are bounded, errors name the
file and line, and what is not used is reported in `Remarks`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from tinytag import TinyTag, TinyTagException

from musicgen_lora.audio.files import hidden_part, is_inside
from musicgen_lora.dataset.caption_words import normalise_bpm
from musicgen_lora.errors import UserError
from musicgen_lora.listening.pitch.key_names import normalise_key
from musicgen_lora.prepare.reading.audio_names import AudioNames
from musicgen_lora.prepare.reading.fields import (
    PATH_FIELDS,
    Columns,
    facts_from_record,
    first_word,
    paths_of,
)
from musicgen_lora.prepare.reading.remarks import MATCHED, NOT_READ, UNMATCHED, Remarks
from musicgen_lora.prepare.reading.tables import is_acestep, read_json_table, read_rows, read_text
from musicgen_lora.prepare.words.facts import (
    GENRES,
    GUESSED,
    STATED,
    Facts,
    facts_from_name,
    find_words,
    make_facts,
)

METADATA_NAMES = (
    *(f"metadata{suffix}" for suffix in (".json", ".jsonl", ".csv", ".parquet")),
    *(f"captions{suffix}" for suffix in (".json", ".jsonl", ".csv", ".parquet")),
    *("data.jsonl", "data.jsonl.gz"),
)
"""Metadata files, in the order in which those of a folder are read."""
SIDECAR_SUFFIXES = (".json", ".caption", ".caption.txt", ".txt")
"""Endings of files beside the audio, the most trusted first."""
TEXT_SUFFIXES = {".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".xlsx", ".xls", ".ods"}
"""Files that may hold captions; those that aren't read are reported."""
MAX_ACESTEP_BYTES = 64 << 20
"""Larger JSON files with unknown names are not opened."""
MAX_TAG_BYTES = 16 << 20
"""Most bytes that are read from a file for its tags; cover images are skipped."""


def facts_from_path(name: str) -> list[Facts]:
    """The facts in a relative path: those of the file's name, then its folders', nearest first."""
    path = PurePosixPath(name)
    folders = [facts_from_name(part, f"folder {part!r}") for part in reversed(path.parts[:-1])]
    return [facts_from_name(path.name), *folders]


class StatedFacts:
    """The facts written about the audio below a folder: in metadata, and in files beside it.

    Args:
        without: files and folders to skip: those of the dataset that is being made.

    Raises:
        UserError: metadata that is broken or points outside the folder.
    """

    def __init__(
        self, folder: Path, audio: Iterable[Path], remarks: Remarks, without: Iterable[Path] = ()
    ) -> None:
        self._folder, self._root, self._remarks = folder, folder.resolve(), remarks
        self._columns = Columns()
        self._read: set[Path] = set()
        passed_over = [path.resolve() for path in without]
        self._texts: list[Path] = []
        for path in sorted(folder.rglob("*")):
            is_hidden = hidden_part(path, folder) is not None
            if is_hidden or not _may_hold_captions(path) or not path.is_file():
                continue
            resolved = path.resolve()
            if not is_inside(path, self._root):
                remarks.add(NOT_READ, f"{path} (a link out of the folder)")
            elif not any(resolved.is_relative_to(other) for other in passed_over):
                self._texts.append(path)
        names = [file.relative_to(folder).as_posix() for file in audio]
        self._beside = self._find_sidecars(names)
        self._listed = self._read_metadata(AudioNames(folder, names))

    def about(self, file: Path) -> list[Facts]:
        """The facts about a file, the most trusted first.

        Raises:
            UserError: a file beside it is not readable.
        """
        name = file.relative_to(self._folder).as_posix()
        return [*self._listed.get(name, ()), *self._facts_beside(name)]

    def say_unread(self) -> None:
        """Reports files that weren't read, and unused fields of files beside the audio; call it
        after the facts about all files were asked for."""
        self._columns.say("files beside the audio", self._remarks, needs_captions=False)
        for path in self._texts:
            if path not in self._read:
                self._remarks.add(NOT_READ, str(path))

    def _read_metadata(self, names: AudioNames) -> dict[str, list[Facts]]:
        """The facts by the audio's path, those from the nearest metadata file first."""
        beside = {path for found in self._beside.values() for _, path in found}
        files = [
            path
            for path in self._texts
            if path.name.lower() in METADATA_NAMES
            or (path not in beside and path.suffix.lower() == ".json" and self._is_acestep(path))
        ]
        order = {name: place for place, name in enumerate(METADATA_NAMES)}
        files.sort(
            key=lambda path: (-len(path.parts), order.get(path.name.lower(), len(order)), path)
        )
        listed: dict[str, list[Facts]] = {}
        for path in files:
            self._read.add(path)
            for name, facts in self._read_table(path, names):
                listed.setdefault(name, []).append(facts)
        return listed

    def _is_acestep(self, path: Path) -> bool:
        """Whether a JSON file of any name is an ACE-Step dataset; a broken file isn't, and is
        reported as not read."""
        try:
            return path.stat().st_size <= MAX_ACESTEP_BYTES and is_acestep(
                read_json_table(path, self._remarks)
            )
        except (UserError, OSError):
            return False

    def _read_table(self, path: Path, names: AudioNames) -> list[tuple[str, Facts]]:
        """The audio's path and the facts from each row that names a file."""
        rows: list[tuple[str, list[str], str | None, Facts]] = []
        columns = Columns()
        for where, record in read_rows(path, self._remarks):
            columns.see(record)
            given = paths_of(record)
            if not given:
                names_given = ", ".join(repr(str(name)[:40]) for name in list(record)[:20])
                raise UserError(
                    f"{where}: names no file; add a {PATH_FIELDS[0]!r} field (it has: "
                    f"{names_given})."
                )
            facts = facts_from_record(record, where, self._remarks)
            rows.append((where, given, self._find_exact(names, given, path.parent, where), facts))
        columns.say(str(path), self._remarks, needs_captions=True)
        taken = {exact for *_, exact, _ in rows if exact is not None}
        found = []
        for where, given, exact, facts in rows:
            name = exact or next(
                (n for n in (names.find_similar(path, taken) for path in given) if n), None
            )
            if name is None:
                self._remarks.add(UNMATCHED, f"{where}: {given[0]!r}")
                continue
            if exact is None:
                self._remarks.add(MATCHED, f"{where}: {given[0]!r} is {name}")
            found.append((name, facts))
        return found

    @staticmethod
    def _find_exact(names: AudioNames, given: list[str], base: Path, where: str) -> str | None:
        return next((n for n in (names.find_exact(p, base, where) for p in given) if n), None)

    def _find_sidecars(self, names: list[str]) -> dict[str, list[tuple[str, Path]]]:
        """The files beside each audio file, each with its suffix.

        Case and Unicode form don't matter, but a file that is named exactly after one audio file
        doesn't belong to another.
        """
        owners: dict[tuple[str, str], list[str]] = {}
        for name in names:
            path = PurePosixPath(name)
            for stem in {path.stem, path.name}:
                owners.setdefault((str(path.parent), _folded(stem)), []).append(name)
        beside: dict[str, list[tuple[str, Path]]] = {}
        for path in self._texts:
            if path.name.lower() in METADATA_NAMES:
                continue
            folder = path.parent.relative_to(self._folder).as_posix()
            for suffix in SIDECAR_SUFFIXES:
                stem = path.name[: -len(suffix)]
                if not path.name.lower().endswith(suffix) or not stem:
                    continue
                own = owners.get((folder, _folded(stem)), [])
                exact = [n for n in own if stem in (PurePosixPath(n).stem, PurePosixPath(n).name)]
                for name in exact or own:
                    beside.setdefault(name, []).append((suffix, path))
                if own:
                    break
        order = SIDECAR_SUFFIXES.index
        return {n: sorted(found, key=lambda f: (order(f[0]), f[1])) for n, found in beside.items()}

    def _facts_beside(self, name: str) -> list[Facts]:
        """The facts from the files beside an audio file."""
        found = []
        sidecars = self._beside.get(name, [])
        has_caption = any(suffix.startswith(".caption") for suffix, _ in sidecars)
        for suffix, beside in sidecars:
            if suffix == ".txt" and has_caption:
                # If there is a .caption file, the .txt holds lyrics.
                continue
            self._read.add(beside)
            if suffix == ".json":
                content = read_json_table(beside, self._remarks)
                if not isinstance(content, dict):
                    raise UserError(f'{beside}: must be an object such as {{"text": ...}}.')
                self._columns.see(content)
            else:
                content = {"text": " ".join(read_text(beside, self._remarks).split())}
            found.append(facts_from_record(content, str(beside), self._remarks))
        return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _may_hold_captions(path: Path) -> bool:
    name = path.name.lower()
    return path.suffix.lower() in TEXT_SUFFIXES or name in METADATA_NAMES


def facts_from_tags(file: Path) -> Facts:
    """The facts from the tags inside an audio file; none if it has no tags or broken ones. Whether
    the audio is usable is for its decoder to decide."""
    try:
        with open(file, "rb") as stream:
            bounded = cast(BinaryIO, _BoundedReader(stream, MAX_TAG_BYTES))
            tag = TinyTag.get(file_obj=bounded, duration=False)
    except (TinyTagException, OSError, ValueError):
        return Facts()
    other = {name: values[0] for name, values in tag.other.items() if values}
    genre = first_word(tag.genre)
    known = find_words(genre or "", GENRES)
    return make_facts(
        "tags",
        {
            "bpm": STATED,
            "key": STATED,
            # Many programs write a default genre that nobody chose.
            "genre": STATED if known else GUESSED,
        },
        bpm=normalise_bpm(other.get("bpm")),
        key=normalise_key(other.get("initial_key")),
        genre=known[0] if known else genre and genre.lower(),
        tags=known[1:],
        title=first_word(tag.title),
        artist=first_word(tag.artist),
    )


class _BoundedReader:
    """A binary file that limits the total number of bytes read.

    Headers may be wrong about a tag's length."""

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
