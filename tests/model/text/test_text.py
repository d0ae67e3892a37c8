"""Text states: of the caption alone, whatever else is asked for, and no more than fit."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.text import states as text_module
from musicgen_lora.model.text.states import TextStates

CAPTIONS = [f"trap beat with 808 and {word} hats" for word in ("open", "rolling", "no", "lots of")]
IN_ANOTHER_PROCESS = """
import gc, hashlib
import sys

# Libraries load in less time.
gc.disable()
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.text.states import TextStates

{function}
print(hash_of_states(TextStates(load_base(sys.argv[1]), load_tokenizer(sys.argv[1]))))
"""


def hash_of_states(text: TextStates) -> str:
    """Of one caption more than are encoded together: which is on its own, and not padded to the
    last one's tokens?"""
    captions = [f"808 beat, {number} bpm" for number in range(60, 76)] + ["qzxw vkjq pwzx k"]
    text.prepare(captions)
    return hashlib.sha256(text.batch(captions)[0].numpy()).hexdigest()


@pytest.fixture(scope="module")
def embedded():
    """A trained encoder: its states differ in the last bits where its products do."""
    return load_base(str(EMBEDDED)), load_tokenizer(str(EMBEDDED))


def states_of(text: TextStates, captions: list[str | None]) -> list[torch.Tensor]:
    states, mask = text.batch(captions)
    return [row[: int(length)] for row, length in zip(states, mask.sum(1), strict=True)]


def test_a_captions_states_are_the_same_in_any_batch(embedded) -> None:
    together = states_of(TextStates(*embedded), [*CAPTIONS, None])
    for index, caption in enumerate(CAPTIONS):
        fresh = TextStates(*embedded)
        (alone,) = states_of(fresh, [caption])
        assert torch.equal(alone, together[index])
        # As after a resumption: some of a step's captions are known by then, others are not.
        for other, expected in zip(states_of(fresh, [*CAPTIONS, None]), together, strict=True):
            assert torch.equal(other, expected)


def test_processes_give_equal_states(embedded) -> None:
    """The other one hashes in another order."""
    script = IN_ANOTHER_PROCESS.format(function=inspect.getsource(hash_of_states))
    other = subprocess.run(
        [sys.executable, "-c", script, str(EMBEDDED)],
        env=os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert len(other) == 64
    assert hash_of_states(TextStates(*embedded)) == other


def test_no_more_states_are_kept_than_fit(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_base(tiny_model_dir), load_tokenizer(tiny_model_dir)
    unbounded = TextStates(model, tokenizer)
    expected = states_of(unbounded, list(CAPTIONS))
    limit = sum(states.nbytes for states in expected[:2]) + 1
    monkeypatch.setattr(text_module, "REMEMBERED_BYTES", limit)
    bounded = TextStates(model, tokenizer)
    for _ in range(3):
        for caption, states in zip(CAPTIONS, expected, strict=True):
            assert torch.equal(states_of(bounded, [caption])[0], states)
            kept = sum(states.nbytes for states in bounded._states.values())
            assert kept == bounded._n_bytes <= limit
            assert caption in bounded._states
    # A batch is whole, however little is to be kept.
    monkeypatch.setattr(text_module, "REMEMBERED_BYTES", 1)
    for states, again in zip(expected, states_of(bounded, list(CAPTIONS)), strict=True):
        assert torch.equal(states, again)
