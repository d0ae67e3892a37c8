"""The command line. No logic: reads settings, calls the function, turns errors into exit codes.

Exit codes: 0 done; 1 the work went wrong; 2 unusable input; 130, 143 and 129 interrupted (work
saved); 141 the output's reader is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from musicgen_lora import __version__
from musicgen_lora.commands.endings import ENDINGS, ending
from musicgen_lora.commands.loading import fetch_bases, load
from musicgen_lora.commands.stops import Terminated, terminable, whole_stops
from musicgen_lora.commands.table import COMMANDS, DOCTOR, Command, usage
from musicgen_lora.errors import UserError, printable
from musicgen_lora.given import check_given
from musicgen_lora.language.choice import speak
from musicgen_lora.language.translate import translated
from musicgen_lora.misspelt import hint
from musicgen_lora.runtime.garbage import no_garbage
from musicgen_lora.runtime.threads import bounded_spinning, is_alone
from musicgen_lora.terminals import named_output, open_streams
from musicgen_lora.urls import any_url

# What is slow to load is imported where it is used: Ctrl-C ends a command with a message only once
# `main` has begun.

Load = Callable[[str], Callable[..., Any]]

LOADING = "loading the libraries takes a few seconds ..."
LOADING_NOW = "loading the libraries"

STOP_CODES = (129, 130, 143)
"""The exit codes of commands that were stopped."""


def run(arguments: Sequence[str] | None = None, *, config: Path | None = None) -> NoReturn:
    """Runs `main` as all that the process does."""
    open_streams()
    code = main(arguments, config=config)
    if code in STOP_CODES:
        # Libraries that were stopped while loading may crash when python tears them down.
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def main(
    arguments: Sequence[str] | None = None, *, config: Path | None = None, load: Load = load
) -> int:
    """Runs a command and returns its exit code.

    Args:
        arguments: command name and flags; None reads the process's own.
        config: settings file used unless `--config` names another.
        load: returns a command's function by its place, once all checks without it have passed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    command = ""
    try:
        command, *flags = speak(words) or ["--help"]
        # Before anything loads torch.
        os.environ.update(bounded_spinning(alone=command == "generate" and is_alone()))
        with terminable():
            code = _run(command, flags, config, load)
        with named_output():
            sys.stdout.flush()
        return code
    except ENDINGS as error:
        code, said = ending(error)
        if debug and said:
            traceback.print_exc()
        # The program that help is piped into may have exited.
        is_help = command.startswith("-") or bool({"-h", "--help"} & set(words))
        if said and not (isinstance(error, BrokenPipeError) and is_help):
            with contextlib.suppress(BrokenPipeError):
                line = f"musicgen-lora {command}".rstrip() + f": {translated(said)}"
                print(printable(line), file=sys.stderr, flush=True)
        return code


def _run(command: str, flags: list[str], config: Path | None, load: Load) -> int:
    if command in ("-h", "--help", "--version"):
        with named_output():
            print(__version__ if command == "--version" else usage())
        return 0
    if command == DOCTOR:
        return _run_doctor(flags)
    if command not in COMMANDS:
        raise UserError(f"no such command; {hint(command, [*COMMANDS, DOCTOR])}")
    # They may print help.
    with named_output():
        settings = _settings(command, flags, config)
    from musicgen_lora.console import free_stdout

    with (
        free_stdout(getattr(settings, "stdout", None) is not None),
        _at_hand(command, settings) as here,
    ):
        try:
            _work(COMMANDS[command], here, load)
        except (KeyboardInterrupt, Terminated) as stop:
            raise type(stop)(COMMANDS[command].kept(settings)) from stop
    return 0


def _at_hand(command: str, settings: Any) -> contextlib.AbstractContextManager[Any]:
    """The settings, with a local folder or file for each URL."""
    if not any_url(settings):
        return contextlib.nullcontext(settings)
    with whole_stops():
        from musicgen_lora.cluster.places import at_hand

    return at_hand(command, settings)


def _work(command: Command, settings: Any, load: Load) -> None:
    """Does what a command's settings say."""
    from musicgen_lora.console import plain_console, working

    console = plain_console()
    # With several processes, one reports what is wrong once all have started.
    is_alone = "RANK" not in os.environ
    console.quiet = not is_alone and os.environ["RANK"] != "0"
    if is_alone:
        check_given(settings)
        command.check(settings)
    console.print(f"{command.doing(settings)}; {LOADING}")
    if is_alone:
        with working(console, "looking up the base model"):
            fetch_bases(settings)
    with contextlib.ExitStack() as stack:
        with working(console, LOADING_NOW):
            further = stack.enter_context(command.meanwhile(settings))
            function = load(command.function)
        if command.ends:
            stack.enter_context(working(console, "working on it"))
        function(settings, **further)


def _run_doctor(flags: list[str]) -> int:
    if flags in (["-h"], ["--help"]):
        with named_output():
            print(
                translated("usage: musicgen-lora doctor: checks the installation; takes no flags.")
            )
        return 0
    if flags:
        raise UserError(f"{flags[0]}: doctor takes no flags; it checks the whole installation.")
    with named_output():
        print(translated(f"Checking this installation; {LOADING}"), flush=True)
    with whole_stops():
        from musicgen_lora.console import plain_console, working
        from musicgen_lora.doctor import check_installation

    with no_garbage(), working(plain_console(), LOADING_NOW):
        return check_installation()


def _settings(command: str, flags: list[str], config: Path | None) -> Any:
    with whole_stops():
        from musicgen_lora.commands.flags import parse_settings, take_config

    try:
        return parse_settings(command, *take_config(flags, config))
    except UserError as error:
        # The processes of one machine get the same words and read the same file.
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise SystemExit(error.exit_code) from error
        raise


if __name__ == "__main__":
    run()
