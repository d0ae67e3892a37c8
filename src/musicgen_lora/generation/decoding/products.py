"""A matrix product for the few rows of a decoding step, in fp32, fp16, bf16 or with int8 weights.

On a CPU each row comes out the same, to the bit, however many others it is multiplied with: a clip
must not depend on its batch. The kernels that torch takes for `x @ W.T` add up in another order for
each number of rows. oneDNN's on weights that were laid out for it beforehand don't, up to a
thousand inputs, nor do FBGEMM's for fp16; sums of integers have no order. Where a processor's
libraries do not keep to that (`rows_are_independent` tries it on the weights themselves), rows are
multiplied in groups of a fixed size. Among the forms that keep to it the fastest is measured, once:
see `choices`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from musicgen_lora.generation.decoding.choices import fastest, kept_choice, recalled
from musicgen_lora.runtime.precision import DTYPES

Product = Callable[[torch.Tensor], torch.Tensor]
"""`[R, in]` to `[R, out]`, both float32 on a CPU; or a sequence of one clip, `[r, P, in]`."""
GROUP = 8
"""Rows of a product of fixed size: four guided clips, the default batch."""
PART = 1024
"""Inputs that oneDNN adds up in one go; more it divides by the number of rows."""
WIDE = 512
"""Inputs from which weights are read from memory."""
TRIED = (1, 2, 3, 4, 6, 8, 16, 33)
"""Numbers of rows at which a product is compared with that of each row alone."""
COLD_BYTES = 64 << 20
"""Size of the weights that forms are timed on, as far as `MOST_COPIES` of one come to it."""
MOST_COPIES = 16
_torch: Any = torch
_mkldnn: Any = torch.ops.mkldnn
_onednn: Any = torch.ops.onednn
_quantized: Any = torch.ops.quantized


def packed(weight: torch.Tensor, at_least: int = 1) -> Product:
    """By oneDNN, in the weight's precision.

    Args:
        weight: `[out, in]`.
        at_least: rows to multiply; fewer are filled up. Its kernel for two rows waits for its own
            sums, and reads weights from memory at two thirds of the rate of that for four.

    Raises:
        NotImplementedError: rows would be filled up for weights so small that a processor keeps the
            model's in its cache, where that is no faster.
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
    """As `packed`, for more inputs than oneDNN adds up in one order: by parts of them.

    Raises:
        NotImplementedError: there is one part, which `packed` is for.
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
    """Rows `[R, in]`, and zeros where they are fewer than n; a sequence as it is."""
    return functional.pad(x, (0, 0, 0, n - len(x))) if x.dim() == 2 and len(x) < n else x


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


def halves(weight: torch.Tensor) -> Product:
    """By FBGEMM, with fp16 weights; rows and sums stay in fp32."""
    laid_out = _quantized.linear_prepack_fp16(weight.float(), None)
    multiply = _quantized.linear_dynamic_fp16
    return lambda x: multiply(x, laid_out)


Sums = Callable[[torch.Tensor], torch.Tensor]
"""Of rows of whole numbers from -127 to 127 and 8-bit weights; each sum times its output's scale.
Float32 on both sides."""


def integers_by(
    lay_out: Callable[[torch.Tensor, torch.Tensor], Sums], weight: torch.Tensor
) -> Product:
    """With 8-bit weights, a scale for each output, and 8-bit rows, a scale for each row.

    Args:
        lay_out: makes of rounded weights `[out, in]` int8 and scales `[out]` what adds them up.
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
        # torch is going to give such tensors up: then this form is missing, and another is taken.
        warnings.simplefilter("ignore", UserWarning)
        weight = _torch._make_per_channel_quantized_tensor(rounded, scales.double(), zeros, 0)
    laid_out = _quantized.linear_prepack(weight, None)
    multiply = _quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    return lambda x: multiply(x, 1.0, 128, laid_out)


