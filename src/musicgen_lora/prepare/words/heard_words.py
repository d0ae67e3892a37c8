"""Words for what is measured in a clip, so that files without useful names or tags don't all get
the same caption. Only words that the figures clearly support are used.

The thresholds are set so that hardly any 808 beat with known parts (`beats.beats808`) gets a wrong
word; many that deserve a word get none.
"""

from __future__ import annotations

from musicgen_lora.prepare.hearing.records import Segment

SURE_TEMPO = 0.7
"""Counts per bar need a sure tempo."""
ROLLING, ROLLING_HATS = 0.25, 8.0
"""Share of the hi-hats that follow another within 90 ms, and hi-hats per bar."""
BUSY_HATS, BUSY_KICKS = 17.0, 3.0
SPARSE_HATS, SPARSE_KICKS = 8.5, 2.8
FEWEST_KICKS = 0.5
"""Kicks per bar; with fewer there is no beat that could be sparse."""
FEWEST_NOTES = 8
"""Least number of notes of a bass that is worth a word: toms have fewer."""
GLIDES, GLIDING_SHARE = 4, 0.2
SUB_SHARE, GLIDING_SUB_SHARE = 0.75, 0.4
"""Share of the power between 20 and 60 Hz. A gliding 808 reaches the second; toms and played
basses, whose notes also seem to glide, don't."""


def heard_words(segment: Segment, sure_tempo: float) -> tuple[str, ...]:
    """Words for what the drums and the bass of a record's segment clearly do."""
    words = []
    if sure_tempo >= SURE_TEMPO:
        hats, kicks = segment.hats_per_bar or 0.0, segment.kicks_per_bar or 0.0
        if hats >= BUSY_HATS and kicks >= BUSY_KICKS:
            words.append("busy")
        elif hats <= SPARSE_HATS and FEWEST_KICKS <= kicks <= SPARSE_KICKS:
            words.append("sparse")
        if (segment.roll_density or 0.0) >= ROLLING and hats >= ROLLING_HATS:
            words.append("rolling hi-hats")
    notes, glides = segment.bass_notes or 0.0, segment.bass_glides or 0.0
    sub_share = segment.band_20_60_share or 0.0
    is_gliding = notes >= FEWEST_NOTES and glides >= max(GLIDES, GLIDING_SHARE * notes)
    if is_gliding and sub_share >= GLIDING_SUB_SHARE:
        words.append("gliding bass")
    if sub_share >= SUB_SHARE and notes >= FEWEST_NOTES:
        words.append("deep sub bass")
    return tuple(words)
