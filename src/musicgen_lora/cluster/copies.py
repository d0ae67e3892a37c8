"""A local copy of a folder or file that a URL names, for commands that read and write folders.

It is fetched before the command starts and sent back while it works and when it ends. Every file
sent or fetched is noted beside the copy, with its sizes and times on both sides: so an interrupted
run resumes from what it made, here or on another machine, and nothing is transferred twice. Files
that list others (`metadata.json`, a manifest, a clip's JSON) are sent after those, so that no
complete file ever lists one that is only half sent.

Copies are a cache, bounded by `MUSICGEN_LORA_CACHE_GB`: the least recently used are removed first,
except for what hasn't been sent.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout
from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.marks import FINISHED, UNFINISHED, say_unfinished, status_of, write_mark
from musicgen_lora.cluster.storage import FileState, Remote, url_hash
from musicgen_lora.console import progress
from musicgen_lora.errors import UserError
from musicgen_lora.plural import count
from musicgen_lora.runtime.cache import cache_root
from musicgen_lora.urls import Copied, copied

COPIES = "copies"
NOTES_FILE, LOCK_FILE, USERS, FILES = "notes.jsonl", "lock", "users", "files"
AT_ONCE = 8
"""Files that are transferred at once: a store has a long latency, but handles many requests."""
WAIT_S = 60.0
CACHE_GB = "MUSICGEN_LORA_CACHE_GB"
DEFAULT_CACHE_GB = 100.0
SPARE_BYTES = 1 << 30
"""Space that stays free on the disk."""
_ASIDE = re.compile(r"\.[0-9a-f]{8}\.part$")
"""The partial files that a killed `Remote.put` leaves."""


class Copy:
    """A local folder or file that stands for what a URL names.

    Args:
        is_written: whether new files here are sent there.
        without: folders there that are neither fetched nor touched.
    """

    def __init__(
        self,
        url: str,
        console: Console,
        *,
        is_file: bool = False,
        is_written: bool = False,
        must_exist: bool = True,
        without: Sequence[str] = (),
    ) -> None:
        self.url = url.rstrip("/")
        folder, _, name = self.url.rpartition("/")
        self._remote = Remote(folder if is_file else self.url)
        self._only = name if is_file else None
        self._is_written, self._must_exist, self._console = is_written, must_exist, console
        self._home = (cache_root() / COPIES).resolve() / url_hash(self.url)
        # Models, sounds and adapters are identified by their folders' names.
        self.path = self._home / FILES / (name if is_file else re.sub(r"[^\w.-]", "_", name))
        self._root = self.path.parent if is_file else self.path
        self._without = set(without)
        self._notes: dict[str, tuple[FileState, FileState]] = {}
        self._status: str | None = None
        self._has_sent = False
        self._moving, self._noting = threading.Lock(), threading.Lock()

    @contextmanager
    def held(self) -> Iterator[Path]:
        """Fetches it, and keeps other processes of this machine from clearing it away or, if it is
        written, from using it.

        Raises:
            UserError: it can't be read or written there, doesn't fit here, or is in use.
        """
        (self._home / USERS).mkdir(parents=True, exist_ok=True)
        proof = self._home / USERS / f"{os.getpid()}-{secrets.token_hex(4)}"
        with ExitStack() as stack:
            user = FileLock(proof)
            stack.callback(proof.unlink, missing_ok=True)
            stack.enter_context(user)
            lock = FileLock(self._home / LOCK_FILE)
            try:
                lock.acquire(timeout=0.0 if self._is_written else WAIT_S)
            except Timeout as error:
                raise UserError(
                    f"{self.url}: in use by another run on this machine; wait for it, or pass "
                    "another URL."
                ) from error
            stack.callback(lock.release)
            self._bring()
            if not self._is_written:
                lock.release()
            stack.enter_context(copied(Copied(self.url, str(self.path), proof)))
            yield self.path

    def begin(self) -> None:
        """Marks it there as unfinished.

        Raises:
            RunError: it can't be written.
        """
        self._status = status_of(self._remote)
        write_mark(self._remote, UNFINISHED)

    def end(self, *, finished: bool) -> None:
        """Marks there whether the run finished; one that has sent nothing restores the old mark.

        Raises:
            RunError: it can't be written.
        """
        if finished:
            write_mark(self._remote, FINISHED)
        elif not self._has_sent:
            write_mark(self._remote, self._status)

    def send(self, *, shown: bool) -> int:
        """Sends new files, and removes there what this run or an earlier one had sent or fetched
        and is gone here. Returns how many files were sent.

        Raises:
            RunError: it can't be written there; the next run sends the rest.
        """
        with self._moving, tempfile.TemporaryDirectory(prefix="musicgen-lora-") as temporary:
            new = self._changed(self._here())
            lists = sorted((name for name in new if _rank(name)), key=lambda n: (_rank(n), n))
            aside = {name: Path(temporary) / str(index) for index, name in enumerate(lists)}
            states = {name: _state(self._root / name) for name in lists}
            for name, path in aside.items():
                shutil.copyfile(self._root / name, path)
            # Every file that they list existed before they were copied.
            here = self._here()
            others = [name for name in self._changed(here) if not _rank(name)]
            self._moved(
                "files sent" if shown else "",
                others,
                lambda name: self._put(name, self._root / name, here[name]),
            )
            # In a thread too, since Ctrl-C would interrupt an upload midway.
            with ThreadPoolExecutor(1) as pool:
                for name in lists:
                    pool.submit(self._put, name, aside[name], states[name]).result()
                for name in [name for name in self._notes if name not in here]:
                    pool.submit(self._remove, name).result()
            return len(others) + len(lists)

    def _changed(self, here: Mapping[str, FileState]) -> list[str]:
        return [n for n, state in here.items() if self._notes.get(n, (None,))[0] != state]

    def _put(self, name: str, path: Path, state: FileState) -> None:
        if not path.exists():
            # Gone by now, such as a checkpoint that a newer one has replaced.
            return
        self._has_sent = True
        self._remote.put(path, name)
        there = self._remote.state(name)
        if there is not None:
            self._note(name, state, there)

    def _remove(self, name: str) -> None:
        self._has_sent = True
        there = self._remote.state(name)
        # A file that somebody else has replaced since stays.
        if there == self._notes[name][1]:
            self._remote.delete(name)
        self._note(name, None, None)

    def _bring(self) -> None:
        """Updates the copy to what is there, except for newer files here that haven't been sent."""
        there = self._there()
        if not there and self._must_exist:
            raise UserError(f"{self.url}: nothing is there; check the bucket and the path.")
        self._notes = _read_notes(self._home / NOTES_FILE)
        here = self._here()
        for name in [n for n in self._notes if n not in there and n in here]:
            if self._notes[name][0] == here[name]:
                (self._root / name).unlink(missing_ok=True)
                self._note(name, None, None)
        noted = {name: state for name, (_, state) in self._notes.items()}
        lacking = [n for n, s in there.items() if n not in here or noted.get(n) != s]
        edited = [n for n in lacking if n in here and n in self._notes]
        for name in [n for n in edited if self._notes[n][0] != here[n]]:
            self._console.print(
                f"{self.url}/{name}: was changed there and, by an interrupted run, here; the file "
                "there is used.",
                style="yellow",
            )
        self._make_room(sum(there[name].size_bytes for name in lacking))
        self._moved("files fetched", lacking, lambda name: self._fetch(name, there[name]))
        self._compact()
        if lacking:
            self._console.print(
                f"{self.url}: {count(len(lacking), 'file')} copied to this machine."
            )
        unsent = len(self._changed(self._here()))
        if unsent and self._is_written:
            self._console.print(
                f"{self.url}: {count(unsent, 'file')} left here by an interrupted run will be sent."
            )

    def _fetch(self, name: str, there: FileState) -> None:
        self._remote.fetch(name, self._root / name)
        self._note(name, _state(self._root / name), there)

    def _there(self) -> dict[str, FileState]:
        if self._only is not None:
            state = self._remote.state(self._only)
            return {} if state is None else {self._only: state}
        states = self._remote.states()
        if not self._is_written:
            say_unfinished(self._remote, states, self._console)
        return {n: s for n, s in states.items() if _is_data(n) and self._is_ours(n)}

    def _here(self) -> dict[str, FileState]:
        return {n: state for n, state in _data_below(self._root).items() if self._is_ours(n)}

    def _is_ours(self, name: str) -> bool:
        return name.partition("/")[0] not in self._without

    def _moved(self, what: str, names: Sequence[str], move: Callable[[str], None]) -> None:
        """Transfers files, several at once; the first failure ends it. Progress is shown under the
        name `what`, if any."""
        if not names:
            return
        shown = progress(self._console, what, len(names)) if what else nullcontext(lambda *_: None)
        with shown as on_file, ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for number, _ in enumerate(pool.map(move, names), 1):
                    on_file(number, len(names))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _note(self, name: str, here: FileState | None, there: FileState | None) -> None:
        """Notes the state of a file on both sides, or that it is gone from both."""
        both = None if here is None or there is None else (here, there)
        row = json.dumps((name, *(both or (None, None))))
        with self._noting, open(self._home / NOTES_FILE, "a", encoding="utf-8") as file:
            if both is None:
                self._notes.pop(name, None)
            else:
                self._notes[name] = both
            file.write(row + "\n")

    def _compact(self) -> None:
        rows = "".join(json.dumps((name, *both)) + "\n" for name, both in self._notes.items())
        atomic.write_bytes(self._home / NOTES_FILE, rows.encode())

    def _make_room(self, n_bytes: int) -> None:
        """Removes copies until there is room for what is to be fetched.

        Raises:
            UserError: there isn't enough.
        """
        bound = _bound_bytes()
        sizes = {
            home: sum(state.size_bytes for state in _data_below(home / FILES).values())
            for home in self._home.parent.iterdir()
        }
        kept = sum(sizes.values())
        own = sizes.pop(self._home) + n_bytes
        for home in sorted(sizes, key=lambda home: _used_at(home / NOTES_FILE)):
            if kept + n_bytes <= bound:
                break
            if _cleared(home):
                kept -= sizes[home]
        free = shutil.disk_usage(self._home).free - SPARE_BYTES
        if own > bound:
            raise UserError(
                f"{self.url}: needs {own / 1e9:.1f} GB here, and {CACHE_GB} allows "
                f"{bound / 1e9:g} GB; raise it, or use a part of the folder."
            )
        if n_bytes > free:
            raise UserError(
                f"{self.url}: needs {n_bytes / 1e9:.1f} GB here, and the disk of "
                f"{self._home.parent} has {max(0, free) / 1e9:.1f} GB to spare; set XDG_CACHE_HOME "
                "to a folder on a larger disk, or use a part of the folder."
            )


