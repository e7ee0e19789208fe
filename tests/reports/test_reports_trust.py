"""What a report says against itself."""

import reports
from reports import tables, trust
from reports.trust import Doubt

QUIET = {"noise": 0.02}


def doubts(save, content):
    results = reports.load_results(save("x.json", content))
    return trust.doubts(tables.latest(results.frame), results.runs)


def test_nothing_speaks_against_quiet_results(save, make):
    assert doubts(save, make.document([make.timed("a", "numba", 8, 0.5, **QUIET)])) == []


def test_noisy_cases(save, make):
    timed = [make.timed("a", "numba", batch, 0.5, noise=noise) for batch, noise in ((8, 0.05), (32, 0.11))]
    (doubt,) = doubts(save, make.document(timed))
    assert doubt.what == (
        "1 of 2 cases (50 %) are noisy: the middle half of their rounds spreads over more than 10 % of the "
        "median."
    )
    assert "run again" in doubt.remedy


def test_findings_before_the_run_are_said_once(save, make):
    content = make.document([make.timed("a", "numba", 8, 0.5, **QUIET)])
    warning = {"check": "load", "level": "warn", "what": "the load is 3.", "remedy": "close something"}
    content["convbench"]["findings"] = [
        warning, warning, {"check": "clock", "level": "good", "what": "Fine.", "remedy": None},
    ]  # fmt: skip
    assert doubts(save, content) == [Doubt("The load is 3.", "Close something.")]


def test_the_spread_in_a_sentence(save, make):
    timed = [make.timed("a", "numba", batch, 0.5, noise=noise) for batch, noise in ((8, 0.02), (1024, 0.04))]
    assert trust.spread(tables.latest(reports.load(save("x.json", make.document(timed))))) == (
        "Half of the cases have an interquartile range below 3.0 % of their median; the noisiest is numba on "
        "a forward, batch 1,024, with 4.0 %."
    )


def test_a_machine_that_drifted(save, make):
    frame = tables.latest(reports.load(save("x.json", make.document(
        [make.timed("a", "numba", batch, 0.5, **QUIET) for batch in (8, 32)]
    ))))  # fmt: skip
    assert trust.doubts(frame.assign(probe_s=[0.010, 0.0105]), []) == []
    (doubt,) = trust.doubts(frame.assign(probe_s=[0.010, 0.013]), [])
    assert "took up to 30 % longer than at its best" in doubt.what
