"""What makes timings on this machine untrustworthy, and what to do about it.

Each check is a function of `System`, what the system says of itself, and can be tried on made-up facts. One
that has nothing to go by on this system finds nothing wrong, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from packaging.version import Version

from benchmarks.command_line import duration
from benchmarks.system import Process, System, look
from kernels.machine import lesser_words
from kernels.threads import pinned_threads

BUSY = 0.2
"""Busy cores that are too many, and"""
LOAD = 0.5
"""the load for each core that is too much: it remembers a minute, so that a run of one's own counts, too."""
NOISY = 0.1
"""IQR/median of one product from which a machine is noisy, as it is of a case from which that is noisy."""
LATE_S = 2e-3
"""What a call of a loop that copies 256 KiB takes only if something is wrong, and"""
LATE = 0.05
"""the share of such calls from which timings are."""
STOLEN = 0.01
"""The share of the time wanted that a hypervisor may take."""
LEAST_AVAILABLE = 0.1
MOST_SWAPPED = 1 / 16
"""Shares of the memory: that should be free, and that may be swapped out."""
COARSE_S = 1e-6
"""A clock that cannot tell less is coarse: the shortest calls take some 25 of them."""
TESTED = {"numpy": "2.0", "numba": "0.60"}
"""The oldest versions that are tested."""
UNKNOWN = "not known here"
GIB = 2.0**30


@dataclass(frozen=True)
class Finding:
    """What one check found, in a sentence, and what to do about it, if anything."""

    check: str
    level: Literal["good", "warn"]
    what: str
    remedy: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As saved with a run."""
        return asdict(self)


def examine(threads: int) -> list[Finding]:
    """What all checks find now, for timings on `threads` threads; takes a second at most."""
    with pinned_threads(threads):
        return diagnose(look(threads))


def diagnose(system: System) -> list[Finding]:
    """What all checks find in `system`."""
    return [check(system) for check in CHECKS]


def warnings(findings: Iterable[Finding]) -> list[Finding]:
    """Those that are warnings."""
    return [finding for finding in findings if finding.level == "warn"]


def in_brief(findings: Iterable[Finding]) -> str | None:
    """The warnings in a line, the first two of them in full; None without any."""
    found = [finding.what for finding in warnings(findings)]
    if not found:
        return None
    more = f"; and {len(found) - 2} more" if len(found) > 2 else ""
    return f"Timings may be off: {'; '.join(found[:2])}{more}. `convbench doctor` says what to do."


def _good(check: str, what: str) -> Finding:
    return Finding(check, "good", what)


def _warn(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, "warn", what, remedy)


def noise(system: System) -> Finding:
    """A product that is timed again and again should take as long each time."""
    q1, median, q3, worst = np.quantile(system.product_s, [0.25, 0.5, 0.75, 1.0])
    spread = (q3 - q1) / median
    what = (
        f"noise (IQR/median) of a matrix product is {spread:.0%}, its worst call took "
        f"{worst / median:.2g} times the median"
    )
    if spread <= NOISY:
        return _good("noise", what)
    remedy = "see to the other warnings, close what runs beside; judge small differences by `bench --aa`"
    return _warn("noise", what, remedy)


def load(system: System) -> Finding:
    """What else computes."""
    if system.load is None and system.busy is None:
        return _good("load", UNKNOWN)
    average = "unknown" if system.load is None else f"{system.load:.2f}"
    busy = system.busy or 0.0
    what = f"load over the last minute is {average}, and {_cores(busy)} busy now"
    too_busy = busy > BUSY
    if not too_busy and (system.load or 0.0) <= LOAD * system.cores:
        return _good("load", what)
    if not too_busy:
        return _warn("load", what, "wait a minute; nothing is wrong if that was a run of your own")
    return _warn("load", what, f"wait for, or end: {_named(system.processes)}")


def _cores(number: float) -> str:
    return f"{number:.1f} core{' is' if round(number, 1) == 1 else 's are'}"


def _named(processes: tuple[Process, ...]) -> str:
    shown = [f"{each.name} (pid {each.pid}, {each.share:.0%} of a core)" for each in processes[:3]]
    return ", ".join(shown) or "programs of others, which are not shown here"


def waiting(system: System) -> Finding:
    """A thread that spins while it waits may keep another one from the core that it needs.

    GNU OpenMP's threads spin. Linux at times leaves both of two on one core (seen on a virtual machine with
    two): calls of 0.2 ms then took 8 ms, a slice of the scheduler, many times in a row, unless they sleep
    soon (`environment.waiting`). With OMP_WAIT_POLICY=passive none did, and all took 0.33 ms.
    """
    if not system.loop_s:
        return _good("waiting", "compiled loops run on one thread")
    late = float(np.mean(np.greater(system.loop_s, LATE_S)))
    what = f"{late:.0%} of the calls of a small compiled loop take over {duration(LATE_S)}"
    if late <= LATE:
        return _good("waiting", what)
    remedy = (
        "start Python with OMP_WAIT_POLICY=passive: calls take a little longer, but alike; or --threads 1"
    )
    return _warn("waiting", f"{what}: one thread spins on the core that another needs", remedy)


def stolen(system: System) -> Finding:
    """What a hypervisor gives to other machines is missing here."""
    if system.virtual is None and system.stolen is None:
        return _good("virtual", UNKNOWN)
    share = system.stolen or 0.0
    if share > STOLEN:
        return _warn(
            "virtual",
            f"the hypervisor gave {share:.1%} of the time that was wanted here to others",
            "take dedicated cores or a machine of your own; else time several runs, and compare within one",
        )
    here = "a virtual machine, of which no time was stolen" if system.virtual else "not a virtual machine"
    return _good("virtual", here if not share else f"only {share:.1%} of the time was stolen by others")


def quota(system: System) -> Finding:
    """Threads beyond the quota of a container are stopped for the rest of each period."""
    if system.quota is None:
        return _good("quota", "no limit on the CPU time of this process")
    what = f"{_threads(system.threads)}, but CPU time for {system.quota:.3g} cores (control group)"
    if system.quota >= system.threads:
        return _good("quota", what.replace("but", "and"))
    fewer = int(system.quota)
    enough = f"--threads {fewer}, or a limit of" if fewer else "a limit of"
    return _warn("quota", what, f"{enough} {system.threads} cores (docker run --cpus {system.threads})")


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number != 1 else ''}"


def cores(system: System) -> Finding:
    """Two threads on one physical core share its units."""
    physical = system.physical_cores
    if physical is None:
        return _good("cores", UNKNOWN)
    what = f"{_threads(system.threads)} on {physical} physical core{'s' if physical != 1 else ''}"
    if system.threads <= physical:
        return _good("cores", what)
    return _warn("cores", f"{what}: pairs share one, and disturb each other", f"--threads {physical}")


def governor(system: System) -> Finding:
    """A clock that follows the load starts a benchmark slowly."""
    slow = sorted({name for name in system.governors if name != "performance"})
    if not slow:
        known = 'the clock governor is "performance"'
        return _good("governor", known if system.governors else UNKNOWN)
    names = " and ".join(f'"{name}"' for name in slow)
    return _warn(
        "governor",
        f"the clock governor is {names}: the clock follows the load",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def boost(system: System) -> Finding:
    """A clock that depends on heat and on the other cores depends on what ran before."""
    if system.boost is None:
        return _good("boost", UNKNOWN)
    if not system.boost:
        return _good("boost", "boost is off")
    off = int((system.boost_switch or "").endswith("no_turbo"))
    return _warn(
        "boost",
        "boost is on: the clock is higher while the CPU is cool and few cores are busy",
        f"echo {off} | sudo tee {system.boost_switch}; all is slower then, but alike",
    )


def battery(system: System) -> Finding:
    """A laptop that saves its battery is slow."""
    if system.on_battery is None:
        return _good("battery", "no battery")
    if system.on_battery:
        return _warn("battery", "the machine runs on its battery, and saves power", "plug it in")
    return _good("battery", "plugged in")


def memory(system: System) -> Finding:
    """Swapping takes longer than anything that is timed."""
    free, swapped = system.available_bytes / GIB, system.swapped_bytes / GIB
    what = f"{free:.1f} of {system.memory_bytes / GIB:.1f} GiB are free, {swapped:.1f} GiB are swapped out"
    short = system.available_bytes < LEAST_AVAILABLE * system.memory_bytes
    if short or system.swapped_bytes > MOST_SWAPPED * system.memory_bytes:
        return _warn("memory", what, "close what needs much memory")
    return _good("memory", what)


def blas(system: System) -> Finding:
    """BLAS's kernels for lesser CPUs are slow, and so is what is made of them."""
    if system.lesser_blas is None:
        return _good("blas", "no better kernels of BLAS are known for this CPU")
    return _warn("blas", *lesser_words(system.lesser_blas))


