"""The report in ten lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from reports import tables
from reports.wording import clip, count, error, listing, percent, seconds, significant, times, where

WIDTH = 100
DEFAULT_BASELINE = "loops"


def summary(frame: pd.DataFrame, baseline: str = DEFAULT_BASELINE) -> str:
    """At most ten lines of at most 100 columns on the rows of `load`.

    What was timed; the backend that is fastest most often, per op; speed-ups over `baseline`; the
    largest error; memory, compile time and noise.
    """
    rows = tables.latest(frame)
    lines = [_counts(rows), *_winners(rows), *_speedups(rows, baseline), *_extremes(rows)]
    return "\n".join(clip(line, WIDTH) for line in lines[:10])


def noise_warning(frame: pd.DataFrame) -> str | None:
    """How many of the rows of `load` are noisy, and what to do about it, in a line; None without any."""
    rows = tables.timed(tables.latest(frame))
    noisy = len(tables.noisy(rows))
    if not noisy:
        return None
    return (
        f"{noisy:,} of {count(len(rows), 'case')} {'is' if noisy == 1 else 'are'} noisy (IQR over "
        f"{percent(tables.NOISY)} of the median): see `convbench doctor`, then run again"
    )


def _counts(rows: pd.DataFrame) -> str:
    numbers = rows["status"].value_counts()
    timed, skipped, failed = (int(numbers.get(status, 0)) for status in ("timed", "skipped", "failed"))
    scope = (
        count(rows["layer"].nunique(), "layer"),
        count(rows["batch"].nunique(), "batch size"),
        count(rows["backend"].nunique(), "backend"),
    )
    return f"{count(timed, 'case')} timed, {skipped:,} skipped, {failed:,} failed: {listing(scope)}"


def _winners(rows: pd.DataFrame) -> Iterator[str]:
    best = tables.fastest(rows)
    for op in tables.ops(best)[:3]:
        here = best[best["op"] == op]
        (first, most), *others = tables.win_counts(here)
        line = f"Fastest {op}: {first} in {most:,} of {count(len(here), 'case')} (layer, batch)"
        yield _as_many_as_fit(line, (f", {backend} in {wins:,}" for backend, wins in others))


def _speedups(rows: pd.DataFrame, baseline: str) -> Iterator[str]:
    ratios = tables.speedups(rows, baseline)
    measured = ratios[~ratios["predicted"]]
    if measured.empty:
        what = "only predicted times" if len(ratios) else "no times to compare with"
        yield f"Speed-ups: {what} of the baseline {baseline}"
        return
    best = tables.largest(measured, "speedup")
    yield _with_place(f"Best speed-up over {baseline}: {times(best.speedup)} by {best.backend}", best)
    means = tables.mean_speedups(tables.at_largest_batch(measured))
    family = means["family"].iloc[0]  # convolution, where there is any: it sorts first
    op = tables.ops(means[means["family"] == family])[0]
    means = means[(means["family"] == family) & (means["op"] == op)].sort_values("speedup", ascending=False)
    first, *others = [f"{row.backend} {times(row.speedup)}" for row in tables.records(means)]
    line = f"Mean speed-up over {baseline}, {family} {op}: {first}"
    yield _as_many_as_fit(line, (f", {other}" for other in others))


def _extremes(rows: pd.DataFrame) -> Iterator[str]:
    timed = tables.timed(rows)
    if timed.empty:
        return
    worst = tables.largest(timed, "error")
    yield _with_place(f"Largest error: {error(worst.error)} of the largest output, {worst.backend}", worst)
    if timed["peak_mib"].notna().any():
        most = tables.largest(timed, "peak_mib")
        yield _with_place(f"Most memory: {significant(most.peak_mib)} MiB, {most.backend}", most)
    if timed["compile_s"].notna().any():
        slowest = tables.largest(timed, "compile_s")
        total, longest = seconds(timed["compile_s"].sum()), seconds(slowest.compile_s)
        yield _with_place(f"Compile time: {total} in all, at most {longest}, {slowest.backend}", slowest)
    noise = tables.noise(rows)
    worst = tables.largest(noise, "noise")
    typical, most_noise = percent(noise["noise"].median()), percent(worst.noise)
    yield _with_place(f"Noise (IQR/median): {typical} typical, {most_noise} at worst, {worst.backend}", worst)


def _as_many_as_fit(line: str, items: Iterable[str]) -> str:
    for item in items:
        if len(line + item) > WIDTH:
            break
        line += item
    return line


def _with_place(line: str, row: Any) -> str:
    return f"{line} ({where(row, WIDTH - len(line) - 3)})"
