"""Bounds of what a stranger's config may ask for, wide enough for any MusicGen that there is.

transformers and PEFT make room for whatever a config names before they look at its weights.
"""

from __future__ import annotations

from musicgen_lora.formats.kinds import integer, real, text

LAYERS = integer(1, 512)
LAYER = integer(0, 100_000)
WIDTH = integer(1, 1 << 16)
"""Of a layer; also the rank of an adapter, which is no more."""
WORDS = integer(1, 1 << 20)
"""Entries of a vocabulary, positions."""
CODES = integer(2, 1 << 16)
"""Entries of a codebook: codes are kept in 16 bits."""
CHANNELS = integer(1, 2)
KERNEL = integer(1, 1024)
RATE = integer(4_000, 384_000)
"""Samples a second."""
PITCH_CLASSES = integer(1, 128)
DURATION_S = real(0.001, 3600.0)
NAME = text(500)
EXPRESSION = text(100_000)
"""A regular expression, which may list every layer of a model."""
SCALE = real(0.0, 1e9)
SHARE = real(0.0, 1.0)
