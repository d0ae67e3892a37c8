"""Matrix products for the few rows of a decoding step, in fp32, fp16, bf16 or with int8 weights.

On a CPU each row of the result is bit-identical however many rows are multiplied: a clip must not
depend on its batch. torch's kernels for `x @ W.T` add in a different order for each number of rows.
oneDNN's kernels for prepacked weights don't, up to a thousand inputs, nor do FBGEMM's for fp16;
integer sums don't depend on order. If a processor's libraries break this (`rows_are_independent`
tries it on the weights themselves), rows are multiplied in groups of a fixed size. The fastest of
the forms that keep it is measured, once: see `choices`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from musicgen_lora.generation.decoding.choices import fastest, kept_choice
from musicgen_lora.runtime.precision import DTYPES

Product = Callable[[torch.Tensor], torch.Tensor]
"""`[R, in]` to `[R, out]`, both float32 on a CPU; or a sequence of one clip, `[r, P, in]`."""
GROUP = 8
"""Rows of a fixed-size product: four guided clips, the default batch."""
PART = 1024
"""Inputs that oneDNN sums in a fixed order; more are split depending on the number of rows."""
WIDE = 512
"""From this many inputs on, weights don't fit into the processor's cache."""
TRIED = (1, 2, 3, 4, 6, 8, 16, 33)
"""Numbers of rows at which a product is compared with those of single rows."""
COLD_BYTES = 64 << 20
"""Total size of weights to time a form on, reached with at most `MOST_COPIES` copies of one."""
MOST_COPIES = 16
_torch: Any = torch
_mkldnn: Any = torch.ops.mkldnn
_onednn: Any = torch.ops.onednn
_quantized: Any = torch.ops.quantized


def packed(weight: torch.Tensor, at_least: int = 1) -> Product:
    """oneDNN, in the weight's precision.

    Args:
        weight: `[out, in]`.
        at_least: rows to multiply; fewer are padded. oneDNN's kernel for two rows stalls on its own
            sums, and reads weights from memory at two thirds of the rate of the one for four.

    Raises:
        NotImplementedError: padding is requested, but the weights are so small that the model fits
            into the processor's cache, where padding is no faster.
    """
    if at_least > 1 and weight.shape[1] < WIDE:
        raise NotImplementedError
    dtype = weight.dtype
    laid_out = _mkldnn._reorder_linear_weight(weight.contiguous(), None)
    multiply = _mkldnn._linear_pointwise

    def product(x: torch.Tensor) -> torch.Tensor:
        n_rows, x = len(x), _filled_up(x.to(dtype), at_least)
        return multiply(x, laid_out, None, "none", [], "")[:n_rows].float()

    return product


def packed_in_parts(weight: torch.Tensor, at_least: int = 1) -> Product:
    """As `packed`, in parts, for more inputs than oneDNN sums in a fixed order.

    Raises:
        NotImplementedError: there is only one part, which `packed` handles.
    """
    if weight.shape[1] <= PART:
        raise NotImplementedError
    products = [packed(part) for part in weight.split(PART, dim=1)]
    dtype = weight.dtype

    def multiply(x: torch.Tensor) -> torch.Tensor:
        n_rows, x = len(x), _filled_up(x.to(dtype), at_least)
        first, *others = x.split(PART, dim=-1)
        out = products[0](first)
        for product, part in zip(products[1:], others, strict=True):
            out.add_(product(part))
        return out[:n_rows]

    return multiply


def _filled_up(x: torch.Tensor, n: int) -> torch.Tensor:
    """Rows `[R, in]`, padded with zeros to at least n; a sequence is returned as it is."""
    return functional.pad(x, (0, 0, 0, n - len(x))) if x.dim() == 2 and len(x) < n else x


def row_by_row(weight: torch.Tensor) -> Product:
    """A matrix-vector product per row: reads no more if there is one row, or if the weights stay in
    the processor's cache."""
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
    """torch's own choice of kernel, with a fixed number of rows at a time."""
    dtype = weight.dtype
    return _in_groups(lambda x: functional.linear(x.to(dtype), weight).float())


