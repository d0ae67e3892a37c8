"""Which clips of a request a folder has already, so that a resumed or repeated request plays only
the missing ones.

A clip's JSON has a hash of everything that affects its samples, and the hashes of the files beside
it. An altered file is no longer that clip.
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
from musicgen_lora.generation.wanted import wanted_of


class Written:
    """Clips that are complete and unaltered, with all the requested files beside them.

    Args:
        orders: the clips of the request; none if all are to be played.
    """

    def __init__(self, folder: Path, orders: Sequence[ClipOrder]) -> None:
        self.altered: dict[tuple[int, str], str] = {}
        """Names of altered files, by place and identity of their clips, which are played again."""
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
        """Records a clip with the prompt and the seed of this place."""
        identity, hashes = document.get("id"), document.get("sha256")
        suffix = FORMATS[wanted_of(settings).format].suffix
        wanted = [suffix] + settings.midi * [".mid"] + settings.spectrogram * [".png"]
        # Otherwise an old version kept no hashes, or the format differs, or MIDI wasn't requested.
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
        """Identities of the existing clips with the prompt and the seed of a place in the
        request."""
        return frozenset(self._found[place]) if place < len(self._found) else frozenset()

    def path(self, place: int, identity: str) -> Path:
        """The sound file of such a clip."""
        return self._found[place][identity]


def read_facts(path: Path) -> dict[str, Any]:
    """The contents of a clip's JSON; empty if it can't be read, or is another program's."""
    try:
        found = read_json(path)
    except UserError:
        return {}
    is_ours = isinstance(found.get("prompt"), str) and isinstance(found.get("seed"), int)
    return found if is_ours else {}
