"""Which torch is installed where, with a fake pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from install_torch import CPU_INDEX, install_torch, pinned_torch

ROOT = Path(__file__).resolve().parents[2]


class Pip:
    """Answers each command with the next code of `codes`, and records the commands."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.asked = list(codes), []

    def __call__(self, command) -> int:
        self.asked.append(list(command))
        return self.codes.pop(0)


def install(pip: Pip, *, has_gpu: bool, system: str = "Linux"):
    said: list[str] = []
    code = install_torch("python", has_gpu=has_gpu, system=system, run=pip, say=said.append)
    assert not pip.codes
    return code, said


def test_without_a_gpu_the_cpu_build_comes_from_pytorchs_index():
    pip = Pip(1, 0)
    code, said = install(pip, has_gpu=False)
    assert code == 0
    assert CPU_INDEX in pip.asked[1]
    assert pinned_torch() in pip.asked[1]
    assert "for the CPU" in said[0]


def test_an_index_that_cannot_be_reached_is_said_and_pips_own_is_asked():
    pip = Pip(1, 1, 0)
    code, said = install(pip, has_gpu=False)
    assert code == 0
    assert CPU_INDEX not in pip.asked[2]
    assert any("can't be reached" in line for line in said)
    assert "--quiet" not in pip.asked[2]
    assert install(Pip(1, 1, 7), has_gpu=False)[0] == 7


@pytest.mark.parametrize(("has_gpu", "system"), [(True, "Linux"), (False, "Darwin")])
def test_with_a_gpu_or_on_a_mac_it_is_pips_own(has_gpu, system):
    pip = Pip(1, 0)
    code, _ = install(pip, has_gpu=has_gpu, system=system)
    assert code == 0
    assert CPU_INDEX not in pip.asked[1]


def test_what_is_there_already_stays():
    pip = Pip(0)
    assert install(pip, has_gpu=False) == (0, [])


def test_this_environment_has_the_pinned_torch():
    command = [sys.executable, str(ROOT / "tools" / "install_torch.py"), "--python", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
