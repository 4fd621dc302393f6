"""Output prediction: the answer is taken out as the official code does and graded in the sandbox, never by eval."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cppo_lib.data.benchmarks import livecodebench_output
from cppo_lib.data.benchmarks.livecodebench_output import NOT_AN_EXPRESSION, wrap_answer
from cppo_lib.data.problem import LoadReport, Problem, from_json, to_json
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import DatasetError
from cppo_lib.model.tiny import build_tokenizer
from cppo_lib.rollout.prompts import PromptStyle, StyleName
from cppo_lib.verifier import Verifier

SCHEMA = pa.schema(
    {
        "question_title": pa.string(),
        "question_content": pa.string(),
        "question_id": pa.string(),
        "contest_id": pa.string(),
        "test_id": pa.int64(),
        "contest_date": pa.timestamp("us"),
        "starter_code": pa.string(),
        "function_name": pa.string(),
        "difficulty": pa.string(),
        "test": pa.string(),
    }
)
Write = Callable[..., Path]


def case(given: str, expected: str, kind: str = "functional") -> str:
    return json.dumps([{"input": given, "output": expected, "testtype": kind}])


def row(test_id: int = 0, test: str | None = None, **changes: Any) -> dict[str, Any]:
    made = {
        "question_title": "ends-of-a-list",
        "question_content": "Return the smallest and the largest of the numbers that are above the limit.",
        "question_id": "9001",
        "contest_id": "weekly-contest-345",
        "test_id": test_id,
        "contest_date": datetime(2023, 5, 13, 21, 30),
        "starter_code": "def bounds(nums: List[int], limit: int) -> List[int]:\n    ",
        "function_name": "bounds",
        "difficulty": "easy",
        "test": test or case("[4, 9, 1, 7]\n3", "[4, 9]"),
    }
    return made | changes


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as a local copy of the data set; returns the folder."""

    def write_rows(*rows: dict[str, Any], schema: pa.Schema = SCHEMA) -> Path:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), tmp_path / "test.parquet")
        return tmp_path

    return write_rows


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as made:
        yield made


def load(folder: Path, **options: Any) -> list[Problem]:
    return load_benchmark("livecodebench_output", "test", source=str(folder), **options)


def problem_of(write: Write, expected: str) -> Problem:
    return load(write(row(test=case("[4, 9, 1, 7]\n3", expected))))[0]


def test_a_row_becomes_a_problem(write: Write) -> None:
    (problem,) = load(write(row(3)))
    assert (problem.id, problem.mode, problem.fn_name) == ("9001:3", "call", "answer")
    assert "assert bounds([4, 9, 1, 7], 3) == # TODO" in problem.statement.splitlines()
    assert "def bounds(nums" in problem.statement and "Return the smallest" in problem.statement
    assert "[4, 9]" not in problem.statement and problem.starter_code == ""
    assert problem.meta["group"] == "easy" and problem.meta["date"] == "2023-05-13"
    assert from_json(to_json(problem)) == problem


FENCED = "The numbers above 3 are 4, 9 and 7.\n```python\n{}\n```\nDone."

