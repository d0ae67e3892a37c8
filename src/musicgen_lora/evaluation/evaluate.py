"""What did the adapter change? Held-out loss, paired generations, descriptors, one report.

Without held-out clips, whatever needs them is "not computed" in every output, with the reason: an
evaluation never fails for lack of a reference, and never drops a figure silently.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.engine import open_engine
from musicgen_lora.cluster.places import at_any_place
from musicgen_lora.config import EvaluateSettings
from musicgen_lora.console import plain_console, working
from musicgen_lora.dataset.remote import with_local_data
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.decisions.choice import choose_best
from musicgen_lora.evaluation.decisions.protocol import judge_family
from musicgen_lora.evaluation.decisions.regressions import find_regressions
from musicgen_lora.evaluation.held_out import HeldOut, find_held_out
from musicgen_lora.evaluation.measures.embeddings import Embedding
from musicgen_lora.evaluation.measures.listeners import Listener, load_listener
from musicgen_lora.evaluation.on_variant import measure_variant, play
from musicgen_lora.evaluation.performers import (
    BASE,
    Performer,
    base_performer,
    place,
    variant_performers,
)
from musicgen_lora.evaluation.remarks import idle
from musicgen_lora.evaluation.report.card import tell_cards
from musicgen_lora.evaluation.report.document import (
    FORMAT_VERSION,
    Generation,
    PlayedPair,
    Report,
)
from musicgen_lora.evaluation.report.findings import find_findings, tell_sections
from musicgen_lora.evaluation.report.report import (
    HTML_FILE,
    files_of_report,
    print_report,
    write_report,
)
from musicgen_lora.evaluation.report.summary import list_not_computed
from musicgen_lora.evaluation.session import EvaluationSession, Played, open_session
from musicgen_lora.evaluation.sound.ear import Ear
from musicgen_lora.evaluation.store import FOLDER as CACHE
from musicgen_lora.evaluation.store import Store
from musicgen_lora.evaluation.variants import (
    Variant,
    common_held_out,
    home_of,
    list_variants,
    read_variant,
)
from musicgen_lora.fonts import missing_font
from musicgen_lora.formats.documents import plain
from musicgen_lora.generation.decoding.decode import windows_sentence
from musicgen_lora.generation.decoding.precision import choose_precision
from musicgen_lora.given import (
    ADAPTER_WEIGHTS,
    check_adapters,
    check_each_once,
    check_prompts,
)
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.wording import english_of
from musicgen_lora.runtime.locks import locked
from musicgen_lora.runtime.versions import library_versions
from musicgen_lora.training.record.run import is_own_run
from musicgen_lora.urls import shown


@at_any_place("evaluate")
def evaluate_adapter(
    settings: EvaluateSettings, *, embeddings: Sequence[Embedding] = ()
) -> dict[str, Any]:
    """Measure an adapter, or several side by side, and write `report.html`, `report.json`,
    `plots/`, `audio/`, and the figures into the adapter's own card.

    Args:
        embeddings: the caller's own functions from audio to a vector, for distances between sets.

    Returns:
        The contents of report.json, a `document.Report`.

    Raises:
        UserError: base, adapter, prompts, an audio model, a given `data_dir` or the output folder
            is not usable.
    """
    check_prompts(settings.prompts, needed=False)
    console = plain_console()
    settings = with_local_data(settings, console)
    check_adapters(settings.lora_model_path)
    check_each_once(settings.lora_model_path)
    # Read once: whatever happens to the folders meanwhile, the report describes these files.
    adapters = [read_variant(folder) for folder in settings.lora_model_path]
    variants = list_variants(adapters, settings.strengths)
    held_out = _held_out(settings, variants)
    with locked(settings.output_dir):
        atomic.sweep(settings.output_dir)
        store = Store(settings.output_dir / CACHE)
        report = _publish(settings, variants, held_out, embeddings, store, console)
    print_report(report, console)
    tell_cards(variants, report, console)
    _tell_reused(store, settings.output_dir / CACHE, console)
    if said := missing_font():
        console.print(said, style="yellow")
    console.print(f"Report: {settings.output_dir / HTML_FILE}")
    return dict(report)


def _publish(
    settings: EvaluateSettings,
    variants: Sequence[Variant],
    held_out: HeldOut,
    embeddings: Sequence[Embedding],
    store: Store,
    console: Console,
) -> Report:
    """Measure the variants, and replace the last report once the new one is complete."""
    with working(console, "loading the models"):
        model = BaseModel.load(settings.base_model_path)
        hearing = _hearing(settings, model, embeddings)
        device = place(model)
    precision, why = choose_precision(model, settings.precision, device, console.print)
    console.print(why)
    base = base_performer(model, store, precision)
    performers = variant_performers(base, variants)
    made: list[Report] = []

    def fill(staging: Path) -> None:
        session = open_session(
            settings,
            base,
            held_out,
            hearing,
            compared=settings.compare or len(variants) > 1,
            folder=staging,
            console=console,
        )
        # Generates the clips; None means this process, which has the base loaded.
        with nullcontext() if settings.ray is None else open_engine(settings.ray) as engine:
            session = dataclasses.replace(session, engine=engine)
            report = _measure(session, variants, performers)
        report["device"] = str(device)
        with working(console, "writing the report"):
            write_report(report, staging)
        made.append(report)

    atomic.publish_files(settings.output_dir, fill, lambda _: files_of_report(settings.output_dir))
    (report,) = made
    return report


def _held_out(settings: EvaluateSettings, variants: Sequence[Variant]) -> HeldOut:
    adapters = list({own.files.fingerprint: own.files for own in variants}.values())
    found = []
    for files in adapters:
        facts = files.facts
        own_run = facts is not None and is_own_run(home_of(files.folder), dict(facts.content))
        found.append(
            find_held_out(
                facts,
                settings.data_dir,
                settings.metadata_file,
                from_tokens=settings.from_tokens,
                own_run=own_run,
            )
        )
    if len(found) == 1:
        return found[0]
    return common_held_out(found, [str(files.folder) for files in adapters])


def _hearing(
    settings: EvaluateSettings, model: BaseModel, embeddings: Sequence[Embedding]
) -> tuple[Listener | None, Ear]:
    """The CLAP model, and an ear with all embeddings."""
    clap = None if settings.clap is None else load_listener(settings.clap)
    if clap is not None and clap.read is None:
        raise UserError(f"--clap {settings.clap}: is not a CLAP model; pass it with --embeddings.")
    others = [load_listener(path) for path in settings.embeddings]
    further = [own.embedding for own in ([clap] if clap else []) + others] + list(embeddings)
    ear = Ear(model, further)
    names = [own.name for own in ear.embeddings]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two embeddings are called {name}; rename one of them.")
    return clap, ear


def _measure(
    session: EvaluationSession, variants: Sequence[Variant], performers: Sequence[Performer]
) -> Report:
    """The report, without its plots and device; the clips go into the session's folder."""
    base = play(session, session.base, BASE) if session.compared else None
    found = [
        measure_variant(session, performer, own.name, base)
        for own, performer in zip(variants, performers, strict=True)
    ]
    played = [parts.pop("played") for parts in found]
    rows = [
        {
            **_told_variant(own),
            # The held-out audio is the same for all.
            **{name: part for name, part in parts.items() if name != "reference"},
            "clips": plain(clips.entries),
        }
        for own, parts, clips in zip(variants, found, played, strict=True)
    ]
    choice: dict[str, Any] = {"computed": False, "why": "there is only one adapter and strength"}
    chosen = 0
    if len(rows) > 1:
        judge_family([primary for row in rows for primary in row["primaries"]])
        choice = choose_best(rows, seed=session.settings.seed)
        chosen = [row["name"] for row in rows].index(choice["best"])
    model = session.model
    report: Report = plain(
        {
            "format_version": FORMAT_VERSION,
            "created": time.strftime("%Y-%m-%d %H:%M:%S"),
            "settings": dataclasses.asdict(session.settings),
            "versions": library_versions(),
            "device": "",
            "base": {"path": model.path, "fingerprint": model.fingerprint},
            "adapter": _told_variant(variants[chosen]),
            "held_out": _told(session.held_out),
            "remarks": [
                *(idle(str(own.adapter), own.strength) for own in performers if own.is_idle),
                *session.remarks,
            ],
            "generation": _generation(
                session, variants, played, None if base is None else base.asked, chosen
            ),
            **found[chosen],
            "variants": rows if len(rows) > 1 else [],
            "choice": choice,
            "cache": session.base.store.told(),
            "regressions": {},
            "not_computed": [],
            "findings": [],
            "told": {},
            "plots": [],
        }
    )
    report["regressions"] = plain(find_regressions(report))
    report["not_computed"] = list_not_computed(report)
    report["findings"], report["told"] = find_findings(report), tell_sections(report)
    return report


