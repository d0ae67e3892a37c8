"""Large tensors have large pages in our own processes, unless the user decides."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from musicgen_lora.runtime.allocator import HUGE_PAGES, huge_pages

OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
WEIGHTS = """
import sys
from musicgen_lora import cli

def command(*_):
    import torch
    weights = torch.ones(1 << 24)
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    print(next(line for line in lines if line.startswith("AnonHugePages")))
    return lambda settings: 0

cli.main(["generate", "--prompts", "beat"], load=command)
"""


def test_the_users_own_setting_wins() -> None:
    assert huge_pages({"HOME": "/root"}) == HUGE_PAGES
    assert huge_pages(dict.fromkeys(HUGE_PAGES, "0")) == {}


@pytest.mark.skipif(
    not OFFERED.is_file() or "[madvise]" not in OFFERED.read_text(),
    reason="this system gives large pages to all programs or to none",
)
@pytest.mark.parametrize("asked", [True, False])
def test_the_tensors_of_a_command_have_large_pages(asked: bool) -> None:
    given = {} if asked else dict.fromkeys(HUGE_PAGES, "0")
    plain = {name: value for name, value in os.environ.items() if name not in HUGE_PAGES}
    done = subprocess.run(
        [sys.executable, "-c", WEIGHTS], env=plain | given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (kilobytes,) = re.findall(r"AnonHugePages: +(\d+) kB", done.stdout)
    # Of 64 MiB; free memory may be in pieces.
    assert (int(kilobytes) > 1 << 14) == asked
