"""The flags of training from a packed file: a plain dataclass, parsed by transformers, since it
runs where the libraries behind the commands' settings are not installed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import HfArgumentParser

from musicgen_lora import EMBEDDED_NAME
from musicgen_lora.errors import UserError

RESUMABLE = {
    "device",
    "max_steps",
    "max_minutes",
    "log_every",
    "validate_every",
    "save_every",
    "output_dir",
    "tokens",
}
"""Settings that may change when a run is resumed; of `tokens`, only the content counts."""


COUNT = (1, 10**9)
RANGES: Mapping[str, tuple[float, float]] = {
    "lora_rank": (1, 10_000),
    "lora_alpha": (1, 10**6),
    "learning_rate": (1e-12, 1.0),
    "weight_decay": (0.0, 1e3),
    "max_grad_norm": (1e-6, 1e6),
    "warmup_share": (0.0, 0.99),
    "batch_size": (1, 100_000),
    "max_duration": (0.1, 3600.0),
    "short_duration": (0.1, 3600.0),
    "short_share": (0.0, 1.0),
    "condition_dropout": (0.0, 0.99),
    "bar_start_share": (0.0, 1.0),
    "loop_share": (0.0, 1.0),
    "wrong_tokens": (0.0, 1.0),
    "max_embedding_norm": (1e-6, math.inf),
    "max_minutes": (0.0, math.inf),
    "seed": (0, 2**63 - 1),
} | dict.fromkeys(
    (
        "gradient_accumulation_steps",
        "max_steps",
        "log_every",
        "validate_every",
        "max_validation_windows",
        "save_every",
    ),
    COUNT,
)


@dataclass(frozen=True)
class PackedSettings:
    """The flags. Those shared with `musicgen-lora train` mean the same.

    Args:
        short_share: share of the steps whose windows have `short_duration` seconds, with a larger
            batch that makes up the same amount of audio; the others have `batch_size` windows of
            `max_duration`. A model trained only on long windows hears fewer beginnings.

    Raises:
        UserError: one is out of its range.
    """

    tokens: Path
    output_dir: Path
    model_path: str = EMBEDDED_NAME
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    trainable: Literal["lora", "full"] = "full"
    frozen_modules: str = ""
    adapter: str = "lora"
    lora_rank: int = 12
    lora_alpha: int = 24
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    lr_schedule: Literal["cosine", "linear", "constant", "wsd"] = "wsd"
    warmup_share: float = 0.03
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    max_duration: float = 30.0
    short_duration: float = 10.0
    short_share: float = 0.0
    condition_dropout: float = 0.1
    bar_start_share: float = 0.0
    loop_share: float = 0.0
    wrong_tokens: float = 0.0
    max_embedding_norm: float = math.inf
    tokens_off_positions: bool = False
    max_steps: int = 1_000
    max_minutes: float = math.inf
    log_every: int = 10
    validate_every: int = 200
    max_validation_windows: int = 64
    save_every: int = 200
    seed: int = 0

    # Other settings that adapters and full training read.
    lora_dropout: float = dataclasses.field(default=0.0, init=False)
    lora_init: str = dataclasses.field(default="default", init=False)
    lora_targets: tuple[str, ...] = dataclasses.field(
        default=("attention", "feed_forward"), init=False
    )
    lora_layers: str = dataclasses.field(default="", init=False)
    lora_modules: str = dataclasses.field(default="", init=False)
    fsdp: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            # Written so that NaN is refused.
            if not least <= value <= most:
                raise UserError(f"--{name} {value:g}: must be from {least:g} to {most:g}.")
        if self.short_share and self.short_duration > self.max_duration:
            raise UserError(
                f"--short_duration {self.short_duration:g}: must be no more than --max_duration "
                f"({self.max_duration:g})."
            )
        bounds = self.tokens_off_positions or self.max_embedding_norm < math.inf
        if bounds and self.trainable != "full":
            raise UserError(
                "--tokens_off_positions and --max_embedding_norm change the base's embeddings: "
                "give them with --trainable full."
            )

    def plain(self) -> dict[str, Any]:
        """The flags as JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in values.items()
            if value != math.inf
        }

    def lasting(self) -> dict[str, Any]:
        """The flags that must stay the same when a run is resumed."""
        return {name: value for name, value in self.plain().items() if name not in RESUMABLE}


def parse_packed_settings(arguments: list[str] | None, description: str) -> PackedSettings:
    """Settings from flags; the parser exits with code 2 if one is wrong."""
    parser = HfArgumentParser(
        PackedSettings,  # pyright: ignore[reportArgumentType]
        prog="python -m musicgen_lora.training.packed",
        description=description,
    )
    return PackedSettings(**vars(parser.parse_args(arguments)))
