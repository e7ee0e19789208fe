"""What is read from the system: made-up /proc and /sys, and systems that tell little."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest

from benchmarks import system, trials
from benchmarks.system import look

CPUS = "sys/devices/system/cpu"
TICKS = "cpu  600 100 200 9000 50 30 20 50 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A function that looks at a machine with such files, of whose cores 0 to 3 may be used."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(system, "LOOK_S", 0.01)

    def fake(files: dict[str, str]) -> system.System:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return look(1, tmp_path)

    return fake


def test_a_whole_machine_is_read(fake):
    found = fake(
        {f"{CPUS}/cpu{number}/topology/thread_siblings_list": f"{number % 2},{number % 2 + 2}\n"
         for number in range(4)}
        | {f"{CPUS}/cpu{number}/cpufreq/scaling_governor": "powersave\n" for number in range(4)}
        | {f"{CPUS}/intel_pstate/no_turbo": "0\n", "proc/stat": TICKS,
           "proc/cpuinfo": "processor : 0\nflags\t\t: fpu hypervisor avx2\n"}
    )  # fmt: skip
    assert (found.threads, found.cores, found.physical_cores) == (1, 4, 2)
    assert found.governors == ("powersave",) * 4
    assert (found.boost, found.boost_switch) == (True, f"/{CPUS}/intel_pstate/no_turbo")
    assert found.virtual is True
    assert found.stolen == pytest.approx(50 / 1000)
    assert found.quota is None
    assert 0 < found.tick_s < 1
    assert len(found.product_s) >= trials.LEAST_CALLS
    assert min(found.product_s) > 0
    assert found.loop_s == ()  # on one thread
    assert found.versions["numpy"].count(".") >= 1


@pytest.mark.parametrize(
    ("name", "value", "on"),
    [
        ("intel_pstate/no_turbo", "1", False),
        ("cpufreq/boost", "1", True),
        ("cpufreq/boost", "0", False),
        ("cpufreq/boost", "yes", None),
    ],
)
def test_boost_is_told_by_two_drivers(fake, name, value, on):
    assert fake({f"{CPUS}/{name}": value}).boost is on


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        ("0::/docker/123\n", {"cpu.max": "200000 100000"}, 2.0),
        ("0::/\n", {"unified/cpu.max": "300000 100000"}, 3.0),
        ("4:memory:/x\n1:cpu,cpuacct:/a\n",
         {"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000"}, 2.5),
        ("1:cpu,cpuacct:/docker/1\n",
         {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 0.5),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/\n", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)  # fmt: skip
def test_the_least_limit_of_the_control_groups_counts(fake, group, files, quota):
    found = fake(
        {"proc/self/cgroup": group} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    )
    assert found.quota == quota


@pytest.mark.parametrize("text", ["", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu 0 0 0 0 0 0 0 0"])
def test_times_that_tell_no_steal(fake, text):
    assert fake({"proc/stat": text}).stolen is None


def _broken(*_, **__):
    raise OSError("not here")


def test_a_system_without_linux_files_tells_less(fake, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: (os.cpu_count() or 1) if logical else None)
    for name in ("getloadavg", "sensors_battery"):
        monkeypatch.delattr(psutil, name, raising=False)
    monkeypatch.setattr(psutil, "cpu_times", _broken)
    found = fake({})
    nothing = ("physical_cores", "quota", "boost", "boost_switch", "load", "busy", "on_battery", "virtual",
               "stolen")  # fmt: skip
    assert {name: getattr(found, name) for name in nothing} == dict.fromkeys(nothing)
    assert found.governors == found.processes == ()


@pytest.mark.parametrize(
    ("battery", "expected"),
    [
        (None, None),
        (SimpleNamespace(power_plugged=True), False),
        (SimpleNamespace(power_plugged=False), True),
        (SimpleNamespace(power_plugged=None), None),
    ],
)
def test_the_battery(fake, monkeypatch, battery, expected):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert fake({}).on_battery is expected


def test_processes_are_named_by_what_they_computed(fake, monkeypatch):
    def process(pid, name, seconds):
        times = seconds and SimpleNamespace(user=seconds, system=0.0)
        return SimpleNamespace(pid=pid, info={"name": name, "cpu_times": times})

    looks = iter(
        [
            [process(1, "idle", 5.0), process(2, "busy", 1.0), process(3, "secret", None),
             process(4, "some", 7.0), process(os.getpid(), "me", 0.1)],
            [process(1, "idle", 5.0), process(2, "busy", 1.009), process(3, "secret", None),
             process(4, "some", 7.002), process(os.getpid(), "me", 9.9), process(5, "new", 3.0)],
        ]
    )  # fmt: skip
    monkeypatch.setattr(psutil, "process_iter", lambda attrs: next(looks))
    idle = iter([SimpleNamespace(idle=10.0, steal=3.0), SimpleNamespace(idle=10.6, iowait=0.1, steal=3.7)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(idle))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 4)
    clock = iter([100.0, 100.5])
    monkeypatch.setattr(system.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(system, "tick_s", lambda: 1e-9)
    monkeypatch.setattr(system, "product_s", lambda: (1.0,))
    found = fake({})
    assert found.busy == pytest.approx(4 - 1.4 / 0.5)
    assert [(each.name, each.pid) for each in found.processes] == [("busy", 2), ("some", 4)]
    assert [each.share for each in found.processes] == pytest.approx([0.9, 0.2])


@pytest.mark.parametrize(
    ("timeout", "api", "spinning"),
    [(None, "openblas", True), ("4", "openblas", False), ("26", "openblas", True), ("", "mkl", False)],
)
def test_spinning_is_told_by_the_environment(monkeypatch, timeout, api, spinning):
    monkeypatch.setattr(system, "numpy_blas", lambda: {"internal_api": api})
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    if timeout is not None:
        monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", timeout)
    assert system._spinning() is spinning
