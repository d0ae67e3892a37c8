"""A served page for the tests that have a browser."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from musicgen_lora.webui.library import no_stubs

# Before the test modules, which load it as they like.
with no_stubs(), contextlib.suppress(ImportError):
    import gradio  # noqa: F401


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from served_page import Served

    from musicgen_lora.webui.work.jobs import Jobs

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = Served(tmp_path_factory.mktemp("page") / "workspace", port)
    server.start()
    yield server
    server.kill()
    jobs = Jobs(server.workspace / "jobs")
    for job in jobs.all():
        if not job.is_over:
            jobs.stop(job.id, by_force=True)
