"""Which of several copies is kept, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_datasets import RATE, beat
from prepared.analyses import analysis

from musicgen_lora.listening.duplicates import audio_fingerprint
from musicgen_lora.prepare.clips.cleaning import NearDuplicate, near_duplicates, unusable_reason

PRINTS = audio_fingerprint(beat(0, 8.0), RATE)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ({"is_lossless": False}, "lossless"),
        ({"claimed_s": 400.0}, "undamaged"),
        ({"n_decoder_faults": 3}, "undamaged"),
        ({"has_lossy_edge": True}, "lossless"),
        ({"is_lossless": False, "duration_s": 8.1, "sample_rate": 48_000}, "lossless"),
        ({"clipped_samples": 5000, "bandwidth_hz": 20_000.0}, "not clipped"),
        ({"duration_s": 6.0}, "longer"),
        ({"bandwidth_hz": 10_000.0}, "wider in bandwidth"),
        ({"sample_rate": 22_050}, "higher in sample rate"),
    ],
)
def test_the_better_copy_stays_whatever_its_name(first: dict[str, Any], why: str) -> None:
    records = {"a": analysis(**first), "b": analysis()}
    prints = dict.fromkeys(records, PRINTS)
    assert near_duplicates(records, prints, set()) == {"a": NearDuplicate("b", why)}
    backwards = dict(reversed(records.items()))
    assert near_duplicates(backwards, prints, set()) == {"a": NearDuplicate("b", why)}


def test_a_whole_track_is_not_left_out_for_a_loop_of_it() -> None:
    records = {
        "loop": analysis(duration_s=2.0),
        "track": analysis(duration_s=8.0, is_lossless=False),
    }
    loop = beat(0, 2.0)
    prints = {
        "loop": audio_fingerprint(loop, RATE),
        "track": audio_fingerprint(np.tile(loop, 4), RATE),
    }
    assert near_duplicates(records, prints, set()) == {
        "loop": NearDuplicate("track", "much longer")
    }


def test_of_equals_the_first_stays() -> None:
    records = {name: analysis() for name in "abc"}
    copies = near_duplicates(records, dict.fromkeys(records, PRINTS), set())
    assert copies == dict.fromkeys("bc", NearDuplicate("a", "just as good, and comes first"))


def test_what_is_listed_stays_and_a_better_copy_is_told_of() -> None:
    records = {
        "a": analysis(),
        "old": analysis(is_lossless=False),
        "worse": analysis(is_lossless=False),
    }
    prints = dict.fromkeys(records, PRINTS)
    copies = near_duplicates(records, prints, {"old"})
    assert copies["a"].of == copies["worse"].of == "old"
    assert "already in the dataset; this one is better" in copies["a"].why
    assert copies["worse"].why == "already in the dataset"


def test_single_hits_are_unusable_unless_they_are_kept() -> None:
    hit = analysis(is_one_shot=True)
    assert "--one_shots caption" in (unusable_reason(hit, 1.0, to_mono=False) or "")
    assert unusable_reason(hit, 1.0, to_mono=False, keeps_hits=True) is None
    assert unusable_reason(analysis(), 1.0, to_mono=False) is None
