"""What the installation lacks, what that would give, and how to get it."""

from __future__ import annotations

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
    ((kind, sentence),) = doctor.check_hub()
    assert kind == "missing"
    assert "http://127.0.0.1:9 can't be reached" in sentence
    assert hub.REMEDIES in sentence


def test_models_that_no_cache_has_are_named_with_what_they_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = list(doctor.check_cache())
    assert [kind for kind, _ in found] == ["missing"] * len(hub.PARTS)
    for name, (_, sentence) in zip(hub.PARTS, found, strict=True):
        assert sentence.startswith(f"{name}: would give {hub.PARTS[name]}")
        assert sentence.endswith(f"musicgen-lora prefetch --models {name}")


def test_the_last_line_is_no_readier_than_the_installation() -> None:
    assert doctor.verdict(0, 0).startswith("Ready, ")
    assert "2 missing parts" in doctor.verdict(0, 2)
    assert doctor.verdict(1, 2).startswith("1 to mend")


def test_every_extra_says_what_it_gives() -> None:
    assert set(extras.GIVES) == set(extras.LIBRARIES)
