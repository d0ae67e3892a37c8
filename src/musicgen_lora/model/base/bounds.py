"""Bounds for the values of an untrusted config, wide enough for every existing MusicGen.

transformers and PEFT allocate whatever a config asks for before they look at the weights.
"""

from __future__ import annotations

from musicgen_lora.formats.kinds import integer, real, text

LAYERS = integer(1, 512)
LAYER = integer(0, 100_000)
WIDTH = integer(1, 1 << 16)
"""Width of a layer. The rank of an adapter has the same bound, since it can't be larger."""
WORDS = integer(1, 1 << 20)
"""Number of entries in a vocabulary, or of positions."""
CODES = integer(2, 1 << 16)
"""Number of entries in a codebook; codes are stored in 16 bits."""
CHANNELS = integer(1, 2)
KERNEL = integer(1, 1024)
SAMPLE_RATE = integer(4_000, 384_000)
"""Sample rate in Hz."""
PITCH_CLASSES = integer(1, 128)
DURATION_S = real(0.001, 3600.0)
NAME = text(500)
EXPRESSION = text(100_000)
"""A regular expression, which may list every layer of a model."""
SCALE = real(0.0, 1e9)
SHARE = real(0.0, 1.0)
