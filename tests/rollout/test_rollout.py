"""Two-stage rollouts under a fixed budget, and what is found out about their programs.

The policy is a script: a function that completes each rendered prompt with known text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.benchmarks.crossroads_methods import FAMILIES
from cppo_lib.model.engine import Completion, Place
from cppo_lib.model.tiny import build_tokenizer
from cppo_lib.reward import plan_following
from cppo_lib.reward.gate_rules import GatedMember, gated
from cppo_lib.reward.score import score, statistics
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.rollout.two_stage import rollout
from cppo_lib.verifier import Verifier

K = 3
STYLE = PromptStyle("brief", build_tokenizer(["print(1)"], 300))
SIZES = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 2}
PROBLEMS = crossroads.load("test", **SIZES)[:2]  # of one family and clue
FAMILY = crossroads.family_of(PROBLEMS[0])
PROGRAMS = {method.name: method.program for method in FAMILY.methods}


class Script:
    """Completes prompts with `reply(prompt)` and remembers every call."""

    def __init__(self, reply: Callable[[str], str]) -> None:
        self.reply = reply
        self.calls: list[tuple[list[str], int]] = []

    def __call__(self, prompt_ids: list[list[int]], limit: int, places: list[Place]) -> list[Completion]:
        prompts = STYLE.tokenizer.batch_decode(prompt_ids)
        self.calls.append((prompts, limit))
        replies = [self.reply(prompt) for prompt in prompts]
        return [Completion([*ids, STYLE.tokenizer.eos_token_id]) for ids in STYLE.encode(replies)]


def run(procedure: str, reply: Callable[[str], str], **options: str) -> tuple[list[GatedMember], Script]:
    script = Script(reply)
    limits = {"max_plan_tokens": 20, "max_program_tokens": 30}
    members = rollout(PROBLEMS, procedure, K, style=STYLE, generate=script, **limits, **options)
    return gated(members), script


def follow(plan: str) -> Callable[[str], str]:
    """A policy that answers planner prompts with `plan` and then follows the named method."""

    def reply(prompt: str) -> str:
        if "methods: " in prompt:
            return plan
        method = prompt.split("method: ")[1].split("\n")[0] if "method: " in prompt else ""
        return PROGRAMS.get(method, "print('no method')")

    return reply


def test_direct_asks_for_k_programs_and_never_for_a_plan():
    members, script = run("direct", lambda prompt: "print(1)")
    assert [len(call[0]) for call in script.calls] == [2 * K]
    assert script.calls[0] == ([STYLE.direct(problem) for problem in PROBLEMS for _ in range(K)], 30)
    for member, problem in zip(members, PROBLEMS, strict=True):
        assert member.problem is problem
        assert (member.plans, member.parsed, member.valid, member.refusal) == ((), None, None, "")
        assert member.strategies == (None,) * K
        assert member.programs == ("print(1)",) * K


def test_tuple_gives_each_slot_the_method_that_the_one_plan_names_for_it():
    members, script = run("tuple", follow("1. mean\n2. mode\n3. midrange"))
    planner, solver = script.calls
    assert planner == ([STYLE.planner(problem, K) for problem in PROBLEMS], 20)
    named = ("mean", "mode", "midrange")
    assert solver == ([STYLE.solver(problem, m) for problem in PROBLEMS for m in named], 30)
    for member in members:
        assert (member.valid, member.refusal) == (True, "")
        assert member.strategies == named
        assert member.programs == tuple(PROGRAMS[m] for m in named)
        assert len(member.plans) == 1


@pytest.mark.parametrize("plan", ["1. mean\n2. mode\n3. midrange", "no list at all"])
def test_a_slot_prompt_names_the_slot_and_nothing_of_the_plan(plan):
    members, script = run("tuple", follow(plan), solver_prompt="slot")
    assert script.calls[0][0] == [STYLE.planner(problem, K) for problem in PROBLEMS]
    assert script.calls[1][0] == [STYLE.slot(problem, slot) for problem in PROBLEMS for slot in (1, 2, 3)]
    assert len(set(script.calls[1][0])) == 2 * K
    assert [member.strategies for member in members] == [(None,) * K] * 2
    assert [member.valid for member in members] == [plan.startswith("1.")] * 2


def test_plan_then_solve_plans_each_slot_by_itself_and_is_never_refused():
    members, script = run("plan_then_solve", follow("1. mean"))
    assert [len(call[0]) for call in script.calls] == [2 * K, 2 * K]
    assert script.calls[0][0] == [STYLE.planner(problem, 1) for problem in PROBLEMS for _ in range(K)]
    for member in members:
        assert len(member.plans) == K
        assert member.strategies == ("mean",) * K  # the same method three times is no fault here
        assert member.valid is None


@pytest.mark.parametrize(
    ("plan", "strategies", "reason"),
    [
        ("1. mean\n2. mode", ("mean", "mode", None), "incomplete"),
        ("1. mean\n2. mode\n3. midrange\n4. mean", ("mean", "mode", "midrange"), "incomplete"),
        ("no list at all", (None, None, None), "incomplete"),
        ("1. mean\n2. mode\n3. Mean", ("mean", "mode", "Mean"), "repeated"),
    ],
)
def test_a_bad_plan_is_refused_but_costs_the_same_k_programs_in_the_same_two_calls(plan, strategies, reason):
    members, script = run("tuple", follow(plan))
    assert [len(call[0]) for call in script.calls] == [2, 2 * K]
    for member in members:
        assert (member.valid, member.refusal) == (False, reason)
        assert member.strategies == strategies
        assert len(member.programs) == K
    unnamed = strategies.index(None) if None in strategies else None
    if unnamed is not None:
        assert script.calls[1][0][unnamed] == STYLE.direct(PROBLEMS[0])


def test_an_unreadable_tuple_can_have_no_programs() -> None:
    good, short = "1. mean\n2. mode\n3. midrange", "1. mean\n2. mode"

    def reply(prompt: str) -> str:
        plans = {STYLE.planner(problem, K): plan for problem, plan in zip(PROBLEMS, (short, good), strict=True)}
        return plans.get(prompt) or follow(good)(prompt)

    members, script = run("tuple", reply, unreadable="nothing")
    assert PROBLEMS[0].statement != PROBLEMS[1].statement
    assert script.calls[1][0] == [STYLE.solver(PROBLEMS[1], method) for method in ("mean", "mode", "midrange")]
    unread, read = members
    assert [slot.made for slot in unread.slots] == [False] * K and [slot.made for slot in read.slots] == [True] * K
    assert (unread.valid, unread.refusal, unread.parsed.methods) == (False, "incomplete", ("mean", "mode"))
    assert unread.strategies == (None,) * K and unread.programs == ("",) * K and unread.made == ()
    (direct,) = STYLE.encode([STYLE.direct(PROBLEMS[0])])
    assert {(tuple(s.prompt_ids), tuple(s.completion.ids), s.text) for s in unread.attempts} == {
        (tuple(direct), (), "")
    }
    # The other member is what it would be beside a plan that can be read.
    assert read == run("tuple", follow(good))[0][1]
    assert read.made == read.programs


@pytest.mark.parametrize("solver_prompt", ["method", "slot"])
def test_without_a_readable_tuple_nothing_is_generated(solver_prompt) -> None:
    members, script = run("tuple", follow("no list"), unreadable="nothing", solver_prompt=solver_prompt)
    assert len(script.calls) == 1 and [member.made for member in members] == [()] * 2
    other, script = run("direct", follow("no list"), unreadable="nothing")
    assert len(script.calls) == 1 and [len(member.made) for member in other] == [K] * 2


def test_members_keep_prompt_and_completion_ids_of_every_sample():
    members, _ = run("tuple", follow("1. mean\n2. mode\n3. midrange"))
    for sample in (*members[0].plans, *members[0].attempts):
        assert sample.completion.ids[-1] == STYLE.tokenizer.eos_token_id
        assert STYLE.tokenizer.decode(sample.completion.ids, skip_special_tokens=True) == sample.text
    assert members[0].plans[0].prompt_ids == STYLE.encode([STYLE.planner(PROBLEMS[0], K)])[0]


# --- programs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1) as verifier:
        yield verifier


def test_verdicts_come_per_member_and_slot(verifier):
    hidden = [str(problem.meta["hidden_method"]) for problem in PROBLEMS]
    wrong = next(name for name in PROGRAMS if name not in hidden)
    members, _ = run("tuple", follow(f"1. {wrong}\n2. {hidden[0]}\n3. {hidden[1]}"))
    results = plan_following.verify_members(members, verifier)
    passed = [[result.passed for result in row] for row in results]
    assert passed == [[False, hidden[0] == h, hidden[1] == h] for h in hidden]


def test_the_method_probe_names_what_each_program_implements(verifier):
    probe = plan_following.MethodProbe(verifier)
    written = {
        "mean": "a = [int(x) for x in input().split()]\nprint(sum(a) // len(a))",  # not as the corpus has it
        "mode": PROGRAMS["mode"],
        "midrange": "print(input())",
    }
    members, _ = run(
        "tuple",
        lambda p: (
            "1. mean\n2. mode\n3. midrange" if "methods: " in p else written[p.split("method: ")[1].split("\n")[0]]
        ),
    )
    assert probe.methods(members) == [["mean", "mode", None]] * 2
    assert plan_following.followed(members[0], probe.methods(members)[0]) == [True, True, False]


def test_an_attempt_that_was_not_made_is_not_run_and_counts_as_failed(verifier) -> None:
    hidden = str(PROBLEMS[0].meta["hidden_method"])
    plans = iter(["no list", "\n".join(f"{n}. {m}" for n, m in enumerate((hidden, "mode", "mean"), start=1))])
    members, _ = run("tuple", lambda p: next(plans) if "methods: " in p else follow("")(p), unreadable="nothing")
    unread, read = plan_following.verify_members(members, verifier)
    assert [result.passed for result in read][0] == (PROBLEMS[1].meta["hidden_method"] == hidden)
    for result in unread:
        assert (result.verdict, result.passed, result.n_passed, result.tests) == ("NA", False, 0, ())
        assert (result.cpu_s, result.wall_s, result.cached, result.isolation) == (0, 0, False, read[0].isolation)
        assert result.n_tests == len(PROBLEMS[0].tests) and result.reason == "no program: the plan could not be read"
        assert plan_following.public_only(PROBLEMS[0], result) is False
    methods = plan_following.MethodProbe(verifier).methods(members)
    assert methods == [[None] * K, [hidden, "mode", "mean"]]
    assert plan_following.followed(members[0], methods[0]) == [None] * K
    scored = score(members, verifier, plan_following.MethodProbe(verifier), credit="own")
    assert scored.r_plan[0] == 0 and scored.credit[0].tolist() == [0.0] * K
    assert scored.rewards.shape == (2 * (K + 1),) and len(scored.samples) == 2 * (K + 1)
    assert [row["verdict"] for row in scored.attempt_rows()][:K] == ["NA"] * K
    assert statistics(scored)["followed"] == 0.5
    assert statistics(scored)["plans_cut"] == 0


def test_without_a_named_method_nothing_is_followed(verifier):
    probe = plan_following.MethodProbe(verifier)
    direct, _ = run("direct", lambda prompt: PROGRAMS["mode"])
    assert probe.methods(direct)[0] == ["mode"] * K
    assert plan_following.followed(direct[0], ["mode"] * K) == [None] * K
    odd, _ = run("tuple", follow("1. a method of my own\n2. Mode\n3. mean"))
    assert plan_following.followed(odd[0], ["mode", "mode", "mode"]) == [False, True, False]


def test_probes_tell_all_methods_of_every_family_apart(verifier):
    for family in FAMILIES:
        probes = plan_following.probe_problems(family)
        results = iter(verifier.verify_many([(one, m.program) for one in probes for m in family.methods]))
        table = [[next(results).passed for _ in family.methods] for _ in probes]
        assert table == [[i == j for j in range(8)] for i in range(8)]
