"""`python -m musicgen_lora.training.packed`."""

from __future__ import annotations

import sys

from musicgen_lora.training.packed.train import main

sys.exit(main())
