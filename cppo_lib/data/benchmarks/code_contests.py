"""CodeContests (Li et al. 2022, arXiv 2203.07814): 13,328 training, 117 validation and 165 test problems, streamed.

The Parquet files of `deepmind/code_contests` at a pinned revision, 7.6 GB in all, of which the validation and test
splits take 0.1 GB. Revision, file names and checksums are those that several public projects record; where no checksum
is recorded (most training files) the hub's own is enforced, and `make fetch-data` keeps it in `data.lock.json`.

Tests come in the order public, private, generated; public ones are visible in the statement. Generated ones are
mutated inputs on which 30 accepted programs agree; some break the problem's constraints, and there are up to 200 of
them, so `tests` can cut them to the first n. Limits: CPU seconds per test are max(2, 3 x the site's limit), because the
sites set theirs for compiled languages, and 6 where the data has none (16% of training). Memory is the site's limit,
but at least 1 GiB, since the limit here is on address space, of which the interpreter itself takes a good part.

Left out, and reported with the reason:

- `file I/O`: the program would have to read and write named files;
- `interactive`, and `several answers` by the statement's words (see `wording`): the data has one expected output and no
  checker, so that a right program can fail. Set `keep_several_answers` to compare with published numbers, whose
  denominator has these problems;
- `no tests`, `no statement`; `empty outputs`, where a program that prints nothing would pass;
- `broken data`: unequal numbers of inputs and outputs in the data set's own file. In a user's file that is an error.

Comparator: `tokens`, and `tokens_any_case` where the statement allows any letter case. The official one,
`codecontests`, ignores case always and takes 64-bit neighbours for equal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, Literal

from cppo_lib.artefacts import paths
from cppo_lib.data.benchmarks.wording import stdio_comparator, unfit
from cppo_lib.data.hub import BrokenRow, Dataset, HubFile, check_rows, field, locate, read_parquet
from cppo_lib.data.problem import LoadReport, Problem, Skipped, Test
from cppo_lib.errors import DatasetError

_SUFFIXES = (
    "e991a271dbfa9925 e092fe56fda18715 9cea23812e920e41 e3822fccad6e083a cefe355b4667b27e b7580d2d846c2136 "
    "65184bb9f7d61fde 05785de21e8b8429 7246e6b7423b404f b8c920f6629b57b2 6de28ba20654f69b 5de236be5188959d "
    "da9476a39a1bdbb7 30b8c3829ee3b962 dc3ebb07a3cba8e4 19ccd7331d695677 bf38b0908b322307 ae5533a2f822e6ef "
    "8c793837880f5507 d688fad5ee604390 5d59387098675b73 b257bf03d6876780 1cfd39fa43c1917c d078bcb55e45cbf0 "
    "f4e3da0e5661e6d1 3f6ebfbaba5f4c70 7d4898300894cbbe f8196766547533a2 79a302af3c924863 2b6615897d038115 "
    "4135cc54050afc22 40309dd907c042b7 7b7d2068a3d9c359 53b0f749aacff9c1 a36ff0bff7d2a76f d28f9be60314601f "
    "146e1a11c054aeab 995207c374a4e6f2 96a59dd6a98cd075"
)
_TRAIN_SHA256 = (
    "950bfdefde1f274edf93963e7e23c93ab16034de344aa7b7c32d14145e8d5232",
    "7bcc72d98a3d97f07be90ea70bf8db834c8f29ac2c7626d7cfc657bae6f5ddd9",
    "d67c9643019e632941b045f115c6bdf5925a4b32cd9f3fc991734970669b4a29",
    "f4952386b2958bddb71ff6713b273b5425b1191084ef75923731b111bc20485f",
)
ROWS = {"train": 13328, "valid": 117, "test": 165}
DATASET = Dataset(
    "deepmind/code_contests",
    "802411c3010cb00d1b05bad57ca77365a3c699d6",
    {
        "train": tuple(
            HubFile(f"data/train-{number:05d}-of-00039-{suffix}.parquet", sha256)
            for number, (suffix, sha256) in enumerate(itertools.zip_longest(_SUFFIXES.split(), _TRAIN_SHA256))
        ),
        "valid": (
            HubFile(
                "data/valid-00000-of-00001-5e672c5751f060d3.parquet",
                "02e8c1ccedae716f1e43cc813fcb7823c3db666ea92638820aba80e8cef451ab",
                117,
            ),
        ),
        "test": (
            HubFile(
                "data/test-00000-of-00001-9c49eeff30aacaa8.parquet",
                "aa426cbdb202bf8703b658bcb31fd1878ca7cfd33ca07d3b703dc94ca6a2b651",
                165,
            ),
        ),
    },
)
COLUMNS = (
    "name", "description", "public_tests", "private_tests", "generated_tests", "source", "difficulty", "solutions",
    "cf_rating", "cf_tags", "time_limit", "memory_limit_bytes", "input_file", "output_file",
)  # fmt: skip
# Class labels of the Parquet files. They are dense: contest_problem.proto has 6 for AtCoder and 7 for Aizu.
PLATFORMS = ("unknown", "codechef", "codeforces", "hackerearth", "codejam", "atcoder", "aizu")
GRADES = {1: "easy", 2: "medium", 3: "hard", 4: "harder", 5: "hardest"}
PYTHON3 = 3
CPU_LIMIT_S = 6.0
MEMORY_MB = 1024

_Visibility = Literal["public", "hidden"]
_TESTS: dict[str, _Visibility] = {"public_tests": "public", "private_tests": "hidden", "generated_tests": "hidden"}


def load(
    split: str = "test",
    *,
    report: LoadReport | None = None,
    source: str = DATASET.repo,
    tests: int | None = None,
    keep_several_answers: bool = False,
    limit: int | None = None,
) -> Iterator[Problem]:
    """Stream the problems of a split in the order of the data; ids are `<split>/<row>`, since names are not unique.

    `meta` has `name`, `platform`, `cf_rating` (0: none), `tags`, as `group` the Codeforces rating in steps of 400, else
    the site's grade or `unrated`, and the first accepted Python 3 program as `reference` where there is one; not all of
    these pass every test here.

    Args:
        split: `train`, `valid` or `test`.
        report: filled with what is left out and, when a file has been read, with the file.
        source: hub id, hub id with `@revision`, or a local folder, see `cppo_lib.data.hub`.
        tests: how many generated tests are kept for each problem (None: all).
        keep_several_answers: keep problems whose statement allows several answers.
        limit: at most this many problems; reading stops there, and row counts are then not checked.

    Raises:
        DatasetError: an unknown split; a file that cannot be had, is damaged, has another number of rows than is known,
            or a row that does not fit the schema (naming file, row and field).
    """
    if split not in ROWS:
        raise DatasetError(f"code_contests has the splits {', '.join(ROWS)}; not {split!r}")
    if limit is not None and limit < 1:
        raise DatasetError(f"code_contests: limit must be at least 1, not {limit}")
    if tests is not None and tests < 0:
        raise DatasetError(f"code_contests: tests must be at least 0, not {tests}")
    report = LoadReport() if report is None else report
    files = [locate(source, file, dataset=DATASET) for file in DATASET.files[split]]
    total = taken = 0
    for located in files:
        rows = 0
        try:
            for row in read_parquet(located.path, COLUMNS, batch_rows=8):
                ident, where = f"{split}/{total:05d}", f"{paths.show(located.path)}: row {rows}"
                rows, total = rows + 1, total + 1
                problem = _problem(row, ident, where, located.official, tests, keep_several_answers)
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
    check_rows(files[-1], total, ROWS[split], f"rows in all files of {split}")


# --- one problem ------------------------------------------------------------------------------


def _problem(
    row: dict[str, Any], ident: str, where: str, official: bool, generated: int | None, keep_several_answers: bool
) -> Problem | Skipped:
    statement, input_file, output_file = (
        field(row, name, str, where) for name in ("description", "input_file", "output_file")
    )
    if input_file or output_file:
        return Skipped(ident, "file I/O", " and ".join(filter(None, (input_file, output_file))))
    if not statement.strip():
        return Skipped(ident, "no statement")
    if reason := unfit(statement, keep_several_answers=keep_several_answers):
        return Skipped(ident, *reason)
    try:
        tests = _tests(row, generated, where)
        reference = _reference(row, where)
    except BrokenRow as error:
        if not official:
            raise
        return Skipped(ident, "broken data", str(error))
    if not tests:
        return Skipped(ident, "no tests")
    if not any(test.expected.strip() for test in tests):
        return Skipped(ident, "empty outputs")
    return Problem(
        id=ident,
        source="code_contests",
        statement=statement,
        tests=tests,
        cpu_limit_s=_cpu_limit(row, where),
        memory_mb=max(MEMORY_MB, math.ceil(field(row, "memory_limit_bytes", int, where) / (1 << 20))),
        comparator=stdio_comparator(statement),
        meta={**_meta(row, where), **({"reference": reference} if reference else {})},
    )


def _tests(row: dict[str, Any], generated: int | None, where: str) -> tuple[Test, ...]:
    tests: list[Test] = []
    for name, visibility in _TESTS.items():
        pair = field(row, name, dict, where)
        inputs, outputs = (field(pair, side, list, f"{where}: field {name!r}") for side in ("input", "output"))
        if len(inputs) != len(outputs):
            raise BrokenRow(f"{where}: field {name!r} has {len(inputs)} inputs but {len(outputs)} outputs")
        if not all(isinstance(text, str) for text in (*inputs, *outputs)):
            raise BrokenRow(f"{where}: field {name!r} has an input or output that is no text")
        keep = generated if name == "generated_tests" else None
        tests += [Test(*texts, visibility) for texts in zip(inputs[:keep], outputs[:keep], strict=True)]
    return tuple(tests)


def _cpu_limit(row: dict[str, Any], where: str) -> float:
    """CPU seconds per test, see the module's docstring; a missing limit is null, as a whole or in its parts."""
    limit = field(row, "time_limit", (dict, type(None)), where) or {}
    seconds = (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9
    return max(2.0, 3 * seconds) if seconds > 0 else CPU_LIMIT_S


def _meta(row: dict[str, Any], where: str) -> dict[str, Any]:
    site, rating, grade = (field(row, name, int, where) for name in ("source", "cf_rating", "difficulty"))
    if not 0 <= site < len(PLATFORMS):
        raise DatasetError(f"{where}: field 'source' is {site}; the known ones are 0 to {len(PLATFORMS) - 1}")
    band = rating // 400 * 400
    return {
        "group": f"{band}-{band + 399}" if rating > 0 else GRADES.get(grade, "unrated"),
        "name": field(row, "name", str, where),
        "platform": PLATFORMS[site],
        "cf_rating": rating,
        "tags": [tag for tag in field(row, "cf_tags", list, where) if tag],
    }


def _reference(row: dict[str, Any], where: str) -> str | None:
    """The first accepted program in Python 3."""
    solutions, here = field(row, "solutions", dict, where), f"{where}: field 'solutions'"
    languages, programs = (field(solutions, name, list, here) for name in ("language", "solution"))
    if len(languages) != len(programs):
        raise BrokenRow(f"{here} has {len(languages)} languages but {len(programs)} programs")
    pairs = zip(languages, programs, strict=True)
    return next((program for language, program in pairs if language == PYTHON3), None)
