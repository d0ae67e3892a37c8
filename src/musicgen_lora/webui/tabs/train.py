"""Train: a preset, or any setting; how long it will take. The run itself is in `run`."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.forms import Setting, changed, form_of
from musicgen_lora.webui.kept import Kept, wanted
from musicgen_lora.webui.page import PRIVATE, Page, chosen, side_by_side
from musicgen_lora.webui.safety import folders_of, id_of, new_name
from musicgen_lora.webui.tabs import run, trial
from musicgen_lora.webui.tabs.trial import PRESETS
from musicgen_lora.webui.workspace import BASES, choices


def build(page: Page) -> None:
    awaited = gr.State("")
    side_by_side(
        page, lambda page: _build_start(page, awaited), lambda page: run.build(page, awaited)
    )


def _build_start(page: Page, awaited: gr.State) -> None:
    say, work, kept = page.words, page.workspace, Kept(page)
    dataset = gr.Dropdown([], label=say("Dataset"), elem_id="train-dataset")
    base = gr.Dropdown(list(BASES), value=BASES[0], label=say("Base model"), elem_id="train-base")
    preset = gr.Radio(
        [(say(name), name) for name in PRESETS],
        value="balanced",
        label=say("Thoroughness"),
        info=say(
            "Quick: 2 epochs, a small adapter. Balanced: the defaults. Thorough: up to 15 epochs, "
            "a large adapter, and early stopping."
        ),
        elem_id="preset",
    )
    name = gr.Textbox(label=say("Run name"), max_length=60, elem_id="run-name")
    form = form_of("train", frozenset(("data_dir", "output_dir")))
    fields = kept.advanced(form, "train")
    go = gr.Button(say("Train"), variant="primary", elem_id="train")
    starting = Starting(page, form)
    inputs = [dataset, base, preset, *fields]
    trial.build(page, starting.settings, inputs)

    def look(before: str, data: Any) -> Any:
        found = choices(folders_of(work.datasets))
        now = repr(sorted(found))
        if now == before:
            return gr.skip(), before
        # What the browser kept may be long gone.
        choose = page.still_chosen(found, data) if before else chosen(found, data)
        return choose, now

    go.click(page.guarded(starting.train, "train"), [name, *inputs], awaited, **PRIVATE)
    kept.keep([dataset, base, preset, name, *fields], listed=[dataset, base])
    page.watches.when_opened(
        lambda before: chosen(work.bases(), wanted(before, "train-base")), [kept.state], [base]
    )
    names = gr.State("")
    page.watches.always(look, [names, dataset], [dataset, names])
    page.watches.when_opened(
        lambda before: look("", wanted(before, "train-dataset")), [kept.state], [dataset, names]
    )


class Starting:
    """Requests to the `train` command.

    Args:
        form: of the settings under "advanced".
    """

    def __init__(self, page: Page, form: list[Setting]) -> None:
        self._page, self._work, self._form = page, page.workspace, form

    def settings(self, data_id: Any, model: Any, how: Any, *values: Any) -> dict[str, Any]:
        """Settings of a training, except its folder."""
        if how not in PRESETS:
            raise UserError("Choose how thorough the training should be.")
        return {
            "model_path": self._work.base(model),
            "data_dir": str(self._work.dataset(data_id)),
            **PRESETS[how],
            **changed(self._form, values),
        }

    def train(self, typed: Any, data_id: Any, *values: Any) -> str:
        """Starts a training under the name that was typed, and returns its run's id."""
        settings = self.settings(data_id, *values)
        data = self._work.dataset(data_id)
        title = new_name(typed, f"{data.name} {time.strftime('%m%d-%H%M')}")
        target = self._work.runs / title
        self._page.submit("train", settings | {"output_dir": str(target)}, title, target)
        return id_of(title)
