"""APPS (Hendrycks et al. 2021, arXiv 2105.09938): 5,000 training and 5,000 test problems, streamed.

The hub keeps the data set in two forms; both are pinned below and hold the same rows:

- `codeparrot/apps` (the default): its Parquet conversion, 0.8 GB;
- `codeparrot/apps@21e74ddf8de1a21436da12e3e653065c5213e9d1`: the original JSON lines of the main branch, 1.4 GB, for
  the day the hub drops the conversion.

A local folder may hold either form. Revisions and checksums are those that several public projects record.

Problems are in `stdio` mode, or in `call` mode where the data names a function (38 of the test problems). Left out, and
reported with the reason:

- `no tests`: the data has none for some problems;
- `interactive`, and `several answers` by the statement's words (see `wording`): there is no checker, so a right program
  that prints another right answer would be told that it is wrong, which misleads training. Set `keep_several_answers`
  to compare with published numbers, whose denominator has these problems;
- `argument types`: a call with a dictionary that official graders give integer keys; JSON has only text keys;
- `no statement`; `empty outputs`, where a program that prints nothing would pass;
- `broken data`: unequal numbers of inputs and outputs, undecodable JSON and the like in the data set's own file, which
  no user can mend. In a user's own file that is an error.

Departures from the official grader (hendrycks/apps): comparator `tokens` in `stdio` mode (`tokens_any_case` where the
statement allows any letter case), where the official cascade of comparisons accepts `1 2 3` for `3 2 1`; 6 CPU seconds
for each test instead of 10 seconds for all. In `call` mode the official rule takes `x` for an expected `[x]`, because
some problems wrap expected values in a list. A problem that shows that it does not (an expected value is no list of one
item) is compared without that rule, so that 1 does not pass for [1, 2].
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from cppo_lib.artefacts import paths
from cppo_lib.data.benchmarks.wording import stdio_comparator, unfit
from cppo_lib.data.hub import (
    BrokenRow,
    Dataset,
    HubFile,
    Located,
    check_rows,
    field,
    locate,
    read_jsonl,
    read_parquet,
    resolve,
)
from cppo_lib.data.problem import LoadReport, Problem, Skipped, Test
from cppo_lib.errors import DatasetError

DATASET = Dataset(
    "codeparrot/apps",
    "0f10e424e13e1c2a69f851e153097b71b6734a1f",
    {
        "train": (HubFile("all/train/0000.parquet", None, 5000),),
        "test": (
            HubFile("all/test/0000.parquet", "f1c36415a9aabe114558a1b0a943f1dc50f2468f12c741585505f84ace577514"),
            HubFile("all/test/0001.parquet", "3b02746c5f8ede88388a4635b8d38ab3a29b31f9f964d4758652bcec9dc85913"),
        ),
    },
)
JSONL = Dataset(
    "codeparrot/apps",
    "21e74ddf8de1a21436da12e3e653065c5213e9d1",
    {
        "train": (HubFile("train.jsonl", "45e82ef22ed8e7c0c04d881a21b923e9dd233157896b0b8d5b3493e887499cae", 5000),),
        "test": (HubFile("test.jsonl", "5b003a65ac40feb47dd5eaec267a767a6fc435bdcfa68ff715fe869f948e760c", 5000),),
    },
)
ROWS = {"train": 5000, "test": 5000}
DIFFICULTIES = {
    "train": {"introductory": 2639, "interview": 2000, "competition": 361},
    "test": {"introductory": 1000, "interview": 3000, "competition": 1000},
}
COLUMNS = ("problem_id", "question", "solutions", "input_output", "difficulty", "url", "starter_code")
CPU_LIMIT_S = 6.0


def load(
    split: str = "test",
    *,
    report: LoadReport | None = None,
    source: str = DATASET.repo,
    difficulty: str | None = None,
    keep_several_answers: bool = False,
    limit: int | None = None,
) -> Iterator[Problem]:
    """Stream the problems of a split in the order of the data; ids are `<split>/<number>`.

    `meta` has the difficulty as `group`, `url`, `platform`, and the first of the data's solutions as `reference` where
    there is one; it is a submission that a site accepted, and does not pass all tests for every problem.

    Args:
        split: `train` or `test`.
        report: filled with what is left out and, when a file has been read, with the file.
        source: hub id, hub id with `@revision`, or a local folder, see `cppo_lib.data.hub`.
        difficulty: `introductory`, `interview` or `competition` only.
        keep_several_answers: keep problems whose statement allows several answers.
        limit: at most this many problems; reading stops there, and counts are then not checked.

    Raises:
        DatasetError: an unknown split or difficulty; a file that cannot be had, is damaged, has other counts than are
            known, or a row that does not fit the schema (naming file, row and field).
    """
    if split not in ROWS:
        raise DatasetError(f"apps has the splits train and test; not {split!r}")
    if difficulty is not None and difficulty not in DIFFICULTIES[split]:
        raise DatasetError(f"apps: difficulty must be one of {', '.join(DIFFICULTIES[split])}; not {difficulty!r}")
    if limit is not None and limit < 1:
        raise DatasetError(f"apps: limit must be at least 1, not {limit}")
    report = LoadReport() if report is None else report
    layout = dataset(source, split)
    files = [locate(source, file, dataset=layout) for file in layout.files[split]]
    levels: Counter[str] = Counter()
    taken = 0
    for located in files:
        rows = 0
        try:
            for where, row in _rows(located):
                rows += 1
                level = field(row, "difficulty", str, where)
                levels[level] += 1
                if difficulty not in (None, level):
                    continue
                problem = _problem(row, split, where, located.official, keep_several_answers)
                if isinstance(problem, Skipped):
                    report.skipped.append(problem)
                    continue
                yield problem
                taken += 1
                if taken == limit:
                    return
            check_rows(located, rows, located.file.rows)
        finally:  # also when the reader stops early
            report.sources.append(located.source(rows))
    check_rows(files[-1], levels.total(), ROWS[split], f"rows in all files of {split}")
    for level, expected in DIFFICULTIES[split].items():
        check_rows(files[-1], levels[level], expected, f"{level} problems in all files of {split}")


def dataset(source: str, split: str) -> Dataset:
    """The form that `source` holds: JSON lines on the main branch and in a folder that has them, else Parquet."""
    folder, repo, revision = resolve(source, DATASET)
    if folder is not None:
        return JSONL if (folder / JSONL.files[split][0].path).is_file() else DATASET
    return JSONL if repo == JSONL.repo and revision in ("main", JSONL.revision) else DATASET


def _rows(located: Located) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and row for messages, row under the column names of the Parquet form)."""
    name = paths.show(located.path)
    if located.path.suffix == ".jsonl":
        for line, row in read_jsonl(located.path):
            yield f"{name}: line {line}", {"problem_id": row["id"], **row} if "id" in row else row
    else:
        for number, row in enumerate(read_parquet(located.path, COLUMNS)):
            yield f"{name}: row {number}", row


