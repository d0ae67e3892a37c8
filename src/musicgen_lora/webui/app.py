"""The page: the strip of jobs above, the route from left to right below."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.language.choice import Language
from musicgen_lora.page import read_script
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.tabs import data, evaluate, generate, models, strip, train
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace

TICK_S = 2.0
UPLOAD_AGE_S = 24 * 3600
MAX_TOLD = 2_000
"""Letters of an error that are printed."""
MAX_SESSIONS = 32
"""Open pages that the server remembers; one more makes it forget the oldest."""
_ASSETS = Path(__file__).resolve().parents[1] / "assets" / "webui"
TABS = {
    "1 Data": data,
    "2 Train": train,
    "3 Generate": generate,
    "4 Evaluate": evaluate,
    "5 Models": models,
}
OF_ONE = "This page is for one person: anyone who can open it can hear and delete everything."
LIBRARY = (
    "Search...",
    "Info",
    "Warning",
    "Close",
    "More tabs",
    "Click to upload or drop files",
    "File upload",
    "Table actions",
    "Enter text to search the table",
    "Static column",
    "Open cell menu",
    "Select column",
    "Select row",
    "Edit cell",
    "Reset to default value",
)
"""Words that Gradio has in English alone."""
LOST = "Connection to the server was lost. Attempting reconnection..."
"""What Gradio says, until it has loaded the page anew."""
REFUSED = "HTTP 500: Internal Server Error"
"""What Gradio says where it can't keep a file that is sent."""
FULL = "The files could not be saved: the disk may be full. Nothing was done with them."
AWAY = (
    "The server is not responding, so this page may be out of date. Jobs continue without it; "
    "start it again, and the page reconnects by itself."
)
CSS = _ASSETS / "page.css"
SCRIPT = _ASSETS / "page.js"
REPORT_SCRIPT = "report_player.js"


def build_page(workspace: Workspace, language: Language, uploads: Path) -> gr.Blocks:
    """The page in one language.

    Args:
        uploads: where Gradio puts what a browser sends.
    """
    say = Words(language)
    with gr.Blocks(
        title="musicgen-lora",
        analytics_enabled=False,
        delete_cache=(3600, UPLOAD_AGE_S),
        fill_width=True,
    ) as demo:
        fill(Page(workspace, say, gr.Timer(TICK_S, active=False), uploads), demo)
    demo.process_api = _bounded(demo.process_api)
    # Gradio keeps ten thousand, each with what it has been shown.
    demo.state_session_capacity = MAX_SESSIONS
    demo.queue(default_concurrency_limit=4, max_size=64, api_open=False)
    return demo


def _bounded(process: Callable[..., Any]) -> Callable[..., Any]:
    """Gradio prints what it was sent and could not use, at any length: a few hundred requests of
    megabytes would make a log of gigabytes. And it makes a component anew for each update of it,
    even one that changes nothing, and keeps it under its own new number as well: 70 kB a look, for
    as long as a page is open."""

    @functools.wraps(process)
    async def run(*values: Any, **named: Any) -> Any:
        try:
            found = await process(*values, **named)
        except Exception as error:
            told = str(error)
            if len(told) <= MAX_TOLD:
                raise
            raise gr.Error(f"{told[:MAX_TOLD]} ...", print_exception=False) from None
        if (state := named.get("state")) is not None:
            for number, block in list(state.blocks_config.blocks.items()):
                block._id = number
        return found

    return run


def fill(page: Page, demo: gr.Blocks) -> None:
    """Puts strip and tabs into a page, and has it watch the folders."""
    say = page.words
    other, label = ("zh", "中文") if say.language == "en" else ("en", "English")
    gr.HTML(
        f'<header><h1>musicgen-lora</h1><a href="/{other}/" lang="{other}">{label}</a></header>'
        f'<p class="quiet">{say(OF_ONE)}</p>'
    )
    told = gr.HTML(elem_id="told")
    strip.build(page)
    with gr.Tabs(elem_id="tabs"):
        for title, tab in TABS.items():
            with gr.Tab(say(title), elem_id=f"tab-{title[2:].lower()}"):
                tab.build(page)
    page.start_watching(demo, told)


def page_script(say: Words) -> str:
    """What Gradio runs when the page has loaded: the players of reports, and the page's own, with
    the words that Gradio has in English alone."""
    own = SCRIPT.read_text(encoding="utf-8")
    told = {word: say(word) for word in LIBRARY}
    told |= {"Error": say("That didn't work"), LOST: say(AWAY), REFUSED: say(FULL)}
    words = (
        f"window.pageWords = {json.dumps(told)};\ndocument.documentElement.lang = '{say.language}';"
    )
    return f"() => {{\n{words}\n{read_script(REPORT_SCRIPT)}\n{own}\n}}"
