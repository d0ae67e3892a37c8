"""Chooses the precision a model plays in: on a CPU the fastest that is near lossless, as measured.

A step reads every weight once and is bound by memory: half the bytes take half the time. The cost
of a precision is how far its predictions are from float32's, on codes that the model itself plays.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from musicgen_lora.errors import UserError
from musicgen_lora.generation.decoding.choices import is_saved, kept_choice
from musicgen_lora.generation.decoding.decoder import PRECISIONS, Decoder, threads_for
from musicgen_lora.generation.decoding.playing import Playing
from musicgen_lora.generation.decoding.request import Conditions
from musicgen_lora.generation.decoding.sampling import Noise, Sampling, sample
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import EncodedText
from musicgen_lora.runtime.cache import cache_root

NEAR_LOSSLESS = 0.01
"""Largest Kullback-Leibler divergence from float32's predictions, as a share of their entropy: the
loss is at most 1 % worse."""
WORTH_IT = 1.25
"""How many times faster a lower precision must be to replace a higher one."""
N_STEPS = 24
"""Steps that are played for the measurement."""


def choose_precision(
    base: BaseModel,
    wanted: str,
    device: torch.device,
    tell: Callable[[str], object] = lambda sentence: None,
) -> tuple[str, str]:
    """The precision to play in, and a sentence that says why.

    Args:
        base: with its active adapter, if any.
        wanted: "auto" or one of `PRECISIONS`.
        device: the device that will play.
        tell: called before a measurement, which takes a while.

    Raises:
        UserError: the device doesn't support the precision.
    """
    if device.type != "cpu":
        if wanted == "int8":
            raise UserError(f"--precision int8 is for CPUs; on {device.type} use bf16 or fp32.")
        if wanted != "auto":
            return wanted, f"Decoding in {wanted}, as asked."
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        found = "bf16" if has_bf16 else "fp32"
        return found, f"Decoding in {found}, which is fast on this {device.type} device."
    if wanted != "auto":
        return wanted, f"Decoding in {wanted}, as asked."
    with threads_for(base):
        # If the list of precisions changes, the choice is made again.
        what = f"precision of {base.fingerprint}, {' '.join(PRECISIONS)}"
        found = kept_choice(what, PRECISIONS, lambda _: fastest_near_lossless(base, tell))
        is_firm = is_saved(what)
    if not is_firm:
        return found, (
            f"Decoding in {found}: {cache_root()} is not writable, and without a saved choice of a "
            "faster precision a seed could give another clip each time. Make the folder writable, "
            "or set --precision."
        )
    return found, (
        f"Decoding in {found}: on this computer the fastest precision with predictions within "
        f"{NEAR_LOSSLESS:.0%} of fp32's; --precision sets another."
    )


@torch.inference_mode()
def fastest_near_lossless(
    base: BaseModel, tell: Callable[[str], object] = lambda sentence: None
) -> str:
    """The last of `PRECISIONS` that is near lossless and clearly faster than the one chosen before
    it, measured on a clip of the model's own."""
    tell(
        "Measuring which precision decodes fastest on this computer: once per base, a few seconds "
        "for a small one, half a minute for musicgen-small."
    )
    best, best_s = PRECISIONS[0], 0.0
    exact, tokens, best_s = _read(Decoder(base, best), None)
    entropy = -(exact.exp() * exact).sum(-1).mean()
    for precision in PRECISIONS[1:]:
        found, _, seconds = _read(Decoder(base, precision), tokens)
        distance = (exact.exp() * (exact - found)).sum(-1).mean()
        if bool(distance <= NEAR_LOSSLESS * entropy) and seconds * WORTH_IT < best_s:
            best, best_s = precision, seconds
    return best


def _read(
    decoder: Decoder, tokens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Reads the columns `[1, K, S]`, or plays some if there are none.

    Returns:
        Predicted log-probabilities `[S, K, V]`, the columns, and the seconds of the fastest step.
    """
    shape = decoder.shape
    config: Any = decoder.base.hf.config
    width = config.text_encoder.hidden_size
    conditions = Conditions(
        EncodedText(torch.zeros(1, 8, width), torch.ones(1, 8, dtype=torch.long))
    )
    noise = Noise([0], (shape.n_codebooks, shape.special))
    column = torch.full((1, shape.n_codebooks), shape.special)
    playing = Playing(decoder, conditions, column[..., None][..., :0], N_STEPS, guided=True)
    columns, found, times = [], [], []
    for step in range(N_STEPS):
        if tokens is not None:
            column = tokens[..., step]
        columns.append(column)
        began = time.perf_counter()
        logits = playing.step(column, 1.0)
        times.append(time.perf_counter() - began)
        found.append(logits[0].log_softmax(-1))
        column = sample(logits, Sampling(top_k=0), noise.next())
    return torch.stack(found), torch.stack(columns, dim=-1), min(times)
