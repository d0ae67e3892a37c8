"""What a folder has already of the clips of a request: one that was broken off, or is made again,
plays what is missing.

A clip's JSON names everything that decides its samples, by a hash, and has the hashes of the files
beside it. What was altered since is no longer that clip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musicgen_lora.atomic import sha256_file
from musicgen_lora.audio.writing import FORMATS
from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.prompts import ClipOrder
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_json


class Written:
    """Clips that are whole and as they were written, with all that is asked for beside them.

    Args:
        orders: the clips that are asked for; none where all are to be played.
    """

    def __init__(self, folder: Path, orders: Sequence[ClipOrder]) -> None:
        self.altered: dict[tuple[int, str], str] = {}
        """Names of files that are not as they were written, by place and identity of their clips,
        which are played again."""
        self._found: list[dict[str, Path]] = [{} for _ in orders]
        by_words = defaultdict[tuple[Any, Any], list[int]](list)
        for place, order in enumerate(orders):
            by_words[order.settings.prompts[0], order.settings.seed].append(place)
        for path in sorted(folder.glob("*.json")) if by_words else ():
            document = read_facts(path)
            for place in by_words.get((document.get("prompt"), document.get("seed")), ()):
                self._look(path, document, place, orders[place].settings)

    def _look(
        self, path: Path, document: dict[str, Any], place: int, settings: GenerateSettings
    ) -> None:
        """Notes a clip where it has the words and the seed of a place."""
        identity, hashes = document.get("id"), document.get("sha256")
        suffix = FORMATS[settings.format].suffix
        wanted = [suffix] + settings.midi * [".mid"] + settings.spectrogram * [".png"]
        # Else it is of a version that kept no hashes, of another format, or asked for without MIDI.
        if not isinstance(identity, str) or not isinstance(hashes, dict):
            return
        if not hashes.keys() >= set(wanted):
            return
        files = {ending: path.with_suffix(ending) for ending in wanted}
        if not all(file.is_file() for file in files.values()):
            return
        altered = [f.name for ending, f in files.items() if sha256_file(f) != hashes[ending]]
        if altered:
            self.altered[place, identity] = altered[0]
        else:
            self._found[place][identity] = files[suffix]

    def identities(self, place: int) -> frozenset[str]:
        """Identities of the clips that are there with the words and the seed of a place in the
        request."""
        return frozenset(self._found[place]) if place < len(self._found) else frozenset()

    def path(self, place: int, identity: str) -> Path:
        """The sound of such a clip."""
        return self._found[place][identity]


def read_facts(path: Path) -> dict[str, Any]:
    """What the JSON of a clip says; nothing where it can't be read, or is another program's."""
    try:
        found = read_json(path)
    except UserError:
        return {}
    is_ours = isinstance(found.get("prompt"), str) and isinstance(found.get("seed"), int)
    return found if is_ours else {}
