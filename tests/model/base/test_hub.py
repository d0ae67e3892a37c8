"""A hub that answers, one that doesn't, one that has no such model, and the cache."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from musicgen_lora.cli import main
from musicgen_lora.config import PrefetchSettings
from musicgen_lora.errors import UserError
from musicgen_lora.model.base import folder as base_folder
from musicgen_lora.model.base import hub
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base.prefetch import prefetch_models

NAME, COMMIT = "someone/tiny", "a" * 40


class Hub(BaseHTTPRequestHandler):
    """What of the Hub's interface a download needs."""

    def __init__(self, folder: Path, asked: list[str], *arguments) -> None:
        self.folder, self.asked = folder, asked
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        files = [file for file in sorted(self.folder.iterdir()) if file.is_file()]
        headers = {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}
        if path in (f"/api/models/{NAME}", f"/api/models/{NAME}/revision/main"):
            names = [{"rfilename": file.name, "size": file.stat().st_size} for file in files]
            body = json.dumps({"id": NAME, "sha": COMMIT, "siblings": names}).encode()
        elif path.startswith(f"/api/models/{NAME}/tree/"):
            rows = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _digest(f)}
                for f in files
            ]
            body = json.dumps(rows).encode()
        elif path.startswith(f"/{NAME}/resolve/"):
            file = self.folder / path.rsplit("/", 1)[1]
            body = file.read_bytes()
            headers |= {"ETag": f'"{_digest(file)}"', "Content-Type": "application/octet-stream"}
        elif path.endswith("/gated"):
            body, headers["X-Error-Code"] = b"{}", "GatedRepo"
        else:
            body, headers["X-Error-Code"] = b"{}", "RepoNotFound"
        refused = {"GatedRepo": 403, "RepoNotFound": 404}
        self.send_response(refused.get(headers.get("X-Error-Code", ""), 200))
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def asked(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """The paths that a hub with one model is asked for."""
    paths: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, Path(tiny_model_dir), paths))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _use(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
    yield paths
    server.shutdown()
    server.server_close()


def _use(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", endpoint, raising=False)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    _forget()


def _forget() -> None:
    hub.hub_folder.cache_clear()
    base_folder.base_folder.cache_clear()


def test_a_model_is_downloaded_once_and_loads(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_base(NAME)
    assert model.config.decoder.vocab_size == 64
    assert load_tokenizer(NAME)("808 beat").input_ids
    assert f"{NAME}: downloading" in capsys.readouterr().err
    assert any("/resolve/" in path for path in asked)
    assert not any(path.endswith(".bin") for path in asked)
    # In another process: one look at whether there is a newer one.
    asked.clear()
    _forget()
    hub.hub_folder(NAME)
    assert asked == [f"/api/models/{NAME}"]
    assert capsys.readouterr().err == ""


def test_a_copy_serves_where_the_hub_cannot_be_reached(
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = hub.hub_folder(NAME)
    capsys.readouterr()
    _use("http://127.0.0.1:9", tmp_path, monkeypatch)
    assert hub.hub_folder(NAME) == folder
    (line,) = capsys.readouterr().err.splitlines()
    assert "http://127.0.0.1:9 can't be reached" in line
    assert str(folder) in line
    # What broke off half-way is no copy.
    _forget()
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"is not cached.* musicgen-lora prefetch --models"):
        hub.hub_folder(NAME)


def test_a_model_that_the_hub_lacks_is_one_line(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--prompts", "x", "--base_model_path", "someone/else"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "someone/else: no such folder here, and http://127.0.0.1" in line
    assert "has no such model" in line


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_hub_out_of_reach_is_one_line_with_the_ways_out(
    is_silent: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It refuses, or takes the call and says nothing."""
    monkeypatch.setattr(hub, "REACH_S", 0.3)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    if not is_silent:
        server.server_close()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    _use(endpoint, tmp_path, monkeypatch)
    words = ["--prompts", "x", "--base_model_path", NAME, "--output_dir", str(tmp_path / "out")]
    assert main(["generate", *words]) == 2
    server.server_close()
    (line,) = capsys.readouterr().err.splitlines()
    for word in (NAME, endpoint, "can't be reached", "HF_ENDPOINT=", "ModelScope", "README"):
        assert word in line


def test_a_model_whose_owner_has_terms_is_one_line(asked: list[str]) -> None:
    with pytest.raises(UserError, match="accept terms first: do so at http"):
        hub.hub_folder("someone/gated")


def test_a_download_that_breaks_off_is_one_line_and_goes_on(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hub.snapshot_download

    def broken(*names: str, local_files_only: bool = False, **settings: object) -> str:
        if local_files_only:
            return whole(*names, local_files_only=True, **settings)
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(hub, "snapshot_download", broken)
    with pytest.raises(UserError, match=r"failed \(reset by peer\).*HF_ENDPOINT"):
        hub.hub_folder(NAME)
    monkeypatch.setattr(hub, "snapshot_download", whole)
    assert (hub.hub_folder(NAME) / "config.json").is_file()


def test_what_is_no_id_is_said(asked: list[str]) -> None:
    with pytest.raises(UserError, match="not a hub id"):
        hub.hub_folder("a/b--c")
    assert asked == []


def test_what_is_prefetched_serves_a_machine_without_network(
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["prefetch", "--models", NAME, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert f"{NAME}: " in out
    assert "not cached yet" in out
    assert "model.safetensors  " in out
    assert not any("/resolve/" in path for path in asked)
    assert prefetch_models(PrefetchSettings(models=[NAME, str(tmp_path), "tiny-beats"])) == [NAME]
    assert "now cached in" in capsys.readouterr().out
    _use("http://127.0.0.1:9", tmp_path, monkeypatch)
    assert load_base(NAME).config.decoder.vocab_size == 64
    # And it is there the second time, with and without the hub.
    _forget()
    assert main(["prefetch", "--models", NAME]) == 0
    assert "MB, already cached in " in capsys.readouterr().out


def test_a_settings_file_says_what_is_prefetched(asked: list[str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"train:\n  model_path: {NAME}\nevaluate:\n  base_model_path: {NAME}\n"
        "  embeddings: [someone/gated]\n"
    )
    with pytest.raises(UserError, match="someone/gated: its owner asks you to accept terms"):
        prefetch_models(PrefetchSettings(settings_file=path))
    path.write_text("train:\n  model_path: tiny-beats\n")
    assert prefetch_models(PrefetchSettings(settings_file=path)) == []


def test_where_there_is_nothing_to_fetch_it_says_what_it_looked_at(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"train:\n  model_path: {tiny_model_dir}\n")
    assert prefetch_models(PrefetchSettings(settings_file=path)) == []
    said = capsys.readouterr().out
    assert f"{path}: nothing to fetch" in said
    assert "tiny-beats" in said
    assert str(tiny_model_dir) in said
    assert prefetch_models(PrefetchSettings(models=["tiny-beats"])) == []
    assert capsys.readouterr().out.startswith("--models: nothing to fetch")
    path.write_text("generate:\n  duration: 900\n")
    with pytest.raises(UserError, match=rf"^{path}: duration = 900: Input should be less"):
        prefetch_models(PrefetchSettings(settings_file=path))


def test_a_hub_out_of_reach_is_one_line_of_prefetch_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _use("http://127.0.0.1:9", tmp_path, monkeypatch)
    assert main(["prefetch", "--models", NAME]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for word in (NAME, "http://127.0.0.1:9 can't be reached", "HF_ENDPOINT=", "ModelScope"):
        assert word in line


def test_weights_that_are_pickled_are_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _use(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
    said = "its weights only as pickles, which are not read"
    with pytest.raises(UserError, match=said):
        prefetch_models(PrefetchSettings(models=[NAME]))
    with pytest.raises(UserError, match=said):
        hub.hub_folder(NAME)
    # One of those that nobody named keeps none from being fetched, and its remedy is told.
    monkeypatch.setattr("musicgen_lora.model.base.prefetch.PARTS", {NAME: ""})
    assert main(["prefetch"]) == 0
    assert hub.conversion(NAME) in capsys.readouterr().out
    assert not any("/resolve/" in path for path in asked)
    server.shutdown()
    server.server_close()
