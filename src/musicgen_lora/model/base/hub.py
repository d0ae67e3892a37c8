"""A base model's folder from a hub, with one quick request, and otherwise from the cache.

huggingface_hub retries an unreachable hub for half a minute, with a line each time, which tells
users behind a firewall nothing. So one request with a time limit comes first, through
huggingface_hub's own session (proxies, tokens, mirrors), and its result decides.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from tqdm.auto import tqdm

from musicgen_lora import heartbeat
from musicgen_lora.errors import UserError, first_line, printable
from musicgen_lora.language.translate import translated
from musicgen_lora.plural import count

PARTS = {
    "facebook/musicgen-small": "a base with a finished sound, to fine-tune instead of tiny-beats",
    "laion/larger_clap_general": "evaluate --clap: do clips sound as their prompts say",
}
"""Models on the hub that the guide names, and what each is for."""
READ = ("*.json", "*.safetensors", "spiece.model", "merges.txt")
"""Files that are read from a hub's repository; the last is the part of CLAP's tokenizer without
which its vocab.json is useless."""
REACH_S = 4.0
"""A hub that hasn't answered after this time counts as unreachable."""
FAILURES: Any = (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
"""What a failed request raises. The first is the base class of huggingface_hub's HTTP library,
which depends on the release."""
REMEDIES = (
    "set HF_ENDPOINT to a mirror that you can reach (mainland China: "
    "HF_ENDPOINT=https://hf-mirror.com), or use the folder of a copy (from ModelScope, say); see "
    "'Base models' in finetune/lora/README.md"
)


@lru_cache
def hub_folder(name: str) -> Path:
    """The complete folder of a hub's model: the cached one if the hub has no newer version or can't
    be reached, with a note, otherwise a fresh download.

    Raises:
        UserError: no such model, no access, its only weights are pickles, or neither hub nor cache
            has it.
    """
    with _told(name):
        try:
            commit, sizes = ask(name)
            check_weights(name, sizes)
            return cached_folder(name, commit, sizes) or _downloaded(name, len(sizes))
        except Unreachable as error:
            return _instead(name, error)


def check_weights(name: str, files: Iterable[str]) -> None:
    """Raises a UserError if a hub's model has no safetensors weights."""
    if not any(file.endswith(".safetensors") for file in files):
        raise UserError(
            f"{name}: {constants.ENDPOINT} has its weights only as pickles, which are not read "
            "because a pickle can run code. If you trust it, convert it once and use the folder "
            f"that this makes: {conversion(name)}"
        )


def conversion(path: str) -> str:
    """The command that converts a model with pickled weights into a folder with safetensors, in the
    working directory. transformers unpickles only tensors (`weights_only`), and no code from the
    repository is run.

    Args:
        path: hub id or folder.
    """
    target = f"{Path(path).name}-safetensors"
    return (
        f"python -c \"import transformers as t; m, to = '{path}', '{target}'; "
        "c = t.AutoConfig.from_pretrained(m).architectures[0]; "
        "getattr(t, c).from_pretrained(m).save_pretrained(to); "
        't.AutoProcessor.from_pretrained(m).save_pretrained(to)"'
    )


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns a hub's errors about an unavailable model into one line for the user."""
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{name}: its owner asks you to accept terms first: do so at {constants.ENDPOINT}/"
            f"{name}, then run hf auth login."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: no such folder here, and {constants.ENDPOINT} has no such model (if it is "
            "private, run hf auth login)."
        ) from error
    except HFValidationError as error:
        raise UserError(
            f"{name}: no such folder here, and not a hub id: {first_line(error)}"
        ) from error


def _instead(name: str, error: Unreachable) -> Path:
    """The cached copy for when a hub can't be reached, with a note."""
    folder = cached_folder(name)
    if folder is None:
        raise UserError(
            f"{name}: no such folder here, and {error} It is not cached: {REMEDIES}. On a machine "
            f"with network access, musicgen-lora prefetch --models {name} fetches it."
        ) from error
    _say(f"{name}: {error} Using the cached copy: {folder}")
    return folder


class Unreachable(Exception):
    """A hub can't be reached; the text is a sentence."""


def listed(name: str) -> tuple[dict[str, int | None], Path | None]:
    """The files of a hub's model that would be read, with their sizes in bytes if the hub states
    them, and the cached copy, if it is complete; if the hub can't be reached, that copy's files.

    Raises:
        UserError: no such model, no access, or neither hub nor cache has it.
    """
    with _told(name):
        try:
            commit, sizes = ask(name, with_sizes=True)
        except Unreachable as error:
            folder = _instead(name, error)
            return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}, folder
    return sizes, cached_folder(name, commit, sizes)


