"""Checks of an adapter's config before PEFT sees it.

PEFT matches the config's regular expressions against every module with an engine that some of them
keep busy for ever, and allocates the rank that it names. Here RE2 matches the expressions in linear
time, and PEFT is given the modules' full names; ranks are checked against the weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig

from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import (
    Wrong,
    check_kind,
    either,
    fields,
    many,
    named,
    one_of,
    or_null,
    shortened,
    truth,
)
from musicgen_lora.formats.tensors import Shapes
from musicgen_lora.model.base.bounds import EXPRESSION, LAYER, NAME, SCALE, SHARE, WIDTH

UNKNOWN_RANK = 256


def _plain_name(value: Any) -> None:
    """A name, perhaps with PEFT's escapes: PEFT matches it as a regular expression."""
    if not isinstance(value, str) or not re.fullmatch(r"\^?[\w.\\]{1,500}\$?", value):
        raise Wrong("", value, "a plain name")
    if re.search(r"\\(?!\.)", value):
        raise Wrong("", value, "a plain name")


_CONFIG = {
    "r": WIDTH,
    "lora_alpha": SCALE,
    "lora_dropout": SHARE,
    "exclude_modules": or_null(either(EXPRESSION, many(NAME))),
    "layers_to_transform": or_null(either(LAYER, many(LAYER))),
    "layers_pattern": or_null(either(many(_plain_name), _plain_name)),
    "modules_to_save": or_null(many(_plain_name)),
    "rank_pattern": or_null(named(WIDTH, _plain_name)),
    "alpha_pattern": or_null(named(SCALE, _plain_name)),
    "bias": one_of("none", "all", "lora_only"),
    "init_lora_weights": either(truth, NAME),
    **dict.fromkeys(
        (
            *("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias", "inference_mode"),
            "ensure_weight_tying",
        ),
        truth,
    ),
    **dict.fromkeys(
        ("base_model_name_or_path", "revision", "task_type", "peft_version"), or_null(NAME)
    ),
    "auto_mapping": or_null(named(or_null(NAME))),
}
_KIND = fields(
    {"peft_type": one_of("LORA"), "target_modules": either(EXPRESSION, many(NAME))}, _CONFIG
)
_FREE = {
    *_CONFIG,
    *("peft_type", "target_modules", "runtime_config"),
    # How it was trained, or how PEFT 0.2 stored it.
    *("eva_config", "merge_weights"),
}
"""Fields that are checked by `_KIND` or change nothing."""
_ON_BASE = (True, False, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the base as it was. The others move a part of it into the
adapter, whose weights then belong on the residual base (`initial`)."""


def read_adapter_config(
    path: Path, content: Mapping[str, Any], modules: Collection[str], weights: Shapes
) -> LoraConfig:
    """Checks an adapter's config and returns it with its targets as full names.

    Args:
        path: the config's path, for messages.
        modules: names of the base's modules.
        weights: names and shapes of the adapter's weights.

    Raises:
        UserError: not a LoRA's, with a value out of bounds or an unsupported setting, or of a rank
            that its weights don't have.
    """
    if content.get("peft_type") != "LORA":
        kind = shortened(content.get("peft_type"))
        raise UserError(f"{path}: peft_type = {kind}: only adapters of type LORA are supported.")
    check_kind(content, _KIND, path)
    _check_rank(path, content, weights)
    began = content.get("init_lora_weights", True)
    if began not in _ON_BASE:
        raise UserError(
            f"{path}: init_lora_weights = {shortened(began)}: its weights belong on the residual "
            "base that this leaves, not on the base itself; where it was trained, convert it with "
            "PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    defaults = vars(LoraConfig())
    for name, value in content.items():
        # Empty values have no effect, whatever their type.
        if name not in _FREE and value and value != defaults.get(name):
            raise UserError(f"{path}: {name} = {shortened(value)}: is not supported.")
    kept = {name: value for name, value in content.items() if name in _CONFIG and name in defaults}
    kept |= {
        "target_modules": set(_targets(path, content, modules, weights)),
        # Its weights are loaded, so its original initialisation isn't needed.
        "init_lora_weights": True,
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": content.get("rank_pattern") or {},
        "alpha_pattern": content.get("alpha_pattern") or {},
    }
    try:
        return LoraConfig(**kept)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: PEFT refuses it ({shortened(str(error))}).") from error


def _check_rank(path: Path, content: Mapping[str, Any], weights: Shapes) -> None:
    """Raises a UserError if the config asks for a rank that the weights don't have: PEFT allocates
    it before it looks at them."""
    found = {
        shape[0]
        for name, shape in weights.items()
        if shape and (".lora_A" in name or ".lora_embedding_A" in name)
    }
    # If the weights have other names, PEFT refuses them later.
    largest = max(found, default=UNKNOWN_RANK)
    for rank in (content.get("r", 8), *(content.get("rank_pattern") or {}).values()):
        if rank > largest:
            raise UserError(f"{path}: r = {rank}: its weights have rank {largest} at most.")


def _targets(
    path: Path, content: Mapping[str, Any], modules: Collection[str], weights: Shapes
) -> Iterable[str]:
    """The full names of the modules that carry the adapter, by PEFT's rules."""
    named, excluded = content["target_modules"], content.get("exclude_modules") or []
    if named == "all-linear":
        raise UserError(
            f"{path}: target_modules = 'all-linear' includes the codec, which can't be adapted."
        )
    # For an expression that RE2 doesn't support, the weights show what it matched.
    carried = {_module(name) for name in weights}.intersection(modules)
    found = _named(named, modules, carried)
    if not isinstance(named, str):
        found = _in_layers(content, found)
    found = set(found).difference(_named(excluded, modules, set(modules) - carried))
    if not found:
        raise UserError(
            f"{path}: target_modules = {shortened(named)}: this base model has no such modules."
        )
    return found


def _named(
    named: str | list[str], modules: Collection[str], unknown: Iterable[str]
) -> Iterable[str]:
    """The modules that a list of endings or an expression names; `unknown` for an expression that
    RE2 doesn't support."""
    if not isinstance(named, str):
        return _ending_in(named, modules)
    matched = _full_matches(named, modules)
    return unknown if matched is None else matched


def _full_matches(expression: str, names: Collection[str]) -> list[str] | None:
    """The names that an expression matches in full; None if RE2 doesn't support it."""
    # Imported here, since machines that only train may lack it.
    import pyarrow as pa
    import pyarrow.compute

    match: Any = pyarrow.compute.match_substring_regex  # pyright: ignore[reportAttributeAccessIssue]
    ordered = pa.array(names, pa.string())
    try:
        # On its own first: brackets that are balanced only by ours are not an expression.
        match(ordered[:0], pattern=expression)
        matched = match(ordered, pattern=rf"\A(?:{expression})\z")
    except (pa.ArrowException, UnicodeEncodeError):
        return None
    return ordered.filter(matched).to_pylist()


def _ending_in(endings: Iterable[str], names: Iterable[str]) -> list[str]:
    """The names that are one of `endings`, or end with a dot and one of them."""
    wanted = set(endings)
    return [
        name
        for name in names
        if not wanted.isdisjoint(name.split(".", cut)[-1] for cut in range(name.count(".") + 1))
    ]


def _in_layers(content: Mapping[str, Any], names: Iterable[str]) -> Iterable[str]:
    """Keeps the names that are in `layers_to_transform`, or all if that isn't given."""
    layers = content.get("layers_to_transform")
    if layers is None or layers == []:
        return names
    chosen = set(layers) if isinstance(layers, list) else {layers}
    lists = content.get("layers_pattern") or r"[^.]+"
    known = "|".join(lists if isinstance(lists, list) else [lists])
    numbers = {name: re.match(rf"(?:^|.*?\.)(?:{known})\.(\d+)\.", name) for name in names}
    return [name for name, number in numbers.items() if number and int(number[1]) in chosen]


def _module(tensor: str) -> str:
    """The module of a tensor: `a.b` for `base_model.model.a.b.lora_A.weight`."""
    return re.sub(r"\.lora_\w+(\..*)?$", "", tensor.removeprefix("base_model.model."))
