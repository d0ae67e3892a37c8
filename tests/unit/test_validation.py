"""Held-out loss where several processes share the windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from musicgen_lora.data.batches import Window
from musicgen_lora.model.musicgen import load_base, load_tokenizer
from musicgen_lora.model.text import TextStates
from musicgen_lora.training import processes, validation


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_only_sharded_weights_need_each_process_at_each_pass(
    rank: int, sharded: bool, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_base(tiny_model_dir)
    text = TextStates(model, load_tokenizer(tiny_model_dir))
    rng = np.random.default_rng(0)
    windows = [
        Window(rng.integers(0, 64, (12, 4)).astype(np.uint16), "808", f"s{index}")
        for index in range(3)
    ]
    passes = []
    original = validation.decoder_states

    def counted(*arguments):
        passes.append(len(arguments[1]))
        return original(*arguments)

    monkeypatch.setattr(validation, "decoder_states", counted)
    monkeypatch.setattr(validation, "in_parts", lambda model: sharded)
    monkeypatch.setattr(processes, "rank", lambda: rank)
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    summed: list[torch.Tensor] = []
    monkeypatch.setattr(processes, "add_up", lambda values: summed.append(values) or values)
    validation.held_out_losses(model, windows, text, 1)
    # The first has two of the three windows, the second one.
    assert len(passes) == (2 if rank == 0 or sharded else 1)
    # Whatever is run for company is not counted.
    assert summed[0][1, 0] == (2 - rank) * 12
