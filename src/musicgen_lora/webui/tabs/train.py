"""Train: a preset, or any setting; the run as it goes, and what came of it in words."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.training.record.run_folder import METRICS_FILE, PREVIEWS, read_metrics
from musicgen_lora.webui.drawing import curve, player
from musicgen_lora.webui.forms import changed, form_of
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen
from musicgen_lora.webui.safety import folders_of, id_of, new_name
from musicgen_lora.webui.workspace import BASES, choices, preview_names, run_of

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"num_epochs": 2, "lora_rank": 8, "lora_alpha": 16},
    "balanced": {},
    "thorough": {
        "num_epochs": 15,
        "lora_rank": 32,
        "lora_alpha": 64,
        "early_stopping_patience": 4,
    },
}
"""What each changes of the defaults; a setting that a person changed counts more."""
SHOWN_PREVIEWS = 8


def build(page: Page, demo: gr.Blocks) -> None:
    """Builds the tab."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            _build_start(page, demo)
        with gr.Column(scale=2, min_width=300):
            _build_run(page, demo)


def _build_start(page: Page, demo: gr.Blocks) -> None:
    say, work = page.words, page.workspace
    dataset = gr.Dropdown([], label=say("Dataset"), elem_id="train-dataset")
    base = gr.Dropdown(list(BASES), value=BASES[0], label=say("Base model"), elem_id="train-base")
    preset = gr.Radio(
        [(say(name), name) for name in PRESETS],
        value="balanced",
        label=say("How thorough"),
        info=say(
            "Quick: 2 epochs, a small adapter. Balanced: the defaults. Thorough: up to 15 "
            "epochs, a large adapter, and an end when it stops getting better."
        ),
        elem_id="preset",
    )
    name = gr.Textbox(label=say("Name of the run"), max_length=60, elem_id="run-name")
    form = form_of("train", frozenset(("data_dir", "output_dir")))
    with gr.Accordion(say("Advanced settings"), open=False):
        fields = page.fields(form, "train")
    go = gr.Button(say("Train"), variant="primary", elem_id="train")

    def train(wanted: Any, model: Any, how: Any, typed: str, *values: Any) -> None:
        data = work.dataset(wanted)
        title = new_name(typed, f"{data.name} {time.strftime('%m%d-%H%M')}")
        target = work.runs / title
        if how not in PRESETS:
            raise UserError("Choose how thorough it should be.")
        settings = {
            "model_path": work.base(model),
            "data_dir": str(data),
            "output_dir": str(target),
            **PRESETS[how],
            **changed(form, values),
        }
        page.submit("train", settings, title, target)

    def look(before: str, wanted: Any) -> Any:
        found = choices(folders_of(work.datasets))
        now = repr(sorted(found))
        return (gr.skip(), before) if now == before else (chosen(found, wanted), now)

    go.click(
        page.guarded(train),
        [dataset, base, preset, name, *fields],
        None,
        **PRIVATE,
    )
    names = gr.State("")
    page.timer.tick(look, [names, dataset], [dataset, names], **QUIET)
    demo.load(lambda: look("", None), None, [dataset, names], **QUIET)


def _build_run(page: Page, demo: gr.Blocks) -> None:
    say, work = page.words, page.workspace
    run = gr.Dropdown([], label=say("Run"), elem_id="run")
    verdict = gr.Markdown(elem_id="verdict")
    loss = gr.HTML(elem_id="loss")
    heard = gr.HTML(elem_id="previews")
    seen, names = gr.State(""), gr.State("")

    def look(before: str, listed: str, wanted: Any) -> Any:
        folders = folders_of(work.runs)
        # The order changes while a run is written to; which there are is what counts.
        now = repr(sorted(folders))
        runs = gr.skip() if now == listed else chosen(choices(folders), wanted)
        if wanted not in map(id_of, folders):
            wanted = id_of(folders[0]) if folders else None
        shown = show(before, wanted)
        return runs, now, *shown

    def show(before: str, wanted: Any) -> Any:
        if not wanted:
            return "", "", "", "none"
        folder = work.run(wanted)
        metrics = folder / METRICS_FILE
        state = metrics.stat() if metrics.is_file() else None
        previews = preview_names(folder / PREVIEWS)[:SHOWN_PREVIEWS]
        found = run_of(folder)
        told = _told(found, page)
        now = repr((wanted, state and (state.st_size, state.st_mtime_ns), previews, told))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), before
        drawn = curve(read_metrics(folder) if state else [], say)
        players = "".join(
            player(f"{page.address('preview')}/{wanted}/{id_of(name)}", name, save_as="")
            for name in previews
        )
        return told, drawn, players, now

    outputs = [run, names, verdict, loss, heard, seen]
    page.timer.tick(page.guarded(look), [seen, names, run], outputs, **QUIET)
    demo.load(page.guarded(lambda: look("", "", None)), None, outputs, **QUIET)
    run.change(page.guarded(show), [seen, run], outputs[2:], **QUIET)


def _told(found: Any, page: Page) -> str:
    """A run in words."""
    if found is None:
        return page.words("It has not begun yet.")
    if found.verdict:
        return page.words.line(found.verdict)
    base = found.base_loss.get("loss") if found.base_loss else None
    return page.words("The base's held-out loss is {loss}.", loss=f"{base:.3f}") if base else ""
