"""What was dropped, changed or guessed while an input folder was read, by kind, with names.

A caption that is lost silently teaches the wrong thing, so all code that skips something records
it here. The terminal shows the count and the first names of each kind, the report all of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicgen_lora.language.translate import filled, joined, word

MAX_SHOWN = 3
"""Names that the terminal shows for each kind."""
MAX_ITEM = 200
"""Characters of each name that it shows."""


@dataclass(frozen=True)
class RemarkKind:
    """Something that happens to input.

    Args:
        one: the text for one ("row names no audio file here").
        many: the text for several ("rows name no audio file here").
    """

    one: str
    many: str
    to_do: str


UNMATCHED = RemarkKind(
    "row of the metadata names no audio file here",
    "rows of the metadata name no audio file here",
    "What they say is not used; correct the names, or add the files.",
)
MATCHED = RemarkKind(
    "row of the metadata was matched to a file with a similar name",
    "rows of the metadata were matched to files with similar names",
    "Correct the names where another file is meant.",
)
NO_CAPTIONS = RemarkKind(
    "metadata file has no caption column",
    "metadata files have no caption column",
    "Rename yours to one of: text, caption, description, prompt, transcription.",
)
UNUSED = RemarkKind(
    "metadata file has columns that are kept but not used",
    "metadata files have columns that are kept but not used",
    "They are copied to the dataset's metadata as they are; captions don't mention them.",
)
MEASURED = RemarkKind(
    "metadata file has columns that are not used: they describe the audio file itself",
    "metadata files have columns that are not used: they describe the audio file itself",
    "Lengths, sample rates and levels are measured again.",
)
NOT_KEPT = RemarkKind(
    "value of an unknown column can't be kept",
    "values of unknown columns can't be kept",
    "They are too long, or not text.",
)
SAYS_NOTHING = RemarkKind(
    "caption or fact says nothing (such as N/A) and is ignored",
    "captions and facts say nothing (such as N/A) and are ignored",
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
    "Check the captions, and save the files as UTF-8 if they are wrong.",
)
NOT_READ = RemarkKind(
    "file beside the audio was not read",
    "files beside the audio were not read",
    "Captions belong in metadata.csv (.json, .jsonl, .parquet) or in a file named after the audio: "
    "x.txt, x.caption or x.json beside x.wav.",
)
FOLDER_SPLIT = RemarkKind(
    "folder's name sets the split of its files",
    "folders' names set the split of their files",
    "If that is not intended, rename them or set the split in the metadata.",
)
SPLIT_CONTRADICTED = RemarkKind(
    "file has more than one split; it is held out",
    "files have more than one split; they are held out",
    "Give each file one split.",
)
SOURCE_DIVIDED = RemarkKind(
    "source is in both training and validation",
    "sources are in both training and validation",
    "The splits are kept, and the training clips count as a source of their own; if they share "
    "audio with the held-out ones, give them the same split.",
)
SOURCES_JOINED = RemarkKind(
    "source was joined with another: they share versions of a beat",
    "sources were joined with others: they share versions of a beat",
    "They stay on the same side of the split.",
)
AUDIO_SHARED = RemarkKind(
    "file shares audio with another, as versions of a beat or a mix do: they count as one source",
    "files share audio with others, as versions of a beat or a mix do: they count as one source",
    "They stay on the same side of the split; remove the mix or the beats to have more sources.",
)
WORDS_CARRIED = RemarkKind(
    "copy is left out; its caption and facts go to the file that is kept",
    "copies are left out; their captions and facts go to the files that are kept",
    "Where that is wrong, give the kept files their own captions.",
)
HIT_KEPT = RemarkKind(
    "single hit (one-shot) is kept, because it has a caption of its own",
    "single hits (one-shots) are kept, because they have captions of their own",
    "Remove them if you don't want to train on them.",
)
COPY_HELD_OUT = RemarkKind(
    "file is held out, because a copy of it is",
    "files are held out, because copies of them are",
    "Remove one of each pair if that is not intended.",
)
PART_OUTSIDE = RemarkKind(
    "part (start_s, duration_s) doesn't fit its file",
    "parts (start_s, duration_s) don't fit their files",
    "Correct the times.",
)
PART_REST = RemarkKind(
    "file has audio that no part (start_s, duration_s) covers; it is left out",
    "files have audio that no part (start_s, duration_s) covers; it is left out",
    "Add a row for it, or remove start_s to have the whole file cut.",
)
CONTRADICTED = RemarkKind(
    "contradiction between names, metadata and what is heard",
    "contradictions between names, metadata and what is heard",
    "Listen and decide, then put the right value in the metadata (bpm, key) or the name.",
)
HALVED = RemarkKind(
    "tempo of a half-time genre is written doubled, as sequencers show it",
    "tempi of half-time genres are written doubled, as sequencers show them",
    "A bpm in the metadata stays as it is.",
)
PREPARED = RemarkKind(
    "folder in the input is a dataset that prepare made",
    "folders in the input are datasets that prepare made",
    "Clips in it count as audio like any other, even beside the files that they were cut from; "
    "keep datasets outside --input_dir.",
)
GENERATED = RemarkKind(
    "file was generated by this program",
    "files were generated by this program",
    "A model trained on its own clips learns their faults; keep them outside --input_dir unless "
    "you mean to.",
)
SHORT_STRETCH = RemarkKind(
    "long file has stretches that are left out: they are shorter than --min_window",
    "long files have stretches that are left out: they are shorter than --min_window",
    "A shorter window, such as --min_window 4, keeps everything but incomplete bars.",
)
SILENT_CLIP = RemarkKind(
    "stretch of a file is silent and becomes no clip",
    "stretches of files are silent and become no clips",
    "Nothing to do if they are meant to be silent.",
)


class Remarks:
    """Remarks on the input, gathered while it is read."""

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
    """A remark from `as_json` as a line for the terminal, with its first names."""
    items = remark["items"]
    names = joined([item[:MAX_ITEM] for item in items[:MAX_SHOWN]], "; ")
    if len(items) > MAX_SHOWN:
        names = filled("{0}; and {1} more, in the report", names, len(items) - MAX_SHOWN)
    return filled("{0}: {1}. {2}", word(remark["told"]), names, word(remark["to_do"]))
