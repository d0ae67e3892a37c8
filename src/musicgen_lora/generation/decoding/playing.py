"""A window of clips during decoding: their rows, KV cache and guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from musicgen_lora.generation.decoding.caches import BatchCache, BatchRows, ClipCache
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.places import Places
from musicgen_lora.generation.decoding.request import Conditions


class Playing:
    """A window of B clips that is being decoded.

    Args:
        given: for each clip, the columns `[K, P]` of the delayed sequence that are read before the
            first step.
        guided: whether clips are also read without their conditions.
        batched: whether all rows attend at once (default: not on a CPU).
    """

    def __init__(
        self,
        decoder: Decoder,
        conditions: Conditions,
        given: Sequence[torch.Tensor] | torch.Tensor,
        n_steps: int,
        *,
        guided: bool,
        batched: bool | None = None,
    ) -> None:
        self._decoder = decoder
        device = decoder.device
        prefixes = [decoder.prefix(conditions, clip) for clip in range(len(given))]
        # Without conditions both rows would be the same, and guidance would do nothing.
        heard = [guided and prefix.is_guided for prefix in prefixes]
        self.rows = BatchRows(
            heard,
            [prefix.text is not None for prefix in prefixes],
            [
                both and prefix.negative is not None
                for both, prefix in zip(heard, prefixes, strict=True)
            ],
        )
        n_before = [prefix.states.shape[1] for prefix in prefixes]
        batched = not decoder.on_cpu if batched is None else batched
        decoder.positions(max(n_before) + n_steps)
        like = prefixes[0].states.to(decoder.cache_dtype)
        self.cache = (BatchCache if batched else ClipCache)(
            self.rows, decoder.cache_shape, max(n_before) + n_steps, like
        )
        for clip, prefix in enumerate(prefixes):
            texts = (prefix.text, prefix.negative)
            for row, text in zip(self.cache.rows_of(clip), texts, strict=False):
                if text is not None:
                    decoder.hear(text, self.cache, row)
            states = prefix.states[: 1 + heard[clip]]
            if given[clip].shape[-1]:
                # [P, K] columns of this clip.
                codes = decoder.embed(given[clip].to(device).T)[None].expand(len(states), -1, -1)
                states = torch.cat([states, codes], dim=1)
            if states.shape[1]:
                decoder.read(states, self.cache, clip)
        self.cache.begin_at([n + own.shape[-1] for n, own in zip(n_before, given, strict=True)])
        begins = self.rows.begins
        self._clips = torch.tensor(self.rows.clips, device=device)
        self._with_text = Places(self.rows.with_text, begins[-1], device)
        self._first = Places(begins[:-1], begins[-1], device)
        self._last = Places([after - 1 for after in begins[1:]], begins[-1], device)

    def step(self, columns: torch.Tensor, guidance_scale: float | torch.Tensor) -> torch.Tensor:
        """Reads the next column `[B, K]` and returns the next-token logits `[B, K, V]`, guided by a
        scale, a number or `[B, 1]`."""
        x = self._decoder.embed(columns)
        is_single = len(self._clips) == len(columns)
        if not is_single:
            x = x.index_select(0, self._clips)
        states = self._decoder.step(x, self.cache, self._with_text)
        if not is_single:
            # The heads are linear: guided states give guided logits, with half the rows.
            without = self._last.of(states)
            states = (self._first.of(states) - without).mul_(guidance_scale).add_(without)
        return self._decoder.predict(states)
