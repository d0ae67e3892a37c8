"""Lets commands, which read and write local folders, be given URLs.

`PLACES` says which settings of a command may be URLs and how it uses each. Inside `at_hand` each of
them is a local folder or file (`copies`); a command and its modules never ask. Messages and records
meanwhile name the copies by their URLs. `data_dir` isn't among them: its audio is read where it is
encoded, and never copied whole (`dataset/remote.py`).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from rich.console import Console

from musicgen_lora.cluster.copies import Copy
from musicgen_lora.config import SETTINGS
from musicgen_lora.console import plain_console
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.plural import count
from musicgen_lora.urls import as_list, url_of, with_urls

SEND_EVERY_S = 30.0
"""A machine that dies loses what it made in this time, and what was being sent."""

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Use(enum.Enum):
    """How a command uses a place: it reads it, or writes to it; of an adapter, only its card."""

    FOLDER = enum.auto()
    FILE = enum.auto()
    CARD = enum.auto()
    OUTPUT = enum.auto()


PLACES: dict[str, dict[str, Use]] = {
    "prepare": {"input_dir": Use.FOLDER, "clap_path": Use.FOLDER, "output_dir": Use.OUTPUT},
    "train": {"output_dir": Use.OUTPUT},
    "generate": {
        "lora_model_path": Use.FOLDER,
        **dict.fromkeys(("prompts_file", "melody", "continue_from", "regenerate"), Use.FILE),
        "output_dir": Use.OUTPUT,
    },
    "evaluate": {"lora_model_path": Use.CARD, "output_dir": Use.OUTPUT},
    "merge": {"lora_model_path": Use.FOLDER, "output_dir": Use.OUTPUT},
    "export": {"lora_model_path": Use.FOLDER, "output_dir": Use.OUTPUT},
    "import": {"input_dir": Use.FOLDER, "output_dir": Use.OUTPUT},
}
"""By command and setting; for any other setting, a URL is refused."""
NOT_BROUGHT = {"prepare": ("tokens",)}
"""Folders of an output that its command doesn't read, so that they aren't fetched."""


def at_any_place(
    command: str,
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Decorates a command's function to be given local folders and files, see `at_hand`."""

    def around(function: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(function)
        def wrapped(settings: S, *args: P.args, **kwargs: P.kwargs) -> R:
            with at_hand(command, settings) as here:
                return function(here, *args, **kwargs)

        return wrapped

    return around


@contextmanager
def at_hand(command: str, settings: S) -> Iterator[S]:
    """Yields settings in which no place of the command is a URL any more: inputs are fetched first,
    outputs are sent every half minute and when the command ends, however it ends.

    Raises:
        UserError: a place can't be read or written, or one of them is inside another.
        RunError: an output can't be sent; it stays here, and the next run sends it.
    """
    values: Any = settings
    if not isinstance(settings, SETTINGS[command]):
        raise UserError(
            f"{command} takes {SETTINGS[command].__name__}(...), not {shortened(settings)}."
        )
    urls: dict[str, dict[Path, str]] = {}
    for name in PLACES.get(command, {}):
        places = as_list(getattr(values, name))
        if found := {place: url for place in places if (url := url_of(place))}:
            urls[name] = found
    if not urls:
        yield settings
        return
    _check_apart(command, urls)
    console = plain_console()
    console.quiet = not _is_first()
    with ExitStack() as stack:
        sender = _Sender(console)
        stack.callback(sender.stop)
        changes = {}
        for name, found in urls.items():
            use = PLACES[command][name]
            here = {
                place: _enter(stack, sender, use, url, NOT_BROUGHT.get(command, ()))
                for place, url in found.items()
            }
            given = getattr(values, name)
            changes[name] = (
                [here.get(place, place) for place in given]
                if isinstance(given, list)
                else here[given]
            )
        sender.begin()
        stack.enter_context(_called_by_url())
        yield dataclasses.replace(values, **changes)
        sender.finished = True


def _is_first() -> bool:
    """Whether this process transfers files: of a training's several, only the first does."""
    return os.environ.get("RANK", "0") == "0"


def _check_apart(command: str, urls: Mapping[str, Mapping[Path, str]]) -> None:
    """Raises a UserError if an output and an input are one inside the other, or if machines that
    train together would each have their own copy."""
    uses = PLACES[command]
    outputs = [url for name in urls if uses[name] is Use.OUTPUT for url in urls[name].values()]
    others = [url for name in urls if uses[name] is not Use.OUTPUT for url in urls[name].values()]
    for output in outputs:
        for other in others:
            if f"{output}/".startswith(f"{other}/") or f"{other}/".startswith(f"{output}/"):
                raise UserError(
                    f"{output}: overlaps with {other}, which is read; use a separate output folder."
                )
    world, local = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if outputs and world != local and "LOCAL_WORLD_SIZE" in os.environ:
        raise UserError(
            f"{outputs[0]}: machines that train together need one output folder; use a folder on a "
            "drive that they share."
        )


@contextmanager
def _called_by_url() -> Iterator[None]:
    """Errors name copies by their URLs, too."""
    try:
        yield
    except UserError as error:
        error.args = (with_urls(str(error)),)
        raise


def _enter(stack: ExitStack, sender: _Sender, use: Use, url: str, without: tuple[str, ...]) -> Path:
    """Fetches a place."""
    is_output = use is Use.OUTPUT
    copy = Copy(
        url,
        sender.console,
        is_file=use is Use.FILE,
        is_written=is_output or use is Use.CARD,
        must_exist=not is_output,
        without=without if is_output else (),
    )
    if not _is_first():
        return copy.path
    path = stack.enter_context(copy.held())
    stack.enter_context(sender.sending(copy, is_output))
    if is_output:
        path.mkdir(parents=True, exist_ok=True)
    return path


class _Sender:
    """Sends new files of the outputs, in a thread of its own."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.finished = False
        self._copies: list[Copy] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    @contextmanager
    def sending(self, copy: Copy, is_output: bool) -> Iterator[None]:
        """A context in which new files are sent, the last of them at its end. Missing write
        permission shows at its start, before hours of work."""
        if is_output:
            try:
                copy.begin()
            except RunError as error:
                raise UserError(str(error)) from error
            self._copies.append(copy)
        try:
            yield
        finally:
            self.stop()
            self._send_last(copy, is_output)

    def _send_last(self, copy: Copy, is_output: bool) -> None:
        try:
            n_files = copy.send(shown=True)
            if is_output:
                copy.end(finished=self.finished)
        except (UserError, OSError) as error:
            said = f"{error} The output stays on this machine; run the same command to send it."
            if is_output and self.finished:
                raise RunError(said) from error
            # Another error is being raised, or it is only a card.
            self.console.print(said, style="yellow")
            return
        if n_files:
            self.console.print(f"{copy.url}: {count(n_files, 'file')} sent from this machine.")

    def _run(self) -> None:
        said = set[str]()
        while not self._ended.wait(SEND_EVERY_S):
            for copy in self._copies:
                try:
                    copy.send(shown=False)
                except (UserError, OSError) as error:
                    if copy.url not in said:
                        said.add(copy.url)
                        self.console.print(f"{error} Will try again.", style="yellow")

    def stop(self) -> None:
        """Stops the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
