"""Loaded first by the server that forks our processes. It turns garbage collection off while the
server loads the rest and later; each forked process collects only what it makes itself, since a
pass over everything that the server has loaded would copy the server's memory into it.
"""

import gc
import os

gc.disable()
os.register_at_fork(before=gc.freeze, after_in_child=gc.enable)
