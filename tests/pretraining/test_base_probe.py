"""The probe of where in a bar the language model is: it finds what is there, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from musicgen_lora.model.base_model import BaseModel
from pretraining.base import probe


@pytest.fixture
def base(tiny_model_dir: Path) -> BaseModel:
    return BaseModel.load(tiny_model_dir)


def windows(base: BaseModel, n: int, seed: int) -> list[probe.ProbeWindow]:
    """Random tokens at random tempos, from a bar line on."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        turns = np.arange(probe.N_FRAMES) / rng.uniform(40.0, 150.0)
        codes = rng.integers(base.shape.special, size=(base.shape.n_codebooks, probe.N_FRAMES))
        found.append((codes, "trap 808", probe.phases(turns)))
    return found


def test_phases_go_round_as_often_as_they_say() -> None:
    turns = np.array([0.0, 1 / 16, 0.25, 1.0])
    bar, half, quarter, eighth, sixteenth = np.moveaxis(probe.phases(turns).reshape(4, -1, 2), 1, 0)
    assert bar == pytest.approx(
        np.array([[1, 0], [np.cos(np.pi / 8), np.sin(np.pi / 8)], [0, 1], [1, 0]]), abs=1e-9
    )
    assert half[2] == pytest.approx([-1, 0], abs=1e-9)
    assert quarter[1] == pytest.approx([0, 1], abs=1e-9)
    assert eighth[1] == pytest.approx([-1, 0], abs=1e-9)
    assert sixteenth == pytest.approx(np.tile([1, 0], (4, 1)), abs=1e-9)


def test_a_layer_that_shows_the_phase_is_found_and_those_before_it_are_not(
    base: BaseModel,
) -> None:
    """The last layer of a model that is told the phase of half a bar, by whoever feeds it."""
    layers = base.hf.decoder.model.decoder.layers
    shown_now: list[torch.Tensor] = []

    def show(module: object, given: object, hidden: torch.Tensor) -> torch.Tensor:
        signal = torch.zeros_like(hidden)
        signal[:, : probe.N_FRAMES, :2] = 5.0 * shown_now.pop(0)
        return hidden + signal

    layers[-1].register_forward_hook(show)

    def with_phases(some: list[probe.ProbeWindow]) -> list[probe.ProbeWindow]:
        for start in range(0, len(some), probe.BATCH):
            batch = some[start : start + probe.BATCH]
            wanted = np.stack([window[2][:, 2:4] for window in batch])
            shown_now.append(torch.from_numpy(wanted).float())
        return some

    probes = probe.fit(base, with_phases(windows(base, 16, 0)))
    found = np.array(probe.shown(base, probes, with_phases(windows(base, 12, 1))))
    assert found.shape == (len(layers), len(probe.TURNS))
    assert found[-1, 1] > 0.95
    others = found.copy()
    others[-1, 1] = 0.0
    assert others.max() < 0.2
