"""Equal sounds, equal tokens: a loss that makes a codec's first codebook code what is heard.

A codec that is trained to reconstruct the waveform codes its phase: the same drum two
milliseconds later has other tokens, and to a language model that is noise. So each crop is
encoded twice, the second time shifted by up to half a frame, quieter and lightly filtered, and
both are pulled to the same entries. (Liu et al. 2024, "Analyzing and Mitigating Inconsistency in
Discrete Audio Tokens", pull the states together; here it is the choice of an entry, which leaves
the states free.)

The term alone is lowest when one entry serves all. So the same soft choices are also pulled to
entries that are used less than their share: together the two terms maximise the information of
one copy's token about the other's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pretraining.codec.crops import SAMPLE_RATE
from pretraining.codec.network import HOP

MARGIN = HOP // 2
"""Samples by which a source must be longer than a crop on either side, for shifts."""
EDGE = 2
"""Frames at either end of a crop that see its cut, so that they differ from the copy's."""
CODEBOOK_WEIGHTS = (1.0, 0.7, 0.5, 0.3)


@dataclass(frozen=True)
class Perturbation:
    """How far a copy may be from its original.

    Args:
        shift: samples either way.
        quieter_db: largest attenuation.
        tilt_db: largest gain of the filter at any frequency, either way.
        noise_db: loudest noise added, in dBFS.
    """

    shift: int = MARGIN
    quieter_db: float = 5.0
    tilt_db: float = 2.0
    noise_db: float = -60.0


def pair(
    rng: np.random.Generator, sources: np.ndarray, kind: Perturbation
) -> tuple[np.ndarray, np.ndarray]:
    """Crops `[B, N]` and their copies from `sources [B, N + 2 * MARGIN]`."""
    n = sources.shape[1] - 2 * MARGIN
    originals = sources[:, MARGIN : MARGIN + n]
    copies = np.empty_like(originals)
    for i, source in enumerate(sources):
        quieter_alone = rng.random() < 0.25
        shift = 0 if quieter_alone else int(rng.integers(-kind.shift, kind.shift + 1))
        copy = source[MARGIN + shift : MARGIN + shift + n]
        if quieter_alone or rng.random() < 0.7:
            copy = copy * 10.0 ** (-rng.uniform(0.0, kind.quieter_db) / 20.0)
        if rng.random() < 0.3:
            copy = _filtered(rng, copy, kind.tilt_db)
            level = 10.0 ** ((kind.noise_db - rng.uniform(0.0, 20.0)) / 20.0)
            copy = copy + rng.normal(0.0, level, n)
        copies[i] = copy
    return originals, copies


def _filtered(rng: np.random.Generator, samples: np.ndarray, tilt_db: float) -> np.ndarray:
    """Filters with a smooth curve through six points, evenly spaced in octaves."""
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    points = np.log2(np.geomspace(40.0, 12000.0, 6))
    gains_db = np.interp(
        np.log2(np.maximum(frequencies, 20.0)), points, rng.uniform(-tilt_db, tilt_db, 6)
    )
    filtered = np.fft.irfft(np.fft.rfft(samples) * 10.0 ** (gains_db / 20.0), len(samples))
    return filtered.astype(np.float32)


class Consistency(nn.Module):
    """How far a crop and its copy are from equal tokens, and how evenly the entries are used.

    Args:
        n_codebooks: K.
        n_entries: V.
        sharpness: how much nearer an entry must be, in mean squared distances of vectors to
            their entries, for the soft choice to favour it by e to one.
        decay: of the running use of the entries, per step.
    """

    use: Tensor  # [K, V], shares
    distance: Tensor  # [K]

    def __init__(
        self, n_codebooks: int, n_entries: int, sharpness: float = 1.0, decay: float = 0.98
    ) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.decay = decay
        self.register_buffer("use", torch.full((n_codebooks, n_entries), 1.0 / n_entries))
        self.register_buffer("distance", torch.zeros(n_codebooks))

    def forward(
        self, states: Tensor, copies: Tensor, embed: Tensor
    ) -> tuple[dict[str, Tensor], list[float]]:
        """The terms for states `[B, D, T]` of crops and of their copies.

        Args:
            states: of the crops.
            copies: of their copies.
            embed: entries `[K, V, D]`.

        Returns:
            `consistency`: cross-entropy, in nats, of one's soft choice of entry against the
            other's choice, averaged over the codebooks with CODEBOOK_WEIGHTS; `uneven`: mean log
            use of softly chosen entries relative to an even one, in nats (0 if all are used
            alike), weighted likewise; `apart`: squared distance of the states, relative to their
            variance. And the share of equal choices, codebook by codebook.
        """
        residuals = [_flat(part[..., EDGE:-EDGE]) for part in (states, copies)]
        spread = residuals[0].detach().var(0).sum() + 1e-9
        apart = (residuals[0] - residuals[1]).pow(2).sum(1).mean() / spread
        cross, uneven = states.new_zeros(()), states.new_zeros(())
        equal: list[float] = []
        alike = torch.ones(len(residuals[0]), dtype=torch.bool)
        weights = torch.tensor(CODEBOOK_WEIGHTS[: len(embed)])
        for k, weight in enumerate(weights / weights.sum()):
            distances = [_distances(residual, embed[k]) for residual in residuals]
            choices = [d.argmin(1) for d in distances]
            scale = self._scale(k, distances)
            logs = [torch.log_softmax(-d / scale, 1) for d in distances]
            terms = -0.5 * (
                logs[0].gather(1, choices[1][:, None]) + logs[1].gather(1, choices[0][:, None])
            )
            # Residuals are comparable only where the entries before were the same.
            cross = cross + weight * (terms[:, 0] * alike).sum() / alike.sum().clamp_min(1)
            uneven = uneven + weight * self._unevenness(k, torch.cat(logs).exp())
            same = choices[0] == choices[1]
            equal.append(float(same.float().mean()))
            alike = alike & same
            residuals = [r - embed[k][chosen] for r, chosen in zip(residuals, choices, strict=True)]
        return {"consistency": cross, "uneven": uneven, "apart": apart}, equal

    def _unevenness(self, k: int, soft: Tensor) -> Tensor:
        with torch.no_grad():
            self.use[k].lerp_(soft.mean(0), 1.0 - self.decay)
            log_use = (self.use[k] * len(self.use[k]) + 1e-3).log()
        return (soft @ log_use).mean()

    @torch.no_grad()
    def _scale(self, k: int, distances: list[Tensor]) -> Tensor:
        nearest = torch.cat(distances).min(1).values.mean()
        start = self.distance[k] == 0.0
        self.distance[k] = torch.where(start, nearest, self.distance[k].lerp(nearest, 0.05))
        return self.sharpness * self.distance[k].clamp_min(1e-9)


def _flat(states: Tensor) -> Tensor:
    return states.transpose(1, 2).reshape(-1, states.shape[1])


def _distances(vectors: Tensor, entries: Tensor) -> Tensor:
    """Squared distances `[N, V]`."""
    cross = vectors @ entries.T
    lengths = vectors.pow(2).sum(1, keepdim=True) + entries.pow(2).sum(1)
    return (lengths - 2.0 * cross).clamp_min(0.0)
