"""The specification of a LoRA adapter as one value, and its translation for PEFT."""

from __future__ import annotations

from dataclasses import dataclass

from peft import LoraConfig
from peft.utils.integrations import dequantize_module_weight
from torch import nn

from musicgen_lora.errors import UserError
from musicgen_lora.model.lora.initial import FROM_BASE
from musicgen_lora.model.lora.targets import matching, target_pattern

INITIALISATIONS = {
    "default": True,
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    # The randomised decomposition: by the paper's own figures, as good as the exact one, but fast.
    "pissa": "pissa_niter_16",
    "olora": "olora",
}
"""Values of `lora_init`, and PEFT's names for them."""


@dataclass(frozen=True)
class LoraSpec:
    """The size and kind of an adapter, and where it goes.

    Args:
        rank: r of the low-rank product.
        alpha: the product is scaled by alpha / rank, or with "rslora" by alpha / sqrt(rank).
        pattern: for the modules' names, from `target_pattern`; "" for the default targets.
        kind: "lora", "rslora" (Kalajdzievski, 2023) or "dora" (Liu et al., 2024). DoRA skips layers
            that it can't adapt, see `without_direction`; the adapter's config names them.
        init: a name in `INITIALISATIONS`.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    pattern: str = ""
    kind: str = "lora"
    init: str = "default"

    def check(self, model: nn.Module) -> None:
        """Raises a UserError if the initialisation can't make an adapter of this rank."""
        if self.init == "orthogonal" and self.rank % 2:
            raise UserError(f"lora_init orthogonal needs an even lora_rank, not {self.rank}.")
        if self.init in ("default", "gaussian"):
            return
        for name, module in matching(model, self.pattern or target_pattern(model)).items():
            if isinstance(module, nn.Embedding):
                raise UserError(
                    f"lora_init {self.init} is for linear layers only, and {name} is not one."
                )
            most = full_rank(module)
            if self.init in FROM_BASE and self.rank > most:
                raise UserError(
                    f"lora_init {self.init}: lora_rank {self.rank} is more than the rank of "
                    f"{name}, {most}."
                )

    def beyond_rank(self, model: nn.Module) -> dict[str, int]:
        """The ranks of the layers that have a lower one than the adapter, by name."""
        found = matching(model, self.pattern or target_pattern(model))
        ranks = {name: full_rank(module) for name, module in found.items()}
        return {name: most for name, most in ranks.items() if most < self.rank}

    def peft_config(self, model: nn.Module) -> LoraConfig:
        """PEFT's config of this adapter for a model.

        Raises:
            UserError: `init` can't make this adapter, or DoRA can adapt none of the layers.
        """
        self.check(model)
        pattern = self.pattern or target_pattern(model)
        left_out = without_direction(model, pattern) if self.kind == "dora" else []
        if left_out and len(left_out) == len(matching(model, pattern)):
            raise UserError(
                f"adapter dora: each of the layers, such as {left_out[0]}, has rows of zeros, "
                "which have no direction; use --adapter rslora."
            )
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,
            target_modules=pattern,
            exclude_modules=left_out or None,
            use_rslora=self.kind == "rslora",
            use_dora=self.kind == "dora",
            init_lora_weights=INITIALISATIONS[self.init],  # pyright: ignore[reportArgumentType]
            bias="none",
        )


def full_rank(module: nn.Module) -> int:
    """The highest rank that a layer's weights can have; quantised ones are stored in other
    shapes."""
    if isinstance(module, nn.Embedding):
        return min(module.num_embeddings, module.embedding_dim)
    assert isinstance(module, nn.Linear)
    return min(module.in_features, module.out_features)


def without_direction(model: nn.Module, pattern: str) -> list[str]:
    """The layers matching `pattern` in which all weights of some output are zero. DoRA scales each
    output by the norm of its weights, and PEFT divides by that."""
    return [
        name
        for name, module in matching(model, pattern).items()
        if isinstance(module, nn.Linear)
        and bool((dequantize_module_weight(module) == 0).all(dim=1).any())
    ]
