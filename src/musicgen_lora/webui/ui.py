"""The `ui` command: checks its settings, then serves the page until it is stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from musicgen_lora import atomic
from musicgen_lora.config.page import UiSettings
from musicgen_lora.console import plain_console
from musicgen_lora.errors import UserError, no_folder
from musicgen_lora.extras import require_extra
from musicgen_lora.formats.documents import read_json
from musicgen_lora.formats.kinds import fields, text
from musicgen_lora.runtime import locks
from musicgen_lora.runtime.garbage import no_garbage
from musicgen_lora.terminals import handled, hangups, let_go
from musicgen_lora.webui.library import no_stubs

if TYPE_CHECKING:
    import uvicorn

PASSWORD = "MUSICGEN_LORA_PASSWORD"
LEAST_PASSWORD = 8
GRACE_S = 1
"""How long a closing server waits for its responses; open tabs always have one pending."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
PAGE_FILE = ".page.json"
"""In the workspace: where its page is, for whoever starts another one."""
_PAGE = fields({"address": text()})


def serve_page(settings: UiSettings) -> None:
    """Serves the page until Ctrl-C; jobs that it has started continue.

    Raises:
        UserError: the library or a folder is missing, the port is taken, another page has the
            workspace, or others could reach the page without a password.
    """
    require_extra("ui", "ui")
    password = os.environ.get(PASSWORD, "")
    is_local = settings.host in LOCAL_HOSTS
    if not is_local and len(password) < LEAST_PASSWORD:
        raise UserError(
            f"--host {settings.host}: others could reach the page; set {PASSWORD} to a password of "
            f"at least {LEAST_PASSWORD} characters, which the page then asks for."
        )
    for folder in settings.audio_dirs:
        if not folder.is_dir():
            raise no_folder(folder, f"--audio_dirs {folder}: no such folder.")
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{shown}:{settings.port}/"
    try:
        _check_port(settings.host, settings.port)
    except UserError:
        if locks.in_use(settings.workspace):
            # By the page that has the port, it may be: its address helps more.
            with held(settings.workspace, address):
                pass
        raise
    with held(settings.workspace, address):
        _serve_workspace(settings, address, LOCAL_HOSTS if is_local else None, password)


@contextlib.contextmanager
def held(workspace: Path, address: str) -> Iterator[None]:
    """Locks a workspace for one page: two would not see what the other has just renamed or deleted,
    nor would whoever started both. The lock ends with the process, however that ends.

    Raises:
        UserError: another page has it; the message says where that is.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(workspace))
        except locks.InUse:
            try:
                other = read_json(workspace / PAGE_FILE, _PAGE)["address"]
            except UserError:
                raise UserError(
                    f"--workspace {workspace}: in use by another page; close that one, or pass "
                    "another --workspace."
                ) from None
            raise UserError(
                f"--workspace {workspace}: in use by the page at {other}; open that, or pass "
                "another --workspace."
            ) from None
        atomic.write_json(workspace / PAGE_FILE, {"address": address})
        yield


def _serve_workspace(
    settings: UiSettings, address: str, hosts: tuple[str, ...] | None, password: str
) -> None:
    with no_garbage(), no_stubs():
        import uvicorn

        from musicgen_lora.webui.server import make_app
        from musicgen_lora.webui.workspace import Workspace

    language = None if settings.page_language == "browser" else settings.page_language
    workspace = Workspace(settings.workspace, settings.audio_dirs)
    app = make_app(workspace, language, hosts, password)
    plain_console().print(f"The page: {address} (Ctrl-C closes it; running jobs continue)")
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        ws="none",
        timeout_graceful_shutdown=GRACE_S,
    )
    _serve(uvicorn.Server(config))


def _serve(server: uvicorn.Server) -> None:
    """Serves until a signal, which ends the command once all is closed; another one ends it at
    once."""
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        let_go()
        if received:
            os._exit(128 + number)
        received.append(number)
        # An open tab keeps a stream open, which is cut off: not an error worth reporting.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True

    # Its own handlers stop in the middle of its loop, with tracebacks.
    server.capture_signals = contextlib.nullcontext  # pyright: ignore[reportAttributeAccessIssue]
    with handled([signal.SIGINT, signal.SIGTERM, *hangups()], stop):
        server.run()
    for number in received:
        signal.raise_signal(number)


def _check_port(host: str, port: int) -> None:
    """Raises a UserError if the port can't be listened on, before the slow part."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); pass another "
            "--port."
        ) from error
