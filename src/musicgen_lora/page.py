"""Single-file pages, for reports: they load nothing from anywhere, run no script but ours, whose
hash their policy names, and escape every text, since file names and captions come from strangers.

They are in the user's language: templates mark their own sentences with `trans`, the program's
English sentences, such as a report's findings, with `said`, and what may be a name with `line`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from musicgen_lora.errors import printable
from musicgen_lora.language.choice import chosen_language
from musicgen_lora.language.translate import gettext, translated, word
from musicgen_lora.plural import count

_PERCENT = re.compile("[-+\\d.,/\\s\u2212\u2013\u00b1]{1,60} %")
HTML_CODES = {"en": "en", "zh": "zh-CN"}


def render_page(template: str, *, script: str = "", **values: Any) -> str:
    """Renders a template of `assets/` with values, and a script of `assets/` in it."""
    code, digest = "", ""
    if script:
        code, digest = read_script(script), script_hash(script)
    return (
        _environment(chosen_language())
        .get_template(template)
        .render(script=Markup(code), script_hash=digest, **values)
    )


@cache
def _environment(language: str) -> Environment:
    """Reads the templates, each only once per process: that takes as long as all the rest of a
    small page."""
    environment = Environment(
        loader=PackageLoader("musicgen_lora", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    # No singulars and plurals: numbers come with their nouns, from `count`.
    environment.install_gettext_callables(  # pyright: ignore[reportAttributeAccessIssue]
        gettext, lambda one, many, n: gettext(one if n == 1 else many), newstyle=True
    )
    if language == "zh":
        environment.finalize = _chinese_percent
    environment.filters["said"] = lambda text: word(str(text))
    environment.filters["line"] = lambda text: translated(str(text))
    environment.filters["printable"] = lambda name: printable(str(name))
    environment.globals["count"] = lambda number, noun: word(count(number, noun))
    environment.globals["language"] = HTML_CODES[language]
    return environment


def _chinese_percent(value: Any) -> Any:
    """A figure in percent as Chinese writes it, without a space: `-18.3%`."""
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        return value.replace(" %", "%")
    return value


def read_script(name: str) -> str:
    return (files("musicgen_lora") / "assets" / name).read_text(encoding="utf-8")


def script_hash(name: str) -> str:
    """A script's SHA-256 in base64, as a policy names it."""
    return base64.b64encode(hashlib.sha256(read_script(name).encode()).digest()).decode()


def data_uri(kind: str, content: bytes) -> str:
    """A file of a media type such as "image/png", as text inside a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