# --- one problem ------------------------------------------------------------------------------


def _problem(
    row: dict[str, Any], split: str, where: str, official: bool, keep_several_answers: bool
) -> Problem | Skipped:
    ident = f"{split}/{field(row, 'problem_id', int, where):04d}"
    question, starter, level, url = (
        field(row, name, str, where) for name in ("question", "starter_code", "difficulty", "url")
    )
    if not question.strip():
        return Skipped(ident, "no statement")
    if reason := unfit(question, keep_several_answers=keep_several_answers):
        return Skipped(ident, *reason)
    meta = {"group": level, "url": url, "platform": _platform(url)}
    try:
        with _integers_of_any_length():
            solutions = _decode(row, "solutions", list, where)
            cases = _decode(row, "input_output", dict, where)
            inputs, outputs, function = _cases(cases, f"{where}: field 'input_output'")
            write = _text if function is None else _json
            tests = tuple(Test(write(given), write(wanted)) for given, wanted in zip(inputs, outputs, strict=True))
    except BrokenRow as error:
        if not official:
            raise
        return Skipped(ident, "broken data", str(error))
    if not tests:
        return Skipped(ident, "no tests")
    if not any(test.expected.strip() for test in tests):
        return Skipped(ident, "empty outputs")
    if function is not None and any(_has_integer_keys(value) for given in inputs for value in given):
        return Skipped(ident, "argument types", "a dictionary with integer keys")
    if solutions:
        meta["reference"] = str(solutions[0])
    return Problem(
        id=ident,
        source="apps",
        statement=question if function is None else f"{question.rstrip()}\n\n{_task(function, starter)}",
        tests=tests,
        mode="stdio" if function is None else "call",
        fn_name=function,
        starter_code="" if function is None else starter,
        cpu_limit_s=CPU_LIMIT_S,
        comparator=stdio_comparator(question) if function is None else _call_comparator(outputs),
        prelude="apps",
        meta=meta,
    )


