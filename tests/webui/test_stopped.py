"""How the page's server starts and ends."""

from __future__ import annotations

import inspect
import signal
import socket
import subprocess
import sys
import time

import pytest

from musicgen_lora.webui.library import no_stubs

pytest.importorskip("uvicorn", reason="the page's libraries are not installed")

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
