"""The page's files: what a forged request may name, and what it may not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from musicgen_lora.errors import UserError
from musicgen_lora.prepare.words.facts import facts_from_name
from musicgen_lora.runtime.locks import locked
from musicgen_lora.webui import safety
from musicgen_lora.webui.safety import (
    delete_folder,
    find,
    folders_of,
    id_of,
    inside,
    new_name,
    take_uploads,
)

FORGED: list[Any] = [
    None,
    3,
    "",
    "..",
    "run",
    "../run",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://example.org/a.wav",
    ["0" * 24],
    {"path": "/etc/passwd"},
    "0" * 24,
    id_of("run") + "\n",
    id_of("run").upper() + "0",
    id_of("link"),
    id_of("file"),
    id_of(".hidden"),
    id_of(".."),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a folder, a file, a hidden folder and links to what lies outside."""
    root = tmp_path / "root"
    (root / "run" / "deep").mkdir(parents=True)
    (root / "run" / "deep" / "a.wav").write_bytes(b"sound")
    (root / ".hidden").mkdir()
    (root / "file").write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.wav").write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    (root / "run" / "link").symlink_to(outside)
    (root / "run" / "linked.wav").symlink_to(outside / "secret.wav")
    os.mkfifo(root / "run" / "pipe")
    return root


@pytest.mark.parametrize("forged", FORGED, ids=repr)
def test_forged_ids_name_nothing_and_delete_nothing(root: Path, forged: Any) -> None:
    with pytest.raises(UserError, match=r"no longer exists|Nothing is chosen"):
        find(folders_of(root), forged)
    for typed in ("run", "link", "..", ""):
        with pytest.raises(UserError):
            delete_folder(root, forged, typed)
    assert (root / "run" / "deep" / "a.wav").read_bytes() == b"sound"
    assert (root.parent / "outside" / "secret.wav").exists()
    assert (root / "link").is_symlink()


def test_ids_of_what_is_there_are_found(root: Path) -> None:
    assert folders_of(root) == ["run"]
    assert find(folders_of(root), id_of("run")) == "run"
    assert folders_of(root / "nothing") == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../outside/secret.wav",
        "deep/../../../outside/secret.wav",
        "/etc/passwd",
        "deep//a.wav",
        "./deep/a.wav",
        "deep\\a.wav",
        "C:/x",
        "http://example.org/a.wav",
        "file:deep/a.wav",
        "a\0b",
        "link/secret.wav",
        "linked.wav",
        "pipe",
        "nothing.wav",
        "x" * 5000,
        "deep/a.wav/",
    ],
)
def test_paths_stay_inside_and_pass_no_link(root: Path, name: str) -> None:
    with pytest.raises(UserError):
        inside(root / "run", name)


def test_a_path_below_is_found(root: Path) -> None:
    assert inside(root / "run", "deep/a.wav").read_bytes() == b"sound"


@pytest.mark.parametrize(
    ("typed", "made"),
    [
        ("My Beats", "My Beats"),
        ("  808 低音 ", "808 低音"),
        ("../../etc", "etc"),
        ("/abs/olute", "abs olute"),
        ("a\0b\nc", "a b c"),
        ("..", "run"),
        (".lock", "lock"),
        ("--flag", "flag"),
        ("con", "run"),
        ("", "run"),
        (None, "run"),
        ("x" * 500, "x" * 60),
        ("<b>hi</b>", "b hi b"),
    ],
)
def test_new_names_are_letters(typed: Any, made: str) -> None:
    assert new_name(typed, "run") == made


def test_deleting_asks_for_the_name_and_spares_what_is_in_use(root: Path) -> None:
    wanted = id_of("run")
    for typed in ("", "Run", None, 3, "run/", "file"):
        with pytest.raises(UserError, match="type its name"):
            delete_folder(root, wanted, typed)
    with locked(root / "run"), pytest.raises(UserError, match="in use"):
        delete_folder(root, wanted, "run")
    assert delete_folder(root, wanted, " run ") == "run"
    assert not (root / "run").exists()
    assert (root / "file").exists()
    assert (root.parent / "outside" / "secret.wav").read_bytes() == b"secret"


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    cache = tmp_path / "cache"
    for number in range(3):
        (cache / str(number)).mkdir(parents=True)
        (cache / str(number) / "Beat #1.WAV").write_bytes(b"%d" % (number % 2))
    return cache


def test_uploads_get_plain_names_and_lose_none(sent: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(sent.rglob("*.WAV"))]
    names = take_uploads(paths, sent, tmp_path / "new")
    assert names == ["Beat #1.wav", "Beat #1 2.wav", "Beat #1.wav"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted({*names})


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        # What `prepare` reads of a name: tempo and key.
        ("Beat_C#min_140bpm.wav", "Beat_C#min_140bpm.wav"),
        ("Loop 92.5bpm [G♯m] (prod. x & y).wav", "Loop 92.5bpm [G♯m] (prod. x & y).wav"),
        (f"{'long title ' * 6}140bpm F#m.wav", f"{'long title ' * 6}140bpm F#m.wav"),
        ("火🔥 808 降E小调.wav", "火🔥 808 降E小调.wav"),
        (f"{'低' * 80}.wav", f"{'低' * 60}.wav"),
        ("..hidden.wav", "hidden.wav"),
        ("- flag.wav", "flag.wav"),
        ("tail. .wav", "tail.wav"),
        ("con.part.wav", "audio.wav"),
        ('a:b*c?d"e<f>g|h\\i.wav', "a b c d e f g h i.wav"),
        ("line\nand\x1b[31m\u202ereversed.wav", "line and [31m reversed.wav"),
    ],
)
def test_an_upload_keeps_what_its_name_says(tmp_path: Path, name: str, taken: str) -> None:
    sent = tmp_path / "cache" / name
    sent.parent.mkdir()
    sent.write_bytes(b"sound")
    assert take_uploads([str(sent)], sent.parent, tmp_path / "new") == [taken]
    assert facts_from_name(Path(taken).stem) == facts_from_name(sent.stem)
    # It is a name that the page itself looks up again.
    assert inside(tmp_path / "new", taken).read_bytes() == b"sound"


def test_uploads_are_of_this_page_are_audio_and_have_bounds(
    sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = str(next(iter(sent.rglob("*.WAV"))))
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    (sent / "link.wav").symlink_to(secret)
    (sent / "page.html").write_text("<script>")
    target = tmp_path / "new"
    for bad, said in (
        (str(secret), "not uploaded"),
        (str(sent / "link.wav"), "not uploaded"),
        (str(sent / ".." / "secret.wav"), "not uploaded"),
        ("http://example.org/a.wav", "not uploaded"),
        (str(sent), "not uploaded"),
        (str(sent / "page.html"), "is not audio"),
    ):
        with pytest.raises(UserError, match=said):
            take_uploads([good, bad], sent, target)
    with pytest.raises(UserError, match="501 files"):
        take_uploads([good] * 501, sent, target)
    monkeypatch.setattr(safety, "MAX_UPLOAD_BYTES", 0)
    with pytest.raises(UserError, match="at once"):
        take_uploads([good], sent, target)
    with pytest.raises(UserError, match="Choose or drop"):
        take_uploads([], sent, target)
    assert not target.exists()
