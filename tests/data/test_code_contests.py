"""CodeContests in its public schema: tests, limits, what is left out and why, and errors that name the row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub

from cppo_lib.data.benchmarks import code_contests
from cppo_lib.data.problem import LoadReport, Problem, from_json, to_json
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Verifier

_TESTS = pa.struct([("input", pa.list_(pa.string())), ("output", pa.list_(pa.string()))])
_SOLUTIONS = pa.struct([("language", pa.list_(pa.int64())), ("solution", pa.list_(pa.string()))])
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("description", pa.string()),
        ("public_tests", _TESTS),
        ("private_tests", _TESTS),
        ("generated_tests", _TESTS),
        ("source", pa.int64()),
        ("difficulty", pa.int64()),
        ("solutions", _SOLUTIONS),
        ("incorrect_solutions", _SOLUTIONS),
        ("cf_contest_id", pa.int64()),
        ("cf_index", pa.string()),
        ("cf_points", pa.float32()),
        ("cf_rating", pa.int32()),
        ("cf_tags", pa.list_(pa.string())),
        ("is_description_translated", pa.bool_()),
        ("untranslated_description", pa.string()),
        ("time_limit", pa.struct([("seconds", pa.int64()), ("nanos", pa.int64())])),
        ("memory_limit_bytes", pa.int64()),
        ("input_file", pa.string()),
        ("output_file", pa.string()),
    ]
)
RIGHT = "n = int(input())\nprint(sum(map(int, input().split())))\n"
WRONG = "n = int(input())\nprint(max(map(int, input().split())))\n"


def cases(*pairs: tuple[str, str]) -> dict[str, list[str]]:
    return {"input": [given for given, _ in pairs], "output": [wanted for _, wanted in pairs]}


def row(**fields: Any) -> dict[str, Any]:
    made = {
        "name": "1575_A. Total",
        "description": "Print the total.\n\nInput\n\nn and n numbers.\n\nExamples\n\nInput\n\n2\n1 2\n\nOutput\n\n3\n",
        "public_tests": cases(("2\n1 2\n", "3\n")),
        "private_tests": cases(("1\n5\n", "5\n"), ("3\n1 1 1\n", "3\n")),
        "generated_tests": cases(("1\n6\n", "6\n"), ("1\n7\n", "7\n")),
        "source": 2,
        "difficulty": 7,
        "solutions": {"language": [2, 1, 3, 3], "solution": ["int main(){}", "print raw_input()", RIGHT, "pass"]},
        "incorrect_solutions": {"language": [3], "solution": [WRONG]},
        "cf_contest_id": 1575,
        "cf_index": "A",
        "cf_points": 0.0,
        "cf_rating": 1100,
        "cf_tags": ["math", ""],
        "is_description_translated": False,
        "untranslated_description": "",
        "time_limit": {"seconds": 1, "nanos": 500_000_000},
        "memory_limit_bytes": 256_000_000,
        "input_file": "",
        "output_file": "",
    }
    return {**made, **fields}


def write(folder: Path, rows: list[dict[str, Any]], split: str = "test") -> Path:
    for number, file in enumerate(code_contests.DATASET.files[split]):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows if number == 0 else rows[:1], SCHEMA), path)
    return folder / code_contests.DATASET.files[split][0].path


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as made:
        yield made


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Write rows in the public schema and load them."""

    def write_and_load(*rows: dict[str, Any], report: LoadReport | None = None, **options: Any) -> list[Problem]:
        write(tmp_path, list(rows))
        return list(code_contests.load("test", source=str(tmp_path), report=report, **options))

    return write_and_load


# --- values -----------------------------------------------------------------------------------


