"""Serves the page to one person: only on this machine, or on the network behind a password."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import gradio as gr
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from musicgen_lora.errors import AudioError, UserError
from musicgen_lora.language.choice import LANGUAGES, Language
from musicgen_lora.page import script_hash
from musicgen_lora.webui.app import CSS, REPORT_SCRIPT, build_page, page_script
from musicgen_lora.webui.page import FILES
from musicgen_lora.webui.pictures import BESIDE, Beside, Picture, beside, picture
from musicgen_lora.webui.safety import MAX_UPLOAD_BYTES
from musicgen_lora.webui.words import Words, preferred
from musicgen_lora.webui.workspace import Workspace, facts_of, saved_name

MAX_BODY_BYTES = 4 << 20
"""Largest request that uploads no file."""
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#f97316" '
    'd="M1 7h2v2H1zm3-3h2v8H4zm3-3h2v14H7zm3 4h2v6h-2zm3 2h2v2h-2z"/></svg>'
)
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' "
    "data:; worker-src 'self' blob:; frame-ancestors 'self'; object-src 'none'; base-uri 'self'"
)
"""Makes the browser refuse everything from elsewhere; Gradio's own code is inline."""
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; "
    f"script-src 'sha256-{script_hash(REPORT_SCRIPT)}'; frame-ancestors 'self'; "
    "sandbox allow-scripts allow-downloads"
)
"""The report's own player and blind test run, in a separate origin, and no other script."""


class Guard:
    """Refuses what doesn't come from the page: other host names (DNS rebinding by a page
    elsewhere), other origins, bodies that are too large, and requests without the password, if one
    is set.

    Args:
        hosts: host names that a request may use; None for any.
        password: for HTTP basic authentication, with any user; "" for none.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] | None, password: str) -> None:
        self.app, self._hosts, self._password = app, hosts, password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        refused = self._refusal(scope, headers)
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                for name, value in (
                    (b"content-security-policy", PAGE_POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ):
                    if name not in present:
                        message["headers"].append((name, value))
            await send(message)

        await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        place = _parsed(f"//{headers.get('host', '')}")
        if self._hosts is not None and (place is None or place.hostname not in self._hosts):
            return Response("This page has another address.", 403)
        if scope.get("method", "POST") not in ("GET", "HEAD"):
            origin = _parsed(headers["origin"]) if "origin" in headers else place
            if origin is None or origin.netloc != headers.get("host", ""):
                return Response("Only the page itself may ask for this.", 403)
            if "transfer-encoding" in headers:
                # No browser sends a body of unknown length, whose size could not be bounded.
                return Response("Length?", 411)
            is_upload = scope.get("path", "").endswith("/upload")
            length = headers.get("content-length", "0")
            limit = MAX_UPLOAD_BYTES if is_upload else MAX_BODY_BYTES
            if not length.isdecimal() or int(length) > limit:
                return Response("Too large.", 413)
        if self._password and not self._knows_password(headers.get("authorization", "")):
            return Response("Password?", 401, {"www-authenticate": 'Basic realm="musicgen-lora"'})
        return None

    def _knows_password(self, given: str) -> bool:
        kind, _, encoded = given.partition(" ")
        try:
            _, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
        return kind.lower() == "basic" and hmac.compare_digest(
            password.encode(), self._password.encode()
        )


def _parsed(address: str) -> SplitResult | None:
    """An address in its parts; None if invalid, such as an open bracket."""
    try:
        return urlsplit(address)
    except ValueError:
        return None


def make_app(
    workspace: Workspace, language: Language | None, hosts: tuple[str, ...] | None, password: str
) -> ASGIApp:
    """The page in both languages, its files, and the guard in front of them.

    Args:
        language: the page opens in it; None for the browser's.
        hosts: names that the server answers to; None for any.
        password: required of every request; "" for none.
    """
    uploads = workspace.root / "uploads"
    uploads.mkdir(exist_ok=True)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def start(request: Request) -> RedirectResponse:
        wanted = language or preferred(request.headers.get("accept-language", ""))
        return RedirectResponse(f"/{wanted}/")

    @app.get("/manifest.json")
    def manifest() -> dict[str, str]:
        return {"name": "musicgen-lora"}

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(ICON, media_type="image/svg+xml")

    _add_files(app, workspace)
    for each in LANGUAGES:
        gr.mount_gradio_app(
            app,
            build_page(workspace, each, uploads),
            f"/{each}",
            footer_links=[],
            run_history=False,
            allowed_paths=[],
            blocked_paths=[str(workspace.runs), str(workspace.datasets), str(workspace.audio)],
            show_error=False,
            max_file_size=MAX_UPLOAD_BYTES,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            css=CSS.read_text(encoding="utf-8"),
            js=page_script(Words(each)),
        )
    return Guard(app, hosts, password)


def _add_files(app: FastAPI, workspace: Workspace) -> None:
    def found(look: Callable[..., Path], *ids: str) -> Path:
        try:
            return look(*ids)
        except UserError as error:
            raise HTTPException(404) from error

    def serve(
        route: str,
        look: Callable[..., Path],
        save_as: Callable[[Path], str] = lambda path: path.name,
    ) -> None:
        """Serves a sound at an address of ids, and its pictures below that."""

        @app.get(FILES + route)
        def sound(request: Request) -> FileResponse:
            path = found(look, *request.path_params.values())
            kind = "attachment" if "save" in request.query_params else "inline"
            policy = {"content-security-policy": "default-src 'none'; media-src 'self'"}
            return FileResponse(
                path, filename=save_as(path), content_disposition_type=kind, headers=policy
            )

        @app.get(FILES + route + "/{kind}")
        def drawn(kind: Picture, request: Request) -> Response:
            *ids, _ = request.path_params.values()
            content, media = picture(found(look, *ids), kind)
            policy = {"content-security-policy": "default-src 'none'"}
            return Response(content, media_type=media, headers=policy)

    serve("/clip/{dataset}/{clip}", workspace.clip)
    serve("/preview/{run}/{name}", workspace.preview)
    serve("/sound/{name}", workspace.sound, lambda path: saved_name(path, facts_of(path)))

    @app.get(FILES + "/sound/{name}/beside/{kind}")
    def made(name: str, kind: Beside, request: Request) -> Response:
        path = found(workspace.sound, name)
        try:
            content, media = beside(path, kind)
        except AudioError as error:
            raise HTTPException(404) from error
        called = quote(saved_name(path.with_suffix(BESIDE[kind][0]), facts_of(path)))
        way = "attachment" if "save" in request.query_params else "inline"
        headers = {
            "content-security-policy": "default-src 'none'",
            "content-disposition": f"{way}; filename*=utf-8''{called}",
        }
        return Response(content, media_type=media, headers=headers)

    @app.get(FILES + "/preparation/{dataset}")
    def preparation(dataset: str) -> FileResponse:
        return _as_page(found(workspace.preparation, dataset))

    @app.get(FILES + "/report/{run}")
    def report(run: str) -> FileResponse:
        return _as_page(found(workspace.report, run))


def _as_page(path: Path) -> FileResponse:
    """A report, which may do only what its own player does."""
    headers = {"content-security-policy": REPORT_POLICY}
    return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)
