"""What draws a codec's tokens of equal sounds together, and keeps its entries in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pretraining.codec.consistency import MARGIN, Consistency, Perturbation, pair
from pretraining.codec.crops import CropSource, audio_files
from pretraining.codec.losses import Spectra, spectral_losses
from pretraining.codec.shifts import MARGIN as SHIFT_MARGIN
from pretraining.codec.shifts import changed

ENTRIES = torch.eye(8)[None] * 4.0


def states_of(choices: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
    """States `[1, D, T]` at the chosen entries."""
    generator = torch.Generator().manual_seed(0)
    vectors = ENTRIES[0][choices]
    return (vectors + noise * torch.randn(vectors.shape, generator=generator)).T[None]


def measured(first: torch.Tensor, second: torch.Tensor) -> tuple[dict[str, float], list[float]]:
    terms, equal = Consistency(1, 8)(first, second, ENTRIES)
    return {name: float(term) for name, term in terms.items()}, equal


def test_equal_states_are_consistent_and_others_are_not() -> None:
    choices = torch.arange(40) % 8
    same, equal = measured(states_of(choices, 0.3), states_of(choices, 0.3))
    other, unequal = measured(states_of(choices, 0.3), states_of(choices.roll(1), 0.3))
    assert equal == [1.0]
    assert unequal == [0.0]
    assert same["apart"] == 0.0 < other["apart"]
    assert same["consistency"] < 0.1 < 1.0 < other["consistency"]


def test_one_entry_for_all_is_uneven_and_all_alike_are_not() -> None:
    even = states_of(torch.arange(40) % 8, 0.3)
    collapsed = states_of(torch.zeros(40, dtype=torch.long), 0.3)
    judge = Consistency(1, 8, decay=0.0)
    assert abs(float(judge(even, even, ENTRIES)[0]["uneven"])) < 0.05
    assert float(judge(collapsed, collapsed, ENTRIES)[0]["uneven"]) > 1.5


def test_the_unevenness_draws_away_from_an_entry_that_is_used_too_much() -> None:
    judge = Consistency(1, 8, sharpness=8.0)
    judge.use.copy_(torch.tensor([[0.93] + [0.01] * 7]))
    states = states_of(torch.zeros(40, dtype=torch.long), 0.3).requires_grad_()
    terms, _ = judge(states, states.detach(), ENTRIES)
    terms["uneven"].backward()
    assert states.grad is not None
    # A step against the gradient leaves the first entry's direction.
    assert float(states.grad[0, 0, 4:-4].mean()) > 0.0


def test_a_copy_is_its_original_shifted_by_half_a_frame_at_most() -> None:
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(12, 4000 + 2 * MARGIN)).astype(np.float32)
    originals, copies = pair(rng, sources, Perturbation(quieter_db=0.0, tilt_db=0.0))
    shifts = []
    for original, copy in zip(originals, copies, strict=True):
        overlap = np.correlate(original, copy, "full")
        shifts.append(int(overlap.argmax()) - len(original) + 1)
        assert overlap.max() > 0.8 * float(original @ original)
    assert max(abs(shift) for shift in shifts) <= MARGIN
    assert len(set(shifts)) > 4


def test_a_copy_is_never_louder() -> None:
    rng = np.random.default_rng(0)
    sources = np.tile(np.sin(np.arange(4000 + 2 * MARGIN) * 0.3).astype(np.float32), (30, 1))
    _, copies = pair(rng, sources, Perturbation(tilt_db=0.0))
    levels_db = 20.0 * np.log10(np.abs(copies).max(1))
    assert levels_db.max() < 0.1
    assert -5.1 < levels_db.min() < -3.0


def test_the_changes_that_tokens_are_compared_under_are_what_they_say() -> None:
    samples = np.random.default_rng(0).normal(size=16000 + 2 * SHIFT_MARGIN).astype(np.float32)
    plain, later = changed(samples, "2 ms")
    assert np.array_equal(later[64:], plain[:-64])
    _, quieter = changed(samples, "-3 dB")
    assert np.isclose(20.0 * np.log10(np.abs(quieter).max() / np.abs(plain).max()), -3.0)


def test_crops_have_their_length_at_every_speed_and_are_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    clip = (rng.normal(size=64000) * 3000).astype(np.int16)
    source = CropSource([clip], [clip, clip[:9000]], [], n_crop=16000, share_808=0.3, seed=1)
    batch = source.batch(7, 40)
    assert batch.shape == (40, 16000)
    assert np.abs(batch).max() <= 1.5
    assert np.array_equal(batch, source.batch(7, 40))
    assert not np.array_equal(batch, source.batch(8, 40))


def test_half_written_audio_is_not_taken_for_clips(tmp_path: Path) -> None:
    (tmp_path / "00001.flac").touch()
    (tmp_path / ".00002.77.flac").touch()
    assert [path.name for path in audio_files(tmp_path)] == ["00001.flac"]


def test_phase_free_spectra_do_not_tell_the_phases_of_a_bass_apart() -> None:
    time_s = torch.arange(32000) / 32000
    bass = torch.stack([0.5 * torch.sin(2 * torch.pi * 50.0 * time_s + a) for a in (0.0, 1.6)])
    apart = {}
    for phase_free in (False, True):
        powers = Spectra(32000, phase_free)(bass)
        losses = spectral_losses([p[:1] for p in powers], [p[1:] for p in powers])
        apart[phase_free] = float(losses["log"])
    assert apart[True] < 0.25 * apart[False]
    # What is heard is still told: a tone of another pitch is far away.
    other = 0.5 * torch.sin(2 * torch.pi * 80.0 * time_s)[None]
    powers, others = Spectra(32000, True)(bass[:1]), Spectra(32000, True)(other)
    assert float(spectral_losses(powers, others)["log"]) > 2.0 * apart[True]
