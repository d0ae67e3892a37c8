"""The command line. No logic: reads settings, calls the function, turns errors into exit codes.

Exit codes: 0 done; 1 the work went wrong; 2 something given is not usable; 130, 143 and 129
interrupted (work saved); 141 nobody reads the output.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musicgen_lora import __version__
from musicgen_lora.commands.endings import ENDINGS, ending
from musicgen_lora.commands.loading import fetch_bases, load
from musicgen_lora.commands.stops import terminable, whole_stops
from musicgen_lora.commands.table import COMMANDS, DOCTOR, usage
from musicgen_lora.errors import UserError, printable
from musicgen_lora.given import check_given
from musicgen_lora.language.terminal import speak
from musicgen_lora.language.translate import translated
from musicgen_lora.runtime.threads import bounded_spinning

# What takes longer to load is imported where it is used: Ctrl-C ends a command with a word from
# `main` on, and not before.

LOADING = "the libraries take some seconds to load ..."


def main(arguments: Sequence[str] | None = None, *, config: Path | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        arguments: command name and flags; None reads the process's own.
        config: settings file used unless `--config` names another.
    """
    # Before anything loads torch.
    os.environ.update(bounded_spinning())
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    command = ""
    try:
        command, *flags = speak(words) or ["--help"]
        with terminable():
            code = _run(command, flags, config)
        sys.stdout.flush()
        return code
    except ENDINGS as error:
        code, said = ending(error)
        if debug and said:
            traceback.print_exc()
        # What help is piped into may have had enough.
        if said and not command.startswith("-"):
            with contextlib.suppress(BrokenPipeError):
                line = f"musicgen-lora {command}".rstrip() + f": {translated(said)}"
                print(printable(line), file=sys.stderr, flush=True)
        return code


def _run(command: str, flags: list[str], config: Path | None) -> int:
    if command in ("-h", "--help", "--version"):
        print(__version__ if command == "--version" else usage())
        return 0
    if command == DOCTOR:
        return _run_doctor(flags)
    if command not in COMMANDS:
        raise UserError(f"no such command; there are: {', '.join([*COMMANDS, DOCTOR])}.")
    settings = _settings(command, flags, config)
    from musicgen_lora.console import free_stdout

    with free_stdout(getattr(settings, "stdout", None) is not None):
        return _work(command, settings)


def _work(command: str, settings: Any) -> int:
    """Does what a command's settings say."""
    # What is wrong, one of several processes says when all have come together.
    is_alone = "RANK" not in os.environ
    if is_alone:
        check_given(settings)
        COMMANDS[command].check(settings)
    if is_alone or os.environ["RANK"] == "0":
        print(translated(f"{COMMANDS[command].doing(settings)}; {LOADING}"), flush=True)
    if is_alone:
        fetch_bases(settings)
    with COMMANDS[command].meanwhile(settings) as further:
        load(COMMANDS[command].function)(settings, **further)
    return 0


def _run_doctor(flags: list[str]) -> int:
    if flags:
        raise UserError(f"{flags[0]}: it takes no flags, and checks the whole installation.")
    print(translated(f"Checking this installation; {LOADING}"), flush=True)
    with whole_stops():
        from musicgen_lora.doctor import check_installation

    return check_installation()


def _settings(command: str, flags: list[str], config: Path | None) -> Any:
    with whole_stops():
        from musicgen_lora.commands.flags import parse_settings, take_config

    try:
        return parse_settings(command, *take_config(flags, config))
    except UserError as error:
        # The processes of one machine are given the same words and read the same file.
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise SystemExit(error.exit_code) from error
        raise


if __name__ == "__main__":
    sys.exit(main())
