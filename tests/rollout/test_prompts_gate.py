"""Plans are read back as written, programs are taken out of replies, and the gate refuses the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.benchmarks.crossroads_methods import FAMILIES
from cppo_lib.data.problem import Problem, Test
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import DatasetError, ModelError
from cppo_lib.model.tiny import build_tokenizer
from cppo_lib.reward.gate_rules import GateDecision, gate
from cppo_lib.rollout.plans import ParsedTuple, parse_tuple, render_tuple
from cppo_lib.rollout.prompts import PromptStyle

SIZES = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1}
METHODS = ("mean", "upper median", "mode", "midrange")
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def instruct() -> PromptStyle:
    tokenizer = build_tokenizer(["def f(x): return x"], 300)
    tokenizer.chat_template = CHAT
    return PromptStyle("instruct", tokenizer)


@pytest.fixture(scope="module")
def fenced() -> PromptStyle:
    tokenizer = build_tokenizer(["```python\n", "\n```", "\n```\n\n"] * 3, 300)
    tokenizer.chat_template = CHAT
    return PromptStyle("fenced", tokenizer)


@pytest.fixture(scope="module")
def humaneval() -> dict[str, Problem]:
    return {problem.id: problem for problem in load_benchmark("humaneval", "test")}


# --- plans --------------------------------------------------------------------------------------


def test_a_rendered_plan_is_read_back():
    plan = render_tuple(METHODS)
    assert plan == "1. mean\n2. upper median\n3. mode\n4. midrange"
    assert parse_tuple(plan, 4) == ParsedTuple(METHODS, True)


@given(st.lists(st.from_regex(r"[a-z]{1,9}( [a-z]{1,9}){0,4}", fullmatch=True), min_size=1, max_size=8))
def test_any_methods_in_words_survive_the_round_trip(methods):
    assert parse_tuple(render_tuple(methods), len(methods)) == ParsedTuple(tuple(methods), True)


@given(st.text())
def test_any_text_is_read_without_an_error_and_never_gives_more_than_k(text):
    parsed = parse_tuple(text, 4)
    assert len(parsed.methods) <= 4
    assert all(method and method == method.strip() for method in parsed.methods)


@pytest.mark.parametrize(
    ("text", "methods", "complete"),
    [
        ("Here are two:\n\n1) brute force\n2) **two pointers**\n\nGood luck!", ("brute force", "two pointers"), True),
        ("- a heap\n* a sort", ("a heap", "a sort"), True),
        ("1. **A heap:**\n   - push all\n   - pop one\n\n2. Sorting :\n   * sort", ("A heap", "Sorting"), True),
        ("1. only one", ("only one",), False),
        ("1. a\n2. b\n3. c", ("a", "b"), False),
        ("1. a\n2.", ("a",), False),
        ("1. a\n2. ****", ("a",), False),
        ("mean and mode", (), False),
        ("", (), False),
    ],
)
def test_lists_as_models_write_them(text, methods, complete):
    assert parse_tuple(text, 2) == ParsedTuple(methods, complete)


# --- the gate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        (METHODS, ""),
        (METHODS[:3], "incomplete"),
        (("mean", "mode", "!!", "range"), "empty"),
        (("mean", "mode", "word " * 41, "range"), "long"),
        (("mean", "mode", "print(sum(a))", "range"), "code"),
        (("mean", "mode", "x += 1 each time", "range"), "code"),
        (("mean", "mode", "range", "Mean."), "repeated"),
        (("use a heap; then sort", "mode", "range", "mean"), "code"),
    ],
)
def test_the_gate_names_its_reason(methods, reason):
    plan = ParsedTuple(methods, len(methods) == 4)
    assert gate(plan) == GateDecision(reason == "", reason)


def test_the_gate_accepts_every_tuple_of_the_crossroads_methods():
    for family in FAMILIES:
        names = tuple(method.name for method in family.methods)
        assert gate(parse_tuple(render_tuple(names), len(names))).valid


def test_forty_words_are_not_too_long():
    assert gate(ParsedTuple(("word " * 40,), True)).valid


# --- prompts and programs -----------------------------------------------------------------------


def test_brief_prompts_need_no_tokenizer_and_the_completion_is_the_program():
    problem, style = crossroads.load("test", **SIZES)[0], PromptStyle("brief", None)
    assert style.planner(problem, 4) == f"{problem.statement}\n4 methods: "
    assert style.solver(problem, "mode") == f"{problem.statement}\nmethod: mode\nprogram:\n"
    assert "mode" not in style.direct(problem)
    assert style.program(problem, "print(1)") == "print(1)"


def test_no_prompt_shows_the_hidden_tests_or_the_answer(instruct, humaneval):
    world, code = crossroads.load("test", **SIZES)[0], humaneval["HumanEval/1"]
    for problem in (world, code):
        shown = [instruct.direct(problem), instruct.planner(problem, 4), instruct.solver(problem, "x")]
        for test in problem.tests:
            assert all(test.input.strip() not in text for text in shown if test.visibility == "hidden")
        assert all(str(problem.meta.get("reference", "\0")) not in text for text in shown)


def test_instruct_prompts_go_through_the_chat_template(instruct, humaneval):
    text = instruct.solver(humaneval["HumanEval/0"], "two nested loops")
    assert text.startswith("<user>") and text.endswith("<assistant>")
    assert "Use this method: two nested loops" in text
    assert "exactly 3 lines" in instruct.planner(humaneval["HumanEval/0"], 3)
    assert "one short sentence" in instruct.planner(humaneval["HumanEval/0"], 1)


def test_a_model_without_a_chat_template_is_an_error_that_names_the_fix():
    style = PromptStyle("instruct", build_tokenizer(["print(1)"], 300))
    with pytest.raises(ModelError, match="no chat template: set prompt_style: brief"):
        style.direct(stdio_problem())


def stdio_problem() -> Problem:
    return Problem("p", "own", "Add two numbers.", (Test("1 2\n", "3\n"),))


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        ("Sure:\n```python\nprint(1)\n```\nDone.", "print(1)"),
        ("```\nprint(1)\n```\nor better\n```python\nprint(2)\nprint(3)\n```", "print(2)\nprint(3)"),
        ("```python\nprint(1)", "print(1)"),  # without its last fence; whether it is whole, the verifier finds out
        ("print(1)", ""),
        ("", ""),
    ],
)
def test_the_last_fenced_block_is_the_program(instruct, reply, program):
    assert instruct.program(stdio_problem(), reply) == program


def test_fenced_requests_for_a_program_begin_the_reply_and_others_do_not(fenced, instruct, humaneval):
    problem = humaneval["HumanEval/0"]
    given = "from typing import List\n\n\ndef has_close_elements(numbers: List[float], threshold: float) -> bool:\n"
    begun = f"```python\n{given}"
    for prompt in (fenced.direct(problem), fenced.solver(problem, "two loops"), fenced.slot(problem, 2)):
        assert prompt.endswith("<assistant>" + begun) and problem.statement in prompt
    assert fenced.direct(stdio_problem()).endswith("<assistant>```python\n")
    assert fenced.planner(problem, 4) == instruct.planner(problem, 4)
    assert fenced.next_method(problem, ["a heap"], 4) == instruct.next_method(problem, ["a heap"], 4)


def test_fenced_prompts_of_a_tuple_differ_in_their_ends_only(fenced, humaneval):
    problem = humaneval["HumanEval/0"]
    one, other = (fenced.solver(problem, method) for method in ("sort it", "two loops"))
    shared = one[: one.index("sort it")]
    assert other.startswith(shared) and problem.statement in shared and "Reply with" in shared


def test_a_fenced_reply_is_the_program_without_the_code_that_was_given(fenced, humaneval):
    for problem in humaneval.values():
        given = fenced.direct(problem).split("```python\n")[-1]
        program = given + "    return 1"
        assert fenced.reply(problem, program) == "    return 1\n```"
        assert fenced.program(problem, fenced.reply(problem, program)) == program
    with pytest.raises(DatasetError, match="HumanEval/0 does not begin with the given code"):
        fenced.reply(humaneval["HumanEval/0"], "print(1)")


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        ("print(1)\n```", "print(1)"),
        ("print(1)\n```<end>", "print(1)"),  # a token may hold more than the fence
        ("print(1)\n", "print(1)\n"),  # ended before the block was closed
        ("```", ""),
    ],
)
def test_a_fenced_reply_goes_on_with_the_block_that_its_prompt_opened(fenced, reply, program):
    assert fenced.program(stdio_problem(), reply) == program


def test_fenced_replies_end_with_any_token_that_holds_a_fence(fenced, instruct):
    vocabulary = fenced.tokenizer.get_vocab()
    texts = [fenced.decode([[token]])[0] for token in fenced.program_ends]
    assert len(texts) > 1 and all("```" in text for text in texts)
    assert not any("```" in fenced.decode([[n]])[0] for n in vocabulary.values() if n not in fenced.program_ends)
    assert instruct.program_ends == () == PromptStyle("brief", None).program_ends


def test_given_imports_and_helpers_are_put_before_a_reply_without_them(instruct, humaneval):
    bare = "def find_zero(xs: list):\n    return poly(xs, 0)"
    program = instruct.program(humaneval["HumanEval/32"], f"```python\n{bare}\n```")
    assert program.endswith(bare)
    assert program.startswith("import math") and "def poly(" in program
    compile(program, "program", "exec")


def test_a_reply_that_repeats_what_was_given_is_left_alone(instruct, humaneval):
    problem = humaneval["HumanEval/0"]
    whole = problem.starter_code + "    return False"
    assert instruct.program(problem, f"```python\n{whole}\n```") == whole
    assert instruct.program(problem, "no code at all") == ""
