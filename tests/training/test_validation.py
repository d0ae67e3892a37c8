"""Held-out loss where several processes share the windows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import add_lora
from peft import PeftModel

from musicgen_lora.dataset.batches import Window
from musicgen_lora.errors import RunError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime import processes
from musicgen_lora.training import validation


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_only_sharded_weights_need_each_process_at_each_pass(
    rank: int, sharded: bool, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BaseModel.load(tiny_model_dir)
    rng = np.random.default_rng(0)
    windows = [
        Window(rng.integers(0, 64, (12, 4)).astype(np.uint16), "808", f"s{index}")
        for index in range(3)
    ]
    passes = []
    decoder: Any = model.hf.decoder.model
    decoder.register_forward_pre_hook(lambda *_: passes.append(1))
    monkeypatch.setattr(processes, "rank", lambda: rank)
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    summed: list[torch.Tensor] = []
    monkeypatch.setattr(processes, "all_reduce_sum", lambda values: summed.append(values) or values)
    validation.held_out_losses(model, windows, 1, sharded=sharded)
    # The first has two of the three windows, the second one.
    assert len(passes) == (2 if rank == 0 or sharded else 1)
    # Whatever is run for company is not counted.
    assert summed[0][1, 0] == (2 - rank) * 12


@pytest.fixture
def adapted(tiny_model_dir: Path) -> tuple[PeftModel, BaseModel, list[Window]]:
    """An adapter with an effect, and windows of several lengths."""
    model = BaseModel.load(tiny_model_dir)
    torch.manual_seed(0)
    adapter = add_lora(model, base_name="x", rank=2, alpha=4)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    rng = np.random.default_rng(0)
    windows = [
        Window(rng.integers(0, 64, (n, 4)).astype(np.uint16), caption, "source")
        for n, caption in [(9, "808"), (30, "dark trap drums"), (14, "hip hop"), (4, "bass")]
    ]
    return adapter, model, windows


def effect_of_all(adapter: PeftModel, model: BaseModel, windows: list[Window]):
    """KL and largest change, written out clip by clip."""
    divergences, largest = [], 0.0
    for window in windows:
        codes = torch.from_numpy(window.codes.T.astype(np.int64))[None]
        with torch.no_grad():
            one = model.logits(codes, model.text.batch([window.caption]))
            with adapter.disable_adapter():
                other = model.logits(codes, model.text.batch([window.caption]))
        for k in range(4):
            p, q = (x[0, k, : len(window.codes) - k].double() for x in (one, other))
            largest = max(largest, float((p - q).abs().max()))
            log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
            divergences += (log_p.exp() * (log_p - log_q)).sum(-1).tolist()
    return float(np.mean(divergences)), largest


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_an_adapters_effect_is_that_of_the_clips_whatever_the_batch(
    batch_size: int, adapted: Any
) -> None:
    adapter, model, windows = adapted
    effect = validation.adapter_effect(adapter.disable_adapter, model, windows, batch_size)
    mean_kl, largest = effect_of_all(adapter, model, windows)
    assert effect["mean_kl"] == pytest.approx(mean_kl, rel=1e-4)
    assert effect["max_logit_change"] == pytest.approx(largest, rel=1e-4)


@pytest.mark.parametrize("room", [2, 1, 0])
def test_an_effect_for_which_memory_is_short_is_measured_in_smaller_batches(
    room: int, adapted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, model, windows = adapted
    original, tried = model.logits, []

    def short(codes: torch.Tensor, *rest: Any) -> torch.Tensor:
        tried.append(len(codes))
        if len(codes) > room:
            raise torch.OutOfMemoryError("too much")
        return original(codes, *rest)

    whole = validation.adapter_effect(adapter.disable_adapter, model, windows, 4)
    monkeypatch.setattr(model, "logits", short)
    measure = partial(validation.adapter_effect, adapter.disable_adapter, model, windows, 4)
    if not room:
        with pytest.raises(RunError, match=r"Out of memory with a single clip.*best_model"):
            measure()
        return
    assert measure() == pytest.approx(whole, rel=1e-4)
    halved = [4] if room == 2 else [4, 2]
    assert tried == [*halved, *[room] * (2 * 4 // room)]
