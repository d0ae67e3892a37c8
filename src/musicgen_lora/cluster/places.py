"""The door between commands, which read and write folders here, and what URLs name.

`PLACES` says which settings of a command may be URLs and what each is to it. Inside `at_hand` each
of them is a folder or file here (`copies`); a command and its modules never ask. Whatever is told
and recorded meanwhile calls the copies by their URLs. `data_dir` isn't among them: its audio is
read where it is encoded, and never copied whole (`dataset/remote.py`).
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
from musicgen_lora.console import plain_console
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.plural import count
from musicgen_lora.urls import as_list, url_of, with_urls

SEND_EVERY_S = 30.0
"""What a machine that dies takes with it is what it made in this time, and what was on its way."""

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Use(enum.Enum):
    """What a place is to a command: read, or written to; of an adapter, its card alone."""

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
"""By command and setting; whatever is not here can't be a URL, and is refused as one."""
NOT_BROUGHT = {"prepare": ("tokens",)}
"""Folders of an output that its command doesn't read."""


def at_any_place(
    command: str,
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Has a command's function be given folders and files here, see `at_hand`."""

    def around(function: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(function)
        def wrapped(settings: S, *args: P.args, **kwargs: P.kwargs) -> R:
            with at_hand(command, settings) as here:
                return function(here, *args, **kwargs)

        return wrapped

    return around


@contextmanager
def at_hand(command: str, settings: S) -> Iterator[S]:
    """Settings in which no place of the command is a URL any more: what is read is brought here
    first, what is made is sent every half a minute and when the command ends, however it ends.

    Raises:
        UserError: a place can't be read or written, or two of them lie in each other.
        RunError: what was made can't be sent; it is here, and the next run sends it.
    """
    values: Any = settings
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
    """Of several processes of a training, the first one alone reads and writes there."""
    return os.environ.get("RANK", "0") == "0"


def _check_apart(command: str, urls: Mapping[str, Mapping[Path, str]]) -> None:
    """Raises a UserError where an output and what is read lie in each other, or where machines
    that train together would each have a copy of their own."""
    uses = PLACES[command]
    outputs = [url for name in urls if uses[name] is Use.OUTPUT for url in urls[name].values()]
    others = [url for name in urls if uses[name] is not Use.OUTPUT for url in urls[name].values()]
    for output in outputs:
        for other in others:
            if f"{output}/".startswith(f"{other}/") or f"{other}/".startswith(f"{output}/"):
                raise UserError(
                    f"{output}: and {other}, which is read, lie in each other; give an output of "
                    "its own."
                )
    world, local = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if outputs and world != local and "LOCAL_WORLD_SIZE" in os.environ:
        raise UserError(
            f"{outputs[0]}: machines that train together need an output folder that all of them "
            "have; give one on a drive of all."
        )


@contextmanager
def _called_by_url() -> Iterator[None]:
    """Errors call copies by their URLs, too."""
    try:
        yield
    except UserError as error:
        error.args = (with_urls(str(error)),)
        raise


def _enter(stack: ExitStack, sender: _Sender, use: Use, url: str, without: tuple[str, ...]) -> Path:
    """Brings a place here."""
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
    """Sends what outputs have that is new, in a thread of its own."""

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
        """Sends what is made meanwhile, the last of it at the end. That there is a right to write
        is seen before hours of work."""
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
            said = f"{error} What was made stays on this machine, and the same command sends it."
            if is_output and self.finished:
                raise RunError(said) from error
            # Another error is on its way, or it is a card.
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
                        self.console.print(f"{error} It is tried again.", style="yellow")

    def stop(self) -> None:
        """Sends no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
