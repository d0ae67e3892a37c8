"""Which precision a device gets, and what comes with it."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from musicgen_lora.config import EMBEDDED_NAME
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.attention import NAME
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.runtime import precision as precision_module
from musicgen_lora.runtime.precision import choose_training_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_tiny_beats_is_in_bf16_where_the_cpu_multiplies_it(
    native: bool, expected: str, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "cpu_has_bf16", lambda: native)
    for base, found in [(EMBEDDED_NAME, expected), (tiny_model_dir, "fp32")]:
        n_parameters = sum(p.numel() for p in load_base(base).decoder.parameters())
        assert choose_training_precision("auto", False, CPU, n_parameters)[0] == found


@pytest.mark.parametrize(("precision", "attention"), [("bf16", NAME), ("fp32", "sdpa")])
def test_only_bf16_attends_in_blocks(precision: str, attention: str, tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir)
    BaseModel(model).to(CPU, precision)
    enable(model, precision)
    config: Any = model.decoder.config
    assert config._attn_implementation == attention
    inner: Any = model.decoder.model.decoder
    assert inner.layers[0].self_attn.config._attn_implementation == attention


def test_trained_weights_stay_in_fp32(tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir)
    BaseModel(model).to(CPU, "bf16", trained=True)
    enable(model, "bf16")
    config: Any = model.decoder.config
    assert config._attn_implementation == NAME
    assert {p.dtype for p in model.decoder.parameters()} == {torch.float32}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_that_is_freed_is_kept_for_the_next_tensors() -> None:
    code = """
import resource
import torch
from musicgen_lora.runtime.allocator import keep_freed_memory

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        tensors = [torch.ones(2**21) for _ in range(8)]  # 64 MiB
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(fresh_pages())
keep_freed_memory()
fresh_pages()
print(fresh_pages())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_threads_have_freed_is_returned() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch
from musicgen_lora.runtime.allocator import keep_freed_memory, return_freed_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024

def work():
    freed = [torch.ones(2**20) for _ in range(8)]  # 32 MiB
    return torch.ones(2**10)  # behind them, so that they are no end to be cut off

torch.ones(2**20)
keep_freed_memory()
before = resident_mb()
with ThreadPoolExecutor(1) as pool:
    last = pool.submit(work).result()
print(resident_mb() - before)
return_freed_memory()
print(resident_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, returned = map(int, done.stdout.split())
    assert kept > 24
    assert returned < 8
