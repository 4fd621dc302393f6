"""What is found out about members by running their programs: which attempts pass, and which follow their method.

Whether a program follows its method is a question about behaviour. For crossroads it has an exact answer: the verifier
runs the program on probe inputs that separate all eight methods of the family, and it implements the method whose
outputs it prints (`MethodProbe`). Other benchmarks have no such probe, and their answer is None, never a guess.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from cppo_lib.artefacts.progress import log
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.benchmarks.crossroads_methods import FAMILIES, Family
from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import IsolationError
from cppo_lib.rollout.two_stage import Member
from cppo_lib.verifier import Result, Verifier, probe

PROBES = 2  # each probe separates all eight methods; the second guards against a lucky constant
MAX_INTERNAL_ERRORS = 0.005
"""Share of programs without a verdict that a result or a training step can bear (one is always borne)."""
TRAINING_CPU_S = 60.0
"""CPU seconds that all tests of one program may take together in training, where a slow program holds up a step."""


def open_verifier(cache: Path, *, total_cpu_s: float = math.inf, all_tests: bool = False) -> Verifier:
    """A verifier that shares the verdicts in `cache` and is loud about missing layers. Raises IsolationError.

    With `all_tests` a failing program is run on the remaining tests too, so that `n_passed` is a true count.
    """
    verifier = Verifier(cache=cache, total_cpu_s=total_cpu_s, all_tests=all_tests)
    if probe.OPT_OUT_KEY in verifier.layers:
        missing = ", ".join(probe.missing(verifier.layers, probe.NAMES))
        log.info(f"WARNING: isolation layers {missing} are MISSING: unknown programs run with your privileges")
    return verifier


def check_internal_errors(reasons: Sequence[str], programs: int) -> None:
    """Raise IsolationError when too many of `programs` got no verdict; `reasons` has an entry for each of those."""
    if len(reasons) > max(1, MAX_INTERNAL_ERRORS * programs):
        raise IsolationError(
            f"{len(reasons)} of {programs} programs got no verdict (IE: {reasons[0]}): check the machine with "
            "`make doctor` and start again, what is finished is kept"
        )


UNMADE = "NA"
"""The verdict where there is no program (`rollout.task.Slot.made`): nothing was run."""


def verify_members(members: Sequence[Member], verifier: Verifier) -> list[list[Result]]:
    """Run all attempts of all members; one list of K results per member, in slot order.

    A slot without a program has the verdict `UNMADE`, which is none of the verifier's, and passes no test.
    """
    pairs = [(member.problem, program) for member in members for program in member.made]
    results = iter(verifier.verify_many(pairs))
    return [
        [
            next(results) if slot.made else _unmade(member.problem, verifier, cut=sample.completion.cut)
            for slot, sample in zip(member.slots, member.attempts, strict=True)
        ]
        for member in members
    ]


def _unmade(problem: Problem, verifier: Verifier, *, cut: bool) -> Result:
    return Result(
        verdict=UNMADE,
        passed=False,
        reason=f"no program: {'the limit on tokens ended it' if cut else 'the plan could not be read'}",
        n_passed=0,
        n_tests=len(problem.tests),
        first_fail=None,
        cpu_s=0.0,
        wall_s=0.0,
        rss_mb=0.0,
        tests=(),
        cached=False,
        layers=verifier.layers,
    )


def public_only(problem: Problem, result: Result) -> bool | None:
    """Does the program pass every public test but not all? None where a public test was not reached, or there is none.

    A benchmark that runs its public tests first answers for every program, and so does a verifier that runs all.
    """
    public = [number for number, test in enumerate(problem.tests) if test.visibility == "public"]
    seen = [result.tests[number].verdict for number in public if number < len(result.tests)]
    if any(verdict != "AC" for verdict in seen) or public and result.verdict in ("CE", UNMADE):
        return False
    return not result.passed if public and len(seen) == len(public) else None


def probe_problems(family: Family) -> list[Problem]:
    """One problem per method of the family, whose tests only a program that implements it passes."""
    rng = random.Random(f"probes/{family.name}")
    probes = [crossroads.separating_input(family, rng) for _ in range(PROBES)]
    problems = []
    for number, method in enumerate(family.methods):
        tests = tuple(Test(given + "\n", outputs[number] + "\n") for given, outputs in probes)
        problems.append(
            Problem(
                f"probe/{family.name}/{method.name}",
                "crossroads",
                f"probe of {method.name}",
                tests,
                cpu_limit_s=2.0,
                memory_mb=512,
            )
        )
    return problems


class MethodProbe:
    """Finds out which method a crossroads program implements, remembering what it has seen.

    Args:
        verifier: runs the probes; its content cache serves other processes too.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        # The reference programs implement their methods by definition; all others are probed.
        self._known: dict[tuple[str, str], str | None] = {
            (family.name, method.program): method.name for family in FAMILIES for method in family.methods
        }
        self._probes = {context.family.name: probe_problems(context.family) for context in crossroads.contexts()}

    def methods(self, members: Sequence[Member]) -> list[list[str | None]]:
        """Per member and slot the name of the method that the program implements.

        None: none of the eight, or there is no program.
        """
        asked = {(str(member.problem.meta["family"]), program) for member in members for program in member.made}
        self._learn(sorted(asked - self._known.keys()))
        return [
            [
                self._known[str(member.problem.meta["family"]), program] if slot.made else None
                for slot, program in zip(member.slots, member.programs, strict=True)
            ]
            for member in members
        ]

    def _learn(self, unknown: list[tuple[str, str]]) -> None:
        first = self._verifier.verify_many([(self._probes[family][0], program) for family, program in unknown])
        # A program that crashes or hangs on a probe implements no method: only wrong answers are asked further.
        asked = [key for key, result in zip(unknown, first, strict=True) if result.verdict == "WA"]
        pairs = [(probe, program) for family, program in asked for probe in self._probes[family][1:]]
        rest = iter(self._verifier.verify_many(pairs))
        for (family, program), result in zip(unknown, first, strict=True):
            answers = [result.passed]
            if result.verdict == "WA":
                answers += [next(rest).passed for _ in self._probes[family][1:]]
            names = [probe.id.rsplit("/", 1)[1] for probe in self._probes[family]]
            self._known[family, program] = names[answers.index(True)] if any(answers) else None


def method_probe(benchmark: str, verifier: Verifier) -> MethodProbe | None:
    """The probe of plan-following, None where a benchmark has none."""
    return MethodProbe(verifier) if benchmark == "crossroads" else None


def truly_valid(member: Member) -> bool | None:
    """Does the tuple name K different methods of the problem's family? None where nobody knows, or without a tuple."""
    if member.parsed is None or "hidden_method" not in member.problem.meta:
        return None
    return member.parsed.complete and not violation(member.problem, member.parsed.methods)


def violation(problem: Problem, methods: Sequence[str]) -> str:
    """What is wrong with a tuple for a crossroads problem, by its family's catalogue; empty where it is valid."""
    family = crossroads.family_of(problem)
    named = [crossroads.method_named(family, method) for method in methods]
    if None in named:
        return "wrong task"
    return "harmful duplicate" if len(set(named)) < len(named) else ""


def followed(member: Member, implemented: Sequence[str | None]) -> list[bool | None]:
    """Per slot: does the program implement the method that it was given? None where no method was given."""
    answers: list[bool | None] = []
    for strategy, method in zip(member.strategies, implemented, strict=True):
        named = crossroads.method_named(crossroads.family_of(member.problem), strategy or "")
        answers.append(None if strategy is None else named is not None and named.name == method)
    return answers
