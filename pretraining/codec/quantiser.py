"""The residual vector quantiser for training the codec.

transformers' EncodecModel can use codebooks but not learn them. Here entries are running means
of the vectors assigned to them (van den Oord et al. 2017, appendix A.1), initialised by k-means,
and an entry to which nothing is assigned any more is moved to recent vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecEuclideanCodebook

NOWHERE = 100.0
"""Every coordinate of an unused entry; states are far smaller."""
N_REVIVED = 16
"""Entries of a codebook that are moved at a time: each takes over part of another's vectors, and
equal sounds have equal tokens only while entries keep their meaning."""
N_RECENT = 8192
"""Recent input vectors kept for each codebook, from which dead entries are revived."""


class ResidualQuantiser(nn.Module):
    """K codebooks in series, each quantising the residual of those before it.

    Args:
        n_codebooks: K.
        n_entries: V, entries of a codebook.
        width: D, dimension of the vectors.
        decay: of the running means, per training step.
        dead_share: an entry is dead when its running share of the assignments is below this
            fraction of an even share.
        n_live: entries of each codebook that may be used (None: V). The others are out of reach.
    """

    embed: Tensor  # [K, V, D]
    sums: Tensor  # [K, V, D]
    sizes: Tensor  # [K, V]

    def __init__(
        self,
        n_codebooks: int,
        n_entries: int,
        width: int,
        decay: float = 0.98,
        dead_share: float = 0.02,
        n_live: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.n_live = tuple(n_live or [n_entries] * n_codebooks)
        self.decay = decay
        self.dead_share = dead_share
        self.register_buffer("embed", torch.zeros(n_codebooks, n_entries, width))
        self.register_buffer("sums", torch.zeros(n_codebooks, n_entries, width))
        self.register_buffer("sizes", torch.zeros(n_codebooks, n_entries))
        self.recent: list[Tensor] = [torch.zeros(0, width) for _ in range(n_codebooks)]

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantises `states [B, D, T]`.

        Returns:
            `quantised [B, D, T]`, whose gradient passes straight to `states`; `codes
            [B, K, T]`; the commitment loss, a scalar.
        """
        n_batch, width, n_frames = states.shape
        flat = states.transpose(1, 2).reshape(-1, width)
        total = torch.zeros_like(flat)
        commitment = flat.new_zeros(())
        codes = []
        for k in range(len(self.embed)):
            residual = flat - total.detach()
            with torch.no_grad():
                indices = nearest(residual, self.embed[k])
                if self.training:
                    self._remember(k, residual)
                    self._update(k, residual, indices)
            chosen = self.embed[k][indices]
            commitment = commitment + (residual - chosen).pow(2).mean()
            total = total + chosen
            codes.append(indices)
        quantised = flat + (total - flat).detach()
        return (
            quantised.view(n_batch, n_frames, width).transpose(1, 2),
            torch.stack(codes).view(-1, n_batch, n_frames).transpose(0, 1),
            commitment / len(self.embed),
        )

    @torch.no_grad()
    def initialise(self, vectors: Tensor, n_rounds: int = 8) -> None:
        """Initialises the codebooks one after another by k-means of `vectors [N, D]`."""
        residual = vectors
        for k in range(len(self.embed)):
            n_entries = self.n_live[k]
            drawn = torch.randint(len(residual), (n_entries,))
            centres = residual[drawn].clone()
            # Equal vectors (silence) would give equal centres, of which all but one are dead.
            centres += 0.01 * residual.std() * torch.randn_like(centres)
            for _ in range(n_rounds):
                indices = nearest(residual, centres)
                sums, sizes = assigned(residual, indices, n_entries)
                used = sizes > 0
                centres[used] = sums[used] / sizes[used, None]
                n_unused = int((~used).sum())
                if n_unused:
                    centres[~used] = residual[torch.randint(len(residual), (n_unused,))]
            self.embed[k] = NOWHERE
            self.embed[k, :n_entries] = centres
            # As if each entry had been used as often as the average one.
            self.sizes[k, :n_entries] = 1.0
            self.sums[k, :n_entries] = centres
            residual = residual - centres[nearest(residual, centres)]

    @torch.no_grad()
    def revive(self) -> list[int]:
        """Moves dead entries to recent vectors; returns how many in each codebook."""
        n_revived = []
        for k, recent in enumerate(self.recent):
            sizes = self.sizes[k, : self.n_live[k]]
            mean_size = sizes.mean()
            dead = (sizes < self.dead_share * mean_size).nonzero()[:N_REVIVED, 0]
            n_revived.append(len(dead))
            if len(dead) and len(recent):
                # The worst served vectors come first: uniform draws would mostly give more
                # entries to silence, for which one entry is enough.
                errors = (recent - self.embed[k][nearest(recent, self.embed[k])]).pow(2).sum(1)
                drawn = torch.multinomial(errors + 1e-9, min(len(dead), len(recent)))
                places = dead[: len(drawn)]
                self.embed[k][places] = recent[drawn]
                self.sizes[k][places] = 0.5 * mean_size
                self.sums[k][places] = recent[drawn] * 0.5 * mean_size
        return n_revived

    @torch.no_grad()
    def export(self, model: EncodecModel) -> None:
        """Copies the codebooks into transformers' model."""
        for k, layer in enumerate(model.quantizer.layers):
            codebook = layer.codebook
            assert isinstance(codebook, EncodecEuclideanCodebook)
            codebook.embed.copy_(self.embed[k])
            codebook.embed_avg.copy_(self.embed[k])
            codebook.cluster_size.copy_(self.sizes[k] / self.sizes[k].mean())

    def _remember(self, k: int, vectors: Tensor) -> None:
        self.recent[k] = torch.cat([self.recent[k], vectors])[-N_RECENT:]

    def _update(self, k: int, vectors: Tensor, indices: Tensor) -> None:
        sums, sizes = assigned(vectors, indices, self.embed.shape[1])
        self.sizes[k].mul_(self.decay).add_(sizes, alpha=1.0 - self.decay)
        self.sums[k].mul_(self.decay).add_(sums, alpha=1.0 - self.decay)
        met = self.sizes[k] > 1e-6
        self.embed[k][met] = self.sums[k][met] / self.sizes[k][met, None]


def nearest(vectors: Tensor, entries: Tensor) -> Tensor:
    """The index `[N]` of the entry `[V, D]` closest to each of `vectors [N, D]`."""
    # The vectors' own norm is the same for every entry and can be left out.
    return (entries.pow(2).sum(1) - 2.0 * vectors @ entries.T).argmin(1)


def assigned(vectors: Tensor, indices: Tensor, n_entries: int) -> tuple[Tensor, Tensor]:
    """The sum `[V, D]` and number `[V]` of the vectors `[N, D]` assigned to each entry."""
    sums = vectors.new_zeros(n_entries, vectors.shape[1]).index_add_(0, indices, vectors)
    sizes = vectors.new_zeros(n_entries).index_add_(0, indices, torch.ones(len(indices)))
    return sums, sizes
