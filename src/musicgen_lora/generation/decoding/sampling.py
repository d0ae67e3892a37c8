"""From logits to the next tokens, on the device of the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from musicgen_lora.model.base.facts import BaseFacts
from musicgen_lora.runtime.seeds import seed_of

if TYPE_CHECKING:
    from musicgen_lora.config.play import SamplingSettings

TAKEN_WHOLE = 2**32
"""Seeds below it are used directly: torch's CPU generator drops higher bits."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        guidance_scale: how strongly the conditions are followed; 1 turns guidance off and halves
            the work.
        top_k: sample from the k likeliest tokens; 0 is all, 1 is greedy.
        top_p: of those, the likeliest that together have this share of the probability; 0 is all.
        temperature: divides the logits; 0 is greedy.
        guidance_end: guidance scale at the clip's end, reached linearly; None keeps it constant.
    """

    guidance_scale: float = 3.0
    top_k: int = 250
    top_p: float = 0.0
    temperature: float = 1.0
    guidance_end: float | None = None

    @property
    def is_guided(self) -> bool:
        """Whether each clip is decoded twice, with and without its conditions."""
        return self.guidance_scale != 1.0 or self.guidance_end not in (None, 1.0)

    def scales(self, begin: int, n_steps: int, n_frames: int) -> torch.Tensor | None:
        """Guidance scales `[n_steps]` of the steps from frame `begin` on, of a clip of `n_frames`;
        None if constant."""
        if self.guidance_end in (None, self.guidance_scale):
            return None
        share = (torch.arange(begin, begin + n_steps) / max(1, n_frames - 1)).clamp(max=1.0)
        return self.guidance_scale + share * (self.guidance_end - self.guidance_scale)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.top_k == 1 or self.temperature == 0.0


def sampling_of(settings: SamplingSettings, facts: BaseFacts) -> Sampling:
    """How tokens are drawn: as given, otherwise as the base advises, otherwise the defaults of
    `Sampling`."""
    own = Sampling()
    return Sampling(
        guidance_scale=_first(
            settings.guidance_scale, facts.advised_guidance_scale, own.guidance_scale
        ),
        top_k=settings.top_k,
        top_p=settings.top_p,
        temperature=_first(settings.temperature, facts.advised_temperature, own.temperature),
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def advice_sentence(settings: SamplingSettings, facts: BaseFacts) -> str:
    """What to tell the user if settings are taken from the base's advice; empty if none are."""
    guidance, temperature = facts.advised_guidance_scale, facts.advised_temperature
    taken = []
    if settings.guidance_scale is None and guidance is not None:
        taken.append(f"--guidance_scale {guidance:g}")
    if settings.temperature is None and temperature is not None:
        taken.append(f"--temperature {temperature:g}")
    return f"As this base recommends: {' '.join(taken)}." if taken else ""


GREEDY = Sampling(top_k=1)
"""With guidance, as transformers' `generate` without sampling."""


def clip_generator(seed: int) -> torch.Generator:
    """The random generator of a clip, from its whole seed, which may be any integer."""
    return torch.Generator().manual_seed(seed if 0 <= seed < TAKEN_WHOLE else seed_of("clip", seed))


