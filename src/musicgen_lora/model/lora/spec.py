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
    # The randomised decomposition: of the exact one in all but time, by the paper's own figures.
    "pissa": "pissa_niter_16",
    "olora": "olora",
}
"""Names of `lora_init`, and PEFT's for them."""


@dataclass(frozen=True)
class LoraSpec:
    """The size and kind of an adapter, and where it goes.

    Args:
        rank: r of the low-rank product.
        alpha: the product is scaled by alpha / rank; with "rslora" by alpha / sqrt(rank).
        pattern: of the modules' names, from `target_pattern`; "" for the default targets.
        kind: "lora", "rslora" (Kalajdzievski, 2023) or "dora" (Liu et al., 2024). DoRA leaves out
            layers that it cannot adapt, see `without_direction`; the adapter's config names them.
        init: a name of `INITIALISATIONS`.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    pattern: str = ""
    kind: str = "lora"
    init: str = "default"

    def check(self, model: nn.Module) -> None:
        """Raises a UserError where the initialisation cannot make an adapter of this rank."""
        if self.init == "orthogonal" and self.rank % 2:
            raise UserError(f"lora_init orthogonal needs an even lora_rank, not {self.rank}.")
        if self.init in ("default", "gaussian"):
            return
        for name, module in matching(model, self.pattern or target_pattern(model)).items():
            if isinstance(module, nn.Embedding):
                raise UserError(
                    f"lora_init {self.init} is for linear layers alone, and {name} is none."
                )
            assert isinstance(module, nn.Linear)
            most = min(module.in_features, module.out_features)
            if self.init in FROM_BASE and self.rank > most:
                raise UserError(
                    f"lora_init {self.init}: lora_rank {self.rank} is more than the rank of "
                    f"{name}, {most}."
                )

    def peft_config(self, model: nn.Module) -> LoraConfig:
        """PEFT's config of this adapter for a model.

        Raises:
            UserError: `init` cannot make this adapter, or DoRA adapts none of the layers.
        """
        self.check(model)
        pattern = self.pattern or target_pattern(model)
        left_out = without_direction(model, pattern) if self.kind == "dora" else []
        if left_out and len(left_out) == len(matching(model, pattern)):
            raise UserError(
                f"adapter dora: each of the layers, as {left_out[0]}, has rows of zeros, which "
                "have no direction; give --adapter rslora."
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


def without_direction(model: nn.Module, pattern: str) -> list[str]:
    """The layers that `pattern` names in which an output's weights are all zero. DoRA scales each
    output by its weights' length, and PEFT divides by it."""
    return [
        name
        for name, module in matching(model, pattern).items()
        if isinstance(module, nn.Linear)
        and bool((dequantize_module_weight(module) == 0).all(dim=1).any())
    ]