def packed_groups(weight: torch.Tensor) -> Product:
    """oneDNN with a fixed number of rows at a time, for processors on which its sums depend on it:
    with AMX, those in bf16."""
    return _in_groups(packed(weight))


def _in_groups(multiply: Product) -> Product:
    """A product of `GROUP` rows at a time, the last of them padded; a sequence goes as it is."""

    def product(x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 3:
            return multiply(x)
        n_rows = len(x)
        x = functional.pad(x, (0, 0, 0, -n_rows % GROUP))
        parts = [multiply(part) for part in x.split(GROUP)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[:n_rows]

    return product


def halves(weight: torch.Tensor) -> Product:
    """FBGEMM with fp16 weights; rows and sums stay in fp32."""
    laid_out = _quantized.linear_prepack_fp16(weight.float(), None)
    multiply = _quantized.linear_dynamic_fp16
    return lambda x: multiply(x, laid_out)


Sums = Callable[[torch.Tensor], torch.Tensor]
"""Products of rows of whole numbers from -127 to 127 with 8-bit weights, times each output's scale;
float32 in and out."""


def integers_by(
    lay_out: Callable[[torch.Tensor, torch.Tensor], Sums], weight: torch.Tensor
) -> Product:
    """8-bit weights with a scale per output, and 8-bit rows with a scale per row.

    Args:
        lay_out: turns rounded weights `[out, in]` int8 and scales `[out]` into `Sums`.
        weight: `[out, in]`.
    """
    scales = weight.float().abs().amax(dim=1).clamp_(min=1e-12) / 127.0
    rounded = (weight.float() / scales[:, None]).round_().to(torch.int8)
    sums = lay_out(rounded, scales)

    def multiply(x: torch.Tensor) -> torch.Tensor:
        lengths = x.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12).mul_(1.0 / 127.0)
        return sums((x / lengths).round_()).mul_(lengths)

    return multiply


def _fbgemm_sums(rounded: torch.Tensor, scales: torch.Tensor) -> Sums:
    zeros = torch.zeros(len(rounded), dtype=torch.long)
    with warnings.catch_warnings():
        # torch will drop such tensors: then this form is missing, and another is used.
        warnings.simplefilter("ignore", UserWarning)
        weight = _torch._make_per_channel_quantized_tensor(rounded, scales.double(), zeros, 0)
    laid_out = _quantized.linear_prepack(weight, None)
    multiply = _quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    return lambda x: multiply(x, 1.0, 128, laid_out)


def _onednn_sums(rounded: torch.Tensor, scales: torch.Tensor) -> Sums:
    laid_out = _onednn.qlinear_prepack(rounded, None)
    zeros = torch.zeros(len(rounded), dtype=torch.long)

    def sums(x: torch.Tensor) -> torch.Tensor:
        # Unsigned, offset by 128: signed inputs have no fast kernel without AMX.
        return _onednn.qlinear_pointwise(
            *((x + 128.0).to(torch.uint8), 1.0, 128, laid_out, scales, zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )

    return sums


def _plain_sums(rounded: torch.Tensor, scales: torch.Tensor) -> Sums:
    turned = rounded.t()

    def sums(x: torch.Tensor) -> torch.Tensor:
        out = _torch._int_mm(x.flatten(0, -2).to(torch.int8), turned)
        return out.view(*x.shape[:-1], -1).float() * scales

    return sums


def direct(weight: torch.Tensor) -> Product:
    """torch's own product, for devices where independent rows cost more than they are worth."""
    return lambda x: functional.linear(x, weight)


ProductForm = Callable[[torch.Tensor], Product]
"""Makes a product from a weight in its precision; for int8, from a float32 weight."""
FLOATS: dict[str, ProductForm] = {
    "fours": functools.partial(packed, at_least=4),
    "fours_in_parts": functools.partial(packed_in_parts, at_least=4),
    "packed": packed,
    "packed_in_parts": packed_in_parts,
    "packed_groups": packed_groups,
    "row_by_row": row_by_row,
    "grouped": grouped,
}
FORMS: dict[str, dict[str, ProductForm]] = {
    "fp32": FLOATS,
    "fp16": {"halves": halves} | FLOATS,
    "bf16": FLOATS,
    "int8": {
        "fbgemm": functools.partial(integers_by, _fbgemm_sums),
        "onednn": functools.partial(integers_by, _onednn_sums),
        "plain": functools.partial(integers_by, _plain_sums),
    },
}
"""Forms for CPUs by precision, the likeliest first; the last one always works."""
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Bytes per weight."""


@torch.inference_mode()
def rows_are_independent(product: Product, n_inputs: int) -> bool:
    """Whether rows are bit-identical alone and in a batch."""
    rows = torch.randn(max(TRIED), n_inputs, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([product(row[None]) for row in rows])
    return all(torch.equal(product(rows[:n]), alone[:n]) for n in TRIED)


@torch.inference_mode()
def largest_add_up(form: ProductForm, n_inputs: int) -> bool:
    """Whether the largest int8 weights and rows give the right sums: on processors without
    instructions for it, kernels add pairs in 16 bits, which these overflow."""
    drawn = torch.Generator().manual_seed(0)
    weight, rows = (
        torch.randint(0, 2, (n, n_inputs), generator=drawn).mul_(2).sub_(1).float() for n in (32, 4)
    )
    weight[0] = rows[0] = 1.0
    return torch.allclose(form(weight)(rows), rows @ weight.T, rtol=1e-4, atol=1e-2)


def usable_forms(weight: torch.Tensor, precision: str) -> list[str]:
    """Names of the forms that work on this processor and keep rows independent, for a weight."""
    found, n_inputs = [], weight.shape[1]
    for name, form in FORMS[precision].items():
        try:
            is_right = precision != "int8" or largest_add_up(form, n_inputs)
            if is_right and rows_are_independent(form(weight), n_inputs):
                found.append(name)
        except (AttributeError, RuntimeError, NotImplementedError):
            # This build of torch lacks the library, the library has no such kernel for this
            # processor, or the form isn't for this size.
            continue
    return found or [list(FORMS[precision])[-1]]


def product_of(weight: torch.Tensor, precision: str) -> Product:
    """The product of a weight `[out, in]` in a precision, in the form that this processor uses for
    weights of its size: the fastest as timed with the rows of one guided clip and of four, and the
    same for any number of rows."""
    if precision != "int8":
        weight = weight.to(DTYPES[precision])
    forms = FORMS[precision]
    # If the list of forms changes, the choice is made again.
    what = f"product of {precision} {tuple(weight.shape)}, {' '.join(forms)}"
    name = kept_choice(
        what,
        list(forms),
        lambda names: _fastest_form(weight, precision, names),
        lambda: usable_forms(weight, precision),
    )
    return forms[name](weight)


@torch.inference_mode()
def _fastest_form(weight: torch.Tensor, precision: str, names: Sequence[str]) -> str:
    # Several copies exceed the processor's cache, as a whole model will.
    n_copies = max(1, min(MOST_COPIES, COLD_BYTES // (BYTES[precision] * weight.numel())))
    copies = [weight.clone() for _ in range(n_copies)]
    drawn = torch.Generator().manual_seed(0)
    rows = [torch.randn(n, weight.shape[1], generator=drawn) for n in (2, 8)]
    products = {name: [FORMS[precision][name](copy) for copy in copies] for name in names}

    def run(name: str) -> None:
        for product in products[name]:
            for some in rows:
                product(some)

    return fastest({name: functools.partial(run, name) for name in names})
