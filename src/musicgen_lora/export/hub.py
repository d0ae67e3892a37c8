"""An exported folder put on the Hub, once it is whole on the disk: what lies there is what goes up.

A repository is private unless a public one is asked for, and what would tell of the machine is
looked for before anything is sent.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id
from rich.console import Console

from musicgen_lora.config.export import HubSettings
from musicgen_lora.errors import RunError, UserError, first_line
from musicgen_lora.model.base.hub import FAILURES
from musicgen_lora.plural import count

TEXTS = (".json", ".md", ".txt")
MAX_HEADER = 1 << 24
"""Bytes of a weights file that are looked through."""


class Upload:
    """What a command is asked to upload, looked at before the work.

    Args:
        settings: the repository, `USER/NAME`, whether all may see it, and whether it is only said
            what would be uploaded. Without a repository nothing is.

    Raises:
        UserError: no such name is possible, nobody is logged in, or settings don't go together.
    """

    def __init__(self, settings: HubSettings) -> None:
        self._repository = settings.push_to_hub
        self._public, self._dry_run = settings.public, settings.dry_run
        repository = self._repository
        if repository is None:
            if self._public or self._dry_run:
                name = "public" if self._public else "dry_run"
                raise UserError(f"--{name} is about --push_to_hub, which is not given.")
            return
        try:
            validate_repo_id(repository)
            parts = repository.split("/")
        except HFValidationError as error:
            raise UserError(
                f"--push_to_hub {repository}: {' '.join(str(error).split())}"
            ) from error
        if len(parts) != 2:
            raise UserError(f"--push_to_hub {repository}: give it as USER/NAME.")
        if not self._dry_run and get_token() is None:
            raise UserError(f"--push_to_hub {repository}: nobody is logged in here: hf auth login.")

    def push(self, folder: Path, console: Console) -> None:
        """Uploads a folder, all of which is meant to go.

        Raises:
            UserError: the repository is public and `public` is not given.
            RunError: a file tells of the machine, or the Hub refuses; the folder stays.
        """
        repository = self._repository
        if repository is None:
            return
        check_tells_nothing(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        n_bytes = sum(path.stat().st_size for path in files)
        kind = "public" if self._public else "private"
        what = f"{count(len(files), 'file')}, {n_bytes / 1e6:,.1f} MB, to {kind} {repository}"
        if self._dry_run:
            console.print(f"Would upload {what}: {', '.join(names)}")
            return
        api = HfApi()
        try:
            _check_visibility(api, repository, public=self._public)
            api.create_repo(repository, private=not self._public, exist_ok=True, repo_type="model")
            console.print(f"Uploading {what}.")
            api.upload_folder(
                repo_id=repository,
                folder_path=str(folder),
                repo_type="model",
                allow_patterns=names,
                commit_message="Exported by musicgen-lora",
            )
        except FAILURES as error:
            line = first_line(error)
            raise RunError(
                f"{repository}: the upload broke off ({line}); all of it lies in {folder}: "
                f"hf upload {repository} {folder}"
            ) from error
        console.print(f"{constants.ENDPOINT}/{repository} ({kind})")


def _check_visibility(api: Any, repository: str, *, public: bool) -> None:
    """A repository that is there keeps its visibility, whatever is asked of a new one."""
    try:
        is_private = api.repo_info(repository, repo_type="model").private
    except RepositoryNotFoundError:
        return
    if is_private == public:
        now, asked = ("private", "public") if is_private else ("public", "private")
        flag = "leave --public out" if is_private else "give --public"
        raise UserError(
            f"--push_to_hub {repository}: is there already, and {now}, not {asked}; {flag}, or "
            "change it on the Hub."
        )


def check_tells_nothing(folder: Path) -> None:
    """Raises a RunError where a text, or the header of a weights file, has a path of this machine
    in it: of the user's home, or of where the command runs."""
    places = {path for path in (Path.home(), Path.cwd(), folder.resolve().parent) if path.name}
    needles = [
        re.compile(rb"(?<![\w./-])" + re.escape(str(place).encode()) + rb"(?![\w-])")
        for place in places
    ]
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix not in (*TEXTS, ".safetensors"):
            continue
        with open(path, "rb") as file:
            length = -1
            if path.suffix == ".safetensors":
                length = min(8 + int.from_bytes(file.read(8), "little"), MAX_HEADER)
            content = file.read(length)
        for needle in needles:
            if found := needle.search(content):
                raise RunError(
                    f"{path}: names {found[0].decode()}, a place on this machine: nothing was "
                    "uploaded. Take it out, then: hf upload."
                )
