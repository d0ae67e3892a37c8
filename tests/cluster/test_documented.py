"""The commands of docs/scale.md: flags that their programs have, and a script for SLURM."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from documented import blocks, slurm_script
from torch.distributed.run import get_args_parser

from musicgen_lora.commands.flags import parse_settings

TRAINING = ["train", "--config", "config.yaml"]


def check_torchrun(words: list[str]) -> None:
    asked = get_args_parser().parse_args(words)
    assert (asked.module, asked.training_script) == (True, "musicgen_lora.cli")
    assert asked.training_script_args == TRAINING
    # On two machines they have to find each other.
    assert asked.nnodes == "1:1" or asked.master_addr == "FIRST" or asked.rdzv_backend == "c10d"


def test_commands_have_the_flags_of_their_programs() -> None:
    seen = Counter[str]()
    lines = [
        line for block in blocks("sh") if "#SBATCH" not in block for line in block.splitlines()
    ]
    for program, *words in filter(None, (shlex.split(line, comments=True) for line in lines)):
        seen[program] += 1
        if program == "musicgen-lora":
            parse_settings(words[0], words[1:], None)
        elif program == "torchrun":
            check_torchrun(words)
        elif program == "accelerate":
            asked = launch_command_parser().parse_args(words[1:])
            assert (asked.num_processes, asked.num_machines) == (8, 2)
            assert asked.training_script_args == TRAINING
    assert seen["musicgen-lora"] >= 5
    assert (seen["torchrun"], seen["accelerate"], seen["ray"]) == (2, 1, 2)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_slurm_starts_training_on_each_machine(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for name, said in (("scontrol", r"printf 'gpu01\ngpu02\n'"), ("srun", 'printf "%s\\n" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / name).chmod(0o755)
    given = {"JOB_NODELIST": "gpu[01-02]", "NNODES": "2", "JOB_ID": "42", "CPUS_PER_TASK": "16"}
    done = subprocess.run(
        ["bash", "-c", slurm_script().replace("cd /shared", f"cd {shlex.quote(str(tmp_path))}")],
        env={f"SLURM_{name}": value for name, value in given.items()}
        | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()
    at = words.index("torchrun")
    assert "gpu01:29500" in words
    check_torchrun(words[at + 1 :])
