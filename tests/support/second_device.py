"""A second device, played by the CPU: what mixes devices fails without a GPU, too.

Its tensors lie in the CPU's memory and are marked by their storage. They say that they are on
`CARD`, move to and fro by `to`, and refuse to be computed with those of the CPU, as CUDA's do.
What needs CUDA's own calls (graphs, streams, memory figures) is not played.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CARD = torch.device("cuda", 0)
COPY = "aten::copy_"
ACROSS = {COPY, "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""Operations that may have tensors of both devices: CUDA takes the indices of `x[indices]` from the
CPU, but not those of `index_select` and the like."""
_getters: Any = torch.Tensor
_DEVICE, _IS_CUDA = _getters.device.__get__, _getters.is_cuda.__get__


class MixedDevices(RuntimeError):
    """An operation was given tensors of both devices."""


def is_on_card(tensor: torch.Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "is_on_card", False)


def _mark(tensor: torch.Tensor, is_on: bool) -> torch.Tensor:
    storage: Any = tensor.untyped_storage()
    storage.is_on_card = is_on
    return tensor


class _Operations(TorchDispatchMode):
    """Checks each operation's tensors, and marks what comes of it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        # A number in a tensor of the CPU may take part in anything.
        places = {is_on_card(tensor) for tensor in tensors if tensor.dim()}
        if len(places) > 1 and name not in ACROSS:
            shapes = [(tuple(t.shape), "card" if is_on_card(t) else "cpu") for t in tensors]
            raise MixedDevices(f"{name}: {shapes}")
        found = func(*args, **(kwargs or {}))
        if name != COPY and any(map(is_on_card, tensors)):
            for one in tree_leaves(found):
                if isinstance(one, torch.Tensor):
                    _mark(one, True)
        return found


class _Calls(TorchFunctionMode):
    """Answers for a tensor's device, and moves tensors."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == _DEVICE:
            return CARD if is_on_card(args[0]) else func(*args)
        if func == _IS_CUDA:
            return is_on_card(args[0])
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and is_on_card(args[0]):
            raise TypeError("can't convert a tensor on the card to numpy; use .cpu()")
        if func in (torch.Tensor.cpu, torch.Tensor.cuda):
            func, args = torch.Tensor.to, (args[0], CARD if func is torch.Tensor.cuda else "cpu")
        if getattr(func, "__name__", "") == "_parse_to":
            return func(*args, **kwargs)
        to = _asked_device(func, args, kwargs)
        on_cpu = [_on_cpu(value) for value in args], {k: _on_cpu(v) for k, v in kwargs.items()}
        found = func(*on_cpu[0], **on_cpu[1])
        if to is None or not isinstance(found, torch.Tensor) or is_on_card(found) is to:
            return found
        # `to` gave the tensor itself back, or a copy that took over its mark; others are new.
        return _mark(found.clone() if func is torch.Tensor.to else found, to)


def _asked_device(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | None:
    """Whether a call asks for the card, or for the CPU; None if for neither."""
    if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], torch.Tensor):
        return is_on_card(args[1])
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.device) or (isinstance(value, str) and value in ("cpu", "cuda")):
            return torch.device(value).type == "cuda"
    return None


def _on_cpu(value: Any) -> Any:
    return "cpu" if isinstance(value, torch.device) and value.type == "cuda" else value


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Plays the second device."""
    with ExitStack() as stack:
        # With a CUDA build, an LSTM on a card would lay out its weights by cuDNN.
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(_Operations())
        stack.enter_context(_Calls())
        yield CARD
