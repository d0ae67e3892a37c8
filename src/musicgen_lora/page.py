"""Pages of one file, for reports: they load nothing from anywhere, run no script but ours, of which
their policy names the hash, and escape every text, since names of files and captions are written by
strangers."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from musicgen_lora.errors import printable
from musicgen_lora.plural import count


def render_page(template: str, *, script: str = "", **values: Any) -> str:
    """The page that a template of `assets/` makes of values, with a script of `assets/` in it."""
    code, digest = "", ""
    if script:
        code = (files("musicgen_lora") / "assets" / script).read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("musicgen_lora", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["printable"] = lambda name: printable(str(name))
    environment.globals["count"] = count
    return environment.get_template(template).render(
        script=Markup(code), script_hash=digest, **values
    )


def data_uri(kind: str, content: bytes) -> str:
    """A file of a media type such as "image/png", as text inside a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
