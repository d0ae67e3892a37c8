"""Text conditions: the frozen T5's states, computed once for each caption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import MusicgenForConditionalGeneration, PreTrainedTokenizerBase

MAX_TEXT_TOKENS = 512


class TextStates:
    """Captions to what the decoder attends to, remembered.

    The text encoder is frozen and in eval mode (`model.train()` would switch its dropout on),
    so a caption's states never change and the encoder need not run in the training loop.
    """

    def __init__(
        self, model: MusicgenForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._encoder: Any = model.text_encoder
        self._tokenizer = tokenizer
        self._width = int(self._encoder.config.hidden_size)
        self._states: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def prepare(self, captions: Iterable[str], batch_size: int = 16) -> None:
        """Computes what is missing, captions of like length together."""
        missing = sorted({text for text in captions if text not in self._states}, key=len)
        for start in range(0, len(missing), batch_size):
            texts = missing[start : start + batch_size]
            tokens = self._tokenizer(
                texts,
                padding=True,
                truncation=True,
                max_length=MAX_TEXT_TOKENS,
                return_tensors="pt",
            ).to(self._encoder.device)
            states = self._encoder(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).last_hidden_state
            for text, row, mask in zip(texts, states, tokens["attention_mask"], strict=True):
                self._states[text] = row[: int(mask.sum())].float().cpu()

    def batch(
        self, captions: Sequence[str | None], device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States `[B, L, D_text]` (float32) and mask `[B, L]` of captions; None is the null
        condition of classifier-free guidance: states zero and mask zero."""
        self.prepare(text for text in captions if text is not None)
        rows = [None if text is None else self._states[text] for text in captions]
        longest = max([1, *(len(row) for row in rows if row is not None)])
        states = torch.zeros(len(rows), longest, self._width)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for index, row in enumerate(rows):
            if row is not None:
                states[index, : len(row)] = row
                mask[index, : len(row)] = 1
        return states.to(device), mask.to(device)
