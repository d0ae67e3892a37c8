"""The results in plain sentences. Each gives its n, and none claims more than the figures show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from musicgen_lora.evaluation.decisions.statistics import FEWEST_FOR_SURE, PairedResult
from musicgen_lora.evaluation.report.document import Missing, Report
from musicgen_lora.evaluation.sound.comparison import BY_NAME, SHOWN, Descriptor, shown_value
from musicgen_lora.language.translate import joined, word
from musicgen_lora.plural import count

TOLD = ("band_20_60_share", "hat_onset_rate_hz", "roll_density", "kick_onset_rate_hz")
"""Descriptors that make an 808 beat, reported in sentences; the others are in the table."""
STEADINESS = "tempo_confidence"
NO_BEAT = 0.2
"""Steadiness below which there is no beat to speak of: in 10 s, noise and held notes reach
0.04, random hits 0.16; the example beats have 0.49 to 0.84."""
FAR = 0.05
"""Significance level for reporting the largest difference, divided by the number of descriptors."""
_PARTS = (
    ("loss", "Held-out loss"),
    ("reference", "Descriptors of held-out audio"),
    ("descriptor_distance", "Descriptor distance"),
    ("distances", "Distances between sets of clips"),
    ("forgetting", "Loss on other styles (forgetting)"),
    ("off_style", "Prompts in other styles"),
    ("overfitting", "Loss on training clips"),
    ("memorisation.continuations", "Continuations of training clips"),
    ("memorisation.nearest", "Nearest training clips"),
    ("captions", "Effect of captions"),
    ("obedience", "Prompt adherence"),
    ("text_agreement", "Agreement with the prompts"),
)
MOSTLY_SILENT = 0.5
OFTEN_CLIPPED = 0.001


def list_not_computed(report: Report) -> list[Missing]:
    """List what a full evaluation would have, and why this one doesn't."""
    missing: list[Missing] = []
    for name, what in _PARTS:
        part: Any = report
        for step in name.split("."):
            part = part[step]
        if not part["computed"]:
            missing.append({"what": what, "why": part["why"]})
    if not report["generation"]["compared"]:
        missing.append({"what": "Generated audio, base vs. adapter", "why": "needs --compare"})
    return missing


def by_reason(missing: Iterable[Missing]) -> list[dict[str, str]]:
    """What was not computed, in the user's language, grouped by reason: `whats` joined, `why`."""
    whats: dict[str, list[str]] = {}
    for item in missing:
        whats.setdefault(item["why"], []).append(word(item["what"]))
    return [{"whats": joined(names, "; "), "why": why} for why, names in whats.items()]


def loss_sentences(loss: Mapping[str, Any], held_out: Mapping[str, Any]) -> list[str]:
    """By how much the held-out loss changed, and any doubt about its clips."""
    if not loss["computed"]:
        return [f"Held-out loss: not computed: {loss['why']}."]
    sentences = [loss_sentence(loss["mean"])]
    n_heard, n_clips = held_out["n_heard"], held_out["n_clips"]
    if n_heard:
        sentences.append(
            f"Warning: {n_heard} of {count(n_clips, 'measured clip')} "
            f"{'is' if n_heard == 1 else 'are'} in the dataset that the adapter was trained on and "
            f"{'was' if n_heard == 1 else 'were'} not held out: a lower loss on "
            f"{'it' if n_heard == 1 else 'them'} proves nothing. Measure on clips that training "
            "never heard, with --data_dir."
        )
    if not held_out["is_unseen"]:
        sentences.append(held_out["origin"])
    elif held_out["chose_best"]:
        n = f"n = {count(loss['mean']['n'], 'source')}"
        sentences.append(
            "Training picked best_model by its loss on these same clips, which favours it: with no "
            "effect at all, the best of five validations is called better in 4 to 12 % of runs "
            f"instead of 2.5 % ({n}). Clips that training never used tell more: --data_dir."
        )
    return sentences


