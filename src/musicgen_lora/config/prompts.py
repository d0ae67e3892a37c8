"""Prompts from a file, each with its own settings, and the list of all clips a command makes.

A text file has one prompt per line; JSON, JSON Lines and CSV have fields, which are settings of
`generate` for that prompt alone. Errors name their row, before anything is loaded or generated.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from musicgen_lora.config.kinds import MAX_SEED
from musicgen_lora.config.play import GenerateSettings, SamplingSettings, WritingSettings
from musicgen_lora.errors import UserError
from musicgen_lora.formats.csv_tables import csv_rows
from musicgen_lora.formats.documents import parse_json, read_bytes
from musicgen_lora.formats.encodings import decode_text
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.misspelt import hint

MAX_BYTES = 1 << 20
MAX_CLIPS = 10_000
MAX_LETTERS = 10_000
"""Characters of a prompt, as on the command line."""
FIELDS = (
    *("prompt", "prompts", "negative_prompt", "variations", "guidance_end"),
    *(field.name for field in dataclasses.fields(SamplingSettings) if field.name != "batch_size"),
    *(field.name for field in dataclasses.fields(WritingSettings)),
)
"""The fields a row may have."""
CHINESE = {
    **dict.fromkeys(("提示词", "描述"), "prompt"),
    **dict.fromkeys(("负面提示词", "反向提示词"), "negative_prompt"),
    **dict.fromkeys(("时长", "秒数"), "duration"),
    "速度": "bpm",
    **dict.fromkeys(("小节", "小节数"), "bars"),
    **dict.fromkeys(("调", "调性"), "key"),
    **dict.fromkeys(("种子", "随机种子"), "seed"),
    "格式": "format",
}
"""Field names in Chinese tables."""


@dataclass(frozen=True)
class PromptRow:
    """A prompt and its settings from a file.

    Args:
        where: its place, such as "prompts.csv, line 3"; empty if from the command line.
        prompts: one, or several that follow each other in the clip.
        change_at: seconds at which the second and each later one begins.
        values: its own settings, by name.
    """

    where: str
    prompts: tuple[str, ...]
    change_at: tuple[float, ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class ClipOrder:
    """One requested clip.

    Args:
        where: the place of its row; empty if from the command line.
        settings: for this clip alone: its prompts, its seed, one variation.
        has_stated_bpm: whether its tempo is the one that its prompt states.
    """

    where: str
    settings: GenerateSettings
    has_stated_bpm: bool = False

    def fault(self, error: UserError) -> UserError:
        """Return the same error, with its row in front."""
        return UserError(f"{self.where}: {error}") if self.where else error


def read_prompts(path: Path) -> tuple[Sequence[PromptRow], str | None]:
    """Return the prompts in a file, and the encoding if it was guessed (None for UTF-8 and UTF-16).
    An unchanged file is read only once.

    Raises:
        UserError: the file is missing, too large, not text or without a prompt, or a row is
            invalid; the message names it.
    """
    try:
        state = path.stat()
    except OSError:
        # The read fails too and says why; there is nothing to cache.
        return _read.__wrapped__(path)
    return _read(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, *_: int) -> tuple[Sequence[PromptRow], str | None]:
    """Read a file in one state: what was checked is what is generated."""
    data = read_bytes(path, MAX_BYTES)
    try:
        text, guessed = decode_text(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save it as UTF-8.") from error
    kind = path.suffix.lower()
    if kind == ".json":
        rows = list(_json_rows(text, path))
    elif kind in (".csv", ".tsv"):
        cells = csv_rows(text, path, _folded)
        rows = [
            _row(where, {_folded(k): v for k, v in row.items() if k.strip() or (v or "").strip()})
            for where, row in cells
        ]
    elif kind in (".jsonl", ".ndjson"):
        rows = [
            _json_row(where, parse_json(line, path, first_line=number, unique_keys=True))
            for number, where, line in _lines(text, path)
        ]
    else:
        rows = [_text_row(where, line) for _, where, line in _lines(text, path)]
    if not rows:
        raise UserError(f"{path}: has no prompt; write one per line, or a JSON list of them.")
    return rows, guessed


def _folded(name: str) -> str:
    return _named(name.strip().casefold().replace(" ", "_"))


def _named(name: str) -> str:
    return CHINESE.get(name, name)


def _lines(text: str, path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the non-empty lines, each with its number and its place for messages."""
    # `splitlines` would also end a line at characters that may stand in a prompt, like U+2028.
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            yield number, f"{path}, line {number}", line.strip()


def _text_row(where: str, line: str) -> PromptRow:
    """Return a line as a prompt; refuse lines that belong in files of another kind."""
    if _is_json(line) or re.match(r"(- )?prompts?: ", line):
        raise UserError(
            f"{where}: is not a prompt but a field of one; name the file .json, .jsonl (one object "
            "per line) or .csv, whichever it is."
        )
    if begins := re.match(r"#|[-*•](?= )", line):
        mark = begins[0]
        raise UserError(f"{where}: begins with {mark}, but every line is a prompt; remove it.")
    names = [_folded(name.strip('"')) for name in re.split("[,;\t]", line)]
    if "prompt" in names and set(names) <= set(FIELDS):
        raise UserError(
            f"{where}: is not a prompt but the header of a table; name the file .csv or .tsv."
        )
    return PromptRow(where, (line,))


def _is_json(line: str) -> bool:
    """Whether a line is a JSON list or object, or begins one."""
    try:
        return line in ("[", "{") or isinstance(json.loads(line), list | dict)
    except (ValueError, RecursionError):
        return False


