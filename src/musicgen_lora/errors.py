"""The two ways in which a command fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Error numbers of a full or broken disk, which is not the input's fault."""

RIGHTS_FAULTS = {errno.EACCES, errno.EPERM, errno.EROFS}
"""Error numbers of a file or folder that may not be read or written."""


class UserError(Exception):
    """The user's input can't be used; the message is one line, names the file or setting and says
    what to do. Commands print it and exit with 2."""

    exit_code = 2


class RunError(UserError):
    """The work itself went wrong (a NaN loss, an adapter without effect, a full disk). One
    line as well; commands exit with 1."""

    exit_code = 1


class AudioError(UserError):
    """An audio file that cannot be used; the message names it and says why."""


def no_folder(path: Path, absent: str) -> UserError:
    """The error for what is no folder: `absent` if nothing is there; a file is told as one."""
    if os.path.exists(path):
        return UserError(
            f"{path}: is a file, not a folder; give the folder that it is in ({path.parent})."
        )
    return UserError(absent)


def no_file(path: Path, absent: str) -> UserError:
    """The error for what can't be read as a file: `absent`, but a folder is told as one."""
    if os.path.isdir(path):
        return UserError(f"{path}: is a folder, not a file; give a file in it.")
    return UserError(absent)


def audio_unread(path: Path, error: OSError) -> UserError:
    """The error for an audio file that can't be read: a failing disk makes it a RunError."""
    kind = RunError if error.errno in DISK_FAULTS else AudioError
    return kind(f"{path}: cannot be read ({error.strerror}).")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def printable(text: str) -> str:
    """A text on one line: line breaks, escape sequences and broken bytes are escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
