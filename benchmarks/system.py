"""What the system says of itself, as far as timings depend on it: read within a second, without rights.

Much of it only Linux tells. What a system does not tell is None, or empty; nothing here raises for that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.trials import loop_s, product_s, tick_s
from kernels.machine import lesser_family, load, numba_facts, numpy_blas, text_of, versions
from kernels.threads import usable_cores

LOOK_S = 0.25
"""Seconds over which other processes are watched."""
PACKAGES = ("numpy", "numba")
_CPUS = Path("sys/devices/system/cpu")
_SWITCHES = (_CPUS / "intel_pstate/no_turbo", _CPUS / "cpufreq/boost")


@dataclass(frozen=True)
class Process:
    """A process that computed while this one slept: `share` is that of one core."""

    name: str
    pid: int
    share: float


@dataclass(frozen=True)
class System:
    """Facts about the machine, for `threads` threads."""

    threads: int
    cores: int
    """Logical cores that this process may use."""
    physical_cores: int | None
    """Physical cores that these belong to."""
    quota: float | None
    """Cores' worth of time that the control group grants; None for no limit."""
    governors: tuple[str, ...]
    """The clock governor of each core that this process may use."""
    boost: bool | None
    boost_switch: str | None
    """The file that turns boost on and off."""
    load: float | None
    """Processes that wanted a core, on average over the last minute."""
    busy: float | None
    """Cores that were busy with something else just now."""
    processes: tuple[Process, ...]
    """What they were busy with, the most first."""
    memory_bytes: int
    available_bytes: int
    swapped_bytes: int
    on_battery: bool | None
    virtual: bool | None
    stolen: float | None
    """The share of the time wanted since the start that a hypervisor gave to others."""
    lesser_blas: str | None
    """The family of BLAS's kernels where there are better ones for this CPU."""
    spinning: bool
    """Whether BLAS's idle threads spin."""
    layer: str | None
    """Numba's threading layer."""
    versions: dict[str, str]
    tick_s: float
    """The least time that the clock can tell, reading it included."""
    product_s: tuple[float, ...]
    """Seconds of each call of one matrix product, warmed up."""
    loop_s: tuple[float, ...]
    """Seconds of each call of a small compiled loop on several threads; none on one, or without Numba."""


def look(threads: int, root: Path = Path("/")) -> System:
    """The facts, for `threads` threads, which should be pinned; `root` is where /proc and /sys are."""
    busy, processes = _busy()
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    boost, switch = _boost(root)
    return System(
        threads=threads,
        cores=usable_cores(),
        physical_cores=_physical_cores(root),
        quota=_quota(root),
        governors=_governors(root),
        boost=boost,
        boost_switch=switch,
        load=load(),
        busy=busy,
        processes=processes,
        memory_bytes=memory.total,
        available_bytes=memory.available,
        swapped_bytes=swap.used,
        on_battery=_on_battery(),
        virtual=_virtual(root),
        stolen=_stolen(root),
        lesser_blas=lesser_family(),
        spinning=_spinning(),
        layer=(numba_facts() or {}).get("layer"),
        versions=versions(PACKAGES),
        tick_s=tick_s(),
        product_s=product_s(),
        loop_s=loop_s(threads),
    )


def _numbers(path: Path) -> list[int]:
    """The whole numbers at the beginning of a file; none where there is no such file."""
    found: list[int] = []
    for word in (text_of(path) or "").split():
        if not word.lstrip("-").isdecimal():
            break
        found.append(int(word))
    return found


