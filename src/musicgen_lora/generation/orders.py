"""The clips that a request comes to: prompts given, in a file, of an adapter's captions, or those
that a recording was made with."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rich.console import Console

from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.prompts import ClipOrder, read_prompts
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips.written import read_facts
from musicgen_lora.generation.wanted import checked_orders
from musicgen_lora.given import NO_CAPTIONS, check_prompts
from musicgen_lora.model.lora.adapter import AdapterFiles
from musicgen_lora.plural import count
from musicgen_lora.runtime.seeds import seed_of


def orders_of(
    settings: GenerateSettings, adapters: Sequence[AdapterFiles], console: Console
) -> list[ClipOrder]:
    """The clips that are asked for, each once.

    Args:
        settings: of the command, or from Python.
        adapters: that play, whose captions may be asked for.

    Raises:
        UserError: there are none, or one can't be.
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
                f"{settings.prompts_file}: is no UTF-8 and read as {guessed}.", style="yellow"
            )
    has_none = not (settings.prompts or settings.prompts_file or further)
    if settings.regenerate is not None and has_none:
        beside = read_facts(settings.regenerate.with_suffix(".json"))
        further = [text for text in [beside.get("prompt")] if text]
    orders = checked_orders(settings, further)
    if not orders:
        check_prompts([], needed=True)
    return _without_twins(orders, console)


def _without_twins(orders: Sequence[ClipOrder], console: Console) -> list[ClipOrder]:
    """Leaves out rows of a file that ask, by a seed of their own, for a clip that is asked for
    already, which would be the same file; and says so."""
    first: dict[str, ClipOrder] = {}
    for order in orders:
        twin = first.setdefault(repr(order.settings), order)
        if twin is not order and order.where:
            console.print(
                f"{order.where}: asks for the same clip as {twin.where or 'the command line'}, "
                "which is played once, into one file; give it another seed, or none.",
                style="yellow",
            )
    return list(first.values())


def texts_of(orders: Sequence[ClipOrder]) -> list[str]:
    """All that is read to the model, each text once."""
    prompts = [text for order in orders for text in order.settings.prompts]
    negative = [text for order in orders if (text := order.settings.negative_prompt)]
    return list(dict.fromkeys(prompts + negative))


def draw_captions(adapters: Sequence[AdapterFiles], n: int, seed: int) -> tuple[list[str], str]:
    """Captions that adapters keep of their training, drawn by a seed, and what to tell the user of
    them; empty where nothing is to be said. Where more are asked for than there are, all come
    before one comes again.

    Raises:
        UserError: there is no adapter, or one that keeps none.
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
            f"The adapter keeps {count(len(known), 'caption')}, fewer than {n}: some are played "
            "again."
        )
    return found, said


def check_captions(adapters: Sequence[AdapterFiles]) -> None:
    """Raises a UserError where there is no adapter, or one that keeps no captions."""
    if not adapters:
        raise UserError(NO_CAPTIONS)
    for files in adapters:
        if files.facts is None or not files.facts.captions:
            raise UserError(
                f"{files.folder}: keeps none of the captions that it was trained on, since an "
                "earlier release or another tool made it, or it was exported for other people; "
                "train it again, or write --prompts."
            )
