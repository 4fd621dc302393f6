"""crossroads: the embedded benchmark, a world in which the best pass@K is known in closed form.

A context is a family of problems together with a visible clue. Each context has eight candidate methods and two
distributions over them: `p`, from which the method behind a problem's hidden tests is drawn, and `q`, the popularity
of the methods in the corpus that the base model is trained on. A problem's statement shows the task, the clue and
one public sample on which all eight methods agree; every hidden test separates all eight. So nothing that a policy
can read says which method will pass, and pass@K needs K different methods. For one problem of a context, with
`p_m` and `q_m` the probabilities of method m:

- direct sampling of K programs from q passes with `sum_m p_m (1 - (1 - q_m)^K)`;
- no i.i.d. sampler passes more often than the *independent ceiling* `max_q sum_m p_m (1 - (1 - q_m)^K)`;
- no tuple of K methods passes more often than the *coordinated ceiling*, the sum of the K largest `p_m`.

The draws of hidden methods are stratified: in each split of a context the methods appear as often as `p` says, to
the nearest whole problem. Sizes and distributions are our own choice; the paper has no such benchmark.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cppo_lib.data.benchmarks.crossroads_methods import FAMILIES, Family, Method, evaluate
from cppo_lib.data.problem import LoadReport, Problem, Test
from cppo_lib.errors import DatasetError

SPLITS = ("train", "dev", "test")
P_VALUES = (0.28, 0.24, 0.20, 0.16, 0.04, 0.04, 0.02, 0.02)
Q_VALUES = (0.36, 0.20, 0.12, 0.10, 0.08, 0.06, 0.05, 0.03)
WORLD_SEED = 20  # fixes which method gets which p and q; part of the benchmark, not of a run

_VERBS = ("Find", "Report", "Print", "Give", "Compute")
_NOUNS = ("readings", "prices", "points", "sizes", "times", "ages", "weights", "votes", "lengths", "costs")
# Value and length ranges in which random lists often separate all eight methods of the family.
_TEST_RANGES = {
    "middle": (0, 99, 6, 10),
    "spread": (0, 99, 6, 10),
    "score": (0, 20, 7, 10),
    "order": (0, 20, 7, 10),
    "count": (0, 4, 9, 14),
    "checksum": (0, 40, 6, 10),
}


@dataclass(frozen=True)
class Context:
    """A family with one of its clues; `p` and `q` are aligned with `family.methods`."""

    family: Family
    clue: str
    p: tuple[float, ...]
    q: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.family.name}/{self.clue}"


def direct_rate(p: Sequence[float], q: Sequence[float], k: int) -> float:
    """pass@k of k independent draws from `q` when the right method is drawn from `p`."""
    return float(sum(pm * (1 - (1 - qm) ** k) for pm, qm in zip(p, q, strict=True)))


def best_independent(p: Sequence[float], k: int) -> tuple[float, ...]:
    """The distribution q that maximises `direct_rate(p, q, k)`.

    The objective is concave. Its Lagrange conditions `k p_m (1 - q_m)^(k-1) = lambda` for the methods in use give
    `q_m = 1 - (lambda / (k p_m))^(1/(k-1))`: water-filling over the largest p, with the number of methods in use
    found by trying all. For k = 1 all mass goes to the largest p.
    """
    order = sorted(range(len(p)), key=lambda m: -p[m])
    best = [0.0] * len(p)
    best[order[0]] = 1.0
    for used in range(2, len(p) + 1 if k > 1 else 0):
        support = [m for m in order[:used] if p[m] > 0]
        root = [p[m] ** (-1 / (k - 1)) for m in support]
        level = (len(support) - 1) / sum(root)
        weights = [1 - level * r for r in root]
        if min(weights) < 0:
            break
        best = [0.0] * len(p)
        for m, weight in zip(support, weights, strict=True):
            best[m] = weight
    return tuple(best)


def independent_ceiling(p: Sequence[float], k: int) -> float:
    """The best pass@k of any i.i.d. sampler."""
    return direct_rate(p, best_independent(p, k), k)


def coordinated_ceiling(p: Sequence[float], k: int) -> float:
    """The best pass@k of any tuple of k methods: the sum of the k largest p."""
    return float(sum(sorted(p, reverse=True)[:k]))


@functools.cache
def contexts() -> tuple[Context, ...]:
    """The twelve contexts, with p and q assigned once and for all by `WORLD_SEED`.

    The assignment of q is redrawn until direct pass@4 is within 0.005 of 0.39, so that in every context popularity
    is a poor guide to success and all contexts leave the same room for improvement.
    """
    rng = random.Random(WORLD_SEED)
    found = []
    for family in FAMILIES:
        for clue in family.clues:
            p = tuple(rng.sample(P_VALUES, len(P_VALUES)))
            q = tuple(rng.sample(Q_VALUES, len(Q_VALUES)))
            while abs(direct_rate(p, q, 4) - 0.39) > 0.005:
                q = tuple(rng.sample(Q_VALUES, len(Q_VALUES)))
            found.append(Context(family, clue, p, q))
    return tuple(found)


def ceilings(k: int, hidden: Iterable[tuple[str, str]] | None = None) -> dict[str, Any]:
    """Closed-form pass@k per context and on average: keys `k, direct, independent, coordinated, contexts`.

    Args:
        hidden: context and hidden method of each problem at hand. Their shares take the place of p, and contexts
            weigh by their problems; None: the world's p. A quota of few problems cannot hold the methods that are
            seldom right, so a small split is easier than the world that it was drawn from.
    """
    table, sizes = {}, []
    drawn = None if hidden is None else Counter(hidden)
    for context in contexts():
        p = context.p
        if drawn is not None:
            counts = [drawn[context.name, method.name] for method in context.family.methods]
            if not sum(counts):
                continue
            p = tuple(count / sum(counts) for count in counts)
            sizes.append(sum(counts))
        table[context.name] = {
            "direct": direct_rate(p, context.q, k),
            "independent": independent_ceiling(p, k),
            "coordinated": coordinated_ceiling(p, k),
        }
    mean = {
        key: float(np.average([row[key] for row in table.values()], weights=sizes or None))
        for key in ("direct", "independent", "coordinated")
    }
    return {"k": k, **mean, "contexts": table}


def hidden_methods(problems: Iterable[Problem]) -> list[tuple[str, str]]:
    """Context and hidden method of each crossroads problem, as `ceilings` takes them; others are left out."""
    metas = (problem.meta for problem in problems)
    return [(str(meta["group"]), str(meta["hidden_method"])) for meta in metas if "hidden_method" in meta]


def quota(weights: Sequence[float], n: int) -> list[int]:
    """How often each item appears among n stratified draws: largest-remainder rounding of `n * weights`."""
    exact = [n * weight for weight in weights]
    counts = [math.floor(x + 1e-9) for x in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: n - sum(counts)]:
        counts[i] += 1
    return counts


def stratified(weights: Sequence[float], n: int, rng: random.Random) -> list[int]:
    """n indices whose counts follow `quota`, in random order."""
    draws = [i for i, count in enumerate(quota(weights, n)) for _ in range(count)]
    rng.shuffle(draws)
    return draws


def _outputs(family: Family, numbers: list[int]) -> list[str] | None:
    try:
        return [evaluate(method, numbers) for method in family.methods]
    except (IndexError, ValueError, ZeroDivisionError):
        return None


def _render(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


@functools.cache
def agreeing_samples(family: Family) -> tuple[tuple[str, str], ...]:
    """Public samples (input, output) of one-digit numbers on which all methods of the family agree."""
    rng = random.Random(f"samples/{family.name}")
    draws = {tuple(rng.randint(0, 9) for _ in range(rng.randint(2, 4))) for _ in range(20000)}
    found: dict[str, str] = {}
    for numbers in draws:
        outputs = _outputs(family, list(numbers))
        if outputs and len(set(outputs)) == 1:
            found[_render(numbers)] = outputs[0]
    return tuple(sorted(found.items()))


def separating_input(family: Family, rng: random.Random) -> tuple[str, list[str]]:
    """A random input on which all methods of the family print different outputs, with those outputs."""
    low, high, shortest, longest = _TEST_RANGES[family.name]
    while True:
        numbers = [rng.randint(low, high) for _ in range(rng.randint(shortest, longest))]
        outputs = _outputs(family, numbers)
        if outputs and len(set(outputs)) == len(outputs):
            return _render(numbers), outputs


def statements(context: Context, rng: random.Random) -> Iterator[tuple[str, Test]]:
    """All different statements of a context in random order, each with its public sample.

    Raises:
        DatasetError: more statements were asked for than there are.
    """
    choices = list(itertools.product(_VERBS, _NOUNS, agreeing_samples(context.family)))
    rng.shuffle(choices)
    for verb, noun, (given, printed) in choices:
        statement = f"{verb} {context.family.task} of the {context.clue} {noun}.\nSample: {given} -> {printed}"
        yield statement, Test(given + "\n", printed + "\n", "public")
    raise DatasetError(
        f"crossroads context {context.name} has only {len(choices)} different statements: "
        "lower train_per_context, dev_per_context, test_per_context or corpus_per_context"
    )


def _problem(
    context: Context,
    ident: str,
    statement: str,
    sample: Test,
    method: int,
    hidden: int,
    rng: random.Random,
) -> Problem:
    # Hidden tests come first: they tell the methods apart, so that a wrong program costs one execution, not two.
    tests = []
    for _ in range(hidden):
        given, outputs = separating_input(context.family, rng)
        tests.append(Test(given + "\n", outputs[method] + "\n"))
    tests.append(sample)
    meta = {
        "group": context.name,
        "family": context.family.name,
        "clue": context.clue,
        "hidden_method": context.family.methods[method].name,
    }
    return Problem(ident, "crossroads", statement, tuple(tests), cpu_limit_s=2.0, memory_mb=512, meta=meta)


@functools.cache
def world(
    train_per_context: int,
    dev_per_context: int,
    test_per_context: int,
    corpus_per_context: int,
    hidden_tests: int,
    seed: int,
) -> dict[str, Any]:
    """All problems and the corpus of one draw of the world.

    Returns a dict with the lists of problems `train`, `dev`, `test` and `corpus`, a list of rows with the keys
    `group, family, statement, popular, uniform, plan`: method names drawn by popularity q (for a direct program and
    a one-method plan), evenly (for a program that follows a named method), and a plan of all methods in an order drawn
    in proportion to sqrt(q). Planner SFT takes its first K: tuples that lean to the popular methods of their context,
    but leave every method a fair chance to be tried. No statement appears twice, within a split or across splits and
    corpus.
    """
    sizes = dict(zip(SPLITS, (train_per_context, dev_per_context, test_per_context), strict=True))
    drawn: dict[str, Any] = {split: [] for split in SPLITS}
    drawn["corpus"] = []
    for context in contexts():
        rng = random.Random(f"{seed}/{context.name}")
        stream = statements(context, rng)
        for split in SPLITS:
            for number, method in enumerate(stratified(context.p, sizes[split], rng)):
                statement, sample = next(stream)
                ident = f"{context.name}/{split}/{number:03d}"
                drawn[split].append(_problem(context, ident, statement, sample, method, hidden_tests, rng))
        drawn["corpus"] += _corpus_rows(context, corpus_per_context, stream, rng)
    return drawn


def _corpus_rows(
    context: Context, n: int, stream: Iterator[tuple[str, Test]], rng: random.Random
) -> list[dict[str, Any]]:
    names = [method.name for method in context.family.methods]
    even = [1 / len(names)] * len(names)
    rows = []
    for popular, uniform in zip(stratified(context.q, n, rng), stratified(even, n, rng), strict=True):
        # An exponential race draws without replacement: the method with rate r comes first in proportion to r.
        race = sorted(range(len(names)), key=lambda m: rng.expovariate(math.sqrt(context.q[m])))
        rows.append(
            {
                "group": context.name,
                "family": context.family.name,
                "statement": next(stream)[0],
                "popular": names[popular],
                "uniform": names[uniform],
                "plan": [names[m] for m in race],
            }
        )
    return rows


def load(
    split: str,
    *,
    report: LoadReport | None = None,
    train_per_context: int = 50,
    dev_per_context: int = 10,
    test_per_context: int = 50,
    corpus_per_context: int = 0,
    hidden_tests: int = 2,
    seed: int = 0,
) -> list[Problem]:
    """The problems of a split (train, dev or test); drawn from the seed, so `report` has no source to name.

    Raises:
        DatasetError: another split.
    """
    if split not in SPLITS:
        raise DatasetError(f"crossroads has no split {split!r}; choose one of {', '.join(SPLITS)}")
    drawn = world(train_per_context, dev_per_context, test_per_context, corpus_per_context, hidden_tests, seed)
    return list(drawn[split])


def family_of(problem: Problem) -> Family:
    """The family that a crossroads problem belongs to."""
    return next(family for family in FAMILIES if family.name == problem.meta["family"])


def method_named(family: Family, name: str) -> Method | None:
    """The family's method with this name (case and surrounding space ignored), or None."""
    wanted = name.strip().casefold()
    return next((method for method in family.methods if method.name == wanted), None)
