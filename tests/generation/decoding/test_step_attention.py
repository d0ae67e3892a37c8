"""Attention of a decoding step against torch's own, and the rows that it is added to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from musicgen_lora.generation.decoding import caches, choices, decoder
from musicgen_lora.generation.decoding.caches import BatchCache, BatchRows, ClipCache
from musicgen_lora.generation.decoding.places import Places

N_STEPS = 19
SHAPE = (2, 4, 8)
ROWS = ((0, 0), (0, 1), (1, 0))
"""Clip of each row, and its row of the clip."""


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [ClipCache, BatchCache])
@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("lengths", [[0, 0], [5, 5], [0, 15], [16, 3]])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_each_step_finds_what_torchs_attention_finds(
    kind, independent, lengths, dtype, near, monkeypatch
):
    """Whatever was in the memory before, with clips of one length or two,
    and where a processor has no rows that are independent."""
    monkeypatch.setattr(caches, "rows_are_independent", lambda n_heads, width, dtype: independent)
    n_layers, n_heads, width = SHAPE
    rows = BatchRows([True, False], [False, False])
    like = torch.empty(0, dtype=dtype)
    cache = kind(rows, SHAPE, max(lengths) + N_STEPS, like)
    if kind is ClipCache:
        cache._own.fill_(torch.nan)
    beginnings = [drawn(n_layers, 2, 2 - clip, n_heads, 20, width, seed=clip) for clip in (0, 1)]
    known: list[list[torch.Tensor]] = []
    for layer in range(n_layers):
        for clip, own in enumerate(beginnings):
            cache.add_beginning(layer, clip, own[layer, :, :, :, : lengths[clip]])
        of_rows = [(beginnings[clip][layer, :, row], lengths[clip]) for clip, row in ROWS]
        known.append([own[:, :, :length] for own, length in of_rows])
    cache.begin_at(lengths)
    for step in range(N_STEPS):
        for layer in range(n_layers):
            qkv = drawn(len(ROWS), 3, n_heads, width, seed=100 * step + layer)
            found = cache.attend(layer, qkv)
            for row, own in enumerate(known[layer]):
                own = known[layer][row] = torch.cat([own, qkv[row, 1:, :, None]], dim=2)
                expected = functional.scaled_dot_product_attention(qkv[row, 0][:, None], *own)
                torch.testing.assert_close(found[row], expected.flatten(), rtol=near, atol=near)
        cache.advance()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_are_heard_whatever_their_lengths(dtype: torch.dtype) -> None:
    n_layers, n_heads, width = SHAPE
    cache = ClipCache(BatchRows([False] * 3, [True] * 3), SHAPE, 4, torch.empty(0, dtype=dtype))
    texts = [tuple(drawn(2, 1, n_heads, n, width, seed=n)) for n in (3, 5, 3)]
    for layer in range(n_layers):
        for row, (keys, values) in enumerate(texts):
            cache.add_text(layer, row, (keys, values))
    cache.begin_at([0, 0, 0])
    query = drawn(3, n_heads, width)
    found = cache.attend_to_text(0, query)
    assert found.dtype == torch.float32
    for row, (keys, values) in enumerate(texts):
        expected = functional.scaled_dot_product_attention(
            query[row : row + 1, :, None], keys, values
        )
        torch.testing.assert_close(found[row], expected.flatten(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_the_cache_is_in_bf16_where_that_is_faster_and_rows_stay_apart(
    independent: bool, faster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(caches, "rows_are_independent", lambda *shape: independent)
    monkeypatch.setattr(caches, "fastest", lambda options: faster)
    expected = faster if independent else "float32"
    assert str(caches.half_where_faster(4, 8)) == f"torch.{expected}"
    # It is kept, and a seed gives the same clip on a busy day.
    monkeypatch.setattr(caches, "fastest", lambda options: "float32")
    assert str(caches.half_where_faster(4, 8)) == f"torch.{expected}"


def test_both_precisions_are_timed_on_attention_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen: list[torch.dtype] = []
    plain = caches.attention

    def watched(query, keys, values, mask=None):
        seen.append(keys.dtype)
        return plain(query, keys, values, mask)

    monkeypatch.setattr(caches, "attention", watched)
    # Timed here, as elsewhere in the tests it is not.
    monkeypatch.setattr(caches, "fastest", choices.fastest)
    monkeypatch.setattr(caches, "rows_are_independent", lambda *shape: True)
    caches.half_where_faster(4, 8)
    assert set(seen) == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("n", [1, 5, 1024])
def test_gelu_is_torchs(n: int) -> None:
    x = 4.0 * drawn(3, n)
    given = x.clone()
    torch.testing.assert_close(decoder._gelu(x), functional.gelu(x))
    assert torch.equal(x, given)


@pytest.mark.parametrize("rows", [[], [0], [2], [0, 1, 2, 3, 4], [0, 2, 4], [1, 3], [0, 1, 3]])
def test_places_are_looked_at_and_added_to(rows: list[int]) -> None:
    x, more = drawn(5, 3), drawn(len(rows), 3, seed=1)
    places = Places(rows, 5, torch.device("cpu"))
    assert places.count == len(rows)
    torch.testing.assert_close(places.of(x), x[torch.tensor(rows, dtype=torch.long)])
    expected = x.clone()
    for place, row in enumerate(rows):
        expected[row] += more[place]
    places.add(x, more)
    torch.testing.assert_close(x, expected)
