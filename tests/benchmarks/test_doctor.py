"""What the doctor finds in made-up facts: each check, good and bad, in its words."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from cli import ROOT, convbench_run

from benchmarks import doctor
from benchmarks.doctor import CHECKS, Finding, diagnose, examine, in_brief, warnings
from benchmarks.system import Process, System
from kernels.threads import usable_cores
from reports import tables

GIB = 2**30
HEALTHY = System(
    threads=4,
    cores=4,
    physical_cores=4,
    quota=None,
    governors=("performance",) * 4,
    boost=False,
    boost_switch="/sys/devices/system/cpu/cpufreq/boost",
    load=0.1,
    busy=0.0,
    processes=(),
    memory_bytes=16 * GIB,
    available_bytes=12 * GIB,
    swapped_bytes=0,
    on_battery=None,
    virtual=False,
    stolen=0.0,
    lesser_blas=None,
    spinning=False,
    layer="omp",
    versions={"numpy": "2.4.6", "numba": "0.68.1"},
    tick_s=40e-9,
    product_s=(1e-4,) * 200,
    loop_s=(2e-5,) * 200,
)
NOTHING_KNOWN = replace(
    HEALTHY,
    physical_cores=None,
    governors=(),
    boost=None,
    boost_switch=None,
    load=None,
    busy=None,
    virtual=None,
    stolen=None,
    layer=None,
    versions={},
    loop_s=(),
)
NO_TURBO = "/sys/devices/system/cpu/intel_pstate/no_turbo"
BUSY = (Process("firefox", 12, 0.85), Process("updater", 7, 0.3), Process("a", 1, 0.2), Process("b", 2, 0.1))
WAIT = "wait a minute; nothing is wrong if that was a run of your own"
SICK = {
    "blas": (
        {"lesser_blas": "Haswell"},
        "OpenBLAS runs its Haswell kernels, but this CPU has AVX-512",
        "start Python with OPENBLAS_CORETYPE=SkylakeX",
    ),
    "quota": (
        {"quota": 2.5},
        "4 threads, but CPU time for 2.5 cores (control group)",
        "--threads 2, or a limit of 4 cores (docker run --cpus 4)",
    ),
    "waiting": (
        {"loop_s": (2e-5,) * 15 + (8e-3,) * 5},
        "25% of the calls of a small compiled loop take over 2 ms: one thread spins on the core that another "
        "needs",
        "start Python with OMP_WAIT_POLICY=passive: calls take a little longer, but alike; or --threads 1",
    ),
    "load": (
        {"busy": 1.35, "load": 0.3, "processes": BUSY},
        "load over the last minute is 0.30, and 1.4 cores are busy now",
        "wait for, or end: firefox (pid 12, 85% of a core), updater (pid 7, 30% of a core), "
        "a (pid 1, 20% of a core)",
    ),
    "noise": (
        {"product_s": (1e-4, 1e-4, 1e-4, 2e-4, 4e-4)},
        "noise (IQR/median) of a matrix product is 100%, its worst call took 4 times the median",
        "see to the other warnings, close what runs beside; judge small differences by `bench --aa`",
    ),
    "virtual": (
        {"virtual": True, "stolen": 0.031},
        "the hypervisor gave 3.1% of the time that was wanted here to others",
        "take dedicated cores or a machine of your own; else time several runs, and compare within one",
    ),
    "battery": ({"on_battery": True}, "the machine runs on its battery, and saves power", "plug it in"),
    "cores": (
        {"physical_cores": 2},
        "4 threads on 2 physical cores: pairs share one, and disturb each other",
        "--threads 2",
    ),
    "governor": (
        {"governors": ("powersave", "performance", "schedutil", "powersave")},
        'the clock governor is "powersave" and "schedutil": the clock follows the load',
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    ),
    "boost": (
        {"boost": True},
        "boost is on: the clock is higher while the CPU is cool and few cores are busy",
        "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost; all is slower then, but alike",
    ),
    "memory": (
        {"available_bytes": GIB, "swapped_bytes": 2 * GIB},
        "1.0 of 16.0 GiB are free, 2.0 GiB are swapped out",
        "close what needs much memory",
    ),
    "spinning": (
        {"spinning": True},
        "idle threads of BLAS spin for some 30 ms, on the cores that compiled loops need",
        "start Python with OPENBLAS_THREAD_TIMEOUT=4 (`convbench` does)",
    ),
    "threading": (
        {"layer": "workqueue"},
        "Numba's threads are those of its layer workqueue, which starts them more slowly than OpenMP or TBB",
        "unset NUMBA_THREADING_LAYER; pip install tbb (x86-64), or install OpenMP (brew install libomp)",
    ),
    "clock": (
        {"tick_s": 2e-6},
        "the clock tells 2 us at best, too coarse for calls of some microseconds",
        "on Linux, see that /sys/devices/system/clocksource/clocksource0/current_clocksource is tsc",
    ),
    "versions": (
        {"versions": {"numpy": "1.26.4", "numba": "0.9.1"}},
        "numpy 1.26.4, numba 0.9.1: older than what is tested",
        "pip install -U 'numpy>=2.0' 'numba>=0.60'",
    ),
}


def found(system: System, check: str) -> Finding:
    """What `check` alone finds."""
    (finding,) = [finding for finding in diagnose(system) if finding.check == check]
    return finding


def test_every_check_has_a_case_that_it_warns_of():
    assert [finding.check for finding in diagnose(HEALTHY)] == list(SICK)
    assert len(CHECKS) == len(SICK)


@pytest.mark.parametrize("check", SICK)
def test_a_warning_says_what_is_wrong_and_what_to_do(check):
    facts, what, remedy = SICK[check]
    system = replace(HEALTHY, **facts)
    assert warnings(diagnose(system)) == [Finding(check, "warn", what, remedy)]


@pytest.mark.parametrize("system", [HEALTHY, NOTHING_KNOWN], ids=["healthy", "nothing known"])
def test_a_good_finding_has_no_remedy(system):
    for finding in diagnose(system):
        assert finding.level == "good"
        assert finding.what
        assert finding.remedy is None
    assert in_brief(diagnose(system)) is None


def test_what_a_system_does_not_tell_is_named_so():
    unknown = {finding.check for finding in diagnose(NOTHING_KNOWN) if finding.what == "not known here"}
    assert unknown == {"load", "virtual", "cores", "governor", "boost", "threading", "versions"}


@pytest.mark.parametrize(
    ("check", "facts", "what"),
    [
        ("quota", {"quota": 4.0}, "4 threads, and CPU time for 4 cores (control group)"),
        ("quota", {}, "no limit on the CPU time of this process"),
        ("load", {"load": 1.9}, "load over the last minute is 1.90, and 0.0 cores are busy now"),
        ("virtual", {"virtual": True}, "a virtual machine, of which no time was stolen"),
        ("virtual", {"virtual": True, "stolen": 0.004}, "only 0.4% of the time was stolen by others"),
        ("virtual", {}, "not a virtual machine"),
        ("cores", {"threads": 1, "physical_cores": 1}, "1 thread on 1 physical core"),
        ("spinning", {"threads": 1, "spinning": True}, "idle threads of BLAS do not spin"),
        ("threading", {"threads": 1, "layer": "workqueue"},
         "Numba's threads are those of its layer workqueue"),
        ("waiting", {"loop_s": (2e-5,) * 39 + (8e-3,)},
         "2% of the calls of a small compiled loop take over 2 ms"),
        ("waiting", {"loop_s": ()}, "compiled loops run on one thread"),
        ("battery", {"on_battery": False}, "plugged in"),
        ("governor", {}, 'the clock governor is "performance"'),
        ("boost", {}, "boost is off"),
        ("memory", {"swapped_bytes": GIB}, "12.0 of 16.0 GiB are free, 1.0 GiB are swapped out"),
        ("noise", {"product_s": (1.0, 1.0, 1.04, 1.08, 9.0)},
         "noise (IQR/median) of a matrix product is 8%, its worst call took 8.7 times the median"),
        ("versions", {"versions": {"numpy": "2.0", "numba": "0.60.0"}}, "numpy 2.0, numba 0.60.0"),
    ],
)  # fmt: skip
def test_what_is_no_reason_to_worry(check, facts, what):
    assert found(replace(HEALTHY, **facts), check) == Finding(check, "good", what)


@pytest.mark.parametrize(
    ("check", "facts", "remedy"),
    [
        ("quota", {"quota": 0.5}, "a limit of 4 cores (docker run --cpus 4)"),
        ("load", {"load": 2.5}, WAIT),
        ("load", {"busy": 0.5}, "wait for, or end: programs of others, which are not shown here"),
        ("boost", {"boost": True, "boost_switch": NO_TURBO},
         f"echo 1 | sudo tee {NO_TURBO}; all is slower then, but alike"),
    ],
)  # fmt: skip
def test_remedies_fit_the_case(check, facts, remedy):
    finding = found(replace(HEALTHY, **facts), check)
    assert (finding.level, finding.remedy) == ("warn", remedy)


def test_the_brief_line_has_two_warnings_in_full():
    facts = SICK["load"][0] | SICK["cores"][0]
    what = [SICK[check][1] for check in ("load", "cores")]
    end = ". `convbench doctor` says what to do."
    assert in_brief(diagnose(replace(HEALTHY, **facts))) == f"Timings may be off: {'; '.join(what)}{end}"
    more = replace(HEALTHY, **facts, boost=True)
    assert in_brief(diagnose(more)) == f"Timings may be off: {'; '.join(what)}; and 1 more{end}"


def test_limits_are_those_of_the_rest_of_the_project():
    assert doctor.NOISY == tables.NOISY
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for package, version in doctor.TESTED.items():
        assert f"{package}>={version}" in project["dependencies"]


def test_this_machine_can_be_examined():
    findings = examine(1)
    assert [finding.check for finding in findings] == list(SICK)
    saved = json.loads(json.dumps([finding.as_dict() for finding in findings]))
    for entry in saved:
        assert set(entry) == {"check", "level", "what", "remedy"}
        assert (entry["remedy"] is None) == (entry["level"] == "good")


def test_the_command_shows_all_and_exits_with_1_only_if_asked_to(tmp_path: Path):
    for arguments in ([], ["--strict", "--threads", "1"]):
        done = convbench_run(tmp_path, "doctor", *arguments)
        found = re.findall(r"^(good|warn) +(\w+)", done.stdout, re.MULTILINE)
        assert [check for _, check in found] == list(SICK)
        warned = sum(level == "warn" for level, _ in found)
        ending = f"{warned} warning{'s' if warned > 1 else ''}: timings may be off."
        assert done.stdout.splitlines()[-1] == (
            ending if warned else "Nothing that disturbs timings was found."
        )
        assert done.returncode == (1 if arguments and warned else 0), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_too_many_threads_are_bad_input(tmp_path: Path):
    done = convbench_run(tmp_path, "doctor", "--threads", "9999")
    assert done.returncode == 2
    assert done.stderr == (
        f"convbench: --threads is 9999; expected 1 to {usable_cores()}, the cores that can be used here\n"
    )