def test_a_problem(load: Any) -> None:
    report = LoadReport()
    (problem,) = load(row(), report=report)
    assert problem.id == "test/00000" and problem.statement.startswith("Print the total.")
    assert [(test.input[:2], test.expected, test.visibility) for test in problem.tests] == [
        ("2\n", "3\n", "public"),
        ("1\n", "5\n", "hidden"),
        ("3\n", "3\n", "hidden"),
        ("1\n", "6\n", "hidden"),
        ("1\n", "7\n", "hidden"),
    ]
    assert (problem.mode, problem.comparator) == ("stdio", "tokens")
    assert (problem.cpu_limit_s, problem.memory_mb) == (4.5, 1024)
    assert problem.meta == {
        "group": "800-1199",
        "name": "1575_A. Total",
        "platform": "codeforces",
        "cf_rating": 1100,
        "tags": ["math"],
        "reference": RIGHT,
    }
    assert from_json(to_json(problem)) == problem
    assert [(source.rows, source.revision) for source in report.sources] == [(1, "")]


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        (None, 6.0),
        ({"seconds": None, "nanos": None}, 6.0),
        ({"seconds": 0, "nanos": 0}, 6.0),
        ({"seconds": 0, "nanos": 500_000_000}, 2.0),
        ({"seconds": 4, "nanos": 0}, 12.0),
    ],
)
def test_time_limits_are_stretched_and_a_missing_one_has_a_default(load: Any, limit: Any, seconds: float) -> None:
    (problem,) = load(row(time_limit=limit))
    assert problem.cpu_limit_s == seconds


def test_a_generous_memory_limit_is_kept(load: Any) -> None:
    assert [problem.memory_mb for problem in load(row(memory_limit_bytes=0), row(memory_limit_bytes=2 << 30))] == [
        1024,
        2048,
    ]


@pytest.mark.parametrize(("tests", "count"), [(None, 5), (0, 3), (1, 4), (9, 5)])
def test_generated_tests_can_be_cut(load: Any, tests: int | None, count: int) -> None:
    (problem,) = load(row(), tests=tests)
    assert len(problem.tests) == count and problem.tests[0].visibility == "public"


def test_platforms_are_the_labels_of_the_files_and_groups_fall_back_to_grades(load: Any) -> None:
    unrated = {"cf_rating": 0, "solutions": {"language": [2], "solution": ["int main(){}"]}}
    rows = [row(source=5, difficulty=3, **unrated), row(source=6, difficulty=19, **unrated), row(source=1)]
    loaded = load(*rows)
    assert [problem.meta["platform"] for problem in loaded] == ["atcoder", "aizu", "codechef"]
    assert [problem.meta["group"] for problem in loaded] == ["hard", "unrated", "800-1199"]
    assert "reference" not in loaded[0].meta


def test_rows_are_numbered_across_the_training_files(tmp_path: Path) -> None:
    write(tmp_path, [row(), row(input_file="input.txt", output_file="output.txt")], "train")
    report = LoadReport()
    problems = load_benchmark("code_contests", "train", source=str(tmp_path), report=report)
    assert [problem.id for problem in problems] == ["train/00000", *(f"train/{n:05d}" for n in range(2, 40))]
    assert [skipped.id for skipped in report.skipped] == ["train/00001"] and len(report.sources) == 39


def test_a_statement_that_allows_any_letter_case_is_judged_so(load: Any, verifier: Verifier) -> None:
    asked = "Is n even? You can print each letter in any case."
    tests = {"public_tests": cases(("2", "YES")), "private_tests": NONE, "generated_tests": cases(("3", "No"))}
    program = "print('No' if int(input()) % 2 else 'Yes')"
    (lenient, strict) = load(row(description=asked, **tests), row(description="Is n even?", **tests))
    assert [verifier.verify(problem, [program])[0].verdict for problem in (lenient, strict)] == ["AC", "WA"]


# --- left out ---------------------------------------------------------------------------------

NONE = cases()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"input_file": "input.txt", "output_file": "output.txt"}, "file I/O"),
        ({"output_file": "out.txt"}, "file I/O"),
        ({"description": "This is an interactive problem."}, "interactive"),
        ({"description": "If there are several solutions, print any of them."}, "several answers"),
        ({"description": ""}, "no statement"),
        ({"public_tests": NONE, "private_tests": NONE, "generated_tests": NONE}, "no tests"),
        ({"public_tests": NONE, "private_tests": NONE, "generated_tests": cases(("1", "\n"))}, "empty outputs"),
    ],
)
def test_what_cannot_be_judged_is_left_out_with_a_reason(load: Any, fields: dict[str, Any], reason: str) -> None:
    report = LoadReport()
    assert [problem.id for problem in load(row(**fields), row(), report=report)] == ["test/00001"]
    assert [(skipped.id, skipped.reason) for skipped in report.skipped] == [("test/00000", reason)]


