"""The page: the strip of jobs above, below it the tabs in the order of the workflow."""

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
from musicgen_lora.webui.safety import NO_LONGER
from musicgen_lora.webui.tabs import data, evaluate, generate, models, strip, train
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace

TICK_S = 2.0
UPLOAD_AGE_S = 24 * 3600
MAX_TOLD = 2_000
"""Characters of an error that are printed."""
MAX_SESSIONS = 32
"""Open pages that the server remembers; one more evicts the oldest."""
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
    "Value {value} is less than minimum value {limit}.",
    "Value {value} is greater than maximum value {limit}.",
)
"""Words that Gradio has only in English."""
LOST = "Connection to the server was lost. Attempting reconnection..."
"""What Gradio says until it has reloaded the page."""
UNLISTED = "is not in the list of choices"
"""What it says of a choice that is gone since the page was drawn."""
REFUSED = "HTTP 500: Internal Server Error"
"""What Gradio says when it can't store an uploaded file."""
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
        uploads: where Gradio puts what a browser uploads.
    """
    say = Words(language)
    with gr.Blocks(
        title="musicgen-lora",
        analytics_enabled=False,
        delete_cache=(3600, UPLOAD_AGE_S),
        fill_width=True,
    ) as demo:
        fill(Page(workspace, say, gr.Timer(TICK_S, active=False), uploads), demo)
    demo.process_api = _bounded(demo.process_api, say)
    # Gradio's default is ten thousand, each with what it has been shown.
    demo.state_session_capacity = MAX_SESSIONS
    demo.queue(default_concurrency_limit=4, max_size=64, api_open=False)
    return demo


def _bounded(process: Callable[..., Any], say: Words) -> Callable[..., Any]:
    """Tells what Gradio refuses, such as a choice that was just deleted, on the page alone: the
    terminal would get a traceback. And works around two leaks. Gradio prints unusable requests at
    any length: a few hundred of megabytes would make a log of gigabytes. And it creates a new
    component for each update, even one that changes nothing, and also keeps it under its new
    number: 70 kB per refresh, for as long as a page is open."""

    @functools.wraps(process)
    async def run(*values: Any, **named: Any) -> Any:
        try:
            found = await process(*values, **named)
        except Exception as error:
            told = str(error)
            if isinstance(error, gr.Error) and UNLISTED in told:
                told = say(NO_LONGER)
            elif len(told) > MAX_TOLD:
                told = f"{told[:MAX_TOLD]} ..."
            elif not isinstance(error, gr.Error):
                raise
            raise gr.Error(told, print_exception=False) from None
        if (state := named.get("state")) is not None:
            for number, block in list(state.blocks_config.blocks.items()):
                block._id = number
        return found

    return run


def fill(page: Page, demo: gr.Blocks) -> None:
    """Builds a page's strip and tabs, and has it watch the folders."""
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
    """The script that Gradio runs once the page has loaded: the report player, the page's own
    script, and translations of the words that Gradio has only in English."""
    own = SCRIPT.read_text(encoding="utf-8")
    told = {word: say(word) for word in LIBRARY}
    told |= {"Error": say("That didn't work"), LOST: say(AWAY), REFUSED: say(FULL)}
    words = (
        f"window.pageWords = {json.dumps(told)};\ndocument.documentElement.lang = '{say.language}';"
    )
    return f"() => {{\n{words}\n{read_script(REPORT_SCRIPT)}\n{own}\n}}"
