"""How fast the paired bootstrap is, beside a loop over `scipy.stats.bootstrap` that gives the same intervals.

    python speed/stats.py [--quick] [--scipy-resamples N] [--json FILE]

Nine cells of 1,055 problems, 100,000 resamples each, as for the p-values of the main table. In both, the unit of
resampling is the problem, drawn with replacement and paired, and the interval is the percentile interval of the mean
difference. scipy's loop runs cell by cell with `paired=True`, `vectorized=True`, and as many resamples at once as fit
into 1 GiB. Both sides run in one process on one thread; a side's CPU seconds hardly depend on what else the machine
does. Three kinds of scores: one tuple (0 or 1), four tuples, and four tuples against sixteen i.i.d. attempts, whose
scores have the most different values. Beside the intervals, the whole comparison is timed: p-values and second test.

Both sides draw at random from one exact distribution, so the ends of their intervals differ by the noise of the draws,
which is printed too; ends of 0/1 scores sit on a lattice of 1/1055. More in speed/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
import pandas as pd
import scipy.stats
from machine import facts, print_facts
from numpy.typing import NDArray
from tabulate import tabulate  # type: ignore[import-untyped]

from cppo_lib.evaluation.bootstrap import (
    Difference,
    difference_across_estimands,
    limits,
    paired_difference,
    resampled_means,
)
from cppo_lib.evaluation.estimators import IidScores, Scores, TupleScores, iid_pass_at_k

Floats = NDArray[np.float64]
CELLS, PROBLEMS, RESAMPLES, K = 9, 1055, 100_000, 4
SECONDS, TIMES, DECIMALS = 5.0, 20.0, 3  # what is aimed at
SCIPY_BYTES = 2**30


class Seconds(NamedTuple):
    """Wall and CPU seconds."""

    wall: float
    cpu: float


class Watch:
    """Measures from where it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, times: float = 1.0) -> Seconds:
        """Seconds until now, times a factor."""
        return Seconds(times * (time.perf_counter() - self._wall), times * (time.process_time() - self._cpu))


@dataclass(frozen=True)
class Row:
    """One kind of scores: seconds for all cells on both sides, and how far apart the ends of intervals are.

    `scipy` is scaled from `scipy_resamples` to all; `whole` is ours with p-values and second test.
    """

    what: str
    ours: Seconds
    whole: Seconds
    scipy: Seconds
    scipy_resamples: int
    apart: float
    noise: float

    @property
    def ratios(self) -> tuple[float, float]:
        """How many times scipy's wall and CPU seconds are ours."""
        return self.scipy.wall / self.ours.wall, self.scipy.cpu / self.ours.cpu

    @property
    def met(self) -> dict[str, bool]:
        """Each aim: fast, faster than scipy, same intervals to three decimals."""
        return {
            "seconds": self.ours.wall < SECONDS,
            "ratio": min(self.ratios) >= TIMES,
            "decimals": self.apart < 10**-DECIMALS,
        }


# Scores --------------------------------------------------------------------------------------
def table(values: Floats, kind: type[Scores]) -> Scores:
    """Scores of one seed."""
    names = [f"p{number}" for number in range(values.shape[-1])]
    return kind(pd.DataFrame(np.atleast_2d(values), columns=names), k=K)


def solve(rng: np.random.Generator, problems: int, attempts: int, skill: float) -> NDArray[np.int64]:
    """How many of `attempts` succeed on each problem, whose difficulties differ."""
    rates = rng.beta(2 * skill, 2 * (1 - skill), size=problems)
    return np.asarray(rng.binomial(attempts, rates), dtype=np.int64)


def one_tuple(rng: np.random.Generator, problems: int) -> tuple[Scores, Scores]:
    """Two tuple methods, each problem tried once: 0 or 1."""
    a, b = (solve(rng, problems, 1, skill).astype(float) for skill in (0.65, 0.6))
    return table(a, TupleScores), table(b, TupleScores)


def four_tuples(rng: np.random.Generator, problems: int) -> tuple[Scores, Scores]:
    """Two tuple methods, four tuples on each problem."""
    a, b = (solve(rng, problems, 4, skill) / 4 for skill in (0.65, 0.6))
    return table(a, TupleScores), table(b, TupleScores)


def against_iid(rng: np.random.Generator, problems: int) -> tuple[Scores, Scores]:
    """Four tuples against sixteen i.i.d. attempts."""
    a = solve(rng, problems, 4, 0.65) / 4
    b = iid_pass_at_k(solve(rng, problems, 16, 0.25), 16, k=K)
    return table(a, TupleScores), table(b, IidScores)


KINDS: dict[str, Callable[[np.random.Generator, int], tuple[Scores, Scores]]] = {
    "one tuple": one_tuple,
    "four tuples": four_tuples,
    "four tuples, 16 i.i.d.": against_iid,
}


