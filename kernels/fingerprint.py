"""Which code a measurement is of."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from importlib import metadata
from pathlib import Path

from kernels.registry import get_backend

_LIBRARIES = ("numpy", "numba", "llvmlite")


@cache
def fingerprint(backend: str) -> str:
    """A short hash of a backend's sources and of the libraries that compute for it.

    Its module counts, and every module of `kernels` that it imports, directly or not.
    """
    chosen = get_backend(backend)
    digest = hashlib.sha256()
    for module in sorted(_sources(chosen.module)):
        digest.update(_path(module).read_bytes())
    for library in (*_LIBRARIES, *(chosen.requires or "").split()):
        try:
            digest.update(f"{library} {metadata.version(library)}".encode())
        except metadata.PackageNotFoundError:
            continue
    return digest.hexdigest()[:12]


def _sources(module: str) -> set[str]:
    """`module`, and the modules of its package that it leads to."""
    package = module.partition(".")[0]
    found: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for node in ast.walk(ast.parse(_path(current).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                waiting += [name for name in names if name.startswith(f"{package}.") and _is_module(name)]
    return found


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the name of something in a module
        return False


def _path(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)
