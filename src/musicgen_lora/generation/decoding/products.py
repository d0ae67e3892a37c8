"""A matrix product for the few rows of a decoding step, in fp32, bf16 or with int8 weights.

On a CPU each row comes out the same, to the bit, however many others it is multiplied with: a clip
must not depend on its batch. The kernels that torch takes for `x @ W.T` add up in another order for
each number of rows. oneDNN's on weights that were laid out for it beforehand don't, up to a
thousand inputs, and are the fastest on most processors; sums of integers have no order. Where a
processor's oneDNN does not keep to that (`rows_are_independent` tries it on the weights
themselves), rows are multiplied in groups of a fixed size. Among the forms that keep to it the
fastest is measured, once: see `choices`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from musicgen_lora.generation.decoding.choices import fastest, kept_choice, recalled

Product = Callable[[torch.Tensor], torch.Tensor]
"""`[R, in]` to `[R, out]`, both float32 on a CPU; or a sequence of one clip, `[r, P, in]`."""
GROUP = 8
"""Rows of a product of fixed size: four guided clips, the default batch."""
PART = 1024
"""Inputs that oneDNN adds up in one go; more it divides by the number of rows."""
TRIED = (1, 2, 3, 4, 6, 8, 16, 33)
"""Numbers of rows at which a product is compared with that of each row alone."""
COLD_BYTES = 64 << 20
"""Size of the weights that forms are timed on."""
_mkldnn: Any = torch.ops.mkldnn
_onednn: Any = torch.ops.onednn


def packed(weight: torch.Tensor) -> Product:
    """By oneDNN, in the weight's precision."""
    dtype = weight.dtype
    laid_out = _mkldnn._reorder_linear_weight(weight.contiguous(), None)
    multiply = _mkldnn._linear_pointwise
    if dtype == torch.float32:
        return lambda x: multiply(x, laid_out, None, "none", [], "")
    return lambda x: multiply(x.to(dtype), laid_out, None, "none", [], "").float()


def packed_in_parts(weight: torch.Tensor) -> Product:
    """As `packed`, for more inputs than oneDNN adds up in one order: by parts of them.

    Raises:
        NotImplementedError: there is one part, which `packed` is for.
    """
    if weight.shape[1] <= PART:
        raise NotImplementedError
    products = [packed(part) for part in weight.split(PART, dim=1)]
    dtype = weight.dtype

    def multiply(x: torch.Tensor) -> torch.Tensor:
        first, *others = x.to(dtype).split(PART, dim=-1)
        out = products[0](first)
        for product, part in zip(products[1:], others, strict=True):
            out.add_(product(part))
        return out

    return multiply


def row_by_row(weight: torch.Tensor) -> Product:
    """A product of a matrix and a vector for each row: no more is read where there is one row, and
    where the weights stay in the processor's cache."""
    dtype = weight.dtype

    def multiply(x: torch.Tensor) -> torch.Tensor:
        x = x.to(dtype)
        if x.dim() == 3:
            return functional.linear(x, weight).float()
        if len(x) == 1:
            return torch.mv(weight, x[0])[None].float()
        return torch.stack([torch.mv(weight, row) for row in x]).float()

    return multiply


