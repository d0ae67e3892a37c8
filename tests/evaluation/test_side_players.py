"""Decoders in parallel generate the same as a single one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import get_ident

import numpy as np
import pytest
import torch

from musicgen_lora.evaluation.generations import play_prompts
from musicgen_lora.evaluation.performers import base_performer
from musicgen_lora.evaluation.play_tasks import ClipKind, request_of
from musicgen_lora.evaluation.players import Stopped, players, shared_out
from musicgen_lora.evaluation.store import Store
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.model.base_model import BaseModel


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def played(model: BaseModel) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    codes = play_prompts(
        base_performer(model, Store()),
        ["808 beat", "trap, 140 bpm", "drill with a long caption", "boom bap", "jazz"],
        ClipKind(20, Sampling(2.0)),
        seed=3,
        batch_size=3,
        on_step=lambda done, of: told.append((done, of)),
    )
    return codes, told


def test_clips_are_the_same_to_the_bit(
    two_threads: None, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BaseModel.load(tiny_model_dir)
    with players(model, "fp32") as side_by_side:
        assert side_by_side.n == 2
    by_two, told = played(model)
    assert told[-1] == (100, 100)
    assert max(done for done, _ in told) == 100
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with players(model, "fp32") as alone:
        assert alone.n == 1
    for one, other in zip(played(model)[0], by_two, strict=True):
        np.testing.assert_array_equal(one, other)


def test_clips_are_played_in_the_performers_precision(tiny_model_dir: Path) -> None:
    """Those of another precision are kept apart."""
    model, store = BaseModel.load(tiny_model_dir), Store()
    kind, rows = ClipKind(40, Sampling(2.0)), [("808 beat", 3), ("trap, 140 bpm", 4)]
    found = []
    for precision in ("fp32", "bf16", "int8"):
        found.append(
            play_prompts(
                base_performer(model, store, precision),
                [prompt for prompt, _ in rows],
                kind,
                seed=3,
                batch_size=4,
                on_step=lambda done, of: None,
            )
        )
        own = generate_codes(Decoder(model, precision), request_of(model, rows, kind))
        np.testing.assert_array_equal(found[-1], own)
    assert not np.array_equal(found[0], found[2])
    assert store.made["clips"] == 6


def test_threads_give_up_when_it_is_over(two_threads: None, tiny_model_dir: Path) -> None:
    seen: set[int] = set()
    with players(BaseModel.load(tiny_model_dir), "fp32") as side_by_side:
        side_by_side.play(lambda decoder, work: seen.add(get_ident()), range(8))
        side_by_side.check()
    assert get_ident() not in seen
    with pytest.raises(Stopped):
        side_by_side.check()


def test_rows_are_shared_out_evenly() -> None:
    assert shared_out([1, 2, 3, 4, 5], 2) == [[1, 2, 3], [4, 5]]
    assert shared_out([1], 2) == [[1]]
    assert shared_out([], 2) == []
