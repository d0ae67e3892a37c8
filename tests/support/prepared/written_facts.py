"""The facts written about a folder of audio, as `prepare` reads them."""

from __future__ import annotations

from pathlib import Path

from musicgen_lora.audio.files import find_audio
from musicgen_lora.prepare.reading.readers import StatedFacts, facts_from_path, facts_from_tags
from musicgen_lora.prepare.reading.remarks import Remarks
from musicgen_lora.prepare.words.facts import Facts, merge_facts


def read_captions(folder: Path) -> dict[str, Facts]:
    """Facts about the audio below a folder, by path relative to it."""
    audio = {file.relative_to(folder).as_posix(): file for file in find_audio(folder)}
    stated = StatedFacts(folder, audio.values(), Remarks(folder))
    return {
        name: merge_facts([*stated.about(file), facts_from_tags(file), *facts_from_path(name)])
        for name, file in audio.items()
    }
