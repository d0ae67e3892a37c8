"""What was dropped, changed or guessed while an input folder was read, by kind, with names.

A caption that is lost in silence teaches the wrong thing, so whoever passes something over says so
here. The terminal shows the count and the first names of each kind, the report all of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicgen_lora.language.translate import filled, joined, word

MAX_SHOWN = 3
"""Names that the terminal shows of a kind."""
MAX_ITEM = 200
"""Characters of each that it shows."""


@dataclass(frozen=True)
class RemarkKind:
    """Something that happens to input.

    Args:
        one: what is told of one ("row names no audio file here").
        many: what is told of several ("rows name no audio file here").
    """

    one: str
    many: str
    to_do: str


UNMATCHED = RemarkKind(
    "row of the metadata names no audio file here",
    "rows of the metadata name no audio file here",
    "What they say is not used; mend the names, or add the files.",
)
MATCHED = RemarkKind(
    "row of the metadata was matched to a file by its spelling",
    "rows of the metadata were matched to files by their spelling",
    "Mend the names where another file is meant.",
)
NO_CAPTIONS = RemarkKind(
    "metadata file has no column of captions",
    "metadata files have no column of captions",
    "Rename yours to one of: text, caption, description, prompt, transcription.",
)
UNUSED = RemarkKind(
    "metadata file has columns that are kept but not used",
    "metadata files have columns that are kept but not used",
    "They stand in the dataset's metadata as they are; captions don't say them.",
)
MEASURED = RemarkKind(
    "metadata file has columns that are not used: they are about the audio file itself",
    "metadata files have columns that are not used: they are about the audio file itself",
    "Lengths, rates and levels are measured anew.",
)
NOT_KEPT = RemarkKind(
    "value of an unknown column can't be kept",
    "values of unknown columns can't be kept",
    "They are too long, or no text.",
)
SAYS_NOTHING = RemarkKind(
    "caption or fact says nothing (as N/A does) and counts as none",
    "captions and facts say nothing (as N/A does) and count as none",
    "Write what the audio plays, or leave them empty.",
)
NOT_UNDERSTOOD = RemarkKind(
    "tempo or key was not understood",
    "tempi and keys were not understood",
    "Write tempi as 140 (20 to 400), keys as in C# minor, Bbm or 8A.",
)
ENCODING = RemarkKind(
    "text file is not UTF-8; its encoding was guessed",
    "text files are not UTF-8; their encoding was guessed",
    "Look at the captions, and save the files as UTF-8 if they are wrong.",
)
NOT_READ = RemarkKind(
    "file beside the audio was not read",
    "files beside the audio were not read",
    "Captions stand in metadata.csv (.json, .jsonl, .parquet) or in a file called like the audio: "
    "x.txt, x.caption or x.json beside x.wav.",
)
FOLDER_SPLIT = RemarkKind(
    "folder's name sets the split of its files",
    "folders' names set the split of their files",
    "Rename them, or write a split into the metadata, where that is not meant.",
)
SPLIT_CONTRADICTED = RemarkKind(
    "file has more than one split; it is held out",
    "files have more than one split; they are held out",
    "Give each file one split.",
)
SOURCE_DIVIDED = RemarkKind(
    "source is in training and validation",
    "sources are in training and validation",
    "The splits are kept, and the training clips count as a source of their own; if they share "
    "audio with the held-out ones, give them one split.",
)
SOURCES_JOINED = RemarkKind(
    "source was joined with another: they share versions of a beat",
    "sources were joined with others: they share versions of a beat",
    "A split must not part them.",
)
AUDIO_SHARED = RemarkKind(
    "file shares audio with another, as versions of a beat or a mix do: they are of one source",
    "files share audio with others, as versions of a beat or a mix do: they are of one source",
    "Training and validation never part them; take the mix or the beats out to have more sources.",
)
WORDS_CARRIED = RemarkKind(
    "copy is left out; what is written about it goes to the file that stays",
    "copies are left out; what is written about them goes to the files that stay",
    "Write captions of their own for those where that is wrong.",
)
HIT_KEPT = RemarkKind(
    "single hit (one-shot) is kept, for it has a caption of its own",
    "single hits (one-shots) are kept, for they have captions of their own",
    "Take them out if they are not to be trained on.",
)
COPY_HELD_OUT = RemarkKind(
    "file is held out, since a copy of it is",
    "files are held out, since copies of them are",
    "Remove one of each pair if that is not meant.",
)
PART_OUTSIDE = RemarkKind(
    "part (start_s, duration_s) doesn't fit its file",
    "parts (start_s, duration_s) don't fit their files",
    "Mend the times.",
)
PART_REST = RemarkKind(
    "file has audio that no part (start_s, duration_s) covers; it is left out",
    "files have audio that no part (start_s, duration_s) covers; it is left out",
    "Add a row for it, or remove start_s to have the whole file cut.",
)
CONTRADICTED = RemarkKind(
    "contradiction between names, metadata and what is heard",
    "contradictions between names, metadata and what is heard",
    "Listen and decide: what is right goes into the metadata (bpm, key) or the name.",
)
HALVED = RemarkKind(
    "tempo of a half-time genre is written doubled, as sequencers show it",
    "tempi of half-time genres are written doubled, as sequencers show them",
    "A bpm in the metadata stays as it is.",
)
SHORT_STRETCH = RemarkKind(
    "long file has stretches that are left out: they are shorter than --min_window",
    "long files have stretches that are left out: they are shorter than --min_window",
    "A shorter one, such as --min_window 4, keeps all but parts of bars.",
)
SILENT_CLIP = RemarkKind(
    "stretch of a file is silent; it is no clip",
    "stretches of files are silent; they are no clips",
    "Nothing, if that is how they sound.",
)


class Remarks:
    """What there is to say, gathered while reading."""

    def __init__(self, folder: Path) -> None:
        self._prefix = f"{folder}{os.sep}"
        self._items: dict[RemarkKind, dict[str, None]] = {}

    def add(self, kind: RemarkKind, item: str) -> None:
        """Adds an item of a kind, once."""
        shown = item.removeprefix(self._prefix)
        self._items.setdefault(kind, {})[shown] = None

    def items(self, kind: RemarkKind) -> list[str]:
        """What was added of a kind."""
        return list(self._items.get(kind, ()))

    def as_json(self) -> list[dict[str, Any]]:
        """All kinds in the order of their first item: `told`, `to_do` and `items`."""
        return [
            {
                "told": f"{len(items)} {kind.one if len(items) == 1 else kind.many}",
                "to_do": kind.to_do,
                "items": list(items),
            }
            for kind, items in self._items.items()
        ]


def in_one_line(remark: dict[str, Any]) -> str:
    """A remark of `as_json` for the terminal, with its first names."""
    items = remark["items"]
    names = joined([item[:MAX_ITEM] for item in items[:MAX_SHOWN]], "; ")
    if len(items) > MAX_SHOWN:
        names = filled("{0}; and {1} more, in the report", names, len(items) - MAX_SHOWN)
    return filled("{0}: {1}. {2}", word(remark["told"]), names, word(remark["to_do"]))
