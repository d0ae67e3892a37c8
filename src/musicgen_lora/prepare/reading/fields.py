"""Turns the fields of a metadata row into facts, whatever the fields are called.

Tables name their columns as other tools do, or in Chinese. Fields with known names are read; the
others are kept for the dataset's metadata, and `Columns` reports their names.
"""

from __future__ import annotations

import functools
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from musicgen_lora.dataset.caption_words import normalise_bpm, stated_bpm, stated_key
from musicgen_lora.dataset.splits import normalise_split
from musicgen_lora.errors import UserError
from musicgen_lora.listening.pitch.key_names import normalise_key
from musicgen_lora.model.text.wording import english_of
from musicgen_lora.prepare.reading.remarks import (
    MEASURED,
    NO_CAPTIONS,
    NOT_KEPT,
    NOT_UNDERSTOOD,
    SAYS_NOTHING,
    UNUSED,
    Remarks,
)
from musicgen_lora.prepare.words.facts import Facts, FilePart, make_facts

S = TypeVar("S")
PATH_FIELDS = (
    *("file_name", "audio", "path", "file", "filename", "audio_path", "file_path", "filepath"),
    *("audio_file", "audio_filepath", "location", "文件名", "文件", "文件路径", "路径", "音频"),
)
TEXT_FIELDS = (
    *("text", "caption", "description", "prompt", "transcription", "transcript", "sentence"),
    *("描述", "说明", "文本", "提示词", "字幕"),
)
TEXTS_FIELDS = ("texts", "captions", "descriptions", "prompts")
TAG_FIELDS = (
    *("tags", "keywords", "moods", "mood", "instrument", "instruments"),
    *("标签", "关键词", "情绪", "乐器"),
)
BPM_FIELDS = ("bpm", "tempo", "速度")
KEY_FIELDS = ("key", "initial_key", "keyscale", "调", "调性", "调式")
GENRE_FIELDS = ("genre", "genres", "风格", "流派", "曲风")
TITLE_FIELDS, ARTIST_FIELDS = ("title", "标题", "歌名"), ("artist", "艺术家", "作者")
SPLIT_FIELDS, SOURCE_FIELDS = ("split", "划分"), ("source", "来源")
START_FIELDS, LOOSE_START_FIELDS = ("start_s",), ("start", "start_time")
END_FIELDS = ("end_s", "end", "end_time")
LENGTH_FIELDS = ("duration_s", "duration")
READ_FIELDS = {
    *(*PATH_FIELDS, *TEXT_FIELDS, *TEXTS_FIELDS, *TAG_FIELDS, *BPM_FIELDS, *KEY_FIELDS),
    *(*GENRE_FIELDS, *SPLIT_FIELDS, *SOURCE_FIELDS, *START_FIELDS),
}
"""Fields that the dataset has under its own names, or not at all."""
MEASURED_FIELDS = {
    *("duration", "duration_s", "sample_rate", "sampling_rate", "channels", "n_channels"),
    *("amplitude", "weight", "info_path", "num_samples", "num_frames", "loudness_lufs", "cut"),
    *("at_s", "vocals", "repeated", "made_from", "made"),
}
"""Fields about the audio file itself, or that `prepare` writes."""
MAX_CAPTION = 10_000
"""Characters; T5 reads a few hundred words."""
MAX_WORD = 200
"""Most characters of a tag, a genre or a title."""
NOTHING = {
    *("n/a", "na", "n.a.", "none", "null", "nil", "nan", "-", "--", "---", "?", "无"),
    *("\N{EN DASH}", "\N{EM DASH}"),
}
"""What tables contain instead of a caption."""
LIST_MARKS = ",\N{FULLWIDTH COMMA}\N{IDEOGRAPHIC COMMA}"
"""Tables write lists as "dark, piano"."""


@functools.lru_cache(4096)
def field_name(name: str) -> str:
    """A field's name without case, width variants and spaces: "File Name" becomes `file_name`."""
    folded = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(r"[\s-]+", "_", folded)


def says_nothing(text: str) -> bool:
    """Whether a text is a placeholder such as "N/A"."""
    return text.strip().casefold() in NOTHING


def paths_of(record: Mapping[str, Any]) -> list[str]:
    """The files that a row may mean, the likeliest first; usually one."""
    fields = {field_name(str(name)): value for name, value in record.items()}
    given = []
    for name in PATH_FIELDS:
        value = fields.get(name)
        if isinstance(value, Mapping):
            # Hugging Face's datasets print an audio cell this way.
            value = value.get("path")
        if isinstance(value, str) and value.strip():
            given.append(value)
    return given