def forgetting_sentences(forgetting: Mapping[str, Any]) -> list[str]:
    """By how much the loss on other styles changed."""
    if not forgetting["computed"]:
        return []
    mean = forgetting["mean"]
    n = f"n = {count(mean['n'], 'source')}{_indicative(mean)}"
    if mean["relative"] is None:
        return [f"The loss on other styles is not a positive number; something is broken ({n})."]
    change = f"{mean['relative'] * 100:+z.1f} %"
    if mean["relative_ci_low"] is None:
        return [f"Forgetting: the loss on other styles changed by {change} ({n})."]
    low, high = (mean[f"relative_ci_{end}"] * 100 for end in ("low", "high"))
    return [
        f"Forgetting: the loss on other styles changed by {change} "
        f"(95 % CI {low:+z.1f} to {high:+z.1f} %, {n})."
    ]


def loss_sentence(mean: PairedResult) -> str:
    """The headline: by how much the held-out loss changed, and how sure that is."""
    relative, low, high = mean["relative"], mean["relative_ci_low"], mean["relative_ci_high"]
    n = f"n = {count(mean['n'], 'source')}{_indicative(mean)}"
    if relative is None:
        return f"The held-out loss is not a positive number; something is broken ({n})."
    size = f"{abs(relative) * 100:.1f} %"
    if low is None or high is None:
        if size == "0.0 %":
            return f"The adapter left the held-out loss as it was ({n}: too few for an interval)."
        verb = "lowered" if relative < 0 else "raised"
        return f"The adapter {verb} the held-out loss by {size} ({n}: too few for an interval)."
    if low <= 0.0 <= high:
        return (
            f"No clear change in the held-out loss: {relative * 100:+z.1f} %, and the 95 % CI, "
            f"{low * 100:+z.1f} to {high * 100:+z.1f} %, includes zero ({n})."
        )
    if size == "0.0 %":
        return (
            f"The adapter left the held-out loss as it was: {relative * 100:+z.1f} %, 95 % CI "
            f"{low * 100:+z.1f} to {high * 100:+z.1f} % ({n})."
        )
    near, far = sorted((abs(low), abs(high)))
    interval = f"95 % CI {near * 100:.1f} to {far * 100:.1f} %"
    if relative > 0.0:
        return f"Warning: the adapter raised the held-out loss by {size} ({interval}, {n})."
    return f"The adapter lowered the held-out loss by {size} ({interval}, {n})."


def _indicative(mean: PairedResult) -> str:
    """The text after the n of an interval that may be too narrow."""
    if mean["doubt"] == "few":
        return (
            f"; indicative only: with fewer than {FEWEST_FOR_SURE} sources the interval may be too "
            "narrow"
        )
    if mean["doubt"] == "skewed":
        return "; indicative only: a few sources differ far more than the rest"
    return ""


def generation_sentences(generation: Mapping[str, Any]) -> list[str]:
    """Clips that are identical with and without the adapter, silent, or beyond full scale."""
    clips = generation["clips"]
    n = len(clips)
    sentences = []
    if generation["compared"]:
        same = sum(clip["identical"] for clip in clips)
        if same:
            sentences.append(
                f"Warning: {same} of {count(n, 'pair')} of generated clips "
                f"{'is' if same == 1 else 'are'} identical token by token: the adapter has no "
                "effect there."
            )
    clipped = {"base": 0, "adapter": 0}
    for side in clipped:
        facts = [clip[side]["descriptors"] for clip in clips if clip[side] is not None]
        silent = sum((f["silence_share"] or 0.0) > MOSTLY_SILENT for f in facts)
        clipped[side] = sum((f["clipped_share"] or 0.0) > OFTEN_CLIPPED for f in facts)
        if silent:
            sentences.append(
                f"Warning: {silent} of {count(n, 'clip')} of the {side} "
                f"{'is' if silent == 1 else 'are'} silent for more than half of "
                f"{'its' if silent == 1 else 'their'} length."
            )
    return [*sentences, *_clipping_sentences(clipped, n, generation["compared"])]


def _clipping_sentences(clipped: Mapping[str, int], n: int, is_compared: bool) -> list[str]:
    """How many of n clips clip. It warns only if the adapter clips more often: as much clipping in
    the base is not the adapter's fault, and the files are turned down anyway."""
    side = "adapter" if clipped["adapter"] > clipped["base"] else "base"
    own = clipped[side]
    exceed = (
        f"{'exceed' if own != 1 else 'exceeds'} full scale in more than 0.1 % of "
        f"{'its' if own == 1 else 'their'} samples and {'was' if own == 1 else 'were'} turned down"
    )
    if side == "adapter":
        beside = f" (base: {clipped['base']})" if is_compared else ""
        return [f"Warning: {own} of {count(n, 'clip')} of the adapter {exceed}{beside}."]
    if own:
        return [
            f"{own} of {count(n, 'clip')} of the base {exceed} (adapter: {clipped['adapter']})."
        ]
    return []