def _task(function: str, starter: str) -> str:
    """What a problem in `call` mode asks for; few statements name the function."""
    if starter.strip():
        return f"Complete this code:\n\n```python\n{starter.rstrip()}\n```"
    return f"Write a function named `{function}`."


def _platform(url: str) -> str:
    """`codeforces` for https://codeforces.com/problemset/problem/1259/D; empty without an address."""
    return ".".join((urlsplit(url).hostname or "").split(".")[-2:-1])


@contextmanager
def _integers_of_any_length() -> Iterator[None]:
    """Let `int` and `str` take numbers of any length, here only: the data has some of thousands of digits."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def _decode(row: dict[str, Any], name: str, kind: type, where: str) -> Any:
    """The JSON value in a field, of type `kind`; an empty one for an empty field."""
    text = field(row, name, str, where)
    if not text.strip():
        return kind()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenRow(f"{where}: field {name!r} is not JSON ({error})") from None
    if not isinstance(value, kind):
        raise BrokenRow(f"{where}: field {name!r} is JSON, but no {kind.__name__}")
    return value


def _cases(cases: dict[str, Any], where: str) -> tuple[list[Any], list[Any], str | None]:
    """Inputs, outputs and function name (None: standard input) of `input_output`, checked."""
    inputs, outputs, function = cases.get("inputs", []), cases.get("outputs", []), cases.get("fn_name") or None
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise BrokenRow(f"{where}: inputs and outputs must be lists")
    if len(inputs) != len(outputs):
        raise BrokenRow(f"{where}: {len(inputs)} inputs but {len(outputs)} outputs")
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise BrokenRow(f"{where}: fn_name {function!r} is no name of a function")
    for number, (given, wanted) in enumerate(zip(inputs, outputs, strict=True)):
        if function is not None and not isinstance(given, list):
            raise BrokenRow(f"{where}: input {number} is no list of arguments")
        if function is None and not (_is_text(given) and _is_text(wanted)):
            raise BrokenRow(f"{where}: test {number} is neither text nor a list of lines")
    return inputs, outputs, function


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) or (
        isinstance(value, list) and all(isinstance(line, str | int | float) for line in value)
    )


def _text(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _has_integer_keys(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(key.removeprefix("-").isdecimal() for key in value)


def _call_comparator(outputs: list[Any]) -> str:
    """`call_apps` where expected values may be wrapped in a list, or have integer keys; else `call_lcb`."""
    wrapped = all(isinstance(wanted, list) and len(wanted) == 1 for wanted in outputs)
    firsts = [wanted[0] if isinstance(wanted, list) and wanted else wanted for wanted in outputs]
    return "call_apps" if wrapped or any(isinstance(first, dict) for first in firsts) else "call_lcb"
