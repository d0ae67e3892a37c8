"""The format that keeps a recording's samples where new music joins them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from musicgen_lora.audio.stream import AudioStream
from musicgen_lora.config.kinds import AskedFormat, SoundFormat

BITS: dict[SoundFormat, int] = {"wav": 16, "wav24": 24, "flac": 24, "wav_float": 32}
"""Of the lossless formats that are written."""
CODED = {
    **dict.fromkeys(("PCM_S8", "PCM_U8", "PCM_16", "ALAC_16"), 16),
    **dict.fromkeys(("PCM_24", "ALAC_20", "ALAC_24"), 24),
    **dict.fromkeys(("PCM_32", "ALAC_32", "FLOAT", "DOUBLE"), 32),
}
"""Bits that hold the samples of libsndfile's subtypes, as far as any format here does."""
TOO_FINE = ("PCM_32", "ALAC_32", "DOUBLE")


@dataclass(frozen=True)
class OwnFormat:
    """How a recording is coded.

    Args:
        container: libsndfile's name of its format.
        subtype: its name of how samples are coded.
    """

    path: Path
    container: str
    subtype: str

    @classmethod
    def of(cls, path: Path) -> OwnFormat:
        """Reads a file's header.

        Raises:
            UserError: unreadable.
        """
        with AudioStream(path) as stream:
            return cls(path, stream.container, stream.subtype)

    @property
    def n_bits(self) -> int:
        """Bits that hold its samples; those of a lossy one are no finer than 16."""
        return CODED.get(self.subtype, 16)

    @property
    def kept_by(self) -> SoundFormat:
        """The format that keeps its samples, as far as there is one."""
        if self.container == "FLAC":
            return "flac"
        kinds: list[SoundFormat] = ["wav", "wav24", "wav_float"]
        return next(kind for kind in kinds if BITS[kind] == self.n_bits)

    def lost_in(self, asked: AskedFormat) -> str:
        """Says what a format loses; empty if nothing, or if a lossy one was asked for."""
        if asked != "auto":
            if BITS.get(asked, 32) >= self.n_bits:
                return ""
            return (
                f"--format {asked}: rounds the samples of {self.path}, which have {self.n_bits} "
                f"bits, to {BITS[asked]}; leave it out to keep them."
            )
        if self.subtype in TOO_FINE:
            return (
                f"{self.path}: is written in 32-bit float, the finest here; its samples "
                f"({self.subtype}) are rounded to that."
            )
        if self.subtype not in CODED:
            return (
                f"{self.path}: is written as 16-bit WAV; its own coding ({self.subtype}) would "
                "lose more of it. --format chooses another."
            )
        return ""
