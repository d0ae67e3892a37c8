"""How threads wait, and how many decode: bounded in our own processes, unless the user decides."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from musicgen_lora.generation.decoding import decode, decoder
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.runtime import threads
from musicgen_lora.runtime.threads import DECIDED_BY, SPIN, bounded_spinning, is_alone

OURS = {*DECIDED_BY, "OMP_NUM_THREADS"}
COMMAND = [sys.executable, "-m", "musicgen_lora.cli", "generate", "--prompts", "beat"]
COMMAND += ["--base_model_path"]
WORKER = """
import os
from looking import look
from musicgen_lora.runtime.workers import run_tasks

(_, seen), = run_tasks(look, ["GOMP_SPINCOUNT"], 1)
print(seen, os.environ.get("GOMP_SPINCOUNT"))
"""
LOOKING = """
import os

def look(name, alive):
    return os.environ.get(name)
"""


def plain_environment(**changes: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OURS} | changes


@pytest.mark.parametrize("name", DECIDED_BY)
def test_the_users_own_setting_wins(name: str) -> None:
    assert bounded_spinning({"HOME": "/root"}) == SPIN
    assert bounded_spinning({name: "active"}) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GCC's OpenMP on Linux")
def test_a_command_bounds_it_before_openmp_reads_its_settings(tmp_path: Path) -> None:
    # There, but no model: it is refused once torch is loaded.
    (tmp_path / "none").mkdir()
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "none")],
        env=plain_environment(OMP_DISPLAY_ENV="verbose"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert re.search("GOMP_SPINCOUNT = '10{3,4}'", done.stderr)


@pytest.mark.parametrize(("running", "alone"), [("1", True), ("2", False)])
def test_who_decodes_alone_spins_longer(
    running: str, alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loadavg").write_text(f"3.10 2.02 1.01 {running}/80 11206\n")
    monkeypatch.setattr(threads, "Path", lambda _: tmp_path / "loadavg")
    assert is_alone() is alone
    assert bounded_spinning({}, alone=alone)["GOMP_SPINCOUNT"] == ("10000" if alone else "1000")
    assert bounded_spinning({"OMP_WAIT_POLICY": "passive"}, alone=alone) == {}
    monkeypatch.setattr(threads, "Path", lambda _: tmp_path / "none")
    assert not is_alone()


def test_workers_are_ours_and_the_program_that_starts_them_is_not(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(WORKER)
    (tmp_path / "looking.py").write_text(LOOKING)
    done = subprocess.run(
        [sys.executable, script], env=plain_environment(), capture_output=True, text=True
    )
    assert done.stdout.split() == ["1000", "None"], done.stderr


@pytest.mark.parametrize(
    ("limit", "own", "expected"),
    [(decoder.ONE_THREAD_UP_TO, None, 1), (0, None, 2), (decoder.ONE_THREAD_UP_TO, "2", 2)],
)
def test_a_small_decoder_takes_one_thread_and_gives_the_others_back(
    limit: int,
    own: str | None,
    expected: int,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder, "ONE_THREAD_UP_TO", limit)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    model = load_base(tiny_model_dir)
    texts = TextStates(model, load_tokenizer(tiny_model_dir)).batch(["808 beat"])
    seen: set[int] = set()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        decode.generate_codes(
            BaseModel(model),
            Request(Conditions(texts), n_frames=3, seeds=[0]),
            on_step=lambda done, total: seen.add(torch.get_num_threads()),
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {expected}
