"""Whether this process was forked from one that had already launched Numba's threads.

GNU OpenMP does not survive a fork: such a process must stay serial. The hook is registered as `kernels` is
imported, long before Numba is, so that it sees launches by other code too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

forked_from_launched = False
after_fork: list[Callable[[], None]] = []
"""What else a child has to do."""


def _in_child() -> None:
    global forked_from_launched
    numba = sys.modules.get("numba")
    try:
        launched = numba is not None and bool(numba.threading_layer())
    except (ValueError, AttributeError):  # nothing was launched yet, or Numba was just being imported
        launched = False
    forked_from_launched = forked_from_launched or launched
    for action in after_fork:
        action()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
