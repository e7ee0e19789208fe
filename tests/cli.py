"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import convbench

ROOT = Path(convbench.__file__).parent


def environment() -> dict[str, str]:
    """This process's, in which `convbench` can be imported from any folder; lines are not held back."""
    paths = os.pathsep.join([str(ROOT), *sys.path])
    return {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


def convbench_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`convbench` with `arguments` in `folder`, and what it said."""
    return subprocess.run(
        [sys.executable, "-m", "convbench", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def convbench_start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`convbench` with `arguments` in `folder`, under way."""
    return subprocess.Popen(
        [sys.executable, "-m", "convbench", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
