"""Do the models use captions, and do the training captions match their clips?

The loss alone hardly shows it: a clip's codes mostly follow from the codes before them, so an
adapter trained on shuffled captions lowers the held-out loss almost as much as one trained on the
right ones. So the same windows are scored again with captions of other clips: how much the right
caption lowers the loss is the effect of captions. With shuffled captions there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from musicgen_lora.console import OnStep
from musicgen_lora.dataset.batches import Window
from musicgen_lora.dataset.melodies import open_melodies
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.tokens import TokenStore
from musicgen_lora.evaluation.decisions.statistics import FEWEST_PAIRS, paired_bootstrap
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.evaluation.losses.held_out_loss import score_windows
from musicgen_lora.evaluation.measures.power import detectable_difference
from musicgen_lora.evaluation.performers import ADAPTER, BASE, Performer, Sides
from musicgen_lora.evaluation.trained_clips import TrainedClips
from musicgen_lora.model.base_model import BaseModel

WINDOW_S = 5.0
"""Length of the window that is scored, from the beginning of each clip: more clips say more than
longer ones."""
N_EXCHANGED = 2
"""Number of other clips' captions that each clip is scored with."""
MAX_HELD_OUT, MAX_TRAINED = 16, 24
FEWEST = 4
"""Fewest clips with differing captions."""
SURE = 0.05
"""Significance level of a gain."""
STRONG = 0.01
"""Significance level for reporting that training captions don't match their clips."""
NOT_ENOUGH = f"needs {FEWEST} held-out sources whose captions differ"


def measure_captions(
    sides: Sides,
    held_out: HeldOut,
    codes: TokenStore | Sequence[np.ndarray] | None,
    trained: TrainedClips,
    *,
    batch_size: int,
    seed: int,
    on_step: OnStep = lambda done, total: None,
) -> dict[str, Any]:
    """The report's `captions`, see `judge_captions`.

    Args:
        codes: codes of the held-out clips; None if there are none.
        trained: clips that the adapter was trained on, with the captions of the dataset.
    """
    if codes is None:
        return {"computed": False, "why": held_out.why_none}
    model, longest_s = sides[BASE].model, held_out.max_duration_s
    theirs = _exchanges(_beginnings(model, held_out.clips, codes, longest_s, MAX_HELD_OUT))
    if len(theirs) < FEWEST:
        return {"computed": False, "why": NOT_ENOUGH}
    ours = []
    if trained.codes is not None:
        ours = _exchanges(_beginnings(model, trained.clips, trained.codes, longest_s, MAX_TRAINED))
    total = (1 + N_EXCHANGED) * (2 * len(theirs) + len(ours))
    done = 0

    def gains(performer: Performer, groups: Sequence[Sequence[Window]]) -> np.ndarray:
        nonlocal done
        windows = [window for group in groups for window in group]
        before = done
        sums, counts = score_windows(
            performer, windows, batch_size, lambda n, _: on_step(before + n, total)
        )
        done += len(windows)
        losses = (sums.sum(axis=2) / counts.sum(axis=2)).mean(axis=1)
        found, place = np.full((1 + N_EXCHANGED, len(groups)), np.nan), 0
        for row, group in enumerate(groups):
            found[: len(group), row] = losses[place : place + len(group)]
            place += len(group)
        return found

    return judge_captions(
        gains(sides[BASE], theirs),
        gains(sides[ADAPTER], theirs),
        gains(sides[ADAPTER], ours) if len(ours) >= FEWEST else None,
        seed=seed,
    )


def _beginnings(
    model: BaseModel,
    clips: Sequence[Clip],
    codes: TokenStore | Sequence[np.ndarray],
    longest_s: float,
    most: int,
) -> list[Window]:
    """The beginning of one clip per source, for up to `most` evenly spaced sources."""
    shortest, melodies = model.delays.shortest, open_melodies(model)
    n_frames = model.shape.frames(min(WINDOW_S, longest_s), shortest)
    firsts = {clip.source: row for row, clip in reversed(list(enumerate(clips)))}
    rows = [row for row in sorted(firsts.values()) if len(codes[row]) >= shortest]
    spots = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    windows = []
    for row in (rows[spot] for spot in spots.tolist()):
        clip, own = clips[row], codes[row][:n_frames]
        melody = None if melodies is None else melodies.window(clip, 0, len(own))
        windows.append(Window(own, clip.texts[0], clip.source, melody))
    return windows


