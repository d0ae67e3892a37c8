"""Uploads an exported folder to the Hub once it is complete on disk.

A repository is private unless a public one is asked for, and the files are searched for paths of
this machine before anything is sent.
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
"""Bytes of a weights file that are searched at most."""


class Upload:
    """The upload that a command is asked for, checked before the work.

    Args:
        settings: the repository, `USER/NAME`, whether it is public, and whether to only say what
            would be uploaded. Without a repository nothing is uploaded.

    Raises:
        UserError: an invalid name, no login, or settings that don't go together.
    """

    def __init__(self, settings: HubSettings) -> None:
        self._repository = settings.push_to_hub
        self._public, self._dry_run = settings.public, settings.dry_run
        repository = self._repository
        if repository is None:
            if self._public or self._dry_run:
                name = "public" if self._public else "dry_run"
                raise UserError(f"--{name} needs --push_to_hub.")
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
            raise UserError(f"--push_to_hub {repository}: not logged in; run hf auth login.")

    def push(self, folder: Path, console: Console) -> None:
        """Uploads a whole folder.

        Raises:
            UserError: the repository exists with the other visibility.
            RunError: a file names a path of this machine, or the Hub refuses; the folder stays.
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
                f"{repository}: the upload failed ({line}). Everything is in {folder}; to upload "
                f"it: hf upload {repository} {folder}"
            ) from error
        console.print(f"{constants.ENDPOINT}/{repository} ({kind})")


def _check_visibility(api: Any, repository: str, *, public: bool) -> None:
    """Raises a UserError if the repository exists with the other visibility, which it keeps."""
    try:
        is_private = api.repo_info(repository, repo_type="model").private
    except RepositoryNotFoundError:
        return
    if is_private == public:
        now, asked = ("private", "public") if is_private else ("public", "private")
        flag = "leave --public out" if is_private else "give --public"
        raise UserError(
            f"--push_to_hub {repository}: already exists and is {now}, not {asked}; {flag}, or "
            "change it on the Hub."
        )


def check_tells_nothing(folder: Path) -> None:
    """Raises a RunError if a text file, or the header of a weights file, contains a path of this
    machine: the user's home, or where the command runs."""
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
                    f"{path}: contains {found[0].decode()}, a path on this machine; nothing was "
                    "uploaded. Remove it, then run hf upload."
                )
