"""What `ui` refuses before it serves anything."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

from musicgen_lora.cli import main
from musicgen_lora.webui import ui


def test_another_address_needs_a_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["ui", "--workspace", str(tmp_path / "w"), "--host", "0.0.0.0"]
    for password in ("", "short"):
        monkeypatch.setenv(ui.PASSWORD, password)
        assert main(words) == 2
        line = capsys.readouterr().err
        assert "others could reach the page; set MUSICGEN_LORA_PASSWORD" in line
    assert not (tmp_path / "w").exists()


def test_a_taken_port_and_a_missing_folder_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["ui", "--workspace", str(tmp_path / "w"), "--port", port]) == 2
        assert "cannot listen there" in capsys.readouterr().err
    assert main(["ui", "--audio_dirs", str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err
