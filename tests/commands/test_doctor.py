"""What the installation lacks, what that would add, and how to get it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from musicgen_lora import doctor, extras
from musicgen_lora.model.base import hub


def test_each_missing_part_is_named_with_what_it_gives_and_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda library: None)
    monkeypatch.setattr("shutil.which", lambda program: None)
    missing = [sentence for kind, sentence in doctor.check_optional() if kind == "missing"]
    assert [sentence.split(":")[0] for sentence in missing] == [
        "ffmpeg",
        *dict.fromkeys(extras.LIBRARIES.values()),
    ]
    assert all("would" in sentence and " install " in sentence for sentence in missing)
    told = "\n".join(missing)
    assert "M4A" in told
    assert all(given in told for given in extras.GIVES.values())


def test_what_is_there_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda library: object())
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    assert {kind for kind, _ in doctor.check_optional()} == {"ok"}


def test_a_hub_out_of_reach_is_named_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", "http://127.0.0.1:9", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    ((kind, sentence),) = doctor.ask_hub()
    assert kind == "afar"
    assert "http://127.0.0.1:9 can't be reached" in sentence
    assert hub.REMEDIES in sentence


def test_models_that_no_cache_has_are_named_with_what_they_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = list(doctor.check_cache())
    assert [kind for kind, _ in found] == ["afar"] * len(hub.PARTS)
    for name, (_, sentence) in zip(hub.PARTS, found, strict=True):
        assert sentence.startswith(f"{name}: would add {hub.PARTS[name]}")
        assert sentence.endswith(f"musicgen-lora prefetch --models {name}")


def test_the_last_line_is_no_readier_than_the_installation() -> None:
    assert doctor.summing_up(0, 0, 0).startswith("Ready, ")
    assert "2 missing parts" in doctor.summing_up(0, 2, 0)
    assert "2 missing parts and for models" in doctor.summing_up(0, 2, 3)
    assert "except for models that have yet to be downloaded" in doctor.summing_up(0, 0, 3)
    assert doctor.summing_up(1, 2, 3).endswith(": 1.")


def test_a_hub_that_hangs_is_waited_for_while_the_rest_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers once the last of the other checks is done, and neither it nor its models are
    counted as parts to install."""
    checked = threading.Event()

    def last() -> Iterator[doctor.Finding]:
        checked.set()
        yield "missing", "ffmpeg: would let prepare read M4A and AAC."

    def hanging(name: str) -> None:
        assert checked.wait(60.0)
        raise hub.Unreachable("https://huggingface.co can't be reached (no answer in 4 s).")

    for check in ("check_versions", "check_torch", "check_broken", "check_disk"):
        monkeypatch.setattr(doctor, check, lambda: iter(()))
    monkeypatch.setattr(doctor, "check_optional", last)
    monkeypatch.setattr(doctor, "check_cache", lambda: iter([("afar", "musicgen-small: a base")]))
    monkeypatch.setattr(hub, "ask", hanging)
    assert doctor.check_installation() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["absent"] * 3
    assert "(no answer in 4 s)" in lines[1]
    assert "except for 1 missing part and for models" in lines[-1]


def test_every_extra_says_what_it_gives() -> None:
    assert set(extras.GIVES) == set(extras.LIBRARIES)
