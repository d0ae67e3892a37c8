"""How the embedded base model is made. Loaded before any of its modules, so before torch."""

import os

from musicgen_lora.runtime.threads import bounded_spinning

os.environ.update(bounded_spinning())