def _exchanges(windows: Sequence[Window]) -> list[list[Window]]:
    """Each window with its own caption and with the next captions that differ from it; windows
    without such captions are left out."""
    groups = []
    for place, window in enumerate(windows):
        following = [other.caption for other in (*windows[place + 1 :], *windows[:place])]
        others = [text for text in dict.fromkeys(following) if text != window.caption]
        if others:
            exchanged = [window._replace(caption=text) for text in others[:N_EXCHANGED]]
            groups.append([window, *exchanged])
    return groups


def judge_captions(
    base: np.ndarray, adapter: np.ndarray, trained: np.ndarray | None, *, seed: int = 0
) -> dict[str, Any]:
    """The report's `captions`. `exchange` is the gain of the first of the other captions over the
    second, zero except by chance. `unlearned` means that captions significantly help the base, do
    not significantly help the adapter, and help it significantly less: the first two alone do not
    show a difference. `excess` has Welch's interval and a one-sided p-value. `flagged` means that
    training captions clearly help less than held-out ones, and not significantly: they don't match
    their clips.

    Args:
        base: `[1 + E, n]` losses of held-out clips, in nats per token, with their own captions and
            with E others; NaN where a clip has fewer.
        adapter: `[1 + E, n]`, the adapter's losses of the same clips.
        trained: `[1 + E, m]`, the adapter's losses of training clips; None if there are none.
    """
    held = {"base": _gain(base, seed), "adapter": _gain(adapter, seed)}
    on_trained = None if trained is None else _gain(trained, seed)
    excess = None if trained is None else _excess(_gains(trained), _gains(adapter))
    reads = _is_sure(held["adapter"])
    return {
        "computed": True,
        "why": "",
        "n_exchanged": N_EXCHANGED,
        "held_out": held,
        "trained": on_trained,
        "excess": excess,
        "reads": reads,
        "base_reads": _is_sure(held["base"]),
        "unlearned": _is_sure(held["base"]) and not reads and _clearly_less(adapter, base, seed),
        "flagged": on_trained is not None
        and excess is not None
        and reads
        and not _is_sure(on_trained)
        and excess["p_value"] < STRONG,
    }


def _gain(losses: np.ndarray, seed: int) -> dict[str, Any]:
    own, others = losses[0], np.nanmean(losses[1:], axis=0)
    found = paired_bootstrap(own, others, seed=seed)
    return {
        "own": found["mean_base"],
        "exchanged": found["mean_adapter"],
        "gain": found["difference"],
        "detectable": detectable_difference(others - own),
        **{key: found[key] for key in ("n", "ci_low", "ci_high", "p_value", "note")},
        "exchange": _exchange(losses, seed),
    }


def _gains(losses: np.ndarray) -> np.ndarray:
    return np.nanmean(losses[1:], axis=0) - losses[0]


def _exchange(losses: np.ndarray, seed: int) -> dict[str, Any]:
    """The gain of one other clip's caption over the next: zero except by chance."""
    pairs = losses[1:3, np.isfinite(losses[1:3]).all(axis=0)]
    if len(pairs) < 2 or not pairs.shape[1]:
        return {"gain": None, "n": 0, "ci_low": None, "ci_high": None}
    found = paired_bootstrap(pairs[0], pairs[1], seed=seed)
    return {"gain": found["difference"], **{key: found[key] for key in ("n", "ci_low", "ci_high")}}


def _clearly_less(ours: np.ndarray, theirs: np.ndarray, seed: int) -> bool:
    """Whether captions help significantly less in `ours` than in `theirs`, on the same clips."""
    found = paired_bootstrap(_gains(theirs), _gains(ours), seed=seed)
    p_value, difference = found["p_value"], found["difference"]
    return p_value is not None and difference is not None and p_value < SURE and difference < 0.0


def _is_sure(gain: dict[str, Any]) -> bool:
    return gain["p_value"] is not None and gain["p_value"] < SURE and gain["gain"] > 0.0


def _excess(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any] | None:
    if min(len(ours), len(theirs)) < FEWEST_PAIRS or not ours.var() + theirs.var() > 0.0:
        return None
    tested: Any = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = tested.confidence_interval()
    fewer: Any = stats.ttest_ind(ours, theirs, equal_var=False, alternative="less")
    return {
        "difference": float(ours.mean() - theirs.mean()),
        "ci_low": float(low),
        "ci_high": float(high),
        "p_value": float(fewer.pvalue),
    }
