"""The catalogue is up to date with the source: whatever can be shown to a person has its
Chinese."""

from __future__ import annotations

import re
from pathlib import Path

import messages
import pytest

from musicgen_lora.language import catalogue
from musicgen_lora.language.templates import Template

CHINESE = catalogue.read(catalogue.path_of("zh"))
LEVEL = "run: python tools/messages.py, and translate what is new in messages.zh.po"


@pytest.fixture(scope="module")
def source() -> tuple[dict[str, str], set[str]]:
    return messages.messages()


def values_of(text: str) -> list[str]:
    """The values that a template names, each once."""
    return sorted(set(re.findall(r"\{(\w+)(?::[^}]*|!w)?\}", text)))


def test_every_message_has_a_translation(source: tuple[dict[str, str], set[str]]) -> None:
    lacking = [f"{place}: {text}" for text, place in source[0].items() if not CHINESE.get(text)]
    assert not lacking, LEVEL


def test_no_translation_is_of_a_message_that_is_gone(
    source: tuple[dict[str, str], set[str]],
) -> None:
    needed, every = source
    assert [text for text in CHINESE if text not in needed and text not in every] == [], LEVEL


def test_a_translation_has_the_values_of_its_message() -> None:
    unequal = {e: said for e, said in CHINESE.items() if values_of(said) != values_of(e)}
    assert unequal == {}


def test_a_translation_names_no_noun_of_a_value() -> None:
    """The value brings its own noun; one inside the braces would be shown as it is."""
    assert [said for said in CHINESE.values() if re.search(r"\{\d+:", said)] == []


def test_what_is_counted_is_named_once() -> None:
    """A value with a noun brings its measure word along: "1 个值", not "1 个值 个"."""
    twice = []
    for english, said in CHINESE.items():
        for at, noun in re.findall(r"\{(\d+):([^}]+)\}", english):
            measure = CHINESE[f"{{0:{noun}}}"].removeprefix("{0}").strip()[:1]
            if english != f"{{0:{noun}}}" and re.search(rf"\{{{at}\}} ?{measure}", said):
                twice.append(said)
    assert twice == []


def test_punctuation_beside_chinese_is_chinese() -> None:
    """Commas, colons, brackets and full stops; a percentage has no space before its sign."""
    han, value = "[\u4e00-\u9fff]", r"\{\d+(?:!w|:[^}]*)?\}"
    english = re.compile(
        rf"{han} ?[,;:(]|[,;] ?{han}|\){han}|{value}: (?={han}|{value}|[“（])"
        rf"|{han}[.!?](?!\w)|[}}\d] %"
    )
    # tyro closes the bracket of this one.
    own = {"(default:"}
    wrong = [s for e, s in CHINESE.items() if e not in own and english.search(s)]
    assert wrong == []


def test_flags_and_tags_stay_as_they_are() -> None:
    """What is typed or is markup means the same in every language."""
    typed = re.compile(r"(?<!\w)--[a-z]\w+|</?\w+>|[a-z]+\.(?:json|csv|wav)")
    lost = [
        (e, part) for e, said in CHINESE.items() for part in typed.findall(e) if part not in said
    ]
    assert lost == []


def test_templates_that_fit_nearly_everything_are_known() -> None:
    """They match only numbers, file names and messages; a new one should rather have words."""
    weak = {text for text in CHINESE if "{" in text and Template.of(text).is_weak}
    figures = {text for text in weak if re.fullmatch(r"[^A-Za-z]*(\{\d:[a-z -]+\})?", text)}
    assert weak - figures == {
        "--{0} {1} (was {2})",
        "; and {0} more",
        "Advice: {0}",
        "Curves: {0}",
        "Done: {0}",
        "Energy {0}",
        "Note: {0}",
        "Report: {0}",
        "The {0} is",
        "[Errno {0}] {1}",
        'cut on "{0}"',
        "folder {0}",
        "item {0}",
        "left out: {0}",
        "{0} (as {1})",
        "{0} (held out)",
        "{0} (train)",
        "{0} BPM (from {1})",
        "{0} Hz to {1} kHz",
        "{0} and no {1}",
        "{0} answers {1}.",
        "{0} (from {1})",
        "{0} clip is",
        "{0} file is",
        "{0} file",
        "{0} files",
        "{0} heard",
        "{0} needs {1}: {2}",
        "{0} of {1} {2}s ⟨is|are⟩",
        "{0} to {1} %",
        "{0} to {1} Hz",
        "{0} to {1} kHz",
        "{0} to {1}",
        "{0} with the {1}",
        "{0} with {1}",
        "{0}/{1} (private)",
        "{0}/{1} (public)",
        "{0}, entry {1}",
        "{0}, from {1} s",
        "{0} MB",
        "{0}, line {1}",
        "{0}, row {1}",
        "{0}, {1} s to {2} s",
        "{0}: entry {1}",
        "{0}: entry {1}: ",
        "{0}: read as {1}",
        "{0}: {1} is {2}",
        "{0}: {1} of {2} s",
        "{0}: {1} of {2} ({3} %)",
        "{0}: {1} (n = {2}).",
    }


def test_a_new_message_is_found(tmp_path: Path) -> None:
    """In f-strings, constants, sums, choices and counts; docstrings and codes are not messages."""
    (tmp_path / "new.py").write_text(
        '''"""A module of no message at all."""
FOLDER = "in another folder"

def tell(path, n, fast):
    """Says a thing or two."""
    how = "at once" if fast else "in a while"
    print(f"{path}: done {how}; {count(n, 'clip')} {'is' if n == 1 else 'are'} left.")
    print("Put it " + FOLDER)
    print(f"{path}/{n}.wav", style="yellow")
'''
    )
    (tmp_path / "page.jinja").write_text(
        '<p>{% trans n=count(2, "pair") %}{{ n }} of 5 % here{% endtrans %}</p>'
    )
    assert set(messages.messages(tmp_path)[0]) - set(messages.OF_LIBRARIES) == {
        "in another folder",
        "{0}: done at once; {1:clip} ⟨is|are⟩ left.",
        "{0}: done in a while; {1:clip} ⟨is|are⟩ left.",
        "{0:clip}",
        "Put it in another folder",
        "{n} of 5 % here",
        "{0:pair}",
    }


def test_a_catalogue_is_read_as_it_was_written(tmp_path: Path) -> None:
    texts = {'a "word" \\ of {0}\nmore': "一 {0}\n二", "lacks": ""}
    path = tmp_path / "messages.zh.po"
    catalogue.write(path, {"here.py": texts})
    assert catalogue.read(path) == texts
    # As translators' editors break long ones.
    path.write_text('msgid ""\n"a "\n"b"\nmsgstr "甲"\n"乙"\n', encoding="utf-8")
    assert catalogue.read(path) == {"a b": "甲乙"}
