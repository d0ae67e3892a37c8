"""audiocraft's language model and its file, written again from its description for tests: plain
functions over its own names for tensors, that share no code with the project."""

from __future__ import annotations

from typing import Any

import torch
import yaml
from torch.nn import functional

Tensors = dict[str, torch.Tensor]


def expected_shapes(config: dict[str, Any], text_width: int, n_classes: int = 12) -> dict:
    """Names and shapes that audiocraft asks for strictly, by a configuration of its own."""
    lm = config["transformer_lm"]
    width, inner = lm["dim"], int(lm["dim"] * lm["hidden_scale"])
    found: dict[str, tuple[int, ...]] = {"out_norm.weight": (width,), "out_norm.bias": (width,)}
    for k in range(lm["n_q"]):
        found[f"emb.{k}.weight"] = (lm["card"] + 1, width)
        found[f"linears.{k}.weight"] = (lm["card"], width)
    crosses = bool(config["fuser"]["cross"])
    for i in range(lm["num_layers"]):
        layer = f"transformer.layers.{i}"
        for attention in ["self_attn"] + ["cross_attention"] * crosses:
            found[f"{layer}.{attention}.in_proj_weight"] = (3 * width, width)
            found[f"{layer}.{attention}.out_proj.weight"] = (width, width)
        found[f"{layer}.linear1.weight"] = (inner, width)
        found[f"{layer}.linear2.weight"] = (width, inner)
        for norm in ["norm1", "norm2"] + ["norm_cross"] * crosses:
            found[f"{layer}.{norm}.weight"] = found[f"{layer}.{norm}.bias"] = (width,)
    provider = "condition_provider.conditioners."
    sides = {"description": text_width} | ({} if crosses else {"self_wav": n_classes})
    for name, size in sides.items():
        found[f"{provider}{name}.output_proj.weight"] = (width, size)
        found[f"{provider}{name}.output_proj.bias"] = (width,)
    if not crosses:
        tune = config["conditioners"]["self_wav"]["chroma_stem"]
        found[f"{provider}self_wav.chroma.spec.window"] = (2 ** tune["radix2_exp"],)
    return found


def _attend(
    x: torch.Tensor, memory: torch.Tensor, state: Tensors, name: str, n_heads: int, causal: bool
):
    query, key, value = state[f"{name}.in_proj_weight"].chunk(3)
    parts = [x @ query.T, memory @ key.T, memory @ value.T]
    q, k, v = (p.unflatten(-1, (n_heads, -1)).transpose(1, 2) for p in parts)
    found = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return found.transpose(1, 2).flatten(2) @ state[f"{name}.out_proj.weight"].T


def _norm(x: torch.Tensor, state: Tensors, name: str) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def logits(
    state: Tensors,
    config: dict[str, Any],
    codes: torch.Tensor,
    text: torch.Tensor,
    tune: Any = None,
) -> torch.Tensor:
    """Logits `[1, K, T, V]` of one clip; NaN where audiocraft's loss doesn't look.

    Args:
        state: its tensors.
        config: its configuration.
        codes: `[1, K, T]`.
        text: `[1, L, D_text]`, T5's states.
        tune: `[1, M, 12]` one-hot pitch classes, of a melody model.
    """
    lm = config["transformer_lm"]
    delays, special = config["codebooks_pattern"]["delay"]["delays"], lm["card"]
    n_frames, width = codes.shape[-1], lm["dim"]
    # Its sequence begins with a step of special tokens, and codebook k is late by its delay.
    sequence = torch.full((*codes.shape[:2], 1 + n_frames + max(delays)), special)
    for k, delay in enumerate(delays):
        sequence[:, k, 1 + delay : 1 + delay + n_frames] = codes[:, k]
    x: Any = sum(state[f"emb.{k}.weight"][sequence[:, k, :-1]] for k in range(len(delays)))
    sides = "condition_provider.conditioners."

    def project(states: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = (state[f"{sides}{name}.output_proj.{part}"] for part in ("weight", "bias"))
        return states @ weight.T + bias

    memory, n_front = project(text, "description"), 0
    if tune is not None:
        x = torch.cat([project(tune, "self_wav"), memory, x], 1)
        n_front = tune.shape[1] + memory.shape[1]
    half = width // 2
    positions = torch.arange(x.shape[1])[:, None] / 10_000 ** (torch.arange(half) / (half - 1))
    x = x + torch.cat([positions.cos(), positions.sin()], -1)
    for i in range(lm["num_layers"]):
        layer = f"transformer.layers.{i}"
        y = _norm(x, state, f"{layer}.norm1")
        x = x + _attend(y, y, state, f"{layer}.self_attn", lm["num_heads"], True)
        if tune is None:
            y = _norm(x, state, f"{layer}.norm_cross")
            x = x + _attend(y, memory, state, f"{layer}.cross_attention", lm["num_heads"], False)
        y = _norm(x, state, f"{layer}.norm2") @ state[f"{layer}.linear1.weight"].T
        activate = {"gelu": functional.gelu, "relu": functional.relu}[lm["activation"]]
        x = x + activate(y) @ state[f"{layer}.linear2.weight"].T
    x = _norm(x, state, "out_norm")[:, n_front:]
    found = torch.full((*codes.shape, special), torch.nan)
    for k, delay in enumerate(delays):
        # transformers' loss ends with the last frame of the first codebook.
        kept = x[:, delay : delay + n_frames][:, : n_frames - delay]
        found[:, k, : n_frames - delay] = kept @ state[f"linears.{k}.weight"].T
    return found


def read_plainly(path: Any) -> tuple[Tensors, dict[str, Any]]:
    """State and configuration of a file, by the reader that audiocraft has."""
    package = torch.load(path, map_location="cpu", weights_only=True)
    assert package["exported"] is True
    return package["best_state"], yaml.safe_load(package["xp.cfg"])
