"""What the server that forks our processes loads first: it looks for no garbage while it loads the
rest, nor later. Each process that it forks does, in what it makes itself: a pass over what the
server has loaded would copy its memory for each of them.
"""

import gc
import os

gc.disable()
os.register_at_fork(before=gc.freeze, after_in_child=gc.enable)
