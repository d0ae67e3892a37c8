from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musicgen_lora.runtime.threads import bounded_spinning

# Before torch loads, and for the processes that tests start too. Tiny layers spend their time on
# waiting for the other threads, and tests run a process a core.
os.environ.update(bounded_spinning())
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whatever the machine speaks.
os.environ["MUSICGEN_LORA_LANGUAGE"] = "en"

# As from a terminal that is open: under nohup SIGHUP is ignored, and would be in all processes that
# tests start, which it couldn't stop then. A handler isn't inherited where another program is
# started. This one does nothing either: the tests themselves still outlive their terminal.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
# SIGINT is ignored where a script began the tests in the background.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

from musicgen_lora.runtime.garbage import no_garbage

# The process that deals tests out to those that run them reads this file too, and runs none: what
# takes seconds to load is imported where it is used.


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Test modules load the libraries, and everything loaded by the end stays. Tests make many
    small objects, so garbage is collected less often: it took a tenth of their time."""
    gc.set_threshold(50_000)
    with no_garbage():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def quick_process() -> None:
    import torch
    from quick import leave_players_silent, leave_plots_undrawn, load_once, make_quick

    torch.set_num_threads(1)
    make_quick()
    load_once()
    leave_plots_undrawn()
    leave_players_silent()


def _tiny(factory: pytest.TempPathFactory, name: str, **kind: bool) -> Path:
    from tiny import make_tiny_musicgen

    return make_tiny_musicgen(factory.mktemp("models") / name, **kind)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tiny(tmp_path_factory, "tiny")


@pytest.fixture(scope="session")
def tiny_stereo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tiny(tmp_path_factory, "stereo", stereo=True)


@pytest.fixture(scope="session")
def tiny_melody_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tiny(tmp_path_factory, "melody", melody=True)


@pytest.fixture(scope="session")
def tiny_stereo_melody_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tiny(tmp_path_factory, "stereo_melody", melody=True, stereo=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """playwright's, if it is installed."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    from browsing import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight ragged clips of 0.3 to 1 s."""
    from made_datasets import make_dataset

    return make_dataset(tmp_path / "data", [0.3 + 0.1 * index for index in range(8)])