def _json_rows(text: str, path: Path) -> Iterator[PromptRow]:
    content = parse_json(text, path, unique_keys=True)
    if not isinstance(content, list):
        raise UserError(
            f'{path}: must be a list of prompts, or of objects such as {{"prompt": ...}}.'
        )
    for number, entry in enumerate(content, 1):
        yield _json_row(f"{path}, entry {number}", entry)


def _json_row(where: str, entry: Any) -> PromptRow:
    if isinstance(entry, str):
        entry = {"prompt": entry}
    if not isinstance(entry, dict):
        raise UserError(f"{where}: {shortened(entry)} is neither a prompt nor an object with one.")
    named: dict[str, Any] = {}
    for name, value in entry.items():
        field = _named(name)
        if field in named:
            raise UserError(f"{where}: {shortened(name)}: {field} is given twice; remove one.")
        named[field] = value
    return _row(where, named)


def _row(where: str, entry: Mapping[str, Any]) -> PromptRow:
    """Build a row from its fields; an empty cell or null keeps the command's setting."""
    for name in entry:
        if name not in FIELDS:
            raise UserError(f"{where}: {shortened(name)}: no such field; {hint(name, FIELDS)}")
        if isinstance(entry[name], bool) and not isinstance(
            getattr(GenerateSettings, name, 0), bool
        ):
            raise UserError(
                f"{where}: {name} = {shortened(entry[name])}: must not be true or false."
            )
    given = {name: value for name, value in entry.items() if value not in (None, "")}
    prompt, prompts = given.pop("prompt", None), given.pop("prompts", None)
    if (prompt is None) == (prompts is None):
        raise UserError(f'{where}: needs a "prompt", or "prompts" with their times.')
    if prompts is None:
        return PromptRow(where, (_prompt(where, prompt),), (), given)
    if not isinstance(prompts, list):
        raise UserError(
            f'{where}: prompts: must be a list such as [{{"at": 0, "prompt": ...}}, '
            f'{{"at": 20, "prompt": ...}}], not {shortened(prompts)}.'
        )
    parts = [_part(where, part) for part in prompts]
    if not parts or parts[0][0] != 0:
        raise UserError(f'{where}: prompts: the first must have "at": 0, where the clip begins.')
    return PromptRow(where, tuple(p for _, p in parts), tuple(at for at, _ in parts[1:]), given)


def _part(where: str, part: Any) -> tuple[float, str]:
    """Return one of several prompts, with the second at which it takes over."""
    if not isinstance(part, dict) or set(part) != {"at", "prompt"}:
        raise UserError(
            f'{where}: prompts: {shortened(part)} must have only "at" (seconds) and "prompt".'
        )
    if type(part["at"]) not in (int, float):
        raise UserError(f'{where}: prompts: "at" = {shortened(part["at"])}: must be a number.')
    return part["at"], _prompt(where, part["prompt"])


def _prompt(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: prompt = {shortened(value)}: must say what to generate.")
    if len(value) > MAX_LETTERS:
        raise UserError(f"{where}: prompt of more than {MAX_LETTERS:,} characters; shorten it.")
    return value.strip()


def clip_orders(settings: GenerateSettings, further: Sequence[str] = ()) -> list[ClipOrder]:
    """List every clip of a command: its prompts, then those of its file, then `further` ones, each
    in all variations. A clip whose row has no seed gets the command's seed plus its number.

    Raises:
        UserError: a row is invalid, or there are more than 10,000 clips.
    """
    times, given = tuple(settings.change_at), settings.prompts
    texts = [tuple(given)] if times else [(prompt,) for prompt in given]
    rows = [PromptRow("", prompts, times) for prompts in texts]
    if settings.prompts_file is not None:
        rows += read_prompts(settings.prompts_file)[0]
    rows += [PromptRow("", (prompt,)) for prompt in further]
    orders: list[ClipOrder] = []
    for row in rows:
        values = {"prompts_file": None, "from_captions": 0, "variations": 1} | dict(row.values)
        values |= {"prompts": list(row.prompts), "change_at": list(row.change_at)}
        order = ClipOrder(row.where, _replaced(row.where, settings, values))
        many = order.settings.variations if "variations" in row.values else settings.variations
        if len(orders) + many > MAX_CLIPS:
            raise UserError(f"This makes more than {MAX_CLIPS:,} clips; ask for fewer at once.")
        first = order.settings.seed if "seed" in row.values else settings.seed + len(orders)
        _check_seeds(row, settings, first + many - 1)
        for seed in itertools.islice(itertools.count(first), many):
            one = _replaced(row.where, order.settings, {"seed": seed, "variations": 1})
            orders.append(ClipOrder(row.where, one))
    return orders


def _check_seeds(row: PromptRow, settings: GenerateSettings, last: int) -> None:
    """Raises a UserError if the last clip of a row has a seed that no command takes."""
    if last <= MAX_SEED:
        return
    own = row.values.get("seed")
    name = f"--seed {settings.seed}" if own is None else f"{row.where}: seed = {own}"
    raise UserError(
        f"{name}: each further clip takes the next seed, and the highest is {MAX_SEED}; give a "
        "lower one."
    )


def _replaced(
    where: str, settings: GenerateSettings, values: Mapping[str, Any]
) -> GenerateSettings:
    try:
        return dataclasses.replace(settings, **values)
    except UserError as error:
        raise UserError(f"{where}: {error}".removeprefix(": ")) from error
