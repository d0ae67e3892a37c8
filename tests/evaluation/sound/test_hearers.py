"""Clips analysed in parallel give the same results as one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from musicgen_lora.evaluation.generations import write_clips
from musicgen_lora.evaluation.measures.embeddings import Embedding
from musicgen_lora.evaluation.players import hearers
from musicgen_lora.evaluation.sound.ear import Ear
from musicgen_lora.model.base_model import BaseModel


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> BaseModel:
    return BaseModel.load(str(tiny_model_dir))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def codes(model: BaseModel, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (model.shape.n_codebooks, model.shape.frames(2.0))
    return [rng.integers(model.shape.special, size=shape) for _ in range(n)]


@pytest.mark.usefixtures("threads")
def test_how_many_hear_at_once_changes_nothing(model: BaseModel, tmp_path: Path) -> None:
    clips, ears = codes(model, 4), [Ear(model)] * 4
    found = []
    for n_threads in (1, 3):
        torch.set_num_threads(n_threads)
        folder = tmp_path / str(n_threads)
        paths, heard = write_clips(model, ears, clips, ["one", "two", "three", "four"], folder)
        assert torch.get_num_threads() == n_threads
        found.append(
            [(path.name, path.read_bytes(), one) for path, one in zip(paths, heard, strict=True)]
        )
    for (name, sound, one), (other_name, other_sound, other) in zip(*found, strict=True):
        assert (name, sound) == (other_name, other_sound)
        np.testing.assert_equal(one.descriptors, other.descriptors)
        np.testing.assert_equal(one.vectors, other.vectors)
        np.testing.assert_array_equal(one.fingerprint, other.fingerprint)
    assert [name[:2] for name, _, _ in found[0]] == ["01", "02", "03", "04"]


@pytest.mark.usefixtures("threads")
def test_a_function_of_somebody_elses_hears_one_clip_at_a_time(
    model: BaseModel, tmp_path: Path
) -> None:
    torch.set_num_threads(3)
    at_it = threading.Lock()

    def hear(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        assert at_it.acquire(blocking=False)
        assert torch.get_num_threads() == 3
        found = np.abs(np.fft.rfft(waveform[0]))[:8]
        at_it.release()
        return found

    ear = Ear(model, [Embedding("mine", "mine", hear)])
    _, heard = write_clips(model, [ear] * 4, codes(model, 4), list("abcd"), tmp_path)
    assert all(len(one.vectors["mine"]) == 8 for one in heard)


@pytest.mark.usefixtures("threads")
def test_torch_has_its_threads_back_after_a_fault() -> None:
    torch.set_num_threads(3)
    with pytest.raises(ZeroDivisionError), hearers() as pool:
        list(pool.map(lambda row: 1 / row, [1, 0, 1]))
    assert torch.get_num_threads() == 3
