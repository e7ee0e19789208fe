"""The summary: ten lines, a hundred columns, the numbers that matter."""

import pytest

import reports


def test_golden_lines(golden_path):
    text = reports.summary(reports.load(golden_path)).replace("\N{MULTIPLICATION SIGN}", "x")
    assert text.splitlines() == [
        "13 cases timed, 4 skipped, 1 failed: 4 layers, 2 batch sizes and 3 backends",
        "Fastest forward: numba in 3 of 5 cases (layer, batch), im2col in 2",
        "Fastest dw: im2col in 1 of 1 case (layer, batch)",
        "Best speed-up over loops: 200x by im2col (a:conv forward, batch 8)",
        "Mean speed-up over loops, convolution forward: numba 30.0x, im2col 20.0x",
        "Largest error: 3.0e-06 of the largest output, im2col (a:conv forward, batch 32)",
        "Most memory: 256 MiB, im2col (a:conv forward, batch 32)",
        "Compile time: 2.00 s in all, at most 1.50 s, numba (a:conv forward, batch 8)",
        "Noise (IQR/median): 20 % typical, 50 % at worst, im2col (b:conv forward, batch 8)",
    ]


def test_other_baseline(golden_path):
    assert "Best speed-up over im2col: 4.50" in reports.summary(reports.load(golden_path), baseline="im2col")


def test_it_fits_whatever_the_names(save, make):
    layers = [f"a-network-with-a-long-name:block.{n}.{'deeper.' * 9}conv{n}" for n in range(3)]
    names = [f"implementation-{n}" for n in range(9)]
    benchmarks = [
        make.timed(layer, name, 512, 0.1 + (3 * n + m) % 7, op=op, compile_s=1.0)
        for op in ("forward", "dx", "dw", "db")
        for n, name in enumerate(["loops", *names])
        for m, layer in enumerate(layers)
    ]
    lines = reports.summary(reports.load(save("x.json", make.document(benchmarks)))).splitlines()
    assert len(lines) == 10
    assert max(map(len, lines)) <= 100
    assert "Largest error" in "\n".join(lines)


def test_nothing_timed(save, make):
    path = save("x.json", make.document([], [make.untimed("a", "loops", 8, 3.0)]))
    assert reports.summary(reports.load(path)).splitlines() == [
        "0 cases timed, 1 skipped, 0 failed: 1 layer, 1 batch size and 1 backend",
        "Speed-ups: no times to compare with of the baseline loops",
    ]


@pytest.mark.parametrize("predicted", [True, False])
def test_without_a_measured_baseline(save, make, predicted):
    skipped = [make.untimed("a", "loops", 8, 3.0)] if predicted else []
    path = save("x.json", make.document([make.timed("a", "numba", 8, 0.1)], skipped))
    what = "only predicted times" if predicted else "no times to compare with"
    assert f"Speed-ups: {what} of the baseline loops" in reports.summary(reports.load(path))


def test_noisy_cases_are_counted_with_what_to_do(golden_path, save, make):
    assert reports.noise_warning(reports.load(golden_path)) == (
        "13 of 13 cases are noisy (IQR over 10 % of the median): see `convbench doctor`, then run again"
    )
    quiet = [make.timed("a", "loops", 8, 1.0, noise=0.1), make.timed("a", "im2col", 8, 1.0, noise=0.01)]
    assert reports.noise_warning(reports.load(save("quiet.json", make.document(quiet)))) is None
    noisy = [*quiet, make.timed("a", "numba", 8, 1.0, noise=0.11)]
    warning = reports.noise_warning(reports.load(save("noisy.json", make.document(noisy))))
    assert warning is not None
    assert warning.startswith("1 of 3 cases is noisy (IQR over 10 % of the median)")
