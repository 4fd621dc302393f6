"""Every procedure: its prompts, its planner calls, K programs whatever the planner writes, and how it is scored.

The policy is a script over rendered prompts; the chat template is a toy, so that prompts can be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import count

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lib.artefacts import paths
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.estimators import IidScores, TupleScores, score_table
from cppo_lib.evaluation.records import Run, attempt_records, summary
from cppo_lib.model.decoding import uniform
from cppo_lib.model.engine import Completion, Place
from cppo_lib.model.tiny import build_tokenizer
from cppo_lib.reward.gate_rules import GatedMember, gated
from cppo_lib.reward.plan_following import verify_members
from cppo_lib.rollout.divsampling import INSTRUCTIONS, ROLES
from cppo_lib.rollout.plans import first_line, render_tuple
from cppo_lib.rollout.plansearch import DERIVED, subsets
from cppo_lib.rollout.procedures import PROCEDURES, read_probabilities
from cppo_lib.rollout.prompts import BRIEF, PromptStyle
from cppo_lib.rollout.replies import bare
from cppo_lib.rollout.two_stage import Member, rollout
from cppo_lib.runs import config
from cppo_lib.runs.parameters import Evaluation
from cppo_lib.verifier import Verifier

K = 4
PROBLEM = Problem("own/add", "own", "Add two numbers.", (Test("1 2\n", "3\n"),))
PROGRAM = "print(sum(map(int, input().split())))"
SOLVE, PLAN = "Solve this programming problem.", "Here is a programming problem."
LISTED = [f"way {number}" for number in range(1, K + 1)]


def tokenizer():
    made = build_tokenizer(["1. way\n2. "], 300)
    made.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    return made


TOKENIZER = tokenizer()
STYLE = PromptStyle("instruct", TOKENIZER)
BRIEFLY = PromptStyle("brief", TOKENIZER)


class Script:
    """Answers planner prompts with `reply(prompt)` and solver prompts with a program; remembers every call."""

    def __init__(self, reply: Callable[[str], str], program: str = f"```python\n{PROGRAM}\n```") -> None:
        self.reply, self.program = reply, program
        self.calls: list[list[str]] = []

    def __call__(self, prompt_ids: list[list[int]], limit: int, places: list[Place]) -> list[Completion]:
        prompts = TOKENIZER.batch_decode(prompt_ids)
        self.calls.append(prompts)
        texts = [self.program if SOLVE in prompt else self.reply(prompt) for prompt in prompts]
        return [Completion(ids) for ids in STYLE.encode(texts)]


def run(
    procedure: str, reply: Callable[[str], str], *, members: int = 1, k: int = K, seed: int = 0
) -> tuple[list[GatedMember], Script]:
    script = Script(reply)
    made = rollout(
        [PROBLEM] * members,
        procedure,
        k,
        style=STYLE,
        generate=script,
        max_plan_tokens=99,
        max_program_tokens=99,
        seed=seed,
    )
    return gated(made), script


def numbered() -> Callable[[str], str]:
    """A planner whose every item is new: `1. item 0`, then `1. item 1`, and so on; ten items a call."""
    counter = count()
    return lambda prompt: render_tuple([f"item {next(counter)}" for _ in range(10)])


# --- all of them --------------------------------------------------------------------------------


def test_every_procedure_has_steps_and_can_be_named_in_a_file():
    assert set(BRIEF) < set(PROCEDURES)
    assert Evaluation.model_json_schema()["properties"]["procedure"]["enum"] == list(PROCEDURES)


def test_only_independent_draws_are_scored_as_such():
    assert {name for name in PROCEDURES if not PROCEDURES[name].coordinated} == {"direct", "plan_then_solve", "ifg"}


@pytest.mark.parametrize("procedure", PROCEDURES)
@settings(max_examples=25)
@given(
    st.lists(
        st.text(max_size=40) | st.sampled_from(["1. a\n2. b", "- x", '{"method": "c", "probability": 0.3}', "1. a"]),
        min_size=1,
    )
)
def test_any_planner_text_costs_k_programs(procedure, texts):
    number = count()
    members, script = run(procedure, lambda prompt: texts[next(number) % len(texts)], members=2, k=3)
    assert [len(member.programs) for member in members] == [3, 3]
    assert {program for member in members for program in member.programs} == {PROGRAM}
    *planner, solver = script.calls
    assert len(solver) == 6 and all(SOLVE in prompt for prompt in solver)
    assert sum(map(len, planner)) == sum(len(member.plans) for member in members)
    assert bool(planner) == PROCEDURES[procedure].planned
    for member in members:
        assert all((slot.strategy is None) == ("Use this" not in slot.prompt) for slot in member.slots) or (
            procedure == "divsampling_ideas"
        )


@pytest.mark.parametrize("procedure", [name for name in PROCEDURES if "plansearch" not in name])
def test_the_calls_do_not_depend_on_what_the_planner_writes(procedure):
    shapes = []
    for reply in (lambda prompt: "```", lambda prompt: render_tuple(LISTED)):
        _, script = run(procedure, reply, members=3)
        shapes.append([len(call) for call in script.calls])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_a_member_does_not_depend_on_those_beside_it(procedure):
    """What is written follows from the place alone; a reply is one of several lists, some of them too short."""

    def generate(prompt_ids: list[list[int]], limit: int, places: list[Place]) -> list[Completion]:
        asked.extend(places)
        ways = (uniform(places, K)[..., 0] * 9).int().tolist()
        texts = ["\n".join(f"{n}. way {way}" for n, way in enumerate(row[: row[0] + 1], start=1)) for row in ways]
        return [Completion(ids) for ids in STYLE.encode(texts)]

    def made(problems: list[Problem], numbers: list[int] | None = None) -> list[Member]:
        limits = {"max_plan_tokens": 99, "max_program_tokens": 99}
        return rollout(problems, procedure, K, style=STYLE, generate=generate, seed=5, numbers=numbers, **limits)

    asked: list[Place] = []
    other = Problem("own/sub", "own", "Subtract two numbers.", (Test("1 2\n", "-1\n"),))
    whole = made([PROBLEM, PROBLEM, other, PROBLEM])
    assert len(set(asked)) == len(asked) == sum(len(member.plans) + K for member in whole)
    assert len({tuple(sample.text for sample in member.attempts) for member in whole}) == 4
    assert made([other, PROBLEM, PROBLEM, PROBLEM]) == [whole[2], whole[0], whole[1], whole[3]]
    assert made([PROBLEM]) + made([other]) == [whole[0], whole[2]]
    assert made([PROBLEM, PROBLEM], numbers=[2, 1]) == [whole[3], whole[1]]


# --- sequential ---------------------------------------------------------------------------------


def test_sequential_shows_each_call_the_methods_before_it():
    replies = iter(["Use a heap.", "2. sorting", "1. Use a heap\n2. sorting\n3. brute force", "4. **A formula:**"])
    (member,), script = run("sequential", lambda prompt: next(replies))
    assert member.strategies == ("Use a heap.", "sorting", "brute force", "A formula")
    assert (member.valid, member.refusal) == (True, "")
    first, second, _, fourth, _ = script.calls
    assert first == [STYLE.planner(PROBLEM, 1)]
    assert "ways:\n1. Use a heap.\n\n" in second[0]
    assert "ways:\n1. Use a heap.\n2. sorting\n3. brute force\n\n" in fourth[0]
    assert [slot.plan for slot in member.slots] == [0, 1, 2, 3]


def test_a_method_named_again_or_not_at_all_makes_a_sequence_invalid():
    (member,), _ = run("sequential", lambda prompt: "1. A heap")
    assert (member.strategies, member.refusal) == (("A heap",) * K, "repeated")
    replies = iter(["1. a", "```", "2. b", "3. c"])
    (member,), script = run("sequential", lambda prompt: next(replies))
    assert (member.strategies, member.refusal) == (("a", None, "b", "c"), "incomplete")
    assert script.calls[-1][1] == STYLE.direct(PROBLEM)


def test_the_tiny_model_continues_its_own_list():
    calls: list[list[str]] = []

    def generate(prompt_ids: list[list[int]], limit: int, places: list[Place]) -> list[Completion]:
        calls.append(TOKENIZER.batch_decode(prompt_ids))
        first = calls[-1][0].endswith("methods: ")
        text = "1. mean\n2. mode" if first else f"way {len(calls)}\n4. mean"
        return [Completion(ids) for ids in BRIEFLY.encode([text] * len(prompt_ids))]

    problem = crossroads.load("test", train_per_context=1, dev_per_context=1, test_per_context=1)[0]
    (member,) = rollout(
        [problem], "sequential", 3, style=BRIEFLY, generate=generate, max_plan_tokens=9, max_program_tokens=9
    )
    assert member.strategies == ("mean", "way 2", "way 3")
    head = f"{problem.statement}\n3 methods: "
    assert [call[0] for call in calls[:3]] == [head, f"{head}1. mean\n2. ", f"{head}1. mean\n2. way 2\n3. "]


# --- verbalized sampling ------------------------------------------------------------------------


def objects(*items: tuple[str, float]) -> str:
    return json.dumps([{"method": method, "probability": chance} for method, chance in items], indent=2)


@pytest.mark.parametrize("procedure", ["verbalized", "verbalized_tail"])
def test_verbalized_sampling_reads_methods_and_probabilities(procedure):
    plan = f"Sure:\n```json\n{objects(('a heap', 0.4), ('sorting', 0.05), ('in O(1)', 20), ('two loops', 1))}\n```"
    (member,), script = run(procedure, lambda prompt: plan)
    assert member.strategies == ("a heap", "sorting", "in O(1)", "two loops")
    assert [slot.probability for slot in member.slots] == [0.4, 0.05, None, 1.0]
    assert member.valid and [slot.plan for slot in member.slots] == [0] * K
    assert "exactly 4 objects" in script.calls[0][0]
    assert ("less probable than 0.10" in script.calls[0][0]) == (procedure == "verbalized_tail")
    assert "0.4" not in script.calls[1][0]


def test_a_list_that_is_cut_off_or_too_long_is_invalid_and_its_methods_are_attempted():
    whole = objects(("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4), ("e", 0.5))
    (member,), _ = run("verbalized", lambda prompt: whole)
    assert (member.strategies, member.refusal) == (("a", "b", "c", "d"), "incomplete")
    (member,), script = run("verbalized", lambda prompt: whole[: whole.index('"d"')])
    assert (member.strategies, member.refusal) == (("a", "b", "c", None), "incomplete")
    assert script.calls[1][3] == STYLE.direct(PROBLEM)


def test_methods_that_differ_in_their_probabilities_alone_are_the_same():
    (member,), _ = run("verbalized", lambda prompt: objects(("a", 0.1), ("b", 0.2), ("c", 0.3), ("A.", 0.4)))
    assert (member.valid, member.refusal) == (False, "repeated")


@given(st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.integers(0, 100).map(lambda n: n / 100))))
def test_any_methods_and_probabilities_are_read_back(items):
    meant = [(bare(method), chance) for method, chance in items if bare(method)]  # `0.` is a number and no method
    assert read_probabilities(objects(*items)) == meant


@pytest.mark.parametrize(
    ("plan", "read"),
    [
        ('{"method": "a"}, {"method": "b", "probability": "high"}', [("a", None), ("b", None)]),
        (r'{"method": "\d+ by regex", "probability": .5}', [(r"\d+ by regex", 0.5)]),
        ('{"method": "a", "probability": 5E-3}', [("a", 0.005)]),
        ('{"method": " ", "probability": 0.5}', []),
        ('{"method": "cut o', []),
        ("1. a (0.5)", []),
    ],
)
def test_objects_as_models_write_them(plan, read):
    assert read_probabilities(plan) == read


# --- ifg ----------------------------------------------------------------------------------------


def test_ifg_plans_with_the_planners_own_engine_call():
    planner, solver = Script(lambda prompt: "Intent:\n**hash map, one pass**\n\nMore words."), Script(lambda prompt: "")
    (planned,) = rollout(
        [PROBLEM],
        "ifg",
        K,
        style=STYLE,
        generate=solver,
        generate_plans=planner,
        max_plan_tokens=9,
        max_program_tokens=9,
    )
    (member,) = gated([planned])
    assert [len(call) for call in planner.calls] == [K] and [len(call) for call in solver.calls] == [K]
    assert member.strategies == ("hash map, one pass",) * K and member.valid is None
    assert all("Use this method: hash map, one pass\n" in prompt for prompt in solver.calls[0])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hash map", "hash map"),
        ("Sure! Here it is:\n\n**sort**, scan\nthen", "sort, scan"),
        ("1. sorting", "sorting"),
        ("- x", "x"),
        ("2-SAT", "2-SAT"),
        ("```\n\n", None),
        (" \n", None),
    ],
)
def test_the_first_line_with_words_is_the_intent(text, line):
    assert first_line(text) == line


# --- diversified sampling -----------------------------------------------------------------------


def test_divsampling_puts_a_different_role_and_instruction_before_each_prompt():
    members, script = run("divsampling", numbered(), members=2, k=8)
    (solver,) = script.calls
    for member in members:
        assert all(slot.prompt.startswith(f"{slot.injection} {SOLVE}") for slot in member.slots)
        for texts in (ROLES, INSTRUCTIONS):
            assert {text for slot in member.slots for text in texts if text in str(slot.injection)} == set(texts)
        assert (member.strategies, member.plans, member.valid) == ((None,) * 8, (), None)
    assert members[0].slots != members[1].slots
    assert solver == [slot.prompt for member in members for slot in member.slots]
    assert len({slot.prompt for slot in run("divsampling", numbered(), k=64)[0][0].slots}) == 64


def test_divsampling_ideas_are_hints_and_not_methods_to_follow():
    (member,), script = run("divsampling_ideas", lambda prompt: "1. a heap\n2. sorting\n3. a sum")
    assert member.strategies == ("a heap", "sorting", "a sum", None)
    assert "An idea that may help: a heap\n\n" in script.calls[1][0] and "Use this" not in script.calls[1][0]
    assert script.calls[1][3] == STYLE.direct(PROBLEM)


# --- plansearch ---------------------------------------------------------------------------------


def test_leaves_are_the_subsets_of_at_most_two_different_observations():
    leaves = subsets(["It is even.", "It is sorted", "it is even", "!!"])
    assert list(leaves.values()) == [(), ("It is even.",), ("It is sorted",), ("It is even.", "It is sorted")]
    assert len(subsets(f"fact {number}" for number in range(10))) == 1 + 10 + 45


def test_plansearch_lite_lists_ideas_on_k_different_leaves_in_one_call():
    plan = numbered()
    (member,), script = run("plansearch_lite", lambda prompt: "1. odd\n2. small" if "Make" in prompt else plan(prompt))
    observe, ideas, solver = script.calls
    assert [len(call) for call in script.calls] == [1, 1, K]
    assert "Make 2 observations" in observe[0]  # four subsets, as many as leaves are drawn
    groups = sorted(re.findall(r"^\d\. (.*)$", ideas[0], re.MULTILINE))
    assert groups in (["nothing", "odd", "odd; small", "small"], ["nothing", "odd", "small", "small; odd"])
    assert member.strategies == ("item 0", "item 1", "item 2", "item 3")
    assert [slot.plan for slot in member.slots] == [1] * K
    assert member.valid is None and len(solver) == K


def test_plansearch_lite_asks_for_as_few_observations_as_k_needs():
    for k, observations in ((1, 1), (2, 1), (4, 2), (5, 3), (8, 4), (64, 11)):
        _, script = run("plansearch_lite", numbered(), k=k)
        assert f"Make {observations} observations" in script.calls[0][0]


def test_plansearch_derives_observations_from_every_subset():
    (member,), script = run("plansearch", numbered())
    observe, derive, ideas, _ = script.calls
    assert [len(call) for call in (observe, derive, ideas)] == [1, 55, K]
    assert all("- item 0\n" in prompt for prompt in (derive[0], *derive[10:19]))
    assert derive[10].count("- item") == 2 and f"Think of {DERIVED} new" in derive[10]
    assert [slot.plan for slot in member.slots] == [56, 57, 58, 59]


def test_a_tree_with_too_few_leaves_repeats_none():
    (member,), script = run("plansearch_lite", lambda prompt: "1. odd" if "Make" in prompt else "1. Add them.")
    assert "in 2 groups" in script.calls[1][0]
    assert member.strategies == ("Add them.", None, None, None)
    assert [slot.plan for slot in member.slots] == [1, 1, None, None]
    (member,), script = run("plansearch", lambda prompt: "nothing to list")
    assert [len(call) for call in script.calls] == [1, 1, K]  # the leaf without an observation is left


def test_leaves_are_drawn_uniformly():
    def reply(prompt: str) -> str:
        return "1. odd\n2. small" if "Make 10" in prompt else "none" if "Think of" in prompt else prompt

    members, _ = run("plansearch", reply, members=400)
    drawn = run("plansearch", reply, members=400, k=1)
    singles = {"both": 0, "odd": 0, "small": 0, "none": 0}
    for member in drawn[0]:
        idea = str(member.strategies[0])
        key = {(1, 1): "both", (1, 0): "odd", (0, 1): "small", (0, 0): "none"}
        singles[key["- odd" in idea, "- small" in idea]] += 1
    assert all(70 <= number <= 130 for number in singles.values())
    assert all(len(set(member.strategies)) == 4 for member in members)


# --- records ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    """Two tuples of one problem by every procedure."""
    made = {}
    with Verifier(workers=1) as verifier:
        for procedure in PROCEDURES:
            reply = "1. odd\n2. small\n3. long\n4. far"
            if procedure.startswith("verbalized"):
                reply = objects(("odd", 0.1), ("small", 0.2), ("long", 0.3), ("far", 0.4))
            members, _ = run(procedure, lambda prompt, reply=reply: reply, members=2)
            cfg = evaluation(procedure=procedure, method=procedure)
            results = verify_members(members, verifier)
            run_of = Run(cfg.profile, cfg.benchmark, cfg.split, cfg.method, "policy", cfg.seed)
            how = {"procedure": cfg.procedure, "style": STYLE, "tuples": cfg.tuples}
            made[procedure] = attempt_records(run_of, members, results, None, **how, gen_s=1.0)
            tokens = sum(len(plan.completion.ids) for member in members for plan in member.plans)
            assert made[procedure]["planner_tokens"].sum() == tokens
    return made


def evaluation(**changes: object) -> Evaluation:
    file = paths.root() / "params" / "laptop" / "04_evaluation.humaneval_direct.yaml"
    hot = {"planner_temperature": 1.0} if changes.get("procedure") == "ifg" else {}
    params = config.load_params(file, tuples=2, **hot, **changes)
    assert isinstance(params, Evaluation)
    return params


@pytest.mark.parametrize(
    ("procedure", "calls"),
    [
        ("direct", [0, 0, 0, 0]),
        ("plan_then_solve", [1, 1, 1, 1]),
        ("tuple", [1, 0, 0, 0]),
        ("sequential", [1, 1, 1, 1]),
        ("verbalized", [1, 0, 0, 0]),
        ("verbalized_tail", [1, 0, 0, 0]),
        ("ifg", [1, 1, 1, 1]),
        ("divsampling", [0, 0, 0, 0]),
        ("divsampling_ideas", [1, 0, 0, 0]),
        ("plansearch", [12, 1, 1, 1]),  # one for observations, ten for their subsets, and slot 0's own
        ("plansearch_lite", [2, 0, 0, 0]),
    ],
)
def test_each_planner_call_is_counted_once_where_it_serves(frames, procedure, calls):
    frame = frames[procedure]
    assert frame["planner_calls"].tolist() == calls * 2
    assert (frame["planner_calls"].gt(0) == frame["planner_tokens"].gt(0)).all()
    assert summary(frame)["planner_calls"] == sum(calls)
    assert frame["passed"].all() and len(frame) == 2 * K
    assert frame["plan"].notna().all() if PROCEDURES[procedure].planned else frame["plan"].isna().all()


def test_records_say_what_each_slot_was_asked_with_and_how_they_are_scored(frames):
    for procedure, frame in frames.items():
        kind = TupleScores if PROCEDURES[procedure].coordinated else IidScores
        assert isinstance(score_table(frame), kind)
        assert frame["probability"].notna().all() == procedure.startswith("verbalized")
        assert frame["injection"].notna().all() == (procedure == "divsampling")
        judged = procedure in ("tuple", "sequential", "verbalized", "verbalized_tail", "divsampling_ideas")
        assert frame["valid"].notna().all() == judged
    assert frames["verbalized"]["probability"].tolist() == [0.1, 0.2, 0.3, 0.4] * 2
    assert pd.concat(frames.values())["probability"].dtype == frames["direct"]["probability"].dtype


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"procedure": "ifg"}, "ifg draws intents at a temperature of their own: set planner_temperature"),
        ({"procedure": "divsampling", "planner_temperature": 1.0}, "calls no planner: set planner_temperature: null"),
        (
            {"planner_temperature": 0.0},
            "'planner_temperature' is 0.0; it must be a number, above 0, at most 2, or null",
        ),
        ({"procedure": "verbalized", "prompt_style": "brief"}, "verbalized: prompt_style: brief is for .*: instruct"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(changes, message):
    file = paths.root() / "params" / "laptop" / "04_evaluation.humaneval_direct.yaml"
    with pytest.raises(ParameterError, match=message):
        config.load_params(file, **changes)


@pytest.mark.parametrize("procedure", [name for name in PROCEDURES if name not in BRIEF])
def test_the_brief_style_has_no_words_for_the_other_procedures(procedure):
    with pytest.raises(ParameterError, match="prompt_style: brief is for .* direct, .*: instruct"):
        rollout([PROBLEM], procedure, K, style=BRIEFLY, generate=Script(str), max_plan_tokens=9, max_program_tokens=9)


def test_every_baseline_has_a_parameter_file_under_the_budget_of_the_others():
    for profile, missing in (("paper", set()), ("laptop_baselines", {"plansearch"})):
        runs = [config.load_params(p) for p in (paths.root() / "params" / profile).glob("04_evaluation.*.yaml")]
        chosen = [r for r in runs if isinstance(r, Evaluation) and r.benchmark in ("livecodebench", "humaneval")]
        assert {run.procedure for run in chosen} == set(PROCEDURES) - missing
        budget = {
            (r.k, r.tuples, r.limit, r.max_program_tokens, r.top_p) for r in chosen if not r.policy.startswith("arm")
        }
        assert len(budget) == 1
