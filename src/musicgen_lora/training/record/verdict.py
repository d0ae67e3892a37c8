"""A one-sentence verdict on a run from its losses."""

from __future__ import annotations

from collections.abc import Sequence

LEAST_GAIN = 0.01
"""Share of the base's loss by which the held-out loss must fall to be called learning."""
LEAST_HARM = 0.0005
"""Share by which the best one must be above the base's to be called worse, not unchanged."""
GIVEN_BACK = 0.25
"""Share of the gain that is lost again after the best validation when a run overfitted."""


def verdict(base_loss: float, held_out: Sequence[tuple[int, float]]) -> str:
    """Whether a run learned, overfitted or did nothing, by its held-out losses alone.

    The gain is the base's loss minus the best one. A gain below 1 % of the base's loss counts as
    nothing, or as harm if the last loss is 1 % above the base's; if even the best one is above it,
    more of the same is no advice. With a larger gain, a run that lost a quarter of it after its
    best validation overfitted; otherwise it learned, and was still learning if the last of at least
    three validations is the best and fell by a tenth of the gain.

    Args:
        base_loss: of the base on the held-out clips, in nats per token.
        held_out: `(step, loss)` of each validation, in order; empty if nothing is held out.
    """
    if not held_out:
        return "Nothing was held out, so no figure tells whether it learned: listen to it."
    best_step, best = min(held_out, key=lambda point: point[1])
    last = held_out[-1][1]
    gain = base_loss - best
    chosen = f", the best of {len(held_out)} validations" if len(held_out) > 1 else ""
    change = f"{-100 * gain / base_loss:+.1f} %{chosen}"
    figures = f"held-out loss {base_loss:.4f} -> {best:.4f} ({change})"
    if gain < LEAST_GAIN * base_loss:
        if last > (1 + LEAST_GAIN) * base_loss:
            end = f", and {last:.4f} at the end" if last > best else ""
            return f"It made things worse: {figures}{end}. Lower the learning rate, or add data."
        if gain < -LEAST_HARM * base_loss:
            return (
                f"It improved nothing: {figures}; no validation was better than the base. Lower "
                "the learning rate, or add data."
            )
        return f"It did next to nothing: {figures}. Train longer or raise the learning rate."
    if last - best > GIVEN_BACK * gain:
        return (
            f"It learned, then overfitted: {figures} at step {best_step}, and {last:.4f} at the "
            f"end. best_model is from step {best_step}; fewer epochs or more data would help."
        )
    if len(held_out) > 2 and held_out[-2][1] - last > 0.1 * gain and last == best:
        return f"It learned and was still learning: {figures}. More epochs may help."
    return f"It learned: {figures} at step {best_step}."