def grouped(weight: torch.Tensor) -> Product:
    """By torch's own choice of kernel, a fixed number of rows at a time."""
    dtype = weight.dtype

    def multiply(x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 3:
            return functional.linear(x.to(dtype), weight).float()
        n_rows = len(x)
        x = functional.pad(x.to(dtype), (0, 0, 0, -n_rows % GROUP))
        parts = [functional.linear(part, weight) for part in x.split(GROUP)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        return out[:n_rows].float()

    return multiply


def integers(weight: torch.Tensor) -> Product:
    """With 8-bit weights, a scale for each output, and 8-bit rows, a scale for each row."""
    scales = weight.float().abs().amax(dim=1).clamp_(min=1e-12) / 127.0
    rounded = (weight.float() / scales[:, None]).round_().to(torch.int8)
    try:
        laid_out = _onednn.qlinear_prepack(rounded, None)
        zeros = torch.zeros(len(rounded), dtype=torch.long)
    except (AttributeError, RuntimeError, NotImplementedError):
        # Not every build of torch has oneDNN.
        turned, multiply_integers = rounded.t(), torch.ops.aten._int_mm

        def multiply_plainly(x: torch.Tensor) -> torch.Tensor:
            lengths = _row_scales(x)
            quantised = (x / lengths).round_().to(torch.int8)
            out = multiply_integers(quantised.flatten(0, -2), turned).view(*x.shape[:-1], -1)
            return out.float() * scales * lengths

        return multiply_plainly

    def multiply(x: torch.Tensor) -> torch.Tensor:
        lengths = _row_scales(x)
        # Unsigned, around 128: signed inputs have no fast kernel without AMX.
        quantised = (x / lengths).round_().add_(128.0).to(torch.uint8)
        out = _onednn.qlinear_pointwise(
            *(quantised, 1.0, 128, laid_out, scales, zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        return out.mul_(lengths)

    return multiply


def _row_scales(x: torch.Tensor) -> torch.Tensor:
    return x.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12).mul_(1.0 / 127.0)


def direct(weight: torch.Tensor) -> Product:
    """As torch does it, for devices that have more to lose by independent rows than to gain."""
    return lambda x: functional.linear(x, weight)


FORMS: dict[str, Callable[[torch.Tensor], Product]] = {
    "packed": packed,
    "packed_in_parts": packed_in_parts,
    "row_by_row": row_by_row,
    "grouped": grouped,
}
"""Those of a CPU in fp32 and bf16, the likeliest first."""


@torch.inference_mode()
def rows_are_independent(product: Product, n_inputs: int) -> bool:
    """Whether rows come out the same, to the bit, alone and among others."""
    rows = torch.randn(max(TRIED), n_inputs, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([product(row[None]) for row in rows])
    return all(torch.equal(product(rows[:n]), alone[:n]) for n in TRIED)


def usable_forms(weight: torch.Tensor) -> list[str]:
    """Names of the forms that this processor multiplies a weight by, row for row the same."""
    found = []
    for name, form in FORMS.items():
        try:
            product = form(weight)
            if rows_are_independent(product, weight.shape[1]):
                found.append(name)
        except (AttributeError, RuntimeError, NotImplementedError):
            # A build of torch without oneDNN, a processor on which it has no such kernel, or a form
            # that isn't for this size.
            continue
    return found or ["grouped"]


def chosen_form(weight: torch.Tensor) -> Callable[[torch.Tensor], Product]:
    """The form that this processor multiplies weights of this size and precision by: the fastest by
    the clock, at the rows of one guided clip and of four, and the same for any number of rows."""
    # What was chosen among other forms is chosen anew.
    what = f"product of {weight.dtype} {tuple(weight.shape)}, {' '.join(FORMS)}"
    if what not in _chosen:
        # What was chosen before was tried before.
        _chosen[what] = recalled(what, FORMS) or _choose(what, weight)
    return FORMS[_chosen[what]]


_chosen: dict[str, str] = {}
"""Forms that this process chose; it keeps to them whatever becomes of the file."""


def _choose(what: str, weight: torch.Tensor) -> str:
    names = usable_forms(weight)
    return kept_choice(what, names, lambda: _fastest_form(weight, names))


@torch.inference_mode()
def _fastest_form(weight: torch.Tensor, names: list[str]) -> str:
    # Several, so that the processor's cache doesn't hold them as it will not hold a whole model.
    n_copies = max(1, min(8, COLD_BYTES // weight.nbytes))
    copies = [weight.clone() for _ in range(n_copies)]
    rows = [torch.randn(n, weight.shape[1]) for n in (2, 8)]
    products = {name: [FORMS[name](copy) for copy in copies] for name in names}

    def run(name: str) -> None:
        for product in products[name]:
            for some in rows:
                product(some)

    return fastest({name: functools.partial(run, name) for name in names})
