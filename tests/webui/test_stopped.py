"""How the page's server begins, alone on its workspace, and ends."""

from __future__ import annotations

import inspect
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musicgen_lora.webui.library import no_stubs

pytest.importorskip("uvicorn", reason="the page's libraries are not installed")

from musicgen_lora.config.page import UiSettings
from musicgen_lora.errors import UserError
from musicgen_lora.runtime import locks
from musicgen_lora.webui.ui import PAGE_FILE, held, serve_page

SERVER = """
import asyncio, sys, uvicorn
from musicgen_lora.webui.ui import _serve

async def app(scope, receive, send):
    # A stream without an end, as every open tab has one.
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"alive", "more_body": True})
        await asyncio.sleep(0.01)

config = uvicorn.Config(
    app, port=int(sys.argv[1]), lifespan="off", log_level="warning", timeout_graceful_shutdown=0
)
_serve(uvicorn.Server(config))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_open_tab_keeps_no_server_up(number: signal.Signals) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", SERVER, str(port)]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    with socket.socket() as tab:
        while tab.connect_ex(("127.0.0.1", port)):
            assert server.poll() is None
            time.sleep(0.02)
        tab.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert tab.recv(100)
        server.send_signal(number)
        _, said = server.communicate(timeout=20)
    assert server.returncode == -number
    # What a process says that Ctrl-C ends; the command says it in its own words.
    assert "ERROR" not in said
    assert said.count("Traceback") == (number == signal.SIGINT)


HOLDER = """
import sys, time
from pathlib import Path
from musicgen_lora.webui.ui import held
with held(Path(sys.argv[1]), "http://127.0.0.1:7860/"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_page_of_a_workspace_says_where_the_first_one_is(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        try:
            assert first.stdout.readline() == "held\n"
            with pytest.raises(UserError) as refused:
                serve_page(UiSettings(workspace=tmp_path, port=7999))
        finally:
            first.kill()
    assert str(refused.value) == (
        f"--workspace {tmp_path}: in use by the page at http://127.0.0.1:7860/; open that, or "
        "pass another --workspace."
    )
    # A killed page leaves no lock behind.
    with held(tmp_path, "http://127.0.0.1:7999/"):
        pass


def test_a_torn_note_of_where_the_page_is_leaves_the_lock_in_force(tmp_path: Path) -> None:
    (tmp_path / PAGE_FILE).write_text('{"addre', encoding="utf-8")
    with locks.locked(tmp_path), pytest.raises(UserError, match="in use by another page; close"):
        serve_page(UiSettings(workspace=tmp_path))


def test_a_page_that_can_not_listen_leaves_its_workspace_alone(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for workspace in (new, old):
            with pytest.raises(UserError, match="cannot listen there"):
                serve_page(UiSettings(workspace=workspace, port=taken.getsockname()[1]))
    assert not new.exists()
    assert not list(old.iterdir())


def test_the_library_writes_no_stub_files_while_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    gradio = pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")
    from gradio import component_meta

    read: list[str] = []
    monkeypatch.setattr(
        component_meta,
        "extract_class_source_code",
        lambda code, name: read.append(name) or (None, None),
    )
    with no_stubs():
        component_meta.create_or_modify_pyi(gradio.Textbox, "Textbox", [])
        assert inspect.getfile(gradio.Textbox).endswith("textbox.py"), "others find files"
    assert read == []
    # It would, otherwise.
    with pytest.raises(ValueError, match="class source"):
        component_meta.create_or_modify_pyi(gradio.Textbox, "Textbox", [])
    assert read == ["Textbox"]
