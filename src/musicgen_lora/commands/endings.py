"""How a command ends: its exit code and its last line."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback

from musicgen_lora.commands.stops import HungUp, Terminated
from musicgen_lora.errors import DISK_FAULTS, RIGHTS_FAULTS, UserError
from musicgen_lora.terminals import OUTPUT

ENDINGS = (
    *(UserError, OSError, UnicodeEncodeError, RuntimeError, EOFError),
    *(KeyboardInterrupt, Terminated),
)
"""Exceptions that may not be bugs; `ending` decides."""


def ending(error: BaseException) -> tuple[int, str]:
    """Exit code and last line of a command that an exception has ended.

    Raises:
        The same exception, if it is a bug.
    """
    if isinstance(error, UserError):
        return error.exit_code, str(error)
    if isinstance(error, BrokenPipeError):
        # Whoever read the output (head, less) has gone.
        _discard_output()
        # The exit code of a process killed by SIGPIPE.
        return 141, "stopped: nothing reads its output any more; write it to a file instead."
    if isinstance(error, OSError) and error.filename == OUTPUT:
        _discard_output()
        return 1, (
            f"what it prints cannot be written ({error.strerror}); make room, or send its output "
            "to another place."
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        said = f"{where}{error.strerror or error}"
        if error.errno == errno.EROFS:
            said += "; use another folder"
        elif error.errno in RIGHTS_FAULTS:
            said += "; give yourself access (chmod u+rwX), or use another folder"
        return 1 if error.errno in DISK_FAULTS else 2, f"{said}."
    if isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8":
        # A name that the locale can't encode; in UTF-8 that would be a bug.
        return 2, (
            f"{error.object[:200]}: the locale's encoding ({error.encoding}) can't write it; set "
            "PYTHONUTF8=1, or a locale such as C.UTF-8."
        )
    if isinstance(error, KeyboardInterrupt):
        return (
            130,
            f"interrupted. {error}" if error.args else "interrupted before anything was done.",
        )
    if isinstance(error, HungUp):
        nothing = "the terminal was closed before anything was done."
        return 129, f"the terminal was closed. {error}" if error.args else nothing
    if isinstance(error, Terminated):
        nothing = "terminated before anything was done."
        return 143, f"terminated. {error}" if error.args else nothing
    if isinstance(error, EOFError) and (cut := _cut_bytecode(error)):
        return 1, (
            f"{cut}: is cut short, as Python leaves what it compiles when the disk is full; make "
            f"room, delete the __pycache__ folders in {sys.pycache_prefix or sys.prefix} and run "
            "the same command again."
        )
    # torch may not be imported yet, so its classes are told by name.
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error):
        return 1, (
            "out of memory; lower --batch_size or the clip length (--max_duration, --duration)."
        )
    # What pathlib raises for a user that only a container or a service has.
    if {"determine", "home"} <= set(str(error).split()):
        return 2, "this user has no home folder; set HOME to a folder that may be written."
    raise error


def _discard_output() -> None:
    """Python would try to write what is left of it at exit, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cut_bytecode(error: EOFError) -> str:
    """The file with a module's bytecode that ended too soon; "" if something else did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # Python's own loader of modules; its error doesn't name the file.
    loading = [frame for frame in frames if frame.f_code.co_name == "_compile_bytecode"]
    return str(loading[-1].f_locals.get("bytecode_path", "")) if loading else ""
