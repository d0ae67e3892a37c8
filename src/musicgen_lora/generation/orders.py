"""The clips of a request: from prompts on the command line, in a file, among an adapter's captions,
or from the JSON of a recording."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.prompts import ClipOrder, read_prompts
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips.written import read_facts
from musicgen_lora.generation.recordings.own_format import OwnFormat
from musicgen_lora.generation.wanted import checked_orders, stated_sentence, wanted_of
from musicgen_lora.given import NO_CAPTIONS, check_prompts
from musicgen_lora.model.lora.adapter import AdapterFiles
from musicgen_lora.plural import count
from musicgen_lora.runtime.seeds import seed_of


def orders_of(
    settings: GenerateSettings, adapters: Sequence[AdapterFiles], console: Console
) -> list[ClipOrder]:
    """The clips of a request, each once.

    Args:
        settings: of the command, or from Python.
        adapters: that play; prompts may be drawn from their captions.

    Raises:
        UserError: there are none, or one is impossible.
    """
    further: list[str] = []
    if settings.from_captions:
        further, said = draw_captions(adapters, settings.from_captions, settings.seed)
        if said:
            console.print(said, style="yellow")
    if settings.prompts_file is not None:
        guessed = read_prompts(settings.prompts_file)[1]
        if guessed is not None:
            console.print(
                f"{settings.prompts_file}: is not UTF-8; it was read as {guessed}.", style="yellow"
            )
    has_none = not (settings.prompts or settings.prompts_file or further)
    if settings.regenerate is not None and has_none:
        beside = read_facts(settings.regenerate.with_suffix(".json"))
        further = [text for text in [beside.get("prompt")] if text]
    orders = checked_orders(settings, further)
    if not orders:
        check_prompts([], needed=True)
    if said := stated_sentence(orders):
        console.print(said)
    recording = settings.continue_from or settings.regenerate
    if recording is not None:
        orders = _in_own_format(orders, OwnFormat.of(recording), console)
    return _without_twins(orders, console)


def _in_own_format(
    orders: Sequence[ClipOrder], own: OwnFormat, console: Console
) -> list[ClipOrder]:
    """Keeps a recording's samples where no format is asked for, and says what is lost."""
    for said in dict.fromkeys(own.lost_in(order.settings.format) for order in orders):
        if said:
            console.print(said, style="yellow")
    found = []
    for order in orders:
        kind = own.kept_by if order.settings.format == "auto" else order.settings.format
        found.append(replace(order, settings=replace(order.settings, format=kind)))
    return found


def _without_twins(orders: Sequence[ClipOrder], console: Console) -> list[ClipOrder]:
    """Drops rows of a file whose own seed asks for a clip that is in the request already, which
    would be the same file, and tells the user."""
    first: dict[str, ClipOrder] = {}
    for order in orders:
        wanted = wanted_of(order.settings)
        # "auto" is wav, and "c#m" is C# minor.
        asked = replace(order.settings, format=wanted.format, key=wanted.key or "")
        twin = first.setdefault(repr(asked), order)
        if twin is not order and order.where:
            console.print(
                f"{order.where}: asks for the same clip as {twin.where or 'the command line'}; it "
                "is generated once, into one file. Give the row another seed, or none.",
                style="yellow",
            )
    return list(first.values())


def texts_of(orders: Sequence[ClipOrder]) -> list[str]:
    """Every text that the model reads, each once."""
    prompts = [text for order in orders for text in order.settings.prompts]
    negative = [text for order in orders if (text := order.settings.negative_prompt)]
    return list(dict.fromkeys(prompts + negative))


def draw_captions(adapters: Sequence[AdapterFiles], n: int, seed: int) -> tuple[list[str], str]:
    """Draw training captions that the adapters keep, by a seed, and a remark for the user, empty if
    there is none. If more are asked for than exist, each is drawn once before any repeats.

    Raises:
        UserError: there is no adapter, or one without captions.
    """
    check_captions(adapters)
    known = [text for files in adapters if files.facts for text in files.facts.captions]
    known = list(dict.fromkeys(known))
    draws = random.Random(seed_of("from_captions", seed))
    found: list[str] = []
    while len(found) < n:
        found += draws.sample(known, min(len(known), n - len(found)))
    said = ""
    if n > len(known):
        said = (
            f"The adapter keeps {count(len(known), 'caption')}, fewer than {n}: some are used more "
            "than once."
        )
    return found, said


def check_captions(adapters: Sequence[AdapterFiles]) -> None:
    """Raises a UserError if there is no adapter, or one without captions."""
    if not adapters:
        raise UserError(NO_CAPTIONS)
    for files in adapters:
        if files.facts is None or not files.facts.captions:
            raise UserError(
                f"{files.folder}: has no captions of its training: an earlier release or another "
                "tool made it, or it was exported for sharing. Train it again, or use --prompts."
            )
