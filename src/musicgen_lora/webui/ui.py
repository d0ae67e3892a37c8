"""The `ui` command: looks at what it was given, then serves the page until it is stopped."""

from __future__ import annotations

import os
import socket

from musicgen_lora.config.page import UiSettings
from musicgen_lora.console import plain_console
from musicgen_lora.errors import UserError
from musicgen_lora.extras import require_extra

PASSWORD = "MUSICGEN_LORA_PASSWORD"
LEAST_PASSWORD = 8
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def serve_page(settings: UiSettings) -> None:
    """Serves the page until Ctrl-C; jobs that it has started go on.

    Raises:
        UserError: the library is missing, a folder is, the port is taken, or others could reach the
            page without a password.
    """
    require_extra("ui", "ui")
    password = os.environ.get(PASSWORD, "")
    is_local = settings.host in LOCAL_HOSTS
    if not is_local and len(password) < LEAST_PASSWORD:
        raise UserError(
            f"--host {settings.host}: others could reach the page; set {PASSWORD} to a password of "
            f"at least {LEAST_PASSWORD} letters, which the page then asks for."
        )
    for folder in settings.audio_dirs:
        if not folder.is_dir():
            raise UserError(f"--audio_dirs {folder}: no such folder.")
    _check_port(settings.host, settings.port)

    import uvicorn

    from musicgen_lora.webui.server import make_app
    from musicgen_lora.webui.workspace import Workspace

    language = None if settings.page_language == "browser" else settings.page_language
    workspace = Workspace(settings.workspace, settings.audio_dirs)
    app = make_app(workspace, language, LOCAL_HOSTS if is_local else None, password)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    plain_console().print(
        f"The page: http://{shown}:{settings.port}/ (Ctrl-C closes it; jobs that run go on)"
    )
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", ws="none")


def _check_port(host: str, port: int) -> None:
    """Raises a UserError where nobody could listen there, before what takes seconds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); give another "
            "--port."
        ) from error