def facts_from_record(record: Mapping[str, Any], where: str, remarks: Remarks) -> Facts:
    """The facts in one metadata entry, whatever its fields are called. A tempo or key that only a
    caption states counts as well.

    Args:
        record: values by field name; null, NaN and "" are ignored. A list of captions may replace
            a single one.

    Raises:
        UserError: a caption that isn't text or has more than 10,000 characters; an unknown split;
            an invalid part of the file.
    """
    fields = _Fields(record, where, remarks)
    texts = list(dict.fromkeys(fields.texts()))
    tags = [tag for name in TAG_FIELDS for tag in fields.words(name, LIST_MARKS)]
    genres = [genre for name in GENRE_FIELDS for genre in fields.words(name, LIST_MARKS + ";/")]
    split = next((v for v in map(fields.get, SPLIT_FIELDS) if v is not None), None)
    return make_facts(
        where,
        {},
        text=texts[0] if texts else None,
        texts=tuple(texts),
        bpm=fields.fact(BPM_FIELDS, normalise_bpm) or _first_said(texts, stated_bpm),
        key=fields.fact(KEY_FIELDS, normalise_key) or _first_said(texts, stated_key),
        genre=genres[0] if genres else None,
        tags=tuple(dict.fromkeys([*genres[1:], *tags])),
        title=next((word for name in TITLE_FIELDS for word in fields.words(name)), None),
        artist=next((word for name in ARTIST_FIELDS for word in fields.words(name)), None),
        split=None if normalise_split(split, where) is None else str(split).strip().casefold(),
        source=next((word for name in SOURCE_FIELDS for word in fields.words(name)), None),
        part=fields.part(),
        other=fields.other(),
    )


def _first_said(texts: Iterable[str], find: Callable[[str], S | None]) -> S | None:
    """What the first caption that states a tempo, or a key, says; None without one."""
    found = (find(english_of(text)) for text in texts)
    return next((said for said in found if said is not None), None)


class _Fields:
    """The fields of a record, by their names as `field_name` normalises them."""

    def __init__(self, record: Mapping[str, Any], where: str, remarks: Remarks) -> None:
        self._given = {str(name).strip(): value for name, value in record.items()}
        self._where, self._remarks = where, remarks
        # JSON may have "Text" and "text".
        self._values: dict[str, list[Any]] = {}
        for name, value in self._given.items():
            self._values.setdefault(field_name(name), []).append(value)

    def get(self, name: str) -> Any:
        """The first value under a name that isn't empty; tables use NaN for empty."""
        values = self._values.get(name, ())
        return next((v for v in values if v is not None and v == v and v != ""), None)

    def texts(self) -> Iterator[str]:
        """The captions with tidied spaces, without empty ones."""
        for name in (*TEXT_FIELDS, *TEXTS_FIELDS):
            for value in self._values.get(name, ()):
                for text in _texts(value, f"{self._where}: {name!r}"):
                    if says_nothing(text):
                        self._remarks.add(SAYS_NOTHING, f"{self._where}: {name} {text!r}")
                    else:
                        yield text

    def words(self, name: str, separators: str = "") -> list[str]:
        """The short texts of a field, in lower case if it may be a list; other tools use the same
        names for other values, which are ignored."""
        value = self.get(name)
        if isinstance(value, str) and separators:
            value = re.split(f"[{re.escape(separators)}]", value)
        words = _words(value)
        for word in words:
            if says_nothing(word):
                self._remarks.add(SAYS_NOTHING, f"{self._where}: {name} {word!r}")
        words = [word for word in words if not says_nothing(word)]
        return [word.lower() for word in words] if separators else words

    def fact(self, names: tuple[str, ...], normalise: Callable[[object], Any]) -> Any:
        """The first readable value under some names; unreadable ones are reported."""
        for name in names:
            value = self.get(name)
            # 0 is what many programs write for an unknown tempo.
            if value is None or value in (0, "0"):
                continue
            if isinstance(value, str) and (not value.strip() or says_nothing(value)):
                continue
            found = normalise(value)
            if found is not None:
                return found
            self._remarks.add(NOT_UNDERSTOOD, f"{self._where}: {name} {str(value)[:40]!r}")
        return None

    def part(self) -> FilePart | None:
        """The part of the file that the record describes; None for all of it.

        Raises:
            UserError: invalid times.
        """
        start_s = self._time(START_FIELDS[0])
        for name in LOOSE_START_FIELDS:
            # Other tools may put dates or samples there; then it is a field like any other.
            if start_s is None and _number(self.get(name)) is not None:
                start_s = self._time(name)
        if start_s is None:
            return None
        end_s = next((e for e in map(self._time, END_FIELDS) if e is not None), None)
        length_s = next((s for s in map(self._time, LENGTH_FIELDS) if s is not None), None)
        if end_s is None and length_s is not None:
            end_s = start_s + length_s
        if end_s is not None and end_s <= start_s:
            raise UserError(f"{self._where}: ends at {end_s:g} s, before it starts; correct it.")
        if start_s == 0.0 and end_s is None:
            return None
        return round(start_s, 6), None if end_s is None else round(end_s, 6)

    def _time(self, name: str) -> float | None:
        value = self.get(name)
        if value is None:
            return None
        seconds = _number(value)
        if seconds is None or seconds < 0.0:
            raise UserError(
                f"{self._where}: {name!r} must be a number of seconds, not {str(value)[:40]!r}."
            )
        return seconds

    def other(self) -> dict[str, Any]:
        """Fields that are unknown here, as JSON values, for whoever reads the dataset."""
        kept = {}
        used = READ_FIELDS | MEASURED_FIELDS
        if self.part() is not None:
            used = used | {*LOOSE_START_FIELDS, *END_FIELDS}
        for name, value in self._given.items():
            if not name or field_name(name) in used:
                continue
            plain = _plain(value) if _plain(name) is not None and len(name) <= MAX_WORD else None
            if plain is not None:
                kept[name] = plain
            elif value is not None and value == value and value not in ("", [], {}):
                self._remarks.add(NOT_KEPT, f"{self._where}: {name[:60]!r}")
        return kept


