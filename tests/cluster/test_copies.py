"""Copies of folders in a store: unfinished uploads, evicted copies, copies in use."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from made_datasets import files_below
from rich.console import Console
from stores import upload

from musicgen_lora.cluster import copies, places, ray_engine
from musicgen_lora.cluster.copies import CACHE_GB, Copy
from musicgen_lora.cluster.marks import say_unfinished
from musicgen_lora.cluster.storage import Remote
from musicgen_lora.config import GenerateSettings
from musicgen_lora.console import plain_console
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.urls import Copied, copied, copy_of, shown, with_urls


def console() -> Console:
    return Console(quiet=True)


def written(url: str) -> Copy:
    return Copy(url, console(), is_written=True, must_exist=False)


def test_a_broken_upload_lists_nothing_that_is_not_there_and_goes_on(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, sent, room = Remote.put, list[str](), [3]

    def breaking(remote: Remote, path: Path, name: str) -> None:
        if not room[0]:
            raise RunError(f"{name}: cannot be written (the server has gone).")
        room[0] -= 1
        sent.append(name)
        put(remote, path, name)

    monkeypatch.setattr(copies, "AT_ONCE", 1)
    monkeypatch.setattr(Remote, "put", breaking)
    names = ["metadata.json", "metadata.ledger.json", *(f"train/{n}.wav" for n in range(4))]
    names += ["a/manifest.json", "a/adapter_model.safetensors"]
    with written(memory).held() as folder:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
        (folder / ".lock").touch()
        (folder / "train" / ".staging-1").touch()
        with pytest.raises(RunError):
            written_there(folder, memory)
    assert set(Remote(memory).states()) == set(sent)
    assert not [name for name in sent if name.endswith(".json")]
    room[0] = 100
    with written(memory).held() as folder:
        written_there(folder, memory)
    assert sorted(sent) == sorted(names)
    assert sent[-3:] == ["a/manifest.json", "metadata.json", "metadata.ledger.json"]


def written_there(folder: Path, url: str) -> None:
    """Sends like a sender thread."""
    copy = written(url)
    copy._notes = copies._read_notes(copy._home / copies.NOTES_FILE)
    copy.send(shown=False)


class Failing(io.BytesIO):
    """A file on a disk that fails after some bytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 8:
            raise OSError(5, "Input/output error")
        return super().read(min(size or 8, 8))


@pytest.mark.parametrize("url", ["s3://studio/some/beats", "file"], indirect=True)
def test_what_breaks_off_midway_is_not_there(url: str) -> None:
    far = Remote(url)
    far._make(f"{far._root}/train", is_store=False) if url.startswith("file") else None
    with pytest.raises(OSError, match="Input/output"):
        far._write(Failing(bytes(100)), far._place("train/a.wav"))
    assert not far.states()


def test_what_is_made_is_sent_while_the_rest_is(
    memory: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(places, "SEND_EVERY_S", 0.02)
    settings = GenerateSettings(prompts=["808"], output_dir=Path(memory))
    far, end = Remote(memory), time.monotonic() + 60.0

    @places.at_any_place("generate")
    def breaking_off(here: GenerateSettings) -> None:
        (here.output_dir / "first.wav").write_bytes(b"first")
        while "first.wav" not in far.states():
            assert time.monotonic() < end
            time.sleep(0.02)
        (here.output_dir / "last.wav").write_bytes(b"last")
        raise RunError(f"{here.output_dir / 'third.wav'}: can't be made")

    with pytest.raises(RunError, match=f"^{memory}/third.wav: can't be made"):
        breaking_off(settings)
    assert {"first.wav", "last.wav"} < far.states().keys()
    say_unfinished(far, far.states(), plain_console())
    assert (
        f"{memory}: the run that writes here is still going or was interrupted"
        in capfd.readouterr().out
    )


def test_the_last_word_is_the_one_there_and_what_others_put_there_stays(
    memory: str, tmp_path: Path, capfd: Any
) -> None:
    far = Remote(memory)
    for name in ("mine", "edited", "removed", "cleared"):
        (tmp_path / name).write_text(name)
        far.put(tmp_path / name, name)
    with written(memory).held() as folder:
        assert files_below(folder).keys() == {"mine", "edited", "removed", "cleared"}
    (tmp_path / "edited").write_text("edited elsewhere")
    far.put(tmp_path / "edited", "edited")
    far.put(tmp_path / "edited", "theirs")
    far.delete("removed")
    copy = written(memory)
    with copy.held() as folder:
        assert files_below(folder).keys() == {"mine", "edited", "theirs", "cleared"}
        assert (folder / "edited").read_text() == "edited elsewhere"
        (folder / "cleared").unlink()
        (folder / "theirs").unlink()
        (tmp_path / "edited").write_text("by somebody, meanwhile")
        far.put(tmp_path / "edited", "theirs")
        copy.send(shown=False)
    assert far.states().keys() == {"mine", "edited", "theirs"}


def test_copies_give_way_to_others_but_for_what_was_not_sent(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "unsent", "new", "huge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sound.wav").write_bytes(bytes(900 if name == "huge" else 300))
        upload(tmp_path / name, f"{memory}/{name}")
    folders: dict[str, Path] = {}
    monkeypatch.setenv(CACHE_GB, f"{650e-9}")
    for name in ("unsent", "old"):
        with Copy(f"{memory}/{name}", console()).held() as folder:
            folders[name] = folder
    (folders["unsent"] / "made.wav").write_bytes(b"here")
    with Copy(f"{memory}/new", console()).held() as folder:
        # One that is in use stays, whatever its age.
        assert (folder / "sound.wav").is_file()
        assert not folders["old"].exists()
        assert (folders["unsent"] / "made.wav").is_file()
        with pytest.raises(UserError, match=f"{CACHE_GB} allows"), held(f"{memory}/huge"):
            pass
        assert (folder / "sound.wav").is_file()


def held(url: str) -> Any:
    return Copy(url, console()).held()


def test_a_written_copy_is_one_runs(memory: str) -> None:
    with (
        written(memory).held(),
        pytest.raises(UserError, match="in use by another run"),
        written(memory).held(),
    ):
        pass


def test_copies_are_called_by_their_urls(tmp_path: Path) -> None:
    copy = tmp_path / "files" / "beats"
    with copied(Copied("s3://studio/beats", str(copy), tmp_path / "proof")):
        assert with_urls(f"{copy / 'a.wav'}: broken") == "s3://studio/beats/a.wav: broken"
        assert shown(copy) == "s3://studio/beats"
        assert copy_of("s3://studio/beats") == str(copy)
    assert shown(copy) == str(copy)


def test_a_machine_that_does_not_share_the_copies_says_so(tmp_path: Path) -> None:
    shared = ray_engine._Shared(
        work=lambda task, alive: task,
        version=ray_engine.__version__,
        folder=os.getcwd(),
        proofs=(tmp_path / "proof",),
        limit_s=60.0,
    )
    kind, said = ray_engine._attempt(shared, 7)
    assert kind == "unfit"
    assert "XDG_CACHE_HOME" in said
    (tmp_path / "proof").touch()
    assert ray_engine._attempt(shared, 7) == ("done", 7)
