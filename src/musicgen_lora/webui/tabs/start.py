"""Where to begin, shown as long as nothing was made."""

from __future__ import annotations

import random
from typing import Any

import gradio as gr

from musicgen_lora.webui.page import PRIVATE, Page, quiet
from musicgen_lora.webui.safety import folders_of
from musicgen_lora.webui.tabs.generate import DRAWN_SEEDS, EXAMPLE
from musicgen_lora.webui.words import beginning
from musicgen_lora.webui.workspace import BASES

SECONDS = 10.0
SHOW_IT = "() => { document.querySelector('#tab-generate-button').click(); }"


def build(page: Page) -> None:
    """Builds what is shown when the page is opened for the first time."""
    say, work = page.words, page.workspace
    with gr.Column(visible=False, elem_id="start") as box:
        gr.Markdown(f"### {say('Start here')}")
        gr.HTML(
            quiet(say("To hear something right away: a base model is included."))
            + quiet(
                say(
                    "For your own sound: drop 50 or more of your beats below and press Prepare; "
                    "then Train, Generate, and compare with the base."
                )
            )
            + quiet(say("No beats at hand? Make example beats gives you some to train on."))
        )
        hear = gr.Button(f"▶ {say('Play an example beat')}", variant="primary", elem_id="hear")

    def play() -> None:
        settings: dict[str, Any] = {
            "base_model_path": work.base(BASES[0]),
            "prompts": [EXAMPLE],
            "duration": SECONDS,
            "seed": random.randrange(DRAWN_SEEDS),
            "output_dir": str(work.generated),
        }
        page.submit("generate", settings, beginning(EXAMPLE), work.generated)

    def look(before: bool | None) -> Any:
        is_new = not (work.jobs.all() or folders_of(work.datasets) or folders_of(work.runs))
        return (gr.skip(), before) if is_new == before else (gr.update(visible=is_new), is_new)

    hear.click(page.guarded(play), None, None, **PRIVATE).success(None, None, None, js=SHOW_IT)
    seen = gr.State(None)
    page.watches.always(look, [seen], [box, seen])
    page.watches.when_opened(lambda: look(None), [], [box, seen])