def _told_variant(own: Variant) -> dict[str, Any]:
    return {
        "name": own.name,
        "label": own.label,
        "path": shown(own.files.folder),
        "strength": own.strength,
        "sha256": own.files.sha256[ADAPTER_WEIGHTS],
        "fingerprint": own.files.fingerprint,
    }


def _told(held_out: HeldOut) -> dict[str, Any]:
    return {
        "origin": held_out.origin,
        "is_unseen": held_out.is_unseen,
        "chose_best": held_out.chose_best,
        "why_none": held_out.why_none,
        "n_clips": len(held_out.clips),
        "n_sources": held_out.n_sources,
        "n_heard": held_out.n_heard,
        "missing": held_out.missing,
    }


def _generation(
    session: EvaluationSession,
    variants: Sequence[Variant],
    played: Sequence[Played],
    base: Played | None,
    chosen: int,
) -> Generation:
    """The report's `generation`: each side's clip for each prompt."""
    settings, model, own = session.settings, session.model, played[chosen]
    clips: list[PlayedPair] = [
        {
            "prompt": item["prompt"],
            "origin": item["origin"],
            "read_as": english_of(item["prompt"]),
            "seed": settings.seed + index,
            "identical": base is not None and np.array_equal(base.codes[index], own.codes[index]),
            "base": None if base is None else base.entries[index],
            "adapter": own.entries[index],
            "others": {
                variant.name: its.entries[index]
                for place, (variant, its) in enumerate(zip(variants, played, strict=True))
                if place != chosen
            },
        }
        for index, item in enumerate(session.prompts)
    ]
    return {
        "compared": session.compared,
        "duration_s": settings.duration,
        "precision": session.base.precision,
        "windows": windows_sentence(model, model.shape.frames(settings.duration)),
        "clips": clips,
    }


def _tell_reused(store: Store, folder: Path, console: Console) -> None:
    reused = sum(store.reused.values())
    if store.damaged:
        console.print(
            f"{folder}: changed since it was written, so its contents were computed again: "
            f"{', '.join(store.damaged)}.",
            style="yellow",
        )
    if reused:
        console.print(
            f"Reused from {folder}: {store.reused['clips']} clips, "
            f"{store.reused['losses']} window losses, {store.reused['continuations']} "
            "continuations."
        )
