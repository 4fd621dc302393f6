"""LiveCodeBench test output prediction: what does this function return for this input? 442 problems of LeetCode.

The model reads a problem, a function's signature and a test whose right side is missing:

    assert countSeniors(["7868190130M7522", "5303914400F9211"]) == # TODO

and answers with the whole assertion. Its answer is an expression that a model wrote, so it is graded as any program
is: `wrap_answer` turns a completion into a program in which `answer()` returns that expression, and the verifier calls
it in a sandbox. The official grader runs it with `eval` in its own process; here no step outside the sandbox does more
than parse it.

The expression is taken out of a completion as the official code does (LiveCodeBench at 28fef95): the last line that
starts with `assert`, else the first fenced block, of that the first line with an assertion, and of that the right side
of `==`; a block without assertion is the expression itself. As there, an expression may compute (`2 + 3` is 5), knows
Python's built-in names only, and is compared by `==` with the JSON value, a tuple being no list. To keep that last
point in call mode, whose comparator takes a tuple at the top for a list, both sides stand in a list of one element.
Departures: an expression has the verifier's limits and not an endless time, an object that claims to be equal to
everything is wrong and not right, and an answer of more than 64 KiB counts as none.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cppo_lib.artefacts import paths
from cppo_lib.data.hub import Dataset, HubFile, check_rows, field, locate, read_parquet
from cppo_lib.data.problem import LoadReport, Problem, Test
from cppo_lib.errors import DatasetError

DATASET = Dataset(
    "livecodebench/test_generation",
    "6f3ac40bbecf81eba15899139d279b077f2816fd",
    {"test": (HubFile("test.parquet", rows=442),)},
)
FUNCTION = "answer"
"""The function of a wrapped answer."""
ANSWER_LIMIT = 1 << 16
"""Longest line or block that is parsed (characters): parsing a hostile one takes quadratic time."""
NOT_AN_EXPRESSION = "the answer holds no expression"
"""What `wrap_answer` makes of a completion without one: a program that does not compile."""

_COLUMNS: dict[str, type | tuple[type, ...]] = {
    "question_title": str,
    "question_content": str,
    "question_id": (str, int),
    "contest_id": str,
    "test_id": int,
    "contest_date": datetime,
    "starter_code": str,
    "function_name": str,
    "difficulty": str,
    "test": str,
}


def load(
    split: str = "test",
    *,
    report: LoadReport | None = None,
    source: str = DATASET.repo,
    limit: int | None = None,
) -> Iterator[Problem]:
    """Stream the problems in the order of the file; the id is `question_id:test_id`.

    A problem is in `call` mode. Grade `wrap_answer(completion)`, never the completion itself.

    Args:
        split: `test`, the only one.
        report: filled with the file and the number of rows read.
        source: hub id, hub id with `@revision`, or a local folder, see `cppo_lib.data.hub`.
        limit: at most this many problems; the row count is then not checked.

    Raises:
        DatasetError: an unknown split, a limit below 1, a file that cannot be had or has another row count than is
            known, a row that does not fit the schema, or an id that is there twice.
    """
    if split != "test":
        raise DatasetError(f"livecodebench_output has one split, test; not {split!r}")
    if limit is not None and limit < 1:
        raise DatasetError(f"livecodebench_output: limit must be at least 1, not {limit}")
    (file,) = DATASET.files[split]
    located = locate(source, file, dataset=DATASET)
    seen: set[str] = set()
    rows = 0
    try:
        for row in read_parquet(located.path, list(_COLUMNS)):
            problem = _problem(row, f"{paths.show(located.path)}: row {rows}")
            rows += 1
            if problem.id in seen:
                raise DatasetError(f"{paths.show(located.path)}: row {rows - 1}: id {problem.id} is there twice")
            seen.add(problem.id)
            yield problem
            if rows == limit:
                return
        check_rows(located, rows, file.rows)
    finally:
        if report is not None:
            report.sources.append(located.source(rows))


def _problem(row: dict[str, Any], where: str) -> Problem:
    for name, kind in _COLUMNS.items():
        field(row, name, kind, where)
    given, expected = _case(row["test"], f"{where}: field 'test'")
    arguments = ", ".join(given.split("\n"))
    statement = (
        f"Problem:\n{row['question_content']}\n\nFunction:\n```python\n{row['starter_code']}\n```\n\n"
        "Work out what the function returns for the input of this test. Write the whole assertion in a ```python code "
        f"block, with that value in place of # TODO.\n\n```python\nassert {row['function_name']}({arguments}) == # TODO"
        "\n```"
    )
    return Problem(
        id=f"{row['question_id']}:{row['test_id']}",
        source="livecodebench_output",
        statement=statement,
        tests=(Test("[]", f"[{expected}]"),),
        mode="call",
        fn_name=FUNCTION,
        comparator="call_lcb",
        prelude="none",
        reply="assertion",
        meta={
            "group": row["difficulty"],
            "platform": "leetcode",
            "date": row["contest_date"].date().isoformat(),
            "contest_id": row["contest_id"],
            "title": row["question_title"],
        },
    )


def _case(text: str, where: str) -> tuple[str, str]:
    """Input and expected output (JSON) of the one test in the field `test`."""
    try:
        cases = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where} is not JSON ({error})") from None
    if not isinstance(cases, list) or len(cases) != 1 or not isinstance(cases[0], dict):
        raise DatasetError(f"{where} is not a JSON list of one object")
    given, expected, kind = (field(cases[0], name, str, where) for name in ("input", "output", "testtype"))
    if kind != "functional":
        raise DatasetError(f"{where}: testtype {kind!r}, not 'functional'")
    try:
        json.loads(expected, parse_int=str)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: output is not one JSON value ({error})") from None
    return given, expected


# --- from a completion to a program -----------------------------------------------------------


def wrap_answer(text: str) -> str:
    """The program to verify for a completion: `answer()` returns its expression in a list of one element.

    A completion without a valid expression becomes a program that does not compile (verdict CE). The text is parsed,
    never run.
    """
    answer = _answer(text)
    expression = _right_side(answer) if len(answer) <= ANSWER_LIMIT else ""
    if _parse(expression, "eval") is None:
        return NOT_AN_EXPRESSION
    return f"def {FUNCTION}():\n    return [(\n{expression}\n)]\n"


def _answer(text: str) -> str:
    """The line or block of a completion that holds the answer, empty when there is none."""
    lines = text.split("\n")
    asserted = [line for line in lines if line.startswith("assert")]
    if asserted:
        return asserted[-1]
    fences = [number for number, line in enumerate(lines) if "```" in line]
    python = [number for number in fences if "```python" in lines[number] or "```Python" in lines[number]]
    if python:
        fences = [number for number in fences if number >= python[0]]
    return "\n".join(lines[fences[0] + 1 : fences[1]]) if len(fences) > 1 else ""


def _right_side(block: str) -> str:
    """The right side of `==` in the block's first assertion; the block itself when it has none."""
    lines = block.splitlines()
    if len(lines) > 1:
        block = next((line for line in lines if "assert" in line and not line.startswith("#")), block)
    block = block.strip()
    if "assert" not in block:
        return block
    tree = _parse(block, "exec")
    statement = tree.body[0] if isinstance(tree, ast.Module) and tree.body else None
    test = statement.test if isinstance(statement, ast.Assert) else None
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq):
        return ""
    return ast.get_source_segment(block, test.comparators[0]) or ""


def _parse(text: str, mode: str) -> ast.AST | None:
    """The syntax tree, None for a text that has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a completion are no news
            return ast.parse(text, mode=mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