def _texts(value: object, where: str) -> list[str]:
    """The captions in a value with tidied spaces, without empty ones."""
    found = []
    for item in _items(value):
        if not isinstance(item, str):
            raise UserError(f"{where} must be text, not {str(item)[:40]!r}.")
        tidy = " ".join(item.split())
        if len(tidy) > MAX_CAPTION:
            raise UserError(f"{where} has {len(tidy)} characters; the limit is {MAX_CAPTION}.")
        if tidy:
            found.append(tidy)
    return found


def _words(value: object) -> list[str]:
    words = [str(item) for item in _items(value) if isinstance(item, (str, int))]
    return [" ".join(word.split()) for word in words if word.strip() and len(word) <= MAX_WORD]


def first_word(value: object) -> str | None:
    """The first short text in a value; None where there is none."""
    return next(iter(_words(value)), None)


def _items(value: object) -> list[object]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    # Tables use NaN for empty values; it differs from itself.
    return [item for item in values if item is not None and item == item]


def _number(value: object) -> float | None:
    """A finite number, or text with one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(value: object) -> Any:
    """A value as JSON can hold it; None if it can't or the value is empty."""
    if value is None or value != value or value in ("", [], {}):
        return None
    try:
        # Parquet's dates and decimals become text.
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, default=str)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    return json.loads(text) if len(text) <= MAX_CAPTION else None


class Columns:
    """The field names of one metadata file, and the remarks about them."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def see(self, record: Mapping[str, Any]) -> None:
        """Records the names in a row that have a value."""
        for name, value in record.items():
            if value is not None and value == value and value != "":
                self._names[str(name).strip()] = None

    def say(self, where: str, remarks: Remarks, *, needs_captions: bool) -> None:
        """Reports columns that are not used, and a file without captions."""
        known = {field_name(name) for name in self._names}
        if needs_captions and self._names and not known & {*TEXT_FIELDS, *TEXTS_FIELDS}:
            remarks.add(NO_CAPTIONS, f"{where}: its columns are {', '.join(self._names)}")
        is_part = bool(known & {*START_FIELDS, *LOOSE_START_FIELDS})
        times = {*LOOSE_START_FIELDS, *LENGTH_FIELDS, *END_FIELDS}
        used = READ_FIELDS | (times if is_part else set())
        others = {n: field_name(n) for n in self._names if n and field_name(n) not in used}
        kept = [name for name, folded in others.items() if folded not in MEASURED_FIELDS]
        measured = [name for name, folded in others.items() if folded in MEASURED_FIELDS]
        if kept:
            remarks.add(UNUSED, f"{where}: {', '.join(kept)}")
        if measured:
            remarks.add(MEASURED, f"{where}: {', '.join(measured)}")
