"""The translations: one gettext file (.po) per language, as translators' tools edit it.

An English text is a template: {0} stands for a value, {0:clip} for a number with its noun ("1
clip", "3 clips"), ⟨is|are⟩ for either. Its translation has the same values, in any order; {0!w} is
a single word that is translated too. A page's values have names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"
_HEADER = r"""msgid ""
msgstr ""
"Language: {language}\n"
"Content-Type: text/plain; charset=UTF-8\n"
"Content-Transfer-Encoding: 8bit\n"
"""
_ENTRY = re.compile(
    r'^msgid ((?:"(?:[^"\\]|\\.)*"\n)+)msgstr ((?:"(?:[^"\\]|\\.)*"(?:\n|$))+)', re.MULTILINE
)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def path_of(language: str) -> Path:
    return ASSETS / f"messages.{language}.po"


def read(path: Path) -> dict[str, str]:
    """Translations by their English; "" if there is none yet."""
    found = {}
    for entry in _ENTRY.finditer(path.read_text(encoding="utf-8")):
        english, said = ("".join(map(json.loads, _QUOTED.findall(part))) for part in entry.groups())
        if english:
            found[english] = said
    return found


def write(path: Path, sections: Mapping[str, Mapping[str, str]]) -> None:
    """Writes translations, grouped by the module that uses them."""
    entries = [_HEADER.format(language=path.suffixes[-2].lstrip("."))]
    for place, texts in sections.items():
        for english, said in texts.items():
            entries.append(f"#: {place}\nmsgid {_quoted(english)}\nmsgstr {_quoted(said)}\n")
    path.write_text("\n".join(entries), encoding="utf-8")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def from_gettext(message: str) -> str:
    """A page's message, whose values gettext writes as %(name)s, as the catalogue has it."""
    return re.sub(r"%\((\w+)\)s", r"{\1}", message).replace("%%", "%")


def to_gettext(text: str) -> str:
    """The reverse."""
    return re.sub(r"\{(\w+)\}", r"%(\1)s", text.replace("%", "%%"))