# Both sides ----------------------------------------------------------------------------------
Pairs = Sequence[tuple[Scores, Scores]]


def ours(pairs: Pairs, resamples: int) -> list[tuple[float, float]]:
    """Our percentile intervals, as `paired_difference` draws them."""
    found = []
    for a, b in pairs:
        gaps = a.to_numpy() - b.to_numpy()
        means = resampled_means([gaps], resamples=resamples, rng=np.random.default_rng(0))
        found.append(limits(means[:, 0], 0.95))
    return found


def whole(pairs: Pairs, resamples: int) -> list[Difference]:
    """Our comparisons with their intervals, p-values and second tests."""
    return [
        (paired_difference if type(a) is type(b) else difference_across_estimands)(a, b, resamples=resamples)
        for a, b in pairs
    ]


def scipys(pairs: Pairs, resamples: int) -> list[tuple[float, float]]:
    """The percentile intervals of a loop over scipy.stats.bootstrap."""
    batch = max(1, SCIPY_BYTES // (3 * 8 * pairs[0][0].shape[1]))  # two resampled arrays and the indices
    found = []
    for number, (a, b) in enumerate(pairs):
        interval = scipy.stats.bootstrap(
            (a.to_numpy()[0], b.to_numpy()[0]),
            lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=min(batch, resamples),
            method="percentile",
            rng=np.random.default_rng(number),
        ).confidence_interval
        found.append((float(interval.low), float(interval.high)))
    return found


def end_noise(gap: Difference, resamples: int) -> float:
    """Standard error of an interval's end from so many draws of a bell of the gap's width."""
    density = scipy.stats.norm.pdf(scipy.stats.norm.ppf(0.025)) / gap.standard_error
    return math.sqrt(0.025 * 0.975 / resamples) / density


def compare(what: str, resamples: int, scipy_resamples: int) -> Row:
    """All cells of one kind on both sides."""
    rng = np.random.default_rng(0)
    pairs = [KINDS[what](rng, PROBLEMS) for _ in range(CELLS)]
    watch = Watch()
    mine = ours(pairs, resamples)
    seconds, watch = watch.read(), Watch()
    gaps = whole(pairs, resamples)
    everything, watch = watch.read(), Watch()
    theirs = scipys(pairs, scipy_resamples)
    scipy_seconds = watch.read(resamples / scipy_resamples)
    apart = float(np.abs(np.array(mine) - np.array(theirs)).max())
    noise = max(math.hypot(end_noise(gap, resamples), end_noise(gap, scipy_resamples)) for gap in gaps)
    return Row(what, seconds, everything, scipy_seconds, scipy_resamples, apart, noise)


# Reporting -----------------------------------------------------------------------------------
def show(rows: Sequence[Row]) -> str:
    """The table of both sides."""
    head = ["scores", "ours, s", "< 5 s", "scipy, s", "ratio", "CPU ratio", ">= 20"]
    head += ["ends apart", "noise of draws", "< 0.001", "with tests, s"]
    body = [
        [
            *(row.what, _text(row.ours), _yes(row.met["seconds"]), _text(row.scipy)),
            *(f"{ratio:.0f}" for ratio in row.ratios),
            *(_yes(row.met["ratio"]), f"{row.apart:.5f}", f"{row.noise:.5f}", _yes(row.met["decimals"])),
            _text(row.whole),
        ]
        for row in rows
    ]
    return str(tabulate(body, head, tablefmt="github", disable_numparse=True))


def _text(seconds: Seconds) -> str:
    return f"{seconds.wall:.1f} ({seconds.cpu:.1f})"


def _yes(met: bool) -> str:
    return "yes" if met else "NO"


def main(arguments: list[str]) -> None:
    """Run both sides for each kind of scores and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scipy-resamples", type=int, default=RESAMPLES, help="fewer: its seconds are scaled")
    parser.add_argument("--only", nargs="+", choices=[*KINDS], metavar="SCORES")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--quick", action="store_true", help="1,000 resamples, to see that it runs")
    chosen = parser.parse_args(arguments)
    resamples = 1_000 if chosen.quick else RESAMPLES
    where = facts()
    print_facts(where)
    few = min(resamples, chosen.scipy_resamples)
    print(f"{CELLS} cells, {PROBLEMS} problems, {resamples} resamples; scipy {few} of them, its seconds scaled")
    print("seconds: wall (CPU)\n")
    whole([against_iid(np.random.default_rng(0), PROBLEMS)], 1_000)  # imports and first calls are not timed
    rows = [compare(what, resamples, few) for what in chosen.only or KINDS]
    print(show(rows))
    if chosen.json:
        record = {"machine": where, "rows": [asdict(row) | {"ratios": row.ratios, "met": row.met} for row in rows]}
        chosen.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
