"""Problems that cannot be judged are refused by name, and files hold what was written."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import pytest

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.problem import Problem, ProblemFile, Test, from_json, to_json
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import DatasetError, MissingArtefactError
from cppo_lib.runs.stages import data_prep, references

SIZES = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1}


def test_problem_without_tests_is_refused_by_name():
    with pytest.raises(DatasetError, match="toy problem 'p1' has no tests: drop it"):
        Problem("p1", "toy", "Add two numbers.", ())


def test_function_problem_without_a_name_is_refused():
    with pytest.raises(DatasetError, match="names no function"):
        Problem("p1", "toy", "Add two numbers.", (Test("[1, 2]", "3"),), mode="call")


def test_empty_statement_is_refused():
    with pytest.raises(DatasetError, match="empty statement"):
        Problem("p1", "toy", " \n", (Test("1", "1"),))


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        ("[1,", "1", "test 1: input is not JSON"),
        ("1", "1", "must be a JSON list"),
        ("[1]", "x", "expected is not JSON"),
    ],
)
def test_call_tests_that_are_not_json_are_named(given, expected, words):
    tests = (Test("[1]", "9" * 5000), Test(given, expected))
    with pytest.raises(DatasetError, match=words):
        Problem("p1", "toy", "Add.", tests, mode="call", fn_name="add")


def test_unknown_benchmark_names_the_known_ones():
    with pytest.raises(DatasetError, match="choose one of crossroads, humaneval"):
        load_benchmark("apps2", "test")


def test_broken_line_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CPPO_RUNS", str(tmp_path))
    path = tmp_path / "tiny" / "01_data_prep" / "crossroads" / "train.jsonl"
    path.parent.mkdir(parents=True)
    rows = load_benchmark("crossroads", "train", **SIZES)[:2]
    path.write_text("".join(to_json(row) + "\n" for row in rows))
    assert list(data_prep.read_split("tiny", "crossroads", "train")) == rows
    path.write_text(path.read_text() + '{"id": "torn')
    with pytest.raises(DatasetError, match=r"train\.jsonl:3: not a problem record"):
        list(data_prep.read_split("tiny", "crossroads", "train"))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """40 problems whose tests take 8 MB."""
    path = tmp_path / "test.jsonl"
    made = [Problem(f"p{i}", "toy", f"Task {i}.", (Test("7 " * 100_000, str(i)),)) for i in range(40)]
    path.write_text("".join(to_json(problem) + "\n" for problem in made), encoding="ascii")
    return path


def test_a_file_of_problems_is_a_sequence_that_holds_none_of_them(large: Path) -> None:
    tracemalloc.start()
    rows = ProblemFile(large)
    kept = rows.chosen(index for index, problem in enumerate(rows) if index % 2)[2:]
    chunks = [kept[start : start + 4] for start in range(0, len(kept), 4)]
    assert [[problem.id for problem in chunk] for chunk in chunks[:2]] == [
        ["p5", "p7", "p9", "p11"],
        ["p13", "p15", "p17", "p19"],
    ]
    assert (len(rows), len(kept), rows[-1].id, kept[0].tests[0].expected) == (40, 18, "p39", "5")
    assert tracemalloc.get_traced_memory()[1] < 2_500_000  # all at once take 8 MB
    tracemalloc.stop()
    with pytest.raises(IndexError):
        rows[40]


def test_a_file_of_problems_that_is_written_anew_is_not_read_on(large: Path) -> None:
    rows = ProblemFile(large, "the file")
    large.write_text("{}\n" * 40)
    with pytest.raises(DatasetError, match="the file was written anew while it was read: start this step again"):
        rows[3]


def test_any_text_survives_a_line():
    problem = Problem("p\u2028q", "toy", "a\x85b\u2029c\ud800", (Test("\udfff\r\n", "\x00"),))
    line = to_json(problem)
    assert line.isascii() and len(line.splitlines()) == 1
    assert from_json(line) == problem


def test_problem_whose_reference_fails_stops_the_preparation(tmp_path):
    good = load_benchmark("crossroads", "train", **SIZES)[0]
    wrong = dataclasses.replace(good, tests=(dataclasses.replace(good.tests[0], expected="no number\n"),))
    assert references.check_references([good], tmp_path / "verdicts.sqlite")["accepted"] == 1
    with pytest.raises(DatasetError, match="the reference program gets WA"):
        references.check_references([good, wrong], tmp_path / "verdicts.sqlite")


def test_missing_split_names_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("CPPO_RUNS", str(tmp_path))
    with pytest.raises(MissingArtefactError, match=r"run notebooks/01_data_prep\.ipynb first"):
        data_prep.read_split("tiny", "crossroads", "train")


def test_reference_program_is_the_hidden_method():
    problem = load_benchmark("crossroads", "dev", **SIZES)[0]
    family = crossroads.family_of(problem)
    method = crossroads.method_named(family, problem.meta["hidden_method"])
    assert method is not None and references.reference_program(problem) == method.program
