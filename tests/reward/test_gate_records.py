"""Labels are read as they are written, faults are told by line, and rows are split by problem and balanced in each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import gate_world
import pytest

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import DatasetError
from cppo_lib.reward.gate_records import label_of, read_labels, split, usable, write_labels
from cppo_lib.reward.gate_rules import Candidate

ROW = {
    "problem_id": "p1",
    "problem_text": "Find the middle.",
    "plan_text": "1. mean\n2. mode\n3. midrange\n4. centre item",
    "valid": True,
    "violation": None,
    "source": "judge",
    "confidence": 0.9,
}
BAD = ROW | {"valid": False, "violation": "filler"}


def written(folder: Path, *rows: object) -> Path:
    path = folder / "labels.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_labels_are_read_back_as_they_were_written(tmp_path):
    found = gate_world.labels()
    strange = label_of(Candidate(found[0].candidate.problem, ("a\u2028b", "c", "d", "e")), True, None, "judge")
    known = {label.problem_id for label in found}
    read = read_labels(write_labels(tmp_path / "labels.jsonl", [*found, strange]), 4, known)
    assert read == [*found, strange]
    assert [one.candidate.methods for one in read[:-1]] == [one.candidate.methods for one in found]


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in ROW.items() if name != key}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, "{"], "labels.jsonl: line 2 is not JSON"),
        ([ROW, "[1]"], "line 2 is no JSON object with the keys problem_id, "),
        ([ROW, BAD, without("source")], "line 3 lacks the key 'source'; the keys are problem_id, "),
        ([BAD, ROW | {"valid": "yes"}], "line 2: key 'valid' is 'yes'; it must be true or false"),
        ([BAD, ROW | {"violation": 1}], "line 2: key 'violation' is 1; it must be text or null"),
        ([BAD, ROW | {"problem_text": " "}], "line 2: key 'problem_text' is ' '; it must be text that is not empty"),
        ([BAD, ROW | {"confidence": 1.2}], "line 2: key 'confidence' is 1.2; it must be a number from 0 to 1"),
        ([BAD, ROW | {"confidence": True}], "line 2: key 'confidence' is True; it must be a number from 0 to 1"),
        ([BAD, ROW | {"problem_id": "p9"}], "line 2: problem 'p9' is none of the profile's training problems"),
        ([BAD, ROW | {"plan_text": "1. mean\n2. mode\n3. midrange"}], "line 2: the plan lists 3 methods, and k is 4"),
        ([BAD, BAD], "of 2 rows with a confidence of at least 0.5 there are only invalid ones"),
        ([ROW, ROW], "there are only valid ones"),
        ([ROW, BAD | {"confidence": 0.4}], "there are only valid ones"),
        ([], "there are no rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path, rows, message):
    with pytest.raises(DatasetError) as told:
        read_labels(written(tmp_path, *rows), 4, {"p1"})
    assert message in str(told.value) and "labels.jsonl" in str(told.value) and "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DatasetError, match="nowhere.jsonl: cannot be read .*labels must name a JSONL file"):
        read_labels(tmp_path / "nowhere.jsonl", 4, {"p1"})


def test_corruptions_are_invalid_whatever_they_say_and_guesses_are_dropped(tmp_path):
    rows = [ROW, ROW | {"source": "corruption"}, ROW | {"confidence": 0.5}, ROW | {"confidence": 0.49}]
    assert [label.valid for label in read_labels(written(tmp_path, *rows), 4, {"p1"})] == [True, False, True]


def test_problems_are_split_and_each_keeps_as_many_of_both_classes():
    labels = gate_world.labels()
    parts = split(labels, 0)
    ids = [{label.problem_id for label in part} for part in parts]
    assert ids[0].isdisjoint(ids[1]) and ids[0] | ids[1] == {label.problem_id for label in labels}
    assert len(ids[1]) == round(0.2 * len(ids[0] | ids[1]))
    for part in parts:
        counts = Counter((label.problem_id, label.valid) for label in part)
        assert all(counts[name, True] == counts[name, False] == 1 for name, _ in counts)
    assert split(labels, 0) == parts != split(labels, 1)
    assert {label.plan_text for part in parts for label in part} <= {label.plan_text for label in labels}


def test_a_problem_of_one_class_is_left_out_and_one_problem_is_too_few():
    problems = crossroads.world(1, 1, 1, 1, 1, 0)["train"][:3]
    both = [label_of(Candidate(one, ("a", "b")), valid, None, "judge") for one in problems for valid in (True, False)]
    parts = split(both[:5], 0)
    assert {label.problem_id for part in parts for label in part} == {problem.id for problem in problems[:2]}
    with pytest.raises(DatasetError, match="labels: 1 of 2 problems have valid and invalid tuples.*needs two or more"):
        split(usable(both[:3], "here"), 0)
