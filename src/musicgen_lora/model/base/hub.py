"""A base model's folder from a hub: asked once, quickly, and else taken from the cache.

huggingface_hub asks a hub that can't be reached again and again, for half a minute and with a
line each time; whoever sits behind a firewall learns nothing from that. So one request with a bound
comes first, through huggingface_hub's own session (proxies, tokens, mirrors), and what it finds
decides.
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
"""Models of the hub that the guide names, and what each gives."""
READ = ("*.json", "*.safetensors", "spiece.model", "merges.txt")
"""Files that are read of a hub's repository; the last is the half of a tokenizer without which a
CLAP's vocab.json says nothing."""
REACH_S = 4.0
"""A hub that hasn't answered by then can't be reached."""
FAILURES: Any = (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
"""What a failed request raises. The first is the base class of the HTTP library that
huggingface_hub has; which one that is changes with its releases."""
REMEDIES = (
    "set HF_ENDPOINT to a mirror that you can reach (mainland China: "
    "HF_ENDPOINT=https://hf-mirror.com), or give the folder of a copy (from ModelScope, say); see "
    "'Base models' in finetune/lora/README.md"
)


@lru_cache
def hub_folder(name: str) -> Path:
    """The folder of a hub's model, whole: the cached one where the hub has no newer one or can't be
    reached, which is said, else a fresh download.

    Raises:
        UserError: no such model, not for this user, its weights are pickles alone, or neither hub
            nor cache have it.
    """
    with _told(name):
        try:
            commit, sizes = ask(name)
            check_weights(name, sizes)
            return cached_folder(name, commit, sizes) or _downloaded(name, len(sizes))
        except Unreachable as error:
            return _instead(name, error)


def check_weights(name: str, files: Iterable[str]) -> None:
    """Raises a UserError where a hub's model has no weights that are read."""
    if not any(file.endswith(".safetensors") for file in files):
        raise UserError(
            f"{name}: {constants.ENDPOINT} has its weights as pickles alone, which are not read, "
            "as a pickle can hold code. If you trust it, make a folder of it once and give that "
            f"folder: {conversion(name)}"
        )


def conversion(path: str) -> str:
    """The command that makes a folder with safetensors, in the working folder, of a model whose
    weights are pickled. transformers unpickles tensors alone (`weights_only`), and no code of a
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
    """What a hub says of a model that is not to be had is a line for the user."""
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{name}: its owner asks you to accept terms first: do so at {constants.ENDPOINT}/"
            f"{name}, then hf auth login."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: no such folder here, and {constants.ENDPOINT} has no such model (or it is "
            "private: hf auth login)."
        ) from error
    except HFValidationError as error:
        raise UserError(
            f"{name}: no such folder here, and no hub id: {first_line(error)}"
        ) from error


def _instead(name: str, error: Unreachable) -> Path:
    """The cached copy, where a hub can't be reached; says so."""
    folder = cached_folder(name)
    if folder is None:
        raise UserError(
            f"{name}: no such folder here, and {error} Nothing of it is cached: {REMEDIES}. Where "
            f"there is a network, musicgen-lora prefetch --models {name} fetches it."
        ) from error
    _say(f"{name}: {error} The cached copy is used: {folder}")
    return folder


class Unreachable(Exception):
    """A hub can't be reached; the text is a sentence."""


def listed(name: str) -> tuple[dict[str, int | None], Path | None]:
    """The files of a hub's model that would be read, with their bytes where the hub says them, and
    the cached copy, if there is a whole one; where the hub can't be reached, that copy's files.

    Raises:
        UserError: no such model, not for this user, or neither hub nor cache have it.
    """
    with _told(name):
        try:
            commit, sizes = ask(name, with_sizes=True)
        except Unreachable as error:
            folder = _instead(name, error)
            return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}, folder
    return sizes, cached_folder(name, commit, sizes)


def ask(name: str, *, with_sizes: bool = False) -> tuple[str, dict[str, int | None]]:
    """Asks the hub for a model's current commit, and for its files that are read, with their bytes
    where these are asked for.

    Raises:
        Unreachable: it didn't answer in time, or not with that.
        HFValidationError, HfHubHTTPError: the model is not to be had.
    """
    answers: list[Any] = []

    def wait_for_answer() -> None:
        try:
            answers.append(HfApi().model_info(name, timeout=REACH_S, files_metadata=with_sizes))
        except FAILURES as error:
            answers.append(error)

    # The session's own time limit counts anew for each address and read, and not at all for names.
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
        raise Unreachable("HF_HUB_OFFLINE keeps it from being looked up.") from answer
    if isinstance(answer, HfHubHTTPError) and answer.response is not None:
        status = answer.response.status_code
        raise Unreachable(f"{constants.ENDPOINT} answers {status}.") from answer
    why = first_line(answer).rstrip(".")
    raise Unreachable(f"{constants.ENDPOINT} can't be reached ({why}).") from answer


def cached_folder(name: str, commit: str | None = None, files: Iterable[str] = ()) -> Path | None:
    """The cached copy of a model, of `commit` if one is given; None unless it has all of `files`.
    No hub is asked."""
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
            f"{name}: the download from {constants.ENDPOINT} broke off ({first_line(error)}); the "
            f"same command goes on with it. If it does so again, {REMEDIES}."
        ) from error


class _Lines(tqdm):
    """Progress as a line now and then, for logs that bars would fill."""

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
    # Of several processes one speaks.
    if os.environ.get("RANK", "0") == "0":
        print(printable(translated(line)), file=sys.stderr, flush=True)
        heartbeat.heard()