def _usable(root: Path) -> list[Path]:
    """The folders of the cores that this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return [root / _CPUS / f"cpu{number}" for number in sorted(os.sched_getaffinity(0))]


def _physical_cores(root: Path) -> int | None:
    siblings = {text_of(core / "topology/thread_siblings_list") for core in _usable(root)}
    if siblings and None not in siblings:
        return len(siblings)
    found: int | None = psutil.cpu_count(logical=False)
    return found if usable_cores() == psutil.cpu_count() else None


def _governors(root: Path) -> tuple[str, ...]:
    found = (text_of(core / "cpufreq/scaling_governor") for core in _usable(root))
    return tuple(name for name in found if name)


def _boost(root: Path) -> tuple[bool | None, str | None]:
    """Whether boost is on, and the file that says so: 0 in no_turbo and 1 in boost are on."""
    for switch in _SWITCHES:
        value = _numbers(root / switch)
        if value:
            return bool(value[0]) != (switch.name == "no_turbo"), f"/{switch.as_posix()}"
    return None, None


def _quota(root: Path) -> float | None:
    """The least of the limits of this process's control group and those above it."""
    found = []
    for folder in _groups(root):
        text = (text_of(folder / "cpu.max") or "").split()  # version 2: "150000 100000", or "max 100000"
        if len(text) == 2 and text[0].isdecimal():
            found.append(int(text[0]) / int(text[1]))
        quota, period = _numbers(folder / "cpu.cfs_quota_us"), _numbers(folder / "cpu.cfs_period_us")
        if quota and period and quota[0] > 0:  # version 1: -1 is no limit
            found.append(quota[0] / period[0])
    return min(found, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups for the CPU, up to the top one.

    In a container the path may be that of the host, of which only the top folder is there.
    """
    for line in (text_of(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            mounts = ["", "unified"]
        elif "cpu" in controllers.split(","):
            mounts = ["cpu", controllers]
        else:
            continue
        inside = Path(path.lstrip("/"))
        for mount in mounts:
            for folder in (inside, *inside.parents):
                yield root / "sys/fs/cgroup" / mount / folder


def _busy() -> tuple[float | None, tuple[Process, ...]]:
    """Busy cores while this process sleeps, and the processes that kept them so."""
    before = _process_times()
    try:
        idle_s, start = _idle_s(), time.perf_counter()
        time.sleep(LOOK_S)
        idle = (_idle_s() - idle_s) / (time.perf_counter() - start)
    except (OSError, RuntimeError):
        return None, ()
    found = [
        Process(name, pid, (spent_s - before[pid][1]) / LOOK_S)
        for pid, (name, spent_s) in _process_times().items()
        if pid in before
    ]
    found.sort(key=lambda each: -each.share)
    busy = max(0.0, (psutil.cpu_count() or 1) - idle)
    return busy, tuple(each for each in found if each.share >= 0.05)


def _idle_s() -> float:
    """Seconds in which cores did nothing for this system: what a hypervisor takes is a matter of its own."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("idle", "iowait", "steal")))


def _process_times() -> dict[int, tuple[str, float]]:
    """The name and the seconds of computing of each process that may be looked at, but this one."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        name, times = process.info["name"], process.info["cpu_times"]
        if name and times and process.pid not in (0, os.getpid()):
            found[process.pid] = (name, times.user + times.system)
    return found


def _on_battery() -> bool | None:
    """Whether a battery is what the machine runs on; None without one."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, RuntimeError, ValueError):
        return None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def _virtual(root: Path) -> bool | None:
    text = text_of(root / "proc/cpuinfo")
    if text is None:
        return None
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return "hypervisor" in flags or (root / "sys/hypervisor/type").exists()


def _stolen(root: Path) -> float | None:
    """From /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal."""
    first = (text_of(root / "proc/stat") or "").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, first[1:9])
    wanted = user + nice + system + irq + softirq + steal
    return steal / wanted if wanted else None


def _spinning() -> bool:
    """OpenBLAS's threads spin for some 30 ms after each product unless told to sleep soon."""
    blas: dict[str, Any] = numpy_blas() or {}
    timeout = os.environ.get("OPENBLAS_THREAD_TIMEOUT", "")
    return blas.get("internal_api") == "openblas" and not (timeout.isdecimal() and int(timeout) <= 20)