def worst_sentences(rows: Sequence[Mapping[str, Any]], reference: Mapping[str, Any]) -> list[str]:
    """What a lower loss may hide: a missing beat, and the largest difference from the held-out
    audio."""
    by_name = {row["name"]: row for row in rows}
    sentences = []
    steadiness = by_name[STEADINESS]["adapter"]["mean"]
    has_no_beat = steadiness is not None and steadiness < NO_BEAT
    if has_no_beat:
        told = _side_by_side(BY_NAME[STEADINESS], by_name[STEADINESS], reference)
        sentences.append(f"Warning: the clips have no steady beat. {told}")
    apart = [row for row in rows if row["apart"]]
    far = [row for row in apart if row["apart"]["p_value"] < FAR / len(rows)]
    worst = max(far, key=lambda row: row["apart"]["size"], default=None)
    if worst is not None and not (has_no_beat and worst["name"] == STEADINESS):
        told = _side_by_side(BY_NAME[worst["name"]], worst, reference)
        sentences.append(f"Largest difference from the held-out audio: {told}")
    return sentences


def _side_by_side(shown: Descriptor, row: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """A sentence with a descriptor's means and their n."""
    unit = shown.unit and f" {shown.unit}"
    told, counts = [], []
    for side, noun in (("adapter", "clip"), ("base", "clip"), ("reference", "source")):
        summary = row[side]
        if summary is None or summary["mean"] is None:
            continue
        value = f"{shown_value(shown, summary['mean'])}{unit}"
        if side == "reference":
            told.append(f"{value} in the held-out audio")
        else:
            told.append(f"{value} with the {side}")
        counts.append(count(summary["n"], noun))
    return f"{shown.label}: {', '.join(told)} (n = {' / '.join(counts)})."


def descriptor_sentences(
    rows: Sequence[Mapping[str, Any]], reference: Mapping[str, Any]
) -> list[str]:
    """The descriptors of an 808 beat with the base, with the adapter and in the held-out audio."""
    sentences = []
    by_name = {row["name"]: row for row in rows}
    for shown in SHOWN:
        row = by_name[shown.name]
        if shown.name in TOLD and row["paired"] is not None and row["paired"]["n"]:
            sentences.append(_moved_sentence(shown, row, reference))
    return sentences


def _moved_sentence(shown: Descriptor, row: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    paired, moved = row["paired"], row["moved"]
    unit = shown.unit and f" {shown.unit}"
    before, after = (shown_value(shown, paired[f"mean_{side}"]) for side in ("base", "adapter"))
    prompts = count(paired["n"], "prompt")
    sides = f"{before}{unit} with the base, {after}{unit} with the adapter"
    if not reference["computed"] or row["reference"]["mean"] is None:
        return f"{shown.label}: {sides} (n = {prompts}; no held-out audio to compare with)."
    target = shown_value(shown, row["reference"]["mean"])
    n = f"n = {prompts}, {count(row['reference']['n'], 'held-out source')}"
    three = f"{shown.label}: {sides}, {target}{unit} in the held-out audio"
    if moved["share"] is None:
        return f"{three} ({n}; {moved['note']})."
    return f"{three}: {moved_words(moved)} ({n})."


def moved_words(moved: Mapping[str, Any]) -> str:
    """The share of the way in words, with its interval."""
    # As it is shown: nothing moves away by 0 %, or overshoots at 100 %.
    share = round(moved["share"], 2)
    if share < 0.0:
        words = f"moved away from it by {-share * 100:.0f} % of the distance"
    elif share > 1.0:
        words = f"overshot it, at {share * 100:.0f} % of the way"
    else:
        words = f"moved {share * 100:z.0f} % of the way"
    low, high = (f"{moved[end] * 100:z.0f}" for end in ("ci_low", "ci_high"))
    return f"{words}, 95 % confidence interval {low} to {high} %"
