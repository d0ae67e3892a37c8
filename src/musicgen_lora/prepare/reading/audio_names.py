"""Finds the audio file that a row of metadata means.

Metadata moves and changes hands: manifests hold absolute paths from another machine, lists hold
bare names of files that have since been sorted into folders, macOS decomposes accents, spreadsheets
drop extensions and add spaces. A name that doesn't exist as written is looked up by its longest
ending, then in other spellings, and is accepted only if exactly one file matches.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from musicgen_lora.audio.files import READ_EXTENSIONS
from musicgen_lora.errors import UserError


def _composed(name: str) -> str:
    return "/".join(part.strip() for part in unicodedata.normalize("NFC", name).split("/"))


def _folded(name: str) -> str:
    return _composed(unicodedata.normalize("NFC", name).casefold())


def _bare(name: str) -> str:
    """The name as in `_folded`, without an audio extension."""
    path = PurePosixPath(_folded(name))
    is_audio = path.suffix in READ_EXTENSIONS
    return str(path.with_suffix("")) if is_audio and path.stem else str(path)


SPELLINGS: tuple[Callable[[str], str], ...] = (str, _composed, _folded, _bare)
"""Strictest first; the last one is for names that lack their extension."""


class AudioNames:
    """The audio files of a folder, looked up by their names in metadata.

    Args:
        names: their paths relative to the folder, with `/`.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder, self._root = folder, folder.resolve()
        self._names = set(names)
        self._by_ending: list[dict[str, list[str]]] = []
        for spelling in SPELLINGS:
            index: dict[str, list[str]] = {}
            for name in self._names:
                index.setdefault(posixpath.basename(spelling(name)), []).append(name)
            self._by_ending.append(index)

    def find_exact(self, given: str, base: Path, where: str) -> str | None:
        """The file at exactly this path; None if there is none.

        Raises:
            UserError: the path is unusable, or leads outside and matches no file inside.
        """
        at_once = posixpath.normpath((base.relative_to(self._folder) / given).as_posix())
        if at_once in self._names:
            return at_once
        is_inside = False
        for candidate in _candidates(given):
            try:
                resolved = (base / candidate).resolve()
                if resolved.is_relative_to(self._root):
                    is_inside = True
                    name = resolved.relative_to(self._root).as_posix()
                    if name in self._names:
                        return name
            except (OSError, ValueError) as error:
                raise UserError(f"{where}: {given!r} is not a usable path ({error}).") from error
        if not is_inside and not self._endings(given, set()):
            raise UserError(
                f"{where}: {given} points outside {self._folder}; put the audio inside it."
            )
        return None

    def find_similar(self, given: str, taken: set[str]) -> str | None:
        """The one file that a missing path may mean; None for none or several.

        Args:
            taken: files that rows name exactly.
        """
        meant = self._endings(given, taken)
        return meant[0] if len(meant) == 1 else None

    def _endings(self, given: str, taken: set[str]) -> Sequence[str]:
        """The files that share the longest ending with a path, in the strictest spelling that
        matches any; none for paths with `..`."""
        parts = [part for part in _candidates(given)[-1].split("/") if part not in ("", ".")]
        if ".." in parts or not parts:
            return ()
        for spelling, index in zip(SPELLINGS, self._by_ending, strict=True):
            if spelling is _bare and _bare(parts[-1]) != _folded(parts[-1]):
                # "x.mp3" may be another mix than an x.wav.
                break
            for start in range(len(parts)):
                ending = spelling("/".join(parts[start:]))
                meant = [
                    name
                    for name in index.get(posixpath.basename(ending), ())
                    if name not in taken and f"/{spelling(name)}".endswith(f"/{ending}")
                ]
                if meant:
                    return meant
        return ()


def _candidates(given: str) -> list[str]:
    """A path as written, and as Windows would read it."""
    return [given] if "\\" not in given else [given, given.replace("\\", "/")]
