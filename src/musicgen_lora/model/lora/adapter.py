"""LoRA on MusicGen by PEFT: adding, saving, loading, and the facts kept beside the weights.

An adapter folder is what PEFT writes (`adapter_config.json`, `adapter_model.safetensors`), so
that bare PEFT on bare transformers loads it, plus `musicgen_lora.json` (base, data, settings,
figures) and a model card.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils.integrations import dequantize_module_weight
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.atomic import MANIFEST
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import LARGE, parse_json, read_bytes, read_json
from musicgen_lora.formats.kinds import (
    check_kind,
    fields,
    integer,
    many,
    named,
    or_null,
    path_text,
    real,
    text,
)
from musicgen_lora.given import ADAPTER_WEIGHTS, check_adapter_folder
from musicgen_lora.model.cpu.lora_linear import use_few_products
from musicgen_lora.model.lora import initial as start
from musicgen_lora.model.lora.config import CONFIG_FILE, read_adapter_config
from musicgen_lora.model.lora.targets import matching, target_pattern
from musicgen_lora.model.musicgen import UNLOADABLE, base_fingerprint

FACTS_FILE = "musicgen_lora.json"
FACTS_VERSION = 1
WEIGHTS_FILE = ADAPTER_WEIGHTS
MAX_BYTES = {CONFIG_FILE: 16 << 20, WEIGHTS_FILE: 32 << 30, FACTS_FILE: LARGE}
"""Of an adapter's files."""

_CLIP = fields(optional=dict.fromkeys(("id", "name", "audio"), or_null(text())))
_FACTS = fields(
    {
        "format_version": integer(0, FACTS_VERSION),
        "base": fields({"path": path_text(), "fingerprint": text()}),
    },
    {
        "data": or_null(
            fields(
                optional={
                    "data_dir": path_text(),
                    "metadata_file": path_text(),
                    "validation": or_null(many(_CLIP)),
                }
            )
        ),
        "settings": or_null(
            fields(
                optional={
                    "max_duration": real(0.001, 3600.0),
                    "max_validation_windows": integer(1, 10**9),
                }
            )
        ),
    },
)
"""Those of the facts that are read again."""

INITIALISATIONS = {
    "default": True,
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    # The randomised decomposition: of the exact one in all but time, by the paper's own figures.
    "pissa": "pissa_niter_16",
    "olora": "olora",
}
"""Names of `lora_init`, and PEFT's for them."""


def check_initialisation(
    model: MusicgenForConditionalGeneration, pattern: str, *, rank: int, init: str
) -> None:
    """Raises a UserError where an initialisation cannot make an adapter of this rank."""
    if init == "orthogonal" and rank % 2:
        raise UserError(f"lora_init orthogonal needs an even lora_rank, not {rank}.")
    if init in ("default", "gaussian"):
        return
    for name, module in matching(model, pattern).items():
        if isinstance(module, nn.Embedding):
            raise UserError(f"lora_init {init} is for linear layers alone, and {name} is none.")
        assert isinstance(module, nn.Linear)
        if init in start.FROM_BASE and rank > min(module.in_features, module.out_features):
            raise UserError(
                f"lora_init {init}: lora_rank {rank} is more than the rank of {name}, "
                f"{min(module.in_features, module.out_features)}."
            )


def without_direction(model: MusicgenForConditionalGeneration, pattern: str) -> list[str]:
    """The layers that `pattern` names in which an output's weights are all zero. DoRA scales each
    output by its weights' length, and PEFT divides by it."""
    return [
        name
        for name, module in matching(model, pattern).items()
        if isinstance(module, nn.Linear)
        and bool((dequantize_module_weight(module) == 0).all(dim=1).any())
    ]