def ask(name: str, *, with_sizes: bool = False) -> tuple[str, dict[str, int | None]]:
    """Asks the hub for a model's current commit and the files that are read, with their sizes in
    bytes if `with_sizes`.

    Raises:
        Unreachable: it didn't answer in time, or answered with something else.
        HFValidationError, HfHubHTTPError: the model is not available.
    """
    answers: list[Any] = []

    def wait_for_answer() -> None:
        try:
            answers.append(HfApi().model_info(name, timeout=REACH_S, files_metadata=with_sizes))
        except FAILURES as error:
            answers.append(error)

    # The session's own timeout restarts for each address and read, and doesn't cover DNS lookups.
    asking = threading.Thread(target=wait_for_answer, daemon=True)
    asking.start()
    asking.join(REACH_S)
    answer = answers[0] if answers else TimeoutError(f"no answer in {REACH_S:g} s")
    if isinstance(answer, (RepositoryNotFoundError, GatedRepoError, HFValidationError)):
        raise answer
    if not isinstance(answer, Exception):
        files = answer.siblings or []
        read = [file for file in files if any(fnmatch(file.rfilename, kind) for kind in READ)]
        return answer.sha, {file.rfilename: file.size for file in read}
    if constants.HF_HUB_OFFLINE:
        raise Unreachable("HF_HUB_OFFLINE forbids looking it up.") from answer
    if isinstance(answer, HfHubHTTPError) and answer.response is not None:
        status = answer.response.status_code
        raise Unreachable(f"{constants.ENDPOINT} answers {status}.") from answer
    why = first_line(answer).rstrip(".")
    raise Unreachable(f"{constants.ENDPOINT} can't be reached ({why}).") from answer


def cached_folder(name: str, commit: str | None = None, files: Iterable[str] = ()) -> Path | None:
    """The cached copy of a model, of `commit` if one is given; None unless it has all of `files`.
    Asks no hub."""
    try:
        folder = Path(
            snapshot_download(
                name, revision=commit, allow_patterns=list(READ), local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    whole = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return folder if whole and all((folder / file).is_file() for file in files) else None


def _downloaded(name: str, n_files: int) -> Path:
    _say(f"{name}: downloading {count(n_files, 'file')} from {constants.ENDPOINT}.")
    bars: dict[str, Any] = {} if sys.stderr.isatty() else {"tqdm_class": _Lines}
    try:
        return Path(snapshot_download(name, allow_patterns=list(READ), **bars))
    except FAILURES as error:
        raise UserError(
            f"{name}: the download from {constants.ENDPOINT} failed ({first_line(error)}); run the "
            f"same command to resume it. If it fails again, {REMEDIES}."
        ) from error


class _Lines(tqdm):
    """Progress as a line now and then, since bars would flood a log."""

    said_s = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("name", None)
        super().__init__(*args, **kwargs)

    def display(self, *_: Any, **__: Any) -> None:
        now = time.monotonic()
        _Lines.said_s = _Lines.said_s or now
        if self.unit == "B" and self.n and now - _Lines.said_s >= heartbeat.SILENCE_S:
            _Lines.said_s = now
            _say(f"downloaded {self.n / 1e6:,.0f} MB")


def _say(line: str) -> None:
    # Only one of several processes prints.
    if os.environ.get("RANK", "0") == "0":
        print(printable(translated(line)), file=sys.stderr, flush=True)
        heartbeat.heard()