class Noise:
    """The randomness of sampling: uniform numbers for each clip, step, codebook and token.

    A clip's numbers depend only on its seed and on how many steps it has drawn; always made on the
    CPU, they are the same on every device. Each token has its own number, so that two models that
    nearly agree draw nearly the same tokens from one seed.

    Args:
        shape: codebooks and tokens.
    """

    STEPS = 32
    """Steps of noise that are made at a time."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int]) -> None:
        self._clips = [_ClipNoise(seed, (self.STEPS, *shape)) for seed in seeds]

    def rows(self, clips: Sequence[int]) -> Noise:
        """The noise of some clips, with shared state: a draw from one advances both."""
        some = Noise((), (0, 0))
        some._clips = [self._clips[clip] for clip in clips]
        return some

    def next(self, drawing: Sequence[bool] | None = None) -> torch.Tensor:
        """The numbers of the next step, `[B, K, V]`.

        Args:
            drawing: which clips take this step (default: all); others repeat the numbers of their
                last step, unused, and continue from there later.
        """
        flags = [True] * len(self._clips) if drawing is None else drawing
        found = [clip.step(takes=takes) for clip, takes in zip(self._clips, flags, strict=True)]
        return found[0][None] if len(found) == 1 else torch.stack(found)

    def block(self, drawing: Sequence[bool]) -> torch.Tensor:
        """The numbers of the next `STEPS` steps, `[B, steps, K, V]`; see `next`."""
        return torch.stack(
            [clip.steps(takes=takes) for clip, takes in zip(self._clips, drawing, strict=True)]
        )


class _ClipNoise:
    """The noise of a clip, in blocks of `[steps, K, V]`."""

    def __init__(self, seed: int, shape: tuple[int, int, int]) -> None:
        self._generator, self._shape = clip_generator(seed), shape
        self._block = torch.empty(0)
        self._at = shape[0]

    def step(self, *, takes: bool) -> torch.Tensor:
        if takes and self._at == self._shape[0]:
            self._at = 0
            self.steps(takes=True)
        self._at += takes
        return self._block[self._at - 1]

    def steps(self, *, takes: bool) -> torch.Tensor:
        if takes:
            self._block = torch.rand(*self._shape, generator=self._generator)
        return self._block


def sample(logits: torch.Tensor, sampling: Sampling, noise: torch.Tensor | None) -> torch.Tensor:
    """Draws the tokens of all codebooks at once, by an exponential race: token i, of probability
    p_i, finishes at -log(u_i) / p_i, and the first to finish is drawn. There is no host sync.

    Args:
        logits: `[B, K, V]`, after guidance.
        noise: u, `[B, K, V]`, from `Noise`; a greedy choice needs none.

    Returns:
        `[B, K]` int64.
    """
    if sampling.is_greedy or noise is None:
        return logits.argmax(dim=-1)
    logits = logits.float()
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    # A top_k of 0, or of more than there are, takes all tokens.
    n_kept = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    has_top_p = 0.0 < sampling.top_p < 1.0
    if n_kept == logits.shape[-1] and not has_top_p:
        return (logits - noise.log().neg_().log_()).argmax(dim=-1)
    if logits.device.type == "cpu" and not has_top_p:
        return _first_of_the_likeliest(logits, noise, n_kept)
    return _first_of_those_kept(logits, noise, n_kept, sampling.top_p if has_top_p else None)


def _first_of_the_likeliest(logits: torch.Tensor, noise: torch.Tensor, n_kept: int) -> torch.Tensor:
    """As `_first_of_those_kept` for top-k alone, without sorting: the winner among all tokens is
    mostly one of the k likeliest; only otherwise they are sorted. It syncs with the host."""
    first = (logits - noise.log().neg_().log_()).argmax(dim=-1, keepdim=True)
    n_before = (logits > logits.gather(-1, first)).sum(dim=-1)
    first = first.squeeze(-1)
    if int(n_before.max()) >= n_kept:
        others = n_before >= n_kept
        first[others] = _first_of_those_kept(logits[others], noise[others], n_kept, None)
    return first


def _first_of_those_kept(
    logits: torch.Tensor, noise: torch.Tensor, n_kept: int, top_p: float | None
) -> torch.Tensor:
    """The token `[...]` of `[..., V]` that finishes first among those that may be drawn."""
    values, indices = logits.topk(n_kept, dim=-1)
    done_at = (-noise.gather(-1, indices).log()).log() - values
    if top_p is not None:
        probabilities = values.softmax(dim=-1)
        # The token that reaches the share is included, so the likeliest always is.
        before = probabilities.cumsum(dim=-1) - probabilities
        done_at = done_at.masked_fill(before >= top_p, torch.inf)
    return indices.gather(-1, done_at.argmin(dim=-1, keepdim=True)).squeeze(-1)