def add_lora(
    model: MusicgenForConditionalGeneration,
    *,
    base_name: str,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    pattern: str | None = None,
    kind: str = "lora",
    init: str = "default",
) -> PeftModel:
    """Injects fresh LoRA layers (Hu et al., 2021) that change no prediction yet.

    Args:
        model: changed in place; its own weights stay frozen. PiSSA and OLoRA move a part of
            them into the adapter, see `start`.
        base_name: what the adapter's config will name as its base.
        rank: r of the low-rank product.
        alpha: the product is scaled by alpha / rank; with "rslora" by alpha / sqrt(rank).
        dropout: on the adapter's input while training.
        pattern: of the modules' names, from `target_pattern`; None for the default targets.
        kind: "lora", "rslora" (Kalajdzievski, 2023) or "dora" (Liu et al., 2024). DoRA leaves out
            layers that it cannot adapt, see `without_direction`; the adapter's config names them.
        init: a name of `INITIALISATIONS`.

    Raises:
        UserError: `init` cannot make this adapter, or DoRA adapts none of the layers.
    """
    pattern = target_pattern(model) if pattern is None else pattern
    check_initialisation(model, pattern, rank=rank, init=init)
    left_out = without_direction(model, pattern) if kind == "dora" else []
    if left_out and len(left_out) == len(matching(model, pattern)):
        raise UserError(
            "adapter dora: each of the layers, as "
            f"{left_out[0]}, has rows of zeros, which have no direction; give --adapter rslora."
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=dropout,
        target_modules=pattern,
        exclude_modules=left_out or None,
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        init_lora_weights=INITIALISATIONS[init],  # pyright: ignore[reportArgumentType]
        bias="none",
    )
    adapted = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
    adapted.peft_config["default"].base_model_name_or_path = base_name
    assert isinstance(adapted, PeftModel)
    use_few_products(adapted)
    return adapted


