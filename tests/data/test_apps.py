"""APPS in its public schema: every oddity of the data gets its value, a reason, or an error that names the row."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub

from cppo_lib.data.benchmarks import apps
from cppo_lib.data.problem import LoadReport, Problem, from_json, to_json
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Verifier

SCHEMA = pa.schema(
    [("problem_id", pa.int64())]
    + [(name, pa.string()) for name in ("question", "solutions", "input_output", "difficulty", "url", "starter_code")]
)
SUM = "a, b = map(int, input().split())\nprint(a + b)\n"
FILE = "all/test/0000.parquet: row 0: field 'input_output'"


def row(number: int = 0, *, cases: Any = None, **fields: Any) -> dict[str, Any]:
    """A row of the Parquet form; `cases` becomes `input_output`."""
    cases = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]} if cases is None else cases
    made = {
        "problem_id": number,
        "question": "Add two numbers.\n\n-----Input-----\n\nTwo integers.\n",
        "solutions": json.dumps([SUM, "print(sum(map(int, input().split())))\n"]),
        "input_output": cases if isinstance(cases, str) else json.dumps(cases),
        "difficulty": "interview",
        "url": "https://codeforces.com/problemset/problem/1259/D",
        "starter_code": "",
    }
    return {**made, **fields}


def call(number: int, inputs: Any, outputs: Any, **fields: Any) -> dict[str, Any]:
    """A row that names a function."""
    cases = {"fn_name": "solve", "inputs": inputs, "outputs": outputs}
    return row(number, cases=cases, **{"starter_code": "def solve(x):\n\t", **fields})


def write_parquet(folder: Path, rows: list[dict[str, Any]], split: str = "test") -> None:
    files = [folder / file.path for file in apps.DATASET.files[split]]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    parts = [rows, []] if len(files) == 2 else [rows]
    for path, part in zip(files, parts, strict=True):
        pq.write_table(pa.Table.from_pylist(part, SCHEMA), path)


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "test.jsonl"
    lines = [json.dumps({"id": fields["problem_id"], **fields}) for fields in rows]
    path.write_text("".join(line.replace(' "problem_id": ', ' "unused": ') + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as made:
        yield made


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Write rows in the Parquet form and load them."""

    def write_and_load(*rows: dict[str, Any], report: LoadReport | None = None, **options: Any) -> list[Problem]:
        write_parquet(tmp_path, list(rows))
        return list(apps.load("test", source=str(tmp_path), report=report, **options))

    return write_and_load


# --- values -----------------------------------------------------------------------------------


def test_a_stdio_problem(load: Any) -> None:
    report = LoadReport()
    (problem,) = load(row(7), report=report)
    assert problem.id == "test/0007" and problem.statement.startswith("Add two numbers.")
    assert [(test.input, test.expected, test.visibility) for test in problem.tests] == [
        ("1 2\n", "3\n", "hidden"),
        ("3 4\n", "7\n", "hidden"),
    ]
    assert (problem.mode, problem.fn_name, problem.starter_code) == ("stdio", None, "")
    assert (problem.comparator, problem.prelude, problem.cpu_limit_s) == ("tokens", "apps", 6.0)
    assert problem.meta["group"] == "interview" and problem.meta["platform"] == "codeforces"
    assert problem.meta["reference"] == SUM
    assert from_json(to_json(problem)) == problem
    assert [(source.file, source.rows, source.revision) for source in report.sources] == [
        ("all/test/0000.parquet", 1, ""),
        ("all/test/0001.parquet", 0, ""),
    ]


def test_a_statement_that_allows_any_letter_case_decides_the_comparator(load: Any) -> None:
    words = "You can print each letter in any case."
    problems = load(row(0, question=f"Is n even? {words}"), row(1), call(2, [[1]], [[2]], question=f"Add 1. {words}"))
    assert [problem.comparator for problem in problems] == ["tokens_any_case", "tokens", "call_apps"]