CASES = [
    # (expected JSON, completion, verdict)
    ("[4, 9]", FENCED.format("assert bounds([4, 9, 1, 7], 3) == [4, 9]"), "AC"),
    ("[4, 9]", FENCED.format("assert bounds([4, 9, 1, 7], 3) == [4, 7]"), "WA"),
    ("[4, 9]", FENCED.format("assert bounds([4, 9, 1, 7], 3) == (4, 9)"), "WA"),
    ("[4, 9]", FENCED.format("assert bounds([4, 9, 1, 7], 3) == 4, 9"), "WA"),
    ("[4, 9]", FENCED.format("[4, 9]"), "AC"),
    ("[4, 9]", "[4, 9]", "CE"),
    ("[4, 9]", "", "CE"),
    ("5", "assert f(1) == 7\nNo, I was wrong.\nassert f(1) == 5", "AC"),
    ("5", "assert f(1) == 5\nNo, I was wrong.\nassert f(1) == 7", "WA"),
    ("5", "```\n5\n```\nor\n```python\n6\n```", "WA"),
    ("5", "```\n6\n```\nor\n```python\n5\n```", "AC"),
    ("5", "```\n5\n```\nor\n```\n6\n```", "AC"),
    ("5", "```python\n# The test:\n  assert f(1) == 5  # five\nprint('assert')\n```", "AC"),
    ("5", "assert f(1) == 5, 'five'", "AC"),
    ("5", "assert (f(1) == 5)", "AC"),
    ("5", "assert f(1) == 2 + 3", "AC"),
    ("5", "assert f(1) == 5 == 6", "AC"),
    ("5", "assert f(1) == 5.0", "AC"),
    ("1", "assert f(1) == True", "AC"),
    ("true", "assert f(1) == True", "AC"),
    ("true", "assert f(1) == true", "RE"),
    ("true", "assert f(1)", "CE"),
    ("true", "assert f(1) is True", "CE"),
    ("5", "assert f(1) == # TODO", "CE"),
    ("5", "assert f(1) == [5", "CE"),
    ("5", "assert f(1) == 5)]\nimport os  # x\nx = [(1", "CE"),
    ("5", "```python\nx = 5\n```", "CE"),
    ("5", "assert f(1) == f(1)", "RE"),
    ("5", "assert f(1) == Counter([5])[5] + 4", "RE"),
    ('"a b"', "assert f(1) == 'a b'", "AC"),
    ('"a b"', 'assert f(1) == "a  b"', "WA"),
    ("[[1, 2]]", "assert f(1) == [(1, 2)]", "WA"),
    ("[]", "assert f(1) == list()", "AC"),
    ("1.5", "assert f(1) == 3 / 2", "AC"),
]


@pytest.mark.parametrize(("expected", "completion", "verdict"), CASES)
def test_completions_are_judged(write: Write, verifier: Verifier, expected: str, completion: str, verdict: str) -> None:
    (result,) = verifier.verify(problem_of(write, expected), [wrap_answer(completion)])
    assert result.verdict == verdict, result.reason


@pytest.fixture(scope="module")
def official() -> Iterator[tuple[ModuleType, ModuleType]]:
    """The official extraction and grading modules."""
    folder = Path(__file__).parents[2] / ".venv" / "graders"
    if not (folder / "livecodebench").is_dir():
        pytest.skip("the official grader is not installed (make setup)")
    sys.path.insert(0, str(folder))
    try:
        names = ("utils.extraction_utils", "evaluation.compute_test_output_prediction_metrics")
        extraction, metrics = (importlib.import_module(f"livecodebench.{name}") for name in names)
        yield extraction, metrics
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize(("expected", "completion", "verdict"), CASES)
def test_the_official_grader_agrees(
    official: tuple[ModuleType, ModuleType], expected: str, completion: str, verdict: str
) -> None:
    extraction, metrics = official
    extracted = extraction.extract_test_output_code(completion)
    assert metrics.check_testcase_output(extracted, expected) == (verdict == "AC")


