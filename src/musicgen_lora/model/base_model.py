"""A MusicGen as one value: its identity and dimensions, its inputs (audio and text), its forward
pass, its device, its output.

Its weights are transformers' own model (`BaseModel.hf`), on which all training, adapting and
decoding works. A melody model (`BaseModel.is_melody`) has the same parts and differs only in its
conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MusicgenForConditionalGeneration, PreTrainedTokenizerBase

from musicgen_lora.model import melody
from musicgen_lora.model.base.facts import BaseFacts, read_base_facts
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.chroma import Chroma
from musicgen_lora.model.codec import Codec
from musicgen_lora.model.cpu.lengths import pad_to_step
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.fingerprint import base_fingerprint
from musicgen_lora.model.loss import codebook_cross_entropies
from musicgen_lora.model.shape import Shape
from musicgen_lora.model.text.states import EncodedText, TextStates
from musicgen_lora.runtime.precision import DTYPES


class BaseModel:
    """A base model: its weights and everything known about it.

    Args:
        hf: transformers' model, with or without an injected adapter.
        path: the folder or hub id that it came from; if empty, the one that the model itself names.
        fingerprint: of the language model, if it is already known.
    """

    def __init__(
        self, hf: MusicgenForConditionalGeneration, path: str | Path = "", fingerprint: str = ""
    ) -> None:
        self.hf = hf
        self.path = str(path) or str(hf.config.name_or_path)
        self._fingerprint = fingerprint

    @classmethod
    def load(cls, path: str | Path) -> BaseModel:
        """Loads a base in float32 on the CPU, in eval mode, every weight frozen.

        Args:
            path: a folder, a hub id such as `facebook/musicgen-small`, or `tiny-beats`.

        Raises:
            UserError: no such folder or id, not a MusicGen, its weights are not safetensors, or the
                facts in its config are not usable.
        """
        hf = load_base(path)
        # Taken now, since the weights may be cast, quantised or trained later.
        return cls(hf, path, base_fingerprint(hf))

    # What it is.

    @property
    def fingerprint(self) -> str:
        """Identity of the language model as it was loaded, to which an adapter belongs."""
        return self._fingerprint or base_fingerprint(self.hf)

    @cached_property
    def shape(self) -> Shape:
        """Codebooks, channels, rates and special token."""
        return Shape.of(self.hf.config)

    @property
    def delays(self) -> Delays:
        """The delay of each codebook in steps."""
        return self.shape.delays

    @property
    def is_melody(self) -> bool:
        """Whether it takes a melody."""
        return melody.is_melody(self.hf)

    @property
    def facts(self) -> BaseFacts:
        """What it states about its training and use, such as a learning rate for adapters."""
        config = self.hf.config
        return read_base_facts(config, str(config.name_or_path))

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's blocks."""
        inner: Any = self.hf.decoder.model.decoder
        return inner.layers

    @property
    def heads(self) -> list[nn.Module]:
        """K maps from D to V."""
        return list(self.hf.decoder.lm_heads)

    @property
    def device(self) -> torch.device:
        """The device of the language model."""
        return self.hf.decoder.device

    # Sound and words to what it reads.

    @cached_property
    def codec(self) -> Codec:
        """Turns waveforms into codes and back."""
        return Codec(self.hf)

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Turns clips `[C, N]` float32 into codes `[K, T]` uint16, see `Codec.encode`."""
        return self.codec.encode(waveforms)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of its text encoder.

        Raises:
            UserError: the model's folder has no usable one.
        """
        return load_tokenizer(self.path)

    @cached_property
    def text(self) -> TextStates:
        """Turns captions into states. Set `text.frozen` to False if the text encoder is adapted or
        trained."""
        return TextStates(self.hf, self.tokenizer)

    def encode_text(self, captions: Sequence[str | None]) -> EncodedText:
        """Encodes captions onto the decoder's device; None is no caption."""
        return self.text.batch(captions, self.device)

    @cached_property
    def chroma(self) -> Chroma | None:
        """Turns waveforms into melodies, for a melody model; None for the others.

        Raises:
            UserError: the model's folder has no usable settings of a feature extractor.
        """
        length = self.melody_length
        return None if length is None else Chroma(self.path, length)

    @property
    def melody_length(self) -> int | None:
        """M, the pitch classes that a melody model reads; None for the others."""
        config: Any = self.hf.config
        return config.chroma_length if self.is_melody else None

    # The forward pass.

    def project_text(self, text: EncodedText) -> Tensor:
        """Text states as the decoder attends to them, `[B, L, D]`: projected, and zero where the
        mask is zero (the projection's bias would otherwise leak into the null condition)."""
        states = text.states.to(self.hf.decoder.dtype)  # [B, L, D_text]
        if hasattr(self.hf, "enc_to_dec_proj"):
            states = self.hf.enc_to_dec_proj(states)  # [B, L, D]
        return states * text.mask[..., None].to(states.dtype)

    def states(self, codes: Tensor, text: EncodedText, melodies: Tensor | None = None) -> Tensor:
        """Teacher-forced forward pass.

        Args:
            codes: `[B, K, T]`, undelayed.
            melodies: `[B, M]` pitch classes, for a melody model; None is the null condition.

        Returns:
            `[B, T, D]`: step s predicts frame s - delay of each codebook.
        """
        delayed = self.delays.delay(codes, self.shape.special)  # [B, K, T]
        memory = self.project_text(text)  # [B, L, D]
        if self.is_melody:
            return melody.melody_decoder_states(self.hf, delayed, memory, text.mask, melodies)
        output = self.hf.decoder.model(
            input_ids=delayed.reshape(-1, delayed.shape[-1]),  # [B K, T]
            encoder_hidden_states=memory,
            encoder_attention_mask=text.mask,
            use_cache=False,
        )
        return output.last_hidden_state

    def losses(
        self,
        codes: Tensor,
        n_frames: Tensor,
        text: EncodedText,
        melodies: Tensor | None = None,
        *,
        by_frame: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The summed cross-entropy in nats and the number of predicted frames of each clip and
        codebook, both `[B, K]`. With `by_frame` the terms of the sums instead, `[B, K, T]`, 0 for
        frames that aren't predicted. `n_frames` `[B]` are the clips' true lengths; the rest is as
        in `states`."""
        n_given = codes.shape[-1]
        if self.device.type == "cpu":
            codes = pad_to_step(codes, self.hf.decoder.dtype)
        hidden, heads = self.states(codes, text, melodies), self.heads
        found, counts = codebook_cross_entropies(
            hidden, heads, codes, n_frames, self.delays, by_frame=by_frame
        )
        return (found[..., :n_given] if by_frame else found), counts

    def logits(self, codes: Tensor, text: EncodedText, melodies: Tensor | None = None) -> Tensor:
        """Logits `[B, K, T, V]` in float32, aligned with `codes`; the last `delay` frames of each
        codebook, which the model never predicts, are NaN."""
        hidden = self.states(codes, text, melodies)
        logits = torch.full((*codes.shape, self.shape.special), torch.nan, device=codes.device)
        pairs = zip(self.heads, self.delays.states(hidden), strict=True)
        for codebook, (head, states) in enumerate(pairs):
            logits[:, codebook, : states.shape[1]] = head(states).float()
        return logits

    # Where it computes.

    def to(self, device: torch.device, precision: str, *, trained: bool = False) -> BaseModel:
        """Moves the language model to a device and precision, and returns itself. T5 and EnCodec
        stay in fp32 where they are: their work is cached, and T5 overflows in fp16. An adapter on
        it keeps its own precision.

        Args:
            trained: whether the weights themselves are trained; they then stay in fp32, since only
                a frozen base is held in lower precision.
        """
        dtype = DTYPES["fp32" if trained else precision]
        names = ("decoder", "enc_to_dec_proj", "audio_enc_to_dec_proj")
        for part in [getattr(self.hf, name) for name in names if hasattr(self.hf, name)]:
            adapter = [p for name, p in part.named_parameters() if "lora_" in name]
            kept = [parameter.data for parameter in adapter]
            part.to(device=device, dtype=dtype)
            for parameter, data in zip(adapter, kept, strict=True):
                parameter.data = data.to(device)
        return self

    # Codes to sound.

    def decode(self, codes: Tensor) -> np.ndarray:
        """Turns codes `[B, K, T]` into audio `[B, C, N]` float32."""
        return self.codec.decode(codes)