def test_a_call_problem(load: Any) -> None:
    (problem,) = load(call(1, [[[3, 1]], [[]]], [[[1, 3]], [[]]]))
    assert (problem.mode, problem.fn_name, problem.starter_code) == ("call", "solve", "def solve(x):\n\t")
    assert problem.statement.endswith("Complete this code:\n\n```python\ndef solve(x):\n```")
    assert [(test.input, test.expected) for test in problem.tests] == [("[[3, 1]]", "[[1, 3]]"), ("[[]]", "[[]]")]


def test_a_call_problem_without_starter_code_names_its_function(load: Any) -> None:
    (problem,) = load(call(1, [[1]], [[2]], starter_code=""))
    assert problem.statement.endswith("Write a function named `solve`.")


@pytest.mark.parametrize(
    ("outputs", "comparator"),
    [
        ([[1], [[2, 3]]], "call_apps"),  # wrapped throughout
        ([[1], [2, 3]], "call_lcb"),  # a list of two is a value, so [1] is one too
        ([1, 2], "call_lcb"),
        ([{"1": 2}, {}], "call_apps"),  # official graders give these integer keys
        ([[{"1": 2}, 5], [3]], "call_apps"),
    ],
)
def test_only_where_values_may_be_wrapped_the_first_item_will_do(load: Any, outputs: Any, comparator: str) -> None:
    (problem,) = load(call(1, [[1], [2]], outputs))
    assert problem.comparator == comparator


def test_lists_of_lines_are_joined(load: Any) -> None:
    cases = {"inputs": [["2", "1 2", ""], 7], "outputs": [["3", 4], "5"]}
    (problem,) = load(row(cases=cases))
    assert [(test.input, test.expected) for test in problem.tests] == [("2\n1 2\n", "3\n4"), ("7", "5")]


def test_integers_of_thousands_of_digits_are_kept(load: Any) -> None:
    digits = "1" + "0" * 8999 + "7"
    before = sys.get_int_max_str_digits()
    text = f'{{"inputs": [[{digits}]], "outputs": [[{digits}]], "fn_name": "solve"}}'
    lines = f'{{"inputs": ["1"], "outputs": [[{digits}]]}}'
    first, second = load(row(1, cases=text, starter_code="def solve(n):"), row(2, cases=lines))
    assert first.tests[0].input == f"[{digits}]" and second.tests[0].expected == digits
    assert sys.get_int_max_str_digits() == before


def test_both_forms_of_the_data_give_the_same_problems(tmp_path: Path) -> None:
    rows = [row(0), call(1, [[1]], [[2]]), row(2, solutions="")]
    (tmp_path / "lines").mkdir()
    write_parquet(tmp_path / "parquet", rows)
    write_jsonl(tmp_path / "lines", rows)
    loaded = [load_benchmark("apps", "test", source=str(tmp_path / name)) for name in ("parquet", "lines")]
    assert loaded[0] == loaded[1] and len(loaded[0]) == 3
    assert "reference" not in loaded[0][2].meta


def test_difficulty_and_limit(load: Any) -> None:
    rows = [row(number, difficulty=level) for number, level in enumerate(["interview", "introductory"] * 3)]
    assert [problem.id for problem in load(*rows, difficulty="introductory")] == ["test/0001", "test/0003", "test/0005"]
    report = LoadReport()
    assert len(load(*rows, limit=2, report=report)) == 2
    assert [source.rows for source in report.sources] == [2]


# --- left out ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (row(cases=""), "no tests"),
        (row(cases="{}"), "no tests"),
        (row(cases={"inputs": [], "outputs": []}), "no tests"),
        (row(cases={"inputs": ["1\n"], "outputs": [" \n"]}), "empty outputs"),
        (row(question=" "), "no statement"),
        (row(question="This is an interactive problem. Guess the number."), "interactive"),
        (row(question="Find a path. If there are multiple answers, print any of them."), "several answers"),
        (call(0, [[{"1": 2, "-3": 4}]], [[1]]), "argument types"),
    ],
)
def test_what_cannot_be_judged_is_left_out_with_a_reason(load: Any, fields: dict[str, Any], reason: str) -> None:
    report = LoadReport()
    assert [problem.id for problem in load(fields, row(1), report=report)] == ["test/0001"]
    assert [(skipped.id, skipped.reason) for skipped in report.skipped] == [("test/0000", reason)]


