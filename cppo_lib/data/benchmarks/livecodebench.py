"""LiveCodeBench code generation (Jain et al. 2024, arXiv 2403.07974): the lite data set, from its raw JSON lines.

Each release adds a file to those before it. Problems are chosen by

- `release`: `release_v1` to `release_v6` (`release_latest`) are cumulative, `v1` to `v6` are what one release added,
  `v4_v5` is a run of them. Only the files that a release needs are fetched and read.
- `start`, `end`: contest dates, both inclusive, as in the official runner.
- `subset`: `first_N_by_date` and `last_N_by_date` take N problems in the order of (contest date, id); `hash_N` takes
  the N problems with the smallest SHA-256 of their id; `held_out_YYYY-MM-DD` takes those dated after that day. A rule
  sees the problems of the release and the window that are not left out. The paper's card names a fixed 500-problem
  slice and held-out problems but defines neither, so the rule is a parameter and the choice is ours.

Problems that the official ERRATA.md (LiveCodeBench/LiveCodeBench at 28fef95) lists are left out, unless `keep_errata`
asks for them to repeat published numbers. Private tests are JSON, or Base64 of a zlib stream of a pickled JSON text.
Such a pickle is read opcode by opcode and never run; anything in it but one text is refused. Revision, checksums and
row counts are those that several public projects pin for this data set. Comparators are the official ones, which take
`Yes` for wrong where `YES` is expected, also in the few problems whose statement allows any letter case.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
import pickletools
import re
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Literal

from cppo_lib.artefacts import paths
from cppo_lib.data.hub import Dataset, HubFile, Located, check_rows, field, locate, read_jsonl
from cppo_lib.data.problem import LoadReport, Problem, Skipped, Test
from cppo_lib.errors import DatasetError

RELEASE_ROWS = (400, 511, 612, 713, 880, 1055)
"""Problems in release_v1 to release_v6."""
_SHA256 = (
    "2bd02b38beb48e8c46b5b9987095d999ff38cd8efc255ea5d58974317c48f63f",
    "095df7c5daf15f882c51a9deb84085cff1e073495a5dbcf95015a564d485f3a3",
    "28ed26cc83363ce3f1fe2d5fad9f8393077beb1907b167a31bd3b32f80801b79",
    "d711138ddaebfcf5f8ec6a4283ee677298c0f5c5d374a235af92aaf0584510da",
    "7f77571c2a6df0c2a72a3277650309f67e01e0008e18117e624633df53f81214",
    "bb4c364f71921c4495a6ad15abe1a927350b720009f4933e2e71f8af0f6fd1f5",
)


def _releases() -> dict[str, tuple[HubFile, ...]]:
    names = (f"test{number}.jsonl" for number in ("", 2, 3, 4, 5, 6))
    rows = (after - before for before, after in itertools.pairwise((0, *RELEASE_ROWS)))
    files = tuple(map(HubFile, names, _SHA256, rows))
    cumulative = {f"release_v{last}": files[:last] for last in range(1, 7)}
    single = {f"v{number}": files[number - 1 : number] for number in range(1, 7)}
    runs = {f"v{first}_v{last}": files[first - 1 : last] for first, last in itertools.combinations(range(1, 7), 2)}
    return {**cumulative, "release_latest": files, **single, **runs}


DATASET = Dataset("livecodebench/code_generation_lite", "0fe84c3912ea0c4d4a78037083943e8f0c4dd505", _releases())

_ERRATA = {
    "several answers": (
        "abc311_c abc326_d abc327_b abc333_e abc343_a abc343_e abc362_c arc185_c find-words-containing-character "
        "find-the-peaks generate-binary-strings-without-adjacent-zeros"
    ),
    "interactive": "abc337_e abc355_e",
    "broken tests": "abc350_c apply-operations-to-make-string-empty arc189_a most-frequent-ids",
}
ERRATA = {name: reason for reason, names in _ERRATA.items() for name in names.split()}
"""Why a problem is left out, by its id (AtCoder) or its title (LeetCode, where the title is the URL's last part)."""

TEXT_LIMIT = 1 << 30
"""Largest size of one problem's decompressed private tests (bytes); a zlib bomb ends there."""

_Visibility = Literal["public", "hidden"]
_TESTS: dict[str, _Visibility] = {"public_test_cases": "public", "private_test_cases": "hidden"}
_TEXT = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_FRAMING = {"PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP"}
_RULE = re.compile(r"(first|last)_([1-9]\d*)_by_date|(hash)_([1-9]\d*)|(held_out)_(\d{4}-\d\d-\d\d)")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of the data; `where` is file and line for messages."""

    id: str
    title: str
    date: str
    fields: dict[str, Any]
    where: str


def load(
    split: str = "test",
    *,
    report: LoadReport | None = None,
    source: str = DATASET.repo,
    release: str = "release_v6",
    start: str | None = None,
    end: str | None = None,
    subset: str | None = None,
    keep_errata: bool = False,
    limit: int | None = None,
) -> Iterator[Problem]:
    """Stream the problems in the order of the files; a `subset` costs one more pass, over ids and dates.

    Tests are public ones first, then hidden ones. Problems of LeetCode are in `call` mode, the others in `stdio` mode.

    Args:
        split: `test`, the only one.
        report: filled with errata and problems without tests, and with the files and the number of rows read.
        source: hub id, hub id with `@revision`, or a local folder, see `cppo_lib.data.hub`.
        release, start, end, subset, keep_errata: which problems, see above.
        limit: at most this many problems; reading stops there, so the row count of the last file is not checked.

    Raises:
        DatasetError: an unknown split, release, date or rule; files that cannot be had or have other row counts than
            are known; a row that does not fit the schema; no problem at all that fits the request.
    """
    if split != "test":
        raise DatasetError(f"livecodebench has one split, test; not {split!r}")
    if release not in DATASET.files:
        raise DatasetError(f"livecodebench has no release {release!r}; choose release_v1..6, v1..6 or a run as v4_v5")
    if limit is not None and limit < 1:
        raise DatasetError(f"livecodebench: limit must be at least 1, not {limit}")
    window = _day(start or "0001-01-01", "start"), _day(end or "9999-12-31", "end")
    rule = None if subset is None else _rule(subset)
    report = LoadReport() if report is None else report
    needed = dataclasses.replace(DATASET, files={release: DATASET.files[release]})
    files = [locate(source, file, dataset=needed) for file in needed.files[release]]
    chosen = None if rule is None else _choose(_rows(files, window, keep_errata, LoadReport()), *rule)
    taken = 0
    with closing(_rows(files, window, keep_errata, report)) as rows:
        for row in rows:
            if chosen is not None and row.id not in chosen:
                continue
            problem = _problem(row)
            if problem is None:
                report.skipped.append(Skipped(row.id, "no tests"))
                continue
            yield problem
            taken += 1
            if taken == limit:
                return
    if not taken:
        raise DatasetError(f"livecodebench: no problem fits release {release}, {start=}, {end=}, {subset=}")


def _day(value: str, what: str) -> str:
    try:
        return datetime.fromisoformat(str(value)).date().isoformat()
    except ValueError:
        raise DatasetError(f"livecodebench: {what} must be a date such as 2024-08-01, not {value!r}") from None


def _rows(
    files: Sequence[Located], window: tuple[str, str], keep_errata: bool, report: LoadReport
) -> Generator[_Row, None, None]:
    """Rows inside the window without the errata; reports what is left out and every file that was read."""
    seen: set[str] = set()
    for located in files:
        count = 0
        try:
            for line, fields in read_jsonl(located.path):
                count += 1
                row = _row(fields, f"{paths.show(located.path)}: line {line}")
                if row.id in seen:
                    raise DatasetError(f"{row.where}: field 'question_id': {row.id!r} is there twice")
                seen.add(row.id)
                if not window[0] <= row.date <= window[1]:
                    continue
                reason = ERRATA.get(row.id) or ERRATA.get(row.title)
                if reason and not keep_errata:
                    report.skipped.append(Skipped(row.id, reason, f"{row.title}: listed in ERRATA.md"))
                    continue
                yield row
            check_rows(located, count, located.file.rows)
        finally:  # also when the reader stops early
            report.sources.append(located.source(count))


def _row(fields: dict[str, Any], where: str) -> _Row:
    ident, title, day = (field(fields, name, str, where) for name in ("question_id", "question_title", "contest_date"))
    try:
        return _Row(ident, title, datetime.fromisoformat(day).date().isoformat(), fields, where)
    except ValueError:
        raise DatasetError(f"{where}: field 'contest_date' is no ISO date: {day!r}") from None


def _rule(subset: str) -> tuple[str, str]:
    """The kind of a rule (first, last, hash or held_out) and its number or date."""
    match = _RULE.fullmatch(subset)
    if not match:
        raise DatasetError(
            f"livecodebench: unknown subset {subset!r}; choose first_N_by_date, last_N_by_date, hash_N or "
            "held_out_YYYY-MM-DD, such as first_500_by_date"
        )
    kind, value = filter(None, match.groups())
    return kind, _day(value, "what held_out_ names") if kind == "held_out" else value


def _choose(rows: Iterator[_Row], kind: str, value: str) -> set[str]:
    """Ids of the problems that a rule takes."""
    index = sorted((row.date, row.id) for row in rows)
    if kind == "held_out":
        return {ident for day, ident in index if day > value}
    if kind == "hash":
        index.sort(key=lambda entry: hashlib.sha256(entry[1].encode()).hexdigest())
    n = int(value)
    if n > len(index):
        raise DatasetError(f"livecodebench: subset asks for {n} problems, but {len(index)} fit the other options")
    return {ident for _, ident in (index[-n:] if kind == "last" else index[:n])}


def _problem(row: _Row) -> Problem | None:
    """The problem of a row, None when it has no tests."""
    names = ("question_content", "starter_code", "difficulty", "platform", "contest_id")
    content, starter, difficulty, platform, contest = (field(row.fields, name, str, row.where) for name in names)
    function = _function(row)
    tests = tuple(
        _test(case, function, visibility, f"{row.where}: field {name!r}: test {number}")
        for name, visibility in _TESTS.items()
        for number, case in enumerate(_cases(field(row.fields, name, str, row.where), row.where, name))
    )
    if not tests:
        return None
    return Problem(
        id=row.id,
        source="livecodebench",
        statement=f"{content}\n\nStarter code:\n```python\n{starter}\n```" if function else content,
        tests=tests,
        mode="call" if function else "stdio",
        fn_name=function,
        starter_code=starter,
        comparator="call_lcb" if function else "lcb",
        meta={"group": difficulty, "platform": platform, "date": row.date, "contest_id": contest, "title": row.title},
    )


def _function(row: _Row) -> str | None:
    """The function that the tests call; None for a program that reads standard input."""
    text = field(row.fields, "metadata", str, row.where)
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{row.where}: field 'metadata' is not JSON ({error})") from None
    name = metadata.get("func_name") if isinstance(metadata, dict) else 0
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise DatasetError(f"{row.where}: field 'metadata' is no object with a function name in 'func_name'")
    return name


def _cases(text: str, where: str, name: str) -> list[dict[str, Any]]:
    """The tests in a field: JSON as it is, or packed."""
    try:
        cases = json.loads(text if text.lstrip().startswith("[") else _unpack(text))
    except (ValueError, RecursionError, zlib.error) as error:
        raise DatasetError(f"{where}: field {name!r} cannot be decoded: {error}") from None
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise DatasetError(f"{where}: field {name!r} is not a JSON list of objects")
    return cases


def _unpack(packed: str) -> str:
    """The text in Base64 of a zlib stream of a pickle. Raises ValueError or zlib.error on anything else."""
    stream = zlib.decompressobj()
    data = stream.decompress(base64.b64decode(packed, validate=True), TEXT_LIMIT + 1)
    if len(data) > TEXT_LIMIT:
        raise ValueError(f"more than {TEXT_LIMIT} bytes when decompressed")
    if not stream.eof:
        raise ValueError("the compressed data is cut off")
    texts = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _TEXT:
            texts.append(str(argument))
        elif opcode.name not in _FRAMING:
            raise ValueError(f"the pickle holds {opcode.name}; only one text is allowed in it")
    if len(texts) != 1:
        raise ValueError(f"the pickle holds {len(texts)} texts, not one")
    return texts[0]


def _test(case: dict[str, Any], function: str | None, visibility: _Visibility, where: str) -> Test:
    given, expected, kind = (field(case, name, str, where) for name in ("input", "output", "testtype"))
    wanted = "functional" if function else "stdin"
    if kind != wanted:
        named = f"function {function}" if function else "no function"
        raise DatasetError(f"{where}: testtype {kind!r}, not {wanted!r}, but 'metadata' names {named} (func_name)")
    if not function:
        return Test(given, expected, visibility)
    arguments = given.split("\n")
    for what, value in [("output", expected), *(("input", line) for line in arguments)]:
        try:
            json.loads(value, parse_int=str)  # the text is kept as it is; integers may be of any length
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where}: {what} is not one JSON value per line ({error})") from None
    return Test(f"[{', '.join(arguments)}]", expected, visibility)
