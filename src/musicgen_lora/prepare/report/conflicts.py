"""Finds where a file's name, its metadata and its sound contradict each other, for the user to
decide.

A caption can follow only one of them, and a wrong tempo teaches a wrong tempo.
"""

from __future__ import annotations

from collections.abc import Sequence

from musicgen_lora.listening.pitch.key_names import key_distance
from musicgen_lora.prepare.hearing.analyse import measured_facts, tempo_confidence
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.reading.inputs import Input
from musicgen_lora.prepare.reading.remarks import CONTRADICTED, HALVED, Remarks
from musicgen_lora.prepare.words.captions import MIN_CONFIDENCE
from musicgen_lora.prepare.words.facts import Facts, merge_facts
from musicgen_lora.prepare.words.genres import in_sequencer_tempo

SAME_TEMPO = 0.03
"""Tempi this close count as the same; so do half and double."""
SURE_KEY = 0.8
"""Key detection is less reliable than tempo detection: it is often a fifth off."""


def say_conflicts(file: Input, record: Analysis, remarks: Remarks) -> None:
    """Reports where a file's written facts contradict each other or its sound, what the captions
    say in that case, and where its tempo was taken for half the sequencer's.
    """
    stated = [facts for facts in file.stated if facts.part is None]
    written = [*stated, record.tags, *file.named]
    measured = measured_facts(record.segments[0])
    merged = merge_facts([*written, measured])
    said = in_sequencer_tempo(merged)
    if said.bpm != merged.bpm and said.sure("bpm") >= MIN_CONFIDENCE:
        remarks.add(HALVED, f"{file.name}: {merged.bpm:g}, written as {said.bpm:g}")
    tempi = {f"{f.bpm:g}": w for f, w in _witnesses(stated, written, "bpm") if f.bpm is not None}
    heard = _heard_tempi(record)
    clash = any(not _agree(float(a), float(b)) for a in tempi for b in tempi)
    clash |= any(not any(_agree(float(tempo), h) for h in heard) for tempo in tempi if heard)
    if clash:
        listed = [f"{tempo} BPM (from {witness})" for tempo, witness in tempi.items()]
        listed += [f"{heard[0]:g} BPM heard"] if heard else []
        use = f"{said.bpm:g}" if said.bpm and said.sure("bpm") >= MIN_CONFIDENCE else "none"
        remarks.add(CONTRADICTED, f"{file.name}: {', '.join(listed)}; captions say {use}")
    keys = {f.key: w for f, w in _witnesses(stated, written, "key") if f.key is not None}
    heard_key = measured.key if measured.sure("key") >= SURE_KEY else None
    clash = any(key_distance(a, b) is None for a in keys for b in keys)
    clash |= any(key_distance(key, heard_key) is None for key in keys if heard_key)
    if clash:
        listed = [f"{key} (from {witness})" for key, witness in keys.items()]
        listed += [f"{heard_key} heard"] if heard_key else []
        use = said.key if said.key and said.sure("key") >= MIN_CONFIDENCE else "none"
        remarks.add(CONTRADICTED, f"{file.name}: {', '.join(listed)}; captions say {use}")


def _witnesses(
    stated: Sequence[Facts], written: Sequence[Facts], name: str
) -> list[tuple[Facts, str]]:
    """The facts that have a field, and what to call their source. Where the metadata has the field,
    only the metadata counts: somebody decided it."""
    decided = [(facts, "the metadata") for facts in stated if getattr(facts, name) is not None]
    return decided or [(facts, facts.sources.get(name, "its tags")) for facts in written]


def _heard_tempi(record: Analysis) -> list[float]:
    """The tempi of a file that are certain enough, rounded to a tenth."""
    found: list[float] = []
    for segment in record.segments:
        for part in (segment, *segment.stretches):
            sure = tempo_confidence(part.tempo_confidence, part.loop_bars, part.duration_s)
            if part.bpm is not None and sure >= MIN_CONFIDENCE:
                found.append(round(part.bpm, 1))
    return found


def _agree(a: float, b: float) -> bool:
    return any(abs(factor * a / b - 1.0) <= SAME_TEMPO for factor in (0.5, 1.0, 2.0))