def _onednn_sums(rounded: torch.Tensor, scales: torch.Tensor) -> Sums:
    laid_out = _onednn.qlinear_prepack(rounded, None)
    zeros = torch.zeros(len(rounded), dtype=torch.long)

    def sums(x: torch.Tensor) -> torch.Tensor:
        # Unsigned, around 128: signed inputs have no fast kernel without AMX.
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
    """As torch does it, for devices that have more to lose by independent rows than to gain."""
    return lambda x: functional.linear(x, weight)


ProductForm = Callable[[torch.Tensor], Product]
"""Makes a product of a weight in its precision; of a float32 one for int8."""
FLOATS: dict[str, ProductForm] = {
    "fours": functools.partial(packed, at_least=4),
    "fours_in_parts": functools.partial(packed_in_parts, at_least=4),
    "packed": packed,
    "packed_in_parts": packed_in_parts,
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
"""Those of a CPU by precision, the likeliest first; the last one always works."""
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Of a weight."""


@torch.inference_mode()
def rows_are_independent(product: Product, n_inputs: int) -> bool:
    """Whether rows come out the same, to the bit, alone and among others."""
    rows = torch.randn(max(TRIED), n_inputs, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([product(row[None]) for row in rows])
    return all(torch.equal(product(rows[:n]), alone[:n]) for n in TRIED)


@torch.inference_mode()
def largest_add_up(form: ProductForm, n_inputs: int) -> bool:
    """Whether the largest weights and rows that int8 has give the right sums: kernels of processors
    without instructions for it add pairs up in 16 bits, which these are too large for."""
    drawn = torch.Generator().manual_seed(0)
    weight, rows = (
        torch.randint(0, 2, (n, n_inputs), generator=drawn).mul_(2).sub_(1).float() for n in (32, 4)
    )
    weight[0] = rows[0] = 1.0
    return torch.allclose(form(weight)(rows), rows @ weight.T, rtol=1e-4, atol=1e-2)


def usable_forms(weight: torch.Tensor, precision: str) -> list[str]:
    """Names of the forms that this processor multiplies a weight by, row for row the same."""
    found, n_inputs = [], weight.shape[1]
    for name, form in FORMS[precision].items():
        try:
            is_right = precision != "int8" or largest_add_up(form, n_inputs)
            if is_right and rows_are_independent(form(weight), n_inputs):
                found.append(name)
        except (AttributeError, RuntimeError, NotImplementedError):
            # A build of torch without this library, a processor on which it has no such kernel, or
            # a form that isn't for this size.
            continue
    return found or [list(FORMS[precision])[-1]]


def product_of(weight: torch.Tensor, precision: str) -> Product:
    """A weight `[out, in]` in a precision, in the form by which this processor multiplies weights
    of its size: the fastest by the clock, at the rows of one guided clip and of four, and the same
    for any number of rows."""
    if precision != "int8":
        weight = weight.to(DTYPES[precision])
    forms = FORMS[precision]
    # What was chosen among other forms is chosen anew.
    what = f"product of {precision} {tuple(weight.shape)}, {' '.join(forms)}"
    if what not in _chosen:
        # What was chosen before was tried before.
        _chosen[what] = recalled(what, forms) or _choose(what, weight, precision)
    return forms[_chosen[what]](weight)


_chosen: dict[str, str] = {}
"""Forms that this process chose; it keeps to them whatever becomes of the file."""


def _choose(what: str, weight: torch.Tensor, precision: str) -> str:
    names = usable_forms(weight, precision)
    return kept_choice(what, names, lambda: _fastest_form(weight, precision, names))


@torch.inference_mode()
def _fastest_form(weight: torch.Tensor, precision: str, names: list[str]) -> str:
    # Several, so that the processor's cache doesn't hold them as it will not hold a whole model.
    n_copies = max(1, min(MOST_COPIES, COLD_BYTES // (BYTES[precision] * weight.numel())))
    copies = [weight.clone() for _ in range(n_copies)]
    rows = [torch.randn(n, weight.shape[1]) for n in (2, 8)]
    products = {name: [FORMS[precision][name](copy) for copy in copies] for name in names}

    def run(name: str) -> None:
        for product in products[name]:
            for some in rows:
                product(some)

    return fastest({name: functools.partial(run, name) for name in names})
