"""When and where results were made."""

from datetime import UTC, datetime

from benchmarks.origin import machine, now, stamp
from kernels.machine import identity


def test_the_time_as_text_and_as_a_file_name():
    before = datetime.now(UTC).replace(microsecond=0)
    written, named = datetime.fromisoformat(now()), datetime.strptime(stamp(), "%Y-%m-%dT%H%M%S%z")
    assert before <= written <= named <= datetime.now(UTC)
    assert not set('<>:"/\\|?*') & set(stamp())  # which Windows has no files with


def test_the_machine_is_the_one_of_the_run():
    facts = machine(1)
    assert facts["threads"] == 1
    assert facts["cpu"] == identity()["cpu"]
    assert facts["isa"] == identity()["isa"].split()
    assert all(blas["threads"] == 1 for blas in facts["blas"])
