"""How Ray is chosen and started, and the messages if it doesn't start."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import pytest

from musicgen_lora.cluster import ray_engine
from musicgen_lora.config import GenerateSettings, TokeniseSettings
from musicgen_lora.errors import UserError


def test_pairs_of_settings_that_say_two_engines_are_refused() -> None:
    with pytest.raises(UserError, match="pass only one"):
        TokeniseSettings(ray="local", num_workers=2)
    with pytest.raises(UserError, match="leave them out with --ray"):
        GenerateSettings(ray="local", prompts=["808"], play=True)
    for wrong in ("http://x", "ray://head:10001", "head", ""):
        with pytest.raises(
            UserError, match=r"^ray = .*: no such cluster; give local, auto or HOST:PORT"
        ):
            TokeniseSettings(ray=wrong)


class NoRay:
    """Ray on a machine that is too busy to start it at first."""

    def __init__(self, n_failures: int) -> None:
        self.n_failures, self.n_tried = n_failures, 0

    def init(self, **_: Any) -> None:
        self.n_tried += 1
        if self.n_tried <= self.n_failures:
            raise Exception("The current node timed out\nduring startup.")

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize(
    ("address", "n_failures", "n_tried", "said"),
    [
        ("local", 1, 2, ""),
        ("local", 9, 2, "or leave --ray out"),
        ("auto", 9, 1, "ray start --head"),
    ],
)
def test_a_ray_that_does_not_start_is_tried_again_here_and_says_what_to_do(
    address: str, n_failures: int, n_tried: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = NoRay(n_failures)
    monkeypatch.setitem(sys.modules, "ray", ray)
    expected = pytest.raises(UserError, match=said) if said else nullcontext()
    with expected:
        ray_engine._init(address, {})
    assert ray.n_tried == n_tried


@pytest.mark.parametrize(
    ("load", "n_processors", "n_free"), [(0.3, 2, None), (13.0, 2, 1), (3.2, 8, 5)]
)
def test_other_programs_on_the_machine_are_told(
    load: float, n_processors: int, n_free: int | None, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(ray_engine.psutil, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(ray_engine.os, "cpu_count", lambda: n_processors)
    ray_engine._say_what_is_busy()
    said = capfd.readouterr().out
    assert said.count("\n") == (n_free is not None)
    assert n_free is None or f"--num-cpus {n_free} " in said
