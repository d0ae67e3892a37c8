"""Error messages for prompts that kill an engine's workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from musicgen_lora.errors import RunError
from musicgen_lora.evaluation.play_tasks import ClipKind, SeededPrompt, play_batches_by
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.runtime.workers import Failure


class Deadly:
    """An engine whose workers die on some prompts."""

    def __init__(self, *prompts: str) -> None:
        self.prompts = prompts

    def run(self, work: Any, tasks: Any, limit_s: float, **_: Any) -> Iterator[tuple[int, Any]]:
        for index in range(len(tasks)):
            prompts = [prompt for prompt, _ in tasks[index].rows]
            dies = any(prompt in self.prompts for prompt in prompts)
            yield index, Failure("it died.") if dies else np.zeros((len(prompts), 4, 10))


def take(played: Iterator[tuple[list[SeededPrompt], np.ndarray]], made: list[str]) -> None:
    for batch, _ in played:
        made += [prompt for prompt, _ in batch]


@pytest.mark.parametrize(
    ("deadly", "said"), [(["b"], "1 prompt could"), (["b", "c"], "2 prompts could")]
)
def test_prompts_that_cant_be_played_are_counted(deadly: list[str], said: str) -> None:
    model = SimpleNamespace(path="base", fingerprint="", device=SimpleNamespace(type="cpu"))
    performer: Any = SimpleNamespace(
        adapter=Path("a"), strength=1.0, identity="", precision="fp32", model=model
    )
    engine: Any = Deadly(*deadly)
    rows = [(prompt, seed) for seed, prompt in enumerate("abcd")]
    played = play_batches_by(engine, performer, [rows], ClipKind(10, Sampling()))
    made: list[str] = []
    with pytest.raises(
        RunError, match=f"^{said} not be generated; all others.*with seed 1: it died"
    ):
        take(played, made)
    assert sorted(made + deadly) == list("abcd")