def _rank(name: str) -> int:
    """The order in which files are sent: sounds and weights first, then files that list others."""
    path = PurePosixPath(name)
    if path.name.endswith(".ledger.json"):
        return 3
    if path.name == atomic.MANIFEST:
        return 1
    return 2 * (path.suffix in (".json", ".jsonl", ".html") and len(path.parts) == 1)


def _is_data(name: str) -> bool:
    """Whether a file is neither hidden, such as a lock, nor partial."""
    hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
    return not hidden and not _ASIDE.search(name)


def _data_below(root: Path) -> dict[str, FileState]:
    """Complete files below a folder that others may be writing to."""
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder) / name for name in names):
            relative = path.relative_to(root).as_posix()
            # A file may be renamed or removed meanwhile.
            with suppress(FileNotFoundError):
                if _is_data(relative):
                    found[relative] = _state(path)
    return found


def _state(path: Path) -> FileState:
    stat = path.stat()
    return FileState(stat.st_size, stat.st_mtime_ns)


def _read_notes(path: Path) -> dict[str, tuple[FileState, FileState]]:
    """The last note on each file; a line cut off by a kill is ignored."""
    notes: dict[str, tuple[FileState, FileState]] = {}
    if not path.is_file():
        return notes
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            name, here, there = json.loads(line)
        except ValueError:
            continue
        if here is None or there is None:
            notes.pop(name, None)
        else:
            notes[name] = FileState(*map(int, here)), FileState(*map(int, there))
    return notes


def _bound_bytes() -> float:
    given = os.environ.get(CACHE_GB, "")
    try:
        return (float(given) if given else DEFAULT_CACHE_GB) * 1e9
    except ValueError as error:
        raise UserError(f"{CACHE_GB}={given}: must be a number of gigabytes.") from error


def _used_at(notes: Path) -> float:
    return notes.stat().st_mtime if notes.is_file() else 0.0


def _cleared(home: Path) -> bool:
    """Removes a copy unless it is in use, or holds something that hasn't been sent."""
    lock = FileLock(home / LOCK_FILE)
    try:
        with lock.acquire(timeout=0):
            for user in (home / USERS).glob("*"):
                with FileLock(user).acquire(timeout=0):
                    pass
            notes = _read_notes(home / NOTES_FILE)
            known = {here for here, _ in notes.values()}
            if any(state not in known for state in _data_below(home / FILES).values()):
                return False
            shutil.rmtree(home / FILES, ignore_errors=True)
            (home / NOTES_FILE).unlink(missing_ok=True)
    except Timeout:
        return False
    return True