HOSTILE = {
    "a command": ("__import__('os').system('touch {marker}') + 5", {"WA", "RE"}),
    "a file": ("[open('{marker}', 'w').write('x'), 5][1]", {"RE"}),
    "always equal": ("type('E', (), {{'__eq__': lambda self, other: True}})()", {"WA"}),
    "a frame": ("__import__('sys')._getframe(1).f_locals", {"WA", "RE"}),
    "an exit": ("exit()", {"RE"}),
    "a hard exit": ("__import__('os')._exit(0)", {"RE"}),
    "too large": ("'x' * 10**7", {"OLE"}),
    "endless": ("sum(iter(int, 1))", {"TLE"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_graded_and_harms_nothing(
    write: Write, verifier: Verifier, tmp_path: Path, name: str
) -> None:
    answer, verdicts = HOSTILE[name]
    marker = tmp_path / "marker"
    program = wrap_answer(f"assert f(1) == {answer.format(marker=marker)}")
    assert not marker.exists()
    problem = dataclasses.replace(problem_of(write, "5"), cpu_limit_s=0.5)
    (result,) = verifier.verify(problem, [program])
    assert result.verdict in verdicts, (result.verdict, result.reason)
    assert not marker.exists()


@pytest.mark.parametrize(
    "text", ["(" * 60_000, "-" * 60_000 + "1", "a" + ".a" * 30_000, "1" + " == 1" * 200_000, "\0", "\ud800"]
)
def test_an_answer_that_breaks_a_parser_is_no_expression(text: str) -> None:
    assert wrap_answer(f"assert f(1) == {text}") == NOT_AN_EXPRESSION


# --- rows that do not fit ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (row(1, question_content=None), "field 'question_content' is NoneType, not str"),
        (row(1, contest_date=None), "field 'contest_date' is NoneType, not datetime"),
        (row(1, test="{"), "field 'test' is not JSON"),
        (row(1, test="[]"), "field 'test' is not a JSON list of one object"),
        (row(1, test=json.dumps(2 * json.loads(case("1", "1")))), "field 'test' is not a JSON list of one object"),
        (row(1, test=case("1", "1", "stdin")), "field 'test': testtype 'stdin', not 'functional'"),
        (row(1, test=case("1", "one")), "field 'test': output is not one JSON value"),
        (row(1, test='[{"input": "1", "testtype": "functional"}]'), "field 'test': no field 'output'"),
        (row(0), "id 9001:0 is there twice"),
    ],
)
def test_a_row_that_does_not_fit_is_named(write: Write, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=f"test.parquet: row 1: {words}"):
        load(write(row(0), changed))


@pytest.mark.parametrize("name", SCHEMA.names)
def test_a_missing_column_is_named(write: Write, name: str) -> None:
    with pytest.raises(DatasetError, match=f"test.parquet has no column '{name}'"):
        load(write(row(), schema=SCHEMA.remove(SCHEMA.get_field_index(name))))


def test_a_date_column_of_another_type_is_named(write: Write) -> None:
    at = SCHEMA.get_field_index("contest_date")
    schema = SCHEMA.set(at, pa.field("contest_date", pa.string()))
    with pytest.raises(DatasetError, match="row 0: field 'contest_date' is str, not datetime"):
        load(write(row(contest_date="2023-05-13"), schema=schema))


def test_a_truncated_file_is_named(write: Write) -> None:
    file = write(row()) / "test.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DatasetError, match="test.parquet.*truncated or damaged"):
        load(file.parent)


def test_the_report_and_the_limit(write: Write) -> None:
    folder = write(*(row(number) for number in range(5)))
    report = LoadReport()
    assert [problem.id for problem in load(folder, limit=2, report=report)] == ["9001:0", "9001:1"]
    assert [(source.file, source.rows) for source in report.sources] == [("test.parquet", 2)]
    (file,) = livecodebench_output.DATASET.files["test"]
    assert file.rows == 442


@pytest.mark.parametrize(("split", "limit", "words"), [("train", None, "one split"), ("test", 0, "at least 1")])
def test_bad_requests_are_named(split: str, limit: int | None, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        load_benchmark("livecodebench_output", split, limit=limit)


def test_an_unreachable_hub_names_the_file_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("CPPO_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=r"hub cannot be reached.*put test.parquet into a folder"):
        load_benchmark("livecodebench_output", "test")


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("brief", "assert f(1) == [1, 2]"),
        ("instruct", "Here it is:\n```python\nassert f(1) == [1, 2]\n```"),
        ("fenced", "assert f(1) == [1, 2]\n```"),
    ],
)
def test_prompts_ask_for_an_assertion_and_replies_become_programs(
    write: Write, verifier: Verifier, name: StyleName, reply: str
) -> None:
    tokenizer = build_tokenizer([reply], 300)
    tokenizer.chat_template = "{{ messages[0].content }}<reply>"
    problem, style = problem_of(write, "[1, 2]"), PromptStyle(name, tokenizer)
    prompt = style.direct(problem)
    assert ("Reply with the completed assertion" in prompt) == (name != "brief")
    assert prompt.endswith({"brief": "program:\n", "instruct": "<reply>", "fenced": "<reply>```python\n"}[name])
    assert verifier.verify(problem, [style.program(problem, reply)])[0].verdict == "AC"