def save_adapter(
    adapted: PeftModel,
    folder: Path,
    *,
    started: start.Tensors | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Writes an adapter as PEFT does, for the plain base whatever its initialisation was.

    Args:
        adapted: the adapter on its base.
        folder: where `adapter_config.json` and `adapter_model.safetensors` go.
        started: its first tensors, where they were taken out of the base (`start`).
        metadata: goes into the weights' header as JSON, under `musicgen_lora`.
    """
    tensors = start.adapter_tensors(adapted)
    config: Any = copy.deepcopy(adapted.peft_config["default"])
    if started is not None:
        tensors = start.as_plain_lora(tensors, started)
        config.lora_alpha *= 2**0.5 if config.use_rslora else 2
        config.r *= 2
    # PEFT keeps a set, whose order differs from process to process.
    config.exclude_modules = sorted(config.exclude_modules) if config.exclude_modules else None
    # Whoever loads it has the weights: drawing first ones again would be in vain, or harm.
    config.init_lora_weights, config.inference_mode = True, True
    base = type(adapted.get_base_model())
    names = {"base_model_class": base.__name__, "parent_library": base.__module__}
    config.save_pretrained(str(folder), auto_mapping_dict=names)
    # One entry: safetensors writes several in a random order, and files would differ by it.
    header = {"format": "pt"}
    if metadata is not None:
        header = {"musicgen_lora": json.dumps(metadata, sort_keys=True)}
    save_file(tensors, folder / WEIGHTS_FILE, metadata=header)


def has_adapter(part: nn.Module | None) -> bool:
    """Whether a part of the model carries adapter weights."""
    return part is not None and any("lora_" in name for name, _ in part.named_parameters())


@contextlib.contextmanager
def adapter_off(adapted: PeftModel, started: start.Tensors | None = None) -> Iterator[None]:
    """The plain base, for as long as the context lasts.

    Args:
        adapted: the adapter on its base.
        started: its first tensors, where they were taken out of the base: without them it would
            be the residual that speaks.
    """
    if started is None:
        with adapted.disable_adapter():
            yield
        return
    trained = start.adapter_tensors(adapted)
    start.put_tensors(adapted, started)
    try:
        yield
    finally:
        start.put_tensors(adapted, trained)


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter as it was at one moment: each file is read once, and nothing is read again.

    Args:
        folder: where it lay.
        config: of PEFT.
        tensors: the weights, by the names that PEFT saves them by.
        facts: ours; None for an adapter that another tool made.
        sha256: of the bytes of `adapter_config.json` and `adapter_model.safetensors`, by name.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    facts: dict[str, Any] | None
    sha256: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Of all that decides what it plays: scale, layers and kind as well as the weights."""
        content = json.dumps(dict(self.sha256), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_adapter(folder: Path) -> AdapterFiles:
    """Reads an adapter and checks that it is whole.

    Raises:
        UserError: no adapter there, a damaged one, or one that is not as its manifest says.
    """
    check_adapter_folder(folder)
    present = [
        name for name in (CONFIG_FILE, WEIGHTS_FILE, FACTS_FILE) if (folder / name).is_file()
    ]
    contents = {name: read_bytes(folder / name, MAX_BYTES[name]) for name in present}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    _check_manifest(folder, digests)
    facts = (
        _read_facts(folder / FACTS_FILE, contents[FACTS_FILE]) if FACTS_FILE in present else None
    )
    config = parse_json(contents[CONFIG_FILE], folder / CONFIG_FILE)
    check_kind(config, fields(), folder / CONFIG_FILE)
    try:
        tensors = load(contents[WEIGHTS_FILE])
    except (SafetensorError, ValueError) as error:
        raise UserError(
            f"{folder / WEIGHTS_FILE}: not readable as safetensors ({error})."
        ) from error
    digests.pop(FACTS_FILE, None)
    return AdapterFiles(folder, config, tensors, facts, digests)


def _check_manifest(folder: Path, digests: Mapping[str, str]) -> None:
    """Compares what was read with the manifest that training put beside it, if it is there."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    manifest = read_json(path, named(text()))
    altered = [name for name, digest in digests.items() if manifest.get(name) != digest]
    if altered:
        raise UserError(
            f"{folder / altered[0]}: not what training wrote (its hash differs from {MANIFEST}): "
            f"copy the adapter anew; if you changed it yourself, delete {path}."
        )


def _read_facts(path: Path, content: bytes) -> dict[str, Any]:
    """Our facts of an adapter.

    Raises:
        UserError: not JSON, or of a later format.
    """
    facts = parse_json(content, path)
    version = facts.get("format_version") if isinstance(facts, dict) else None
    if isinstance(version, int) and version > FACTS_VERSION:
        raise UserError(f"{path}: format {version} is newer than this release; update it.")
    check_kind(facts, _FACTS, f"{path}: not readable as adapter facts")
    return facts


def load_adapter(
    model: MusicgenForConditionalGeneration, adapter: Path | AdapterFiles
) -> PeftModel:
    """Puts a trained adapter on its base, frozen and in eval mode.

    Args:
        model: changed in place.
        adapter: its folder, or what was read from it.

    Raises:
        UserError: no adapter there, a damaged one, or one made for another base.
    """
    files = read_adapter(adapter) if isinstance(adapter, Path) else adapter
    folder, facts = files.folder, files.facts
    if facts is not None and facts["base"]["fingerprint"] != base_fingerprint(model):
        raise UserError(
            f"{folder}: this adapter was trained on another base "
            f"({facts['base']['path']}, fingerprint {facts['base']['fingerprint']}); give that "
            "one as the base model."
        )
    modules = [name for name, _ in model.named_modules()]
    shapes = {name: tuple(tensor.shape) for name, tensor in files.tensors.items()}
    config = read_adapter_config(folder / CONFIG_FILE, files.config, modules, shapes)
    for name, tensor in files.tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(
                f"{folder}: {name} has values that are not finite; train the adapter again."
            )
    try:
        config.inference_mode = True
        adapted = PeftModel(model, config)  # pyright: ignore[reportArgumentType]
        loaded = set_peft_model_state_dict(adapted, dict(files.tensors))
    except UNLOADABLE as error:
        raise _does_not_fit(folder, error) from error
    _check_all_fit(files, adapted, loaded)
    return adapted.eval()


def _does_not_fit(folder: Path, error: BaseException) -> UserError:
    line = re.sub(r"\s+", " ", str(error))[:200]
    return UserError(f"{folder}: does not fit this base model: {line}")


def _check_all_fit(files: AdapterFiles, adapted: PeftModel, loaded: Any) -> None:
    """PEFT drops tensors that fit no layer, and leaves layers as they began that are given none."""
    if loaded.unexpected_keys:
        names = [key.replace(".default", "") for key in sorted(loaded.unexpected_keys)]
        raise UserError(
            f"{files.folder / WEIGHTS_FILE}: {len(names)} of {len(files.tensors)} tensors of the "
            f"adapter fit no layer ({_first(names)}): weights and {CONFIG_FILE} do not belong "
            "together, or another tool named them."
        )
    expected = {name for name, _ in adapted.named_parameters() if ".default" in name}
    lacking = [key.replace(".default", "") for key in sorted(expected & set(loaded.missing_keys))]
    if lacking:
        raise UserError(
            f"{files.folder / WEIGHTS_FILE}: {len(lacking)} of {len(expected)} tensors that "
            f"{CONFIG_FILE} asks for are missing ({_first(lacking)}): the two do not belong "
            "together."
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
