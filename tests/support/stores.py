"""Folders in a store, for tests."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from musicgen_lora.cluster.storage import Remote


def upload(folder: Path, url: str) -> None:
    far = Remote(url)
    for path in folder.rglob("*"):
        if path.is_file():
            far.put(path, path.relative_to(folder).as_posix())


def download(url: str, folder: Path) -> dict[str, bytes]:
    """All that is there, by name."""
    far = Remote(url)
    for name in far.states():
        far.fetch(name, folder / name)
    return {name: (folder / name).read_bytes() for name in far.states()}


class Proxy:
    """Stands before a server, and is gone in the middle of what is sent to it.

    Args:
        server: its URL.
        ends_after_bytes: that were sent to it.
    """

    def __init__(self, server: str, ends_after_bytes: int) -> None:
        place = urlsplit(server)
        self._server = place.hostname or "", place.port or 80
        self._rest = ends_after_bytes
        self._door = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.create_connection(self._server)
                self._open += [near, far]
                threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_counted: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                if is_counted and self._rest <= 0:
                    self._end()
                    return
                sink.sendall(content)
                self._rest -= len(content) * is_counted
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.close()

    def _end(self) -> None:
        for one in (self._door, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
