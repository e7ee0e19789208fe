"""What code was compiled from: a cache must not give back what the sources no longer say.

Numba's cache looks at the file that a function is in. What it was compiled with, from other files, may have
changed since: a helper with another argument would be called with those of before.
"""

from __future__ import annotations

import inspect
import re
import sys
import zlib
from functools import lru_cache

_PACKAGE = __name__.rpartition(".")[0]
_IMPORTS = re.compile(rf"^from ({_PACKAGE}(?:\.\w+)?) import ([^(#\n]*)", re.MULTILINE)


@lru_cache(maxsize=256)
def digest(module: str) -> str:
    """Of the source of a module of this package, and of those that it imports from here, and so on."""
    found: set[str] = set()
    _gather(module, found)
    sources = "".join(_source(name) for name in sorted(found))
    return f"{zlib.crc32(sources.encode()):08x}"


def _gather(module: str, found: set[str]) -> None:
    if module in found:
        return
    found.add(module)
    for origin, names in _IMPORTS.findall(_source(module)):
        submodules = [f"{origin}.{name.strip().split()[0]}" for name in names.split(",") if name.strip()]
        for name in (origin, *submodules):
            if name in sys.modules and name != _PACKAGE:
                _gather(name, found)


@lru_cache(maxsize=256)
def _source(module: str) -> str:
    try:
        return inspect.getsource(sys.modules[module])
    except OSError:  # installed without sources, which then do not change
        return ""