def test_several_answers_can_be_kept(load: Any) -> None:
    rows = [row(description="Print any valid order."), row(description="The problem is interactive.")]
    assert [problem.id for problem in load(*rows, keep_several_answers=True)] == ["test/00000"]


# --- errors -----------------------------------------------------------------------------------

UNEQUAL = {"input": ["1", "2"], "output": ["1"]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"private_tests": UNEQUAL}, "field 'private_tests' has 2 inputs but 1 outputs"),
        (
            {"public_tests": {"input": [None], "output": ["1"]}},
            "field 'public_tests' has an input or output that is no",
        ),
        ({"public_tests": None}, "field 'public_tests' is NoneType, not dict"),
        ({"solutions": {"language": [3], "solution": []}}, "field 'solutions' has 1 languages but 0 programs"),
        ({"source": 7}, "field 'source' is 7; the known ones are 0 to 6"),
        ({"description": None}, "field 'description' is NoneType, not str"),
    ],
)
def test_a_row_that_makes_no_sense_names_file_row_and_field(load: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        load(row(), row(**fields))
    assert f"9c49eeff30aacaa8.parquet: row 1: {words}" in str(caught.value)


def test_wrong_columns_and_a_truncated_file(tmp_path: Path) -> None:
    path = write(tmp_path, [row()])
    data = path.read_bytes()
    pq.write_table(pq.read_table(path).drop_columns(["time_limit", "cf_tags"]), path)
    with pytest.raises(DatasetError, match=r"parquet has no column 'cf_tags', 'time_limit'; it has name, description"):
        load_benchmark("code_contests", "test", source=str(tmp_path))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=r"parquet: row 0 cannot be read .*: truncated or damaged"):
        load_benchmark("code_contests", "test", source=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "validation"}, "train, valid, test; not 'validation'"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"tests": -1}, "tests must be at least 0"),
    ],
)
def test_bad_requests_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        list(code_contests.load(**options))


# --- the data set itself ----------------------------------------------------------------------

OFFICIAL = """
from cppo_lib.data.benchmarks import code_contests
from cppo_lib.errors import DatasetError
from cppo_lib.data.problem import LoadReport
report = LoadReport()
try:
    found = list(code_contests.load("valid", source="deepmind/code_contests@main", report=report))
    print(len(found), "problems", report.sources[0].revision, report.sources[0].rows)
except DatasetError as error:
    print(error)
print([(skipped.id, skipped.reason, skipped.detail) for skipped in report.skipped])
"""


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (117, "116 problems c0ffee0000000000000000000000000000000000 117"),
        (116, "parquet: 116 rows where 117 are known: upstream has changed; pin the revision that has 117"),
    ],
)
def test_the_split_is_counted_and_upstream_faults_are_left_out(tmp_path: Path, rows: int, words: str) -> None:
    path = write(tmp_path, [row(generated_tests=UNEQUAL), *[row()] * (rows - 1)], "valid")
    hub = Hub({code_contests.DATASET.files["valid"][0].path: path.read_bytes()})
    try:
        printed = hub.python("-c", OFFICIAL, folder=tmp_path).stdout
    finally:
        hub.close()
    assert words in printed
    assert "('valid/00000', 'broken data', " in printed and "2 inputs but 1 outputs" in printed


def test_the_pinned_files() -> None:
    names = [file.path for file in code_contests.DATASET.files["train"]]
    assert len(names) == len(set(names)) == 39 and names == sorted(names)
    assert all(len(file.sha256 or "0" * 64) == 64 for files in code_contests.DATASET.files.values() for file in files)


# --- with the verifier ------------------------------------------------------------------------


def test_the_reference_passes_and_an_incorrect_solution_does_not(load: Any, verifier: Verifier) -> None:
    (problem,) = load(row())
    right, wrong, loose = verifier.verify(
        problem, [problem.meta["reference"], WRONG, RIGHT.replace("print(", "print(' ',")]
    )
    assert (right.verdict, right.n_tests) == ("AC", 5)
    assert (wrong.verdict, wrong.first_fail) == ("WA", 0)
    assert loose.verdict == "AC"  # white space is no part of an answer