def test_several_answers_can_be_kept(load: Any) -> None:
    several = row(question="If there are multiple answers, print any of them.")
    interactive = row(1, question="This problem is interactive.")
    assert [problem.id for problem in load(several, interactive, keep_several_answers=True)] == ["test/0000"]


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (row(cases={"inputs": ["1"], "outputs": []}), f"{FILE}: 1 inputs but 0 outputs"),
        (row(cases='{"inputs": ["1'), f"{FILE} is not JSON"),
        (row(cases="[1]"), f"{FILE} is JSON, but no dict"),
        (row(cases={"inputs": "1", "outputs": ["1"]}), f"{FILE}: inputs and outputs must be lists"),
        (row(cases={"inputs": [[["1"]]], "outputs": ["1"]}), f"{FILE}: test 0 is neither text nor a list of lines"),
        (call(0, ["abc"], [["a"]]), f"{FILE}: input 0 is no list of arguments"),
        (row(cases={"inputs": [[1]], "outputs": [1], "fn_name": "a b"}), f"{FILE}: fn_name 'a b' is no name"),
        (row(solutions="[1"), "row 0: field 'solutions' is not JSON"),
        (row(url=None), "row 0: field 'url' is NoneType, not str"),
    ],
)
def test_a_row_that_makes_no_sense_names_file_row_and_field(load: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        load(fields)
    assert words in str(caught.value)


def test_wrong_columns_and_a_truncated_file(tmp_path: Path) -> None:
    write_parquet(tmp_path, [row()])
    first = tmp_path / apps.DATASET.files["test"][0].path
    pq.write_table(pq.read_table(first).drop_columns(["input_output"]), first)
    with pytest.raises(DatasetError, match="0000.parquet has no column 'input_output'; it has problem_id, question"):
        load_benchmark("apps", "test", source=str(tmp_path))
    path = write_jsonl(tmp_path, [row(0), row(1)])
    path.write_bytes(path.read_bytes()[:-40])
    stream = apps.load("test", source=str(tmp_path))
    assert next(stream).id == "test/0000"
    with pytest.raises(DatasetError, match=r"test.jsonl: line 2 is not JSON .*truncated"):
        next(stream)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "dev"}, "splits train and test; not 'dev'"),
        ({"difficulty": "easy"}, "introductory, interview, competition; not 'easy'"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_bad_requests_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        list(apps.load(**options))


# --- the data set itself ----------------------------------------------------------------------

OFFICIAL = """
import sys
from cppo_lib.data.benchmarks import apps
from cppo_lib.errors import DatasetError
from cppo_lib.data.problem import LoadReport
report = LoadReport()
try:
    print(sum(1 for _ in apps.load("test", source=sys.argv[1], report=report)), "problems")
except DatasetError as error:
    print(error)
print([(skipped.id, skipped.reason, skipped.detail) for skipped in report.skipped])
"""


def official(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    """What loading prints when the hub has these rows as the main branch of the data set itself."""
    hub = Hub({"test.jsonl": write_jsonl(tmp_path, rows).read_bytes()})
    try:
        return hub.python("-c", OFFICIAL, "codeparrot/apps@main", folder=tmp_path).stdout
    finally:
        hub.close()


def full_split() -> list[dict[str, Any]]:
    levels = [level for level, count in apps.DIFFICULTIES["test"].items() for _ in range(count)]
    return [row(number, difficulty=level, solutions="") for number, level in enumerate(levels)]


def test_a_full_split_is_counted(tmp_path: Path) -> None:
    assert official(tmp_path, full_split()).startswith("5000 problems")


def test_a_changed_difficulty_is_noticed(tmp_path: Path) -> None:
    rows = full_split()
    rows[0]["difficulty"] = "competition"
    message = official(tmp_path, rows)
    assert "test.jsonl: 999 introductory problems in all files of test where 1000 are known: upstream has" in message


def test_upstream_faults_are_left_out_and_a_changed_count_is_an_error(tmp_path: Path) -> None:
    printed = official(tmp_path, [row(0), row(1, cases={"inputs": ["1", "2"], "outputs": ["1"]})])
    assert "test.jsonl: 2 rows where 5000 are known: upstream has changed; pin the revision that has 5000" in printed
    assert "('test/0001', 'broken data'" in printed and "2 inputs but 1 outputs" in printed


# --- with the verifier ------------------------------------------------------------------------


def test_programs_are_judged(load: Any, verifier: Verifier) -> None:
    stdio, wrapped, bare = load(
        row(0),
        call(1, [[[3, 1, 2]], [[2]]], [[[1, 2, 3]], [[2]]]),
        call(2, [[3], [4]], [[3, 6], [4, 8]]),
    )
    wrong = "a, b = map(int, input().split())\nprint(a - b)\n"
    verdicts = verifier.verify_many(
        [
            (stdio, stdio.meta["reference"]),
            (stdio, wrong),
            (wrapped, "def solve(x):\n    return sorted(x)\n"),
            (wrapped, "def solve(x):\n    return [sorted(x)]\n"),
            (wrapped, "def solve(x):\n    return x\n"),
            (bare, "class Solution:\n    def solve(self, x):\n        return x, 2 * x\n"),
            (bare, "def solve(x):\n    return x\n"),  # the official rule takes the first item for the whole
        ]
    )
    assert [result.verdict for result in verdicts] == ["AC", "WA", "AC", "AC", "WA", "AC", "WA"]


def test_a_huge_argument_reaches_the_program(load: Any, verifier: Verifier) -> None:
    digits = "9" * 5000
    (problem,) = load(row(cases=f'{{"inputs": [[{digits}]], "outputs": [[{digits}]], "fn_name": "solve"}}'))
    (right,) = verifier.verify(problem, ["def solve(n):\n    return n\n"])
    (wrong,) = verifier.verify(problem, ["def solve(n):\n    return n - 1\n"])
    assert (right.verdict, wrong.verdict) == ("AC", "WA")


# --- memory -----------------------------------------------------------------------------------

STREAM = """
import re, resource, sys
from pathlib import Path
from cppo_lib.data.benchmarks import apps
problems = tests = size = 0
for problem in apps.load("train", source=sys.argv[1]):
    problems += 1
    tests += len(problem.tests)
    size += sum(len(test.input) for test in problem.tests)
status = Path("/proc/self/status")
if status.exists():  # there getrusage counts the peak of the parent, from before exec, as well
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) >> 10
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
print(problems, tests, size >> 20, peak)
"""


def test_five_thousand_problems_stream_in_less_than_a_gibibyte(tmp_path: Path) -> None:
    """20 tests each, most of them small and some of many megabytes; all at once would take 1.3 GiB."""
    path = tmp_path / apps.DATASET.files["train"][0].path
    path.parent.mkdir(parents=True)
    block = " ".join(str(number * 7919 % 100_003) for number in range(10_000)) + "\n"
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, 5000, 1000):
            rows = []
            for number in range(start, start + 1000):
                long = block * 14 if number % 100 == 0 else ""
                cases = {"inputs": [f"{number} {test}\n{long}" for test in range(20)], "outputs": ["1\n"] * 20}
                rows.append(row(number, cases=cases))
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    done = subprocess.run([sys.executable, "-c", STREAM, tmp_path], capture_output=True, text=True, check=True)
    problems, tests, mib, peak_mib = map(int, done.stdout.split())
    assert (problems, tests) == (5000, 100_000) and mib > 750
    assert peak_mib < 1024
