"""Text conditions: T5's states, computed once for each caption while T5 is frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import MusicgenForConditionalGeneration, PreTrainedTokenizerBase

from musicgen_lora.errors import UserError
from musicgen_lora.model.text.reading import MAX_TEXT_TOKENS
from musicgen_lora.model.text.wording import english_of

REMEMBERED_BYTES = 2 << 30
"""Most states that are kept, those of some 40,000 captions: a large dataset has more than fit in
memory."""


class EncodedText(NamedTuple):
    """B texts as the decoder reads them."""

    states: torch.Tensor
    """`[B, L, D_text]`, zero for the null condition."""
    mask: torch.Tensor
    """`[B, L]`, 1 for a token: a text's tokens come first, and the null condition has none."""

    def rows(self, which: Any) -> EncodedText:
        """Some of the texts, chosen by anything that indexes a tensor."""
        return EncodedText(self.states[which], self.mask[which])

    def alone(self, row: int) -> EncodedText:
        """One text at its own length, `[1, L, D_text]`; the null condition has one state of
        zeros."""
        n = max(1, int(self.mask[row].sum()))
        return EncodedText(self.states[row : row + 1, :n], self.mask[row : row + 1, :n])

    def to(self, device: torch.device) -> EncodedText:
        """The same on a device."""
        return EncodedText(self.states.to(device), self.mask.to(device))


class TextStates:
    """Turns captions into the states that the decoder attends to. Chinese is first translated by
    `english_of`; `reading.describe_readings` tells the author.

    While the text encoder is frozen and in eval mode (`model.train()` would turn its dropout on), a
    caption's states never change: they are cached, up to `REMEMBERED_BYTES`, and the encoder does
    not run in the training loop.
    """

    def __init__(
        self, model: MusicgenForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._encoder: Any = model.text_encoder
        self._tokenizer = tokenizer
        self._width = int(self._encoder.config.hidden_size)
        self.frozen = True
        """False while the encoder is adapted or trained: states are then computed every time, with
        gradients."""
        self._states: dict[str, torch.Tensor] = {}
        self._n_bytes = 0

    @torch.no_grad()
    def prepare(self, captions: Iterable[str], batch_size: int = 16) -> None:
        """Computes the missing states, batching captions of similar length.

        Padding in a batch changes a caption's states in the last bits. Runs that must be equal have
        to ask for the same captions at once, or for each on its own.
        """
        wanted = set(captions)
        missing = sorted(wanted.difference(self._states), key=lambda text: (len(text), text))
        for start in range(0, len(missing), batch_size):
            texts = missing[start : start + batch_size]
            for text, row in zip(texts, self._encode(texts), strict=True):
                self._states[text] = row.float().cpu()
                self._n_bytes += self._states[text].nbytes
        self._forget_oldest(wanted)

    def _forget_oldest(self, wanted: set[str]) -> None:
        """Drops the oldest states down to `REMEMBERED_BYTES`, but none that are wanted now."""
        if self._n_bytes <= REMEMBERED_BYTES:
            return
        for text in [text for text in self._states if text not in wanted]:
            self._n_bytes -= self._states.pop(text).nbytes
            if self._n_bytes <= REMEMBERED_BYTES:
                return

    def _encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Runs the encoder: the states of each text, `[L, D_text]`, L its own number of tokens."""
        tokens = self._tokenizer(
            list(map(english_of, texts)),
            padding=True,
            truncation=True,
            max_length=MAX_TEXT_TOKENS,
            return_tensors="pt",
        ).to(self._encoder.device)
        if not tokens["attention_mask"].any(dim=1).all():
            raise UserError(
                "The base's tokenizer gives no token for a text, where T5's always ends with one; "
                "copy the model's tokenizer files again."
            )
        if int(tokens["input_ids"].max()) >= self._encoder.config.vocab_size:
            raise UserError(
                "The base's tokenizer has more words than its text encoder: the two do not belong "
                "together."
            )
        mask = tokens["attention_mask"]
        states = self._encoder(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return [row[:length] for row, length in zip(states, mask.sum(1).tolist(), strict=True)]

    def batch(
        self, captions: Sequence[str | None], device: torch.device | str = "cpu"
    ) -> EncodedText:
        """Encodes captions, in float32; None is the null condition of classifier-free guidance."""
        texts = [text for text in captions if text is not None]
        if self.frozen:
            # One by one, since a resumed run lacks others than an uninterrupted one.
            self.prepare(texts, batch_size=1)
            found = [self._states[text] for text in texts]
        else:
            # With gradients on, the encoder runs even if all captions were dropped: processes that
            # share its weights must run it equally often.
            found = self._encode(texts or [""]) if texts or torch.is_grad_enabled() else []
        longest = max([1, *(len(row) for row in found)])
        states = torch.zeros(len(captions), longest, self._width, device=device)
        mask = torch.zeros(len(captions), longest, dtype=torch.long, device=device)
        rows = [index for index, text in enumerate(captions) if text is not None]
        for index, row in zip(rows, found, strict=False):
            states[index, : len(row)] = row.to(device)
            mask[index, : len(row)] = 1
        if found and not rows:
            states = states + 0.0 * found[0].sum().to(device)
        return EncodedText(states, mask)

    def each_alone(self, captions: Sequence[str]) -> EncodedText:
        """Like `batch`, but encodes each caption on its own even if the encoder isn't frozen: in a
        batch, its last bits would depend on the others."""
        alone = [self.batch([caption]) for caption in captions]
        return EncodedText(
            pad_sequence([text.states[0] for text in alone], batch_first=True),
            pad_sequence([text.mask[0] for text in alone], batch_first=True),
        )