def spinning(system: System) -> Finding:
    """Idle threads of BLAS that spin take cores from compiled loops."""
    if not system.spinning or system.threads == 1:
        return _good("spinning", "idle threads of BLAS do not spin")
    return _warn(
        "spinning",
        "idle threads of BLAS spin for some 30 ms, on the cores that compiled loops need",
        "start Python with OPENBLAS_THREAD_TIMEOUT=4 (`convbench` does)",
    )


def threading(system: System) -> Finding:
    """Numba's own threading layer starts its threads slowly: in 80 to 250 us on two cores, OpenMP in 10."""
    if system.layer is None:
        return _good("threading", UNKNOWN)
    what = f"Numba's threads are those of its layer {system.layer}"
    if system.layer != "workqueue" or system.threads == 1:
        return _good("threading", what)
    remedy = "unset NUMBA_THREADING_LAYER; pip install tbb (x86-64), or install OpenMP (brew install libomp)"
    return _warn("threading", f"{what}, which starts them more slowly than OpenMP or TBB", remedy)


def clock(system: System) -> Finding:
    """Short calls need a clock that tells them apart."""
    what = f"the clock tells {duration(system.tick_s)}"
    if system.tick_s <= COARSE_S:
        return _good("clock", what)
    remedy = "on Linux, see that /sys/devices/system/clocksource/clocksource0/current_clocksource is tsc"
    return _warn("clock", f"{what} at best, too coarse for calls of some microseconds", remedy)


def versions(system: System) -> Finding:
    """Older libraries are not tested."""
    names = [f"{name} {version}" for name, version in system.versions.items()]
    old = [name for name, version in system.versions.items() if Version(version) < Version(TESTED[name])]
    if not old:
        return _good("versions", ", ".join(names) or UNKNOWN)
    newer = " ".join(f"'{name}>={TESTED[name]}'" for name in old)
    return _warn("versions", f"{', '.join(names)}: older than what is tested", f"pip install -U {newer}")


CHECKS: tuple[Callable[[System], Finding], ...] = (
    blas,
    quota,
    waiting,
    load,
    noise,
    stolen,
    battery,
    cores,
    governor,
    boost,
    memory,
    spinning,
    threading,
    clock,
    versions,
)
"""What costs most comes first: the brief line has the first two that warn."""
