"""Labelled tuples, what the trained gate learns from: a line of JSON each, in the schema of the authors' release.

    problem_id      of a training problem
    problem_text    its statement
    plan_text       the K methods, in either format of `cppo_lib.rollout.plans`
    valid           true or false
    violation       what is wrong with the plan, in a word or two; null: nothing, or nobody said
    source          who made it, such as catalogue, distilled, sampled or judge; rows of `corruption` are
                    invalid whatever they say
    confidence      of the label, a number from 0 (a guess) to 1 (sure)

Rows below MIN_CONFIDENCE are dropped. Rows are split by problem, VALIDATION of the problems against the others, and
then each problem keeps equally many of both classes. Schema, dropping, splitting and balancing are theirs (Li et al.
2026, authors' code at 8e5ea8a4); what their confidences look like and where they cut is not public, so that is ours.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cppo_lib.artefacts import paths, store
from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import DatasetError
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.plans import read_either, render_tuple

MIN_CONFIDENCE = 0.5
VALIDATION = 0.2  # of the problems
CORRUPTION = "corruption"
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "problem_id": ((str,), "text"),
    "problem_text": ((str,), "text that is not empty"),
    "plan_text": ((str,), "text"),
    "valid": ((bool,), "true or false"),
    "violation": ((str, type(None)), "text or null"),
    "source": ((str,), "text"),
    "confidence": ((int, float), "a number from 0 to 1"),
}


@dataclass(frozen=True)
class Label:
    """A tuple and whether it is valid; the fields are those of the file."""

    problem_id: str
    problem_text: str
    plan_text: str
    valid: bool
    violation: str | None
    source: str
    confidence: float

    @property
    def candidate(self) -> Candidate:
        """The tuple as a gate is asked about it."""
        problem = Problem(self.problem_id, "", self.problem_text, (Test("", ""),))
        return Candidate(problem, read_either(self.plan_text))


def label_of(candidate: Candidate, valid: bool, violation: str | None, source: str, confidence: float = 1.0) -> Label:
    """The label of a tuple."""
    problem, plan = candidate.problem, render_tuple(candidate.methods)
    return Label(problem.id, problem.statement, plan, valid, violation, source, confidence)


def write_labels(path: Path, labels: Iterable[Label]) -> Path:
    """Write a file of labels. Raises CPPOError when it cannot be written."""
    return store.write_text(path, "".join(json.dumps(asdict(label)) + "\n" for label in labels))


def read_labels(path: Path, k: int, known: Collection[str]) -> list[Label]:
    """The labels of a file that can be learnt from: without those of low confidence, corruptions made invalid.

    Args:
        k: methods that each plan must list.
        known: ids of the problems that may be learnt from.

    Raises:
        DatasetError: one line that names the file and, but for a class that is missing, the line.
    """
    found = [_label(row, where, k, known) for where, row in read_rows(path, "labels")]
    return usable(found, paths.show(path))


def read_rows(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    """The JSON values of a file of the user's, each with the file and line that it stands in, for an error.

    Raises DatasetError: `key`, the parameter that names the file, names none that can be read, or a line is not JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not where a statement has U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{paths.show(path)}: cannot be read ({error}): {key} must name a JSONL file") from error
    for number, line in enumerate(lines, start=1):
        where = f"{paths.show(path)}: line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{where} is not JSON ({error.msg})") from error
        yield where, row


def check_tuple(row: dict[str, Any], where: str, k: int, known: Collection[str]) -> tuple[str, ...]:
    """The K methods of a row. Raises DatasetError for another number of them, or a problem that is not in `known`."""
    if row["problem_id"] not in known:
        raise DatasetError(
            f"{where}: problem {row['problem_id']!r} is none of the profile's training problems, which alone may be "
            "learnt from: take the row out, or prepare the problem in 01_data_prep"
        )
    methods = read_either(row["plan_text"])
    if len(methods) != k:
        raise DatasetError(f"{where}: the plan lists {len(methods)} methods, and k is {k}")
    return methods


def usable(labels: Sequence[Label], where: str) -> list[Label]:
    """Labels without those of low confidence, corruptions made invalid.

    Raises DatasetError unless both classes are left.
    """
    kept = [
        replace(label, valid=label.valid and label.source != CORRUPTION)
        for label in labels
        if label.confidence >= MIN_CONFIDENCE
    ]
    if len(classes := {label.valid for label in kept}) < 2:
        what = "no rows" if not classes else f"only {'valid' if classes == {True} else 'invalid'} ones"
        raise DatasetError(
            f"{where}: a gate learns from valid and invalid tuples, and of {len(labels)} rows with a confidence of at "
            f"least {MIN_CONFIDENCE} there are {what}: add the others"
        )
    return kept


def _label(row: Any, where: str, k: int, known: Collection[str]) -> Label:
    if not isinstance(row, dict):
        raise DatasetError(f"{where} is no JSON object with the keys {', '.join(_TYPES)}")
    if missing := [key for key in _TYPES if key not in row]:
        raise DatasetError(f"{where} lacks the key {missing[0]!r}; the keys are {', '.join(_TYPES)}")
    for key, (types, words) in _TYPES.items():
        value: Any = row[key]
        empty = key == "problem_text" and not str(value).strip()
        if empty or not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise DatasetError(f"{where}: key {key!r} is {value!r}; it must be {words}")
    if not 0 <= row["confidence"] <= 1:
        raise DatasetError(f"{where}: key 'confidence' is {row['confidence']!r}; it must be a number from 0 to 1")
    check_tuple(row, where, k, known)
    return Label(**{key: row[key] for key in _TYPES})


def split(labels: Sequence[Label], seed: int) -> tuple[list[Label], list[Label]]:
    """Labels to train on and to validate with: no problem in both, each with as many valid as invalid ones of it.

    Raises:
        DatasetError: fewer than two problems have tuples of both classes.
    """
    rng = random.Random(f"gate/{seed}")
    classes: dict[str, dict[bool, list[Label]]] = {}
    for label in labels:
        classes.setdefault(label.problem_id, {True: [], False: []})[label.valid].append(label)
    problems = sorted(name for name, each in classes.items() if each[True] and each[False])
    if len(problems) < 2:
        raise DatasetError(
            f"labels: {len(problems)} of {len(classes)} problems have valid and invalid tuples, and a gate needs two "
            "or more, to learn from and to be validated with: label more tuples of the same problems"
        )
    rng.shuffle(problems)
    held = max(1, round(VALIDATION * len(problems)))
    parts: tuple[list[Label], list[Label]] = ([], [])
    for place, name in enumerate(problems):
        size = min(map(len, classes[name].values()))
        for rows in classes[name].values():
            parts[place < held].extend(rng.sample(rows, size))
    return parts
