"""Brings the catalogue of translations in line with the messages in the source.

    python tools/messages.py            # adds new ones, drops obsolete ones, lists missing ones
    python tools/messages.py --check    # reports the same, changes nothing; exit code 1 if outdated

The English stays in the code; `source_texts` extracts it. Every text of two words or more that is
neither a docstring nor in `NOT_MESSAGES` counts as a message.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from source_texts import of_flags, of_page, of_python

from musicgen_lora.language import catalogue, flags

SOURCE = Path(catalogue.__file__).resolve().parent.parent
_SLOT = re.compile(r"\{\d+(:[^}]*)?\}")
_WORD = re.compile(r"[A-Za-z]{2,}")

NOT_MESSAGES = {
    # What the audio sounds like, in words that the text encoder knows; always English.
    "beats": None,
    "dataset/caption_words.py": None,
    "prepare/words/captions.py": None,
    "prepare/words/genres.py": None,
    "prepare/words/heard_words.py": None,
    "prepare/words/facts.py": None,
    "prepare/hearing/tagging.py": r"[^:]*|This is.*|The sound.*",
    "evaluation/off_style.py": r"(?!caption of other music|prompt of another style).*",
    "evaluation/sound/asked_words.py": r".*\\b.*|two channels|held-out audio",
    "evaluation/generations.py": r"(?!held-out caption|default prompt).*",
    "prepare/clips/entries.py": None,
    # Written into files that other tools read.
    "model/lora/card.py": None,
    "model/lora/evaluated.py": r"(?!\{0\}: is for another).*",
    "audio/fold.py": None,
    "prepare/clips/cut.py": None,
    "export": r"- (Base|Adapter).*|from .*|import os|play = .*|sound = .*|    .*|\{0\}# .*|#+ .*"
    r"|os\.chdir.*|T5Cond.*|model = .*|\nMelodies.*|All settings.*|Settings and.*|Exported by.*",
    # Raised for a caller's mistake, never a user's; names of features and of tags.
    "generation/recordings/continuation.py": None,
    "model/lora/mixture.py": r".*holds a mixture already.*",
    # Tags of sound files.
    "generation/clips/clip.py": r"(prompt|seed|base|adapter): .*|<.*|\{0\} · seed.*",
    # An object's repr.
    "generation/musicgen.py": r"<.*",
    "listening": None,
    "audio/waveforms.py": None,
    "audio/pictures.py": r"<.*",
    "evaluation/decisions/statistics.py": r"Pairs.*",
    "config": r"hip hop.*",
    "model/delays.py": None,
    # Probes for a model that reads English; a rule in a document.
    "evaluation/measures/listeners.py": r"white noise.*|a drum machine.*|a single pure.*"
    r"|a dog barking.*|a man giving.*|slow piano.*",
    "evaluation/report/card.py": r"<!--.*",
    "evaluation/decisions/choice.py": r"no primary clearly.*",
    "evaluation/report/plots.py": r"lower left|outside lower.*|offset points",
    "fonts.py": r".*(Noto|Source Han|Hei|PingFang|YaHei|GB|Droid|Unicode MS).*",
    # Names in documents.
    "audio/mp3.py": r"Every kind.*",
    "prepare/report/findings.py": r"hip hop|cut short|bass out of phase|out of phase"
    r"|longer than said|lossy edge|low rate|fake stereo|near mono|above full scale|tempo unsure",
    "prepare/report/report.py": r"whole files",
    # Anywhere: text by which libraries are recognised, and commands.
    "": r"can't allocate|FSDP2-wrapped module|\s*musicgen-lora \{0\}\s*|--\w+ \{0\}|quantise \{0\}",
    "__init__.py": None,
    # What tyro says.
    "commands/wrong_flags.py": r"(Unrecog|Missing|invalid|Error parsing|Perhaps).*",
    "language": r"(?!--language).*",
    "generation/decoding/caches.py": r"cache of.*",
    "doctor.py": r"\{0\}, \{1\} GiB",
    "training/packed/train.py": r"training.packed.*",
    # The page has a table of its own, assets/webui.zh.json.
    "webui": r"(?!--host|--audio_dirs|--workspace|The page: ).*",
    "training/packed/settings.py": r"python -m.*",
}
"""By module or folder, the texts that nobody is shown: all (None), or those that match in full."""

OF_LIBRARIES = (
    "No such file or directory",
    "Permission denied",
    "Is a directory",
    "Not a directory",
    "File exists",
    "No space left on device",
    "Disk quota exceeded",
    "Input/output error",
    "Read-only file system",
    "File name too long",
    "Operation not permitted",
    "Too many open files",
    "Too many levels of symbolic links",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Connection refused",
    "Connection reset by peer",
    "Connection timed out",
    "[Errno {0}] {1}",
    "Input should be greater than {0}",
    "Input should be greater than or equal to {0}",
    "Input should be less than {0}",
    "Input should be less than or equal to {0}",
    "Input should be a valid integer",
    "Input should be a valid integer, unable to parse string as an integer",
    "Input should be a valid integer, got a number with a fractional part",
    "Input should be a valid number",
    "Input should be a valid number, unable to parse string as a number",
    "Input should be a finite number",
    "Input should be a valid string",
    "Input should be a valid boolean",
    "Input should be a valid boolean, unable to interpret input",
    "Input should be a valid list",
    "Input should be a valid tuple",
    "Input should be {0}",
    "Input is not a valid path for <class 'pathlib.Path'>",
    *flags.TYROS_WORDS,
    "Format not recognised",
    "Error in WAV file. No 'data' chunk marker",
    "Expecting value",
    "Expecting ',' delimiter",
    "Expecting ':' delimiter",
    "Expecting property name enclosed in double quotes",
    "Unterminated string starting at",
    "Invalid control character at",
    "Extra data",
)
"""What the system, the network, pydantic, tyro, libsndfile and json say in our error lines."""


def is_message(text: str) -> bool:
    """Whether a template has two words, or a word and a value, with a space between them."""
    bare = _SLOT.sub("", text)
    n_words = len(_WORD.findall(bare))
    return " " in text.strip() and (n_words > 1 or (n_words == 1 and bare != text))


def messages(source: Path = SOURCE) -> tuple[dict[str, str], set[str]]:
    """Messages with the module where each first occurs, and all texts of the source: the catalogue
    may also have single words of these."""
    needed: dict[str, str] = {}
    every: set[str] = set(OF_LIBRARIES)
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        for text in of_python(path):
            every.add(text)
            if is_message(text) and not _is_verbatim(name, text):
                needed.setdefault(text, name)
            nouns = re.findall(r"\{\d+:([^}]*)\}", text)
            for noun in nouns if not _is_verbatim(name, text) else ():
                needed.setdefault(f"{{0:{noun}}}", name)
                every.add(f"{{0:{noun}}}")
        for text in of_flags(path) if name.startswith("config") else ():
            every.add(text)
            needed.setdefault(text, name)
    for path in sorted(source.rglob("*.jinja")):
        for text in of_page(path):
            every.add(text)
            if re.search("[A-Za-z]", text) and len(text) > 1:
                needed.setdefault(text, path.relative_to(source).as_posix())
    for text in OF_LIBRARIES:
        needed.setdefault(text, "libraries")
    return needed, every


def _is_verbatim(name: str, text: str) -> bool:
    return any(_is_at(name, place) and _fits(text, p) for place, p in NOT_MESSAGES.items())


def _is_at(name: str, place: str) -> bool:
    return not place or name == place or name.startswith(f"{place}/")


def _fits(text: str, pattern: str | None) -> bool:
    return pattern is None or re.fullmatch(pattern, text, re.DOTALL) is not None


def idle_patterns(source: Path = SOURCE) -> list[str]:
    """The entries of `NOT_MESSAGES` that match no text any more, as where it was reworded."""
    texts = {
        path.relative_to(source).as_posix(): list(of_python(path)) for path in source.rglob("*.py")
    }
    return [
        place
        for place, pattern in NOT_MESSAGES.items()
        if not any(
            _is_at(name, place) and _fits(text, pattern)
            for name, found in texts.items()
            for text in found
        )
    ]


def main() -> int:
    needed, every = messages()
    old = catalogue.read(catalogue.path_of("zh"))
    new: dict[str, dict[str, str]] = {}
    for text, place in needed.items():
        new.setdefault(place, {})[text] = old.get(text, "")
    words = {t: said for t, said in old.items() if said and t not in needed and t in every}
    lacking = [text for text in needed if not old.get(text)]
    stale = [text for text in old if text not in needed and text not in every]
    idle = idle_patterns()
    for what, texts in (("lacks", lacking), ("stale", stale), ("matches nothing", idle)):
        for text in texts:
            print(f"{what}: {text!r}")
    print(
        f"{len(needed)} messages and {len(words)} words, {len(lacking)} lacking, {len(stale)} stale"
    )
    if "--check" not in sys.argv:
        catalogue.write(catalogue.path_of("zh"), {**new, "single words": words})
    return int(bool(lacking or stale or idle)) if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
