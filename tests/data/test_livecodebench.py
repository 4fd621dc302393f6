"""LiveCodeBench: rows in the public schema become the right problems, and nothing in a row is ever run."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib
import json
import os
import pickle
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from cppo_lib.data.benchmarks import livecodebench
from cppo_lib.data.hub import HubFile
from cppo_lib.data.problem import LoadReport, Problem, Skipped, from_json, to_json
from cppo_lib.data.registry import load_benchmark, stream_benchmark
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Verifier

Row = dict[str, str]
Write = Callable[..., Path]


def cases_json(*cases: tuple[str, str], kind: str = "stdin") -> str:
    return json.dumps([{"input": given, "output": expected, "testtype": kind} for given, expected in cases])


def packed(text: Any, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(text, protocol))).decode()


def stdio_row(ident: str = "abc400_a", day: str = "2025-04-05", **changes: str) -> Row:
    row = {
        "question_title": "Sum",
        "question_content": "Print the sum of two integers.\n\nSample Input 1\n\n1 2\n\nSample Output 1\n\n3",
        "platform": "atcoder",
        "question_id": ident,
        "contest_id": "abc400",
        "contest_date": f"{day}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": cases_json(("1 2\n", "3\n")),
        "private_test_cases": cases_json(("10 -4\n", "6\n"), ("0.5 0.25\n", "0.75\n")),
        "metadata": "{}",
    }
    return row | changes


def call_row(ident: str = "3708", day: str = "2025-01-11", **changes: str) -> Row:
    hidden = cases_json(("[5, 6, 7]\n2", "[6, 5]"), ("[1]\n0", "[1]"), kind="functional")
    row = {
        "question_title": "rotate-and-take-ends",
        "question_content": "Rotate nums right by k. Return the first and, if it is another, the last item.",
        "platform": "leetcode",
        "question_id": ident,
        "contest_id": "weekly-contest-432",
        "contest_date": f"{day}T18:30:00",
        "starter_code": "class Solution:\n    def takeEnds(self, nums: List[int], k: int) -> List[int]:\n        ",
        "difficulty": "medium",
        "public_test_cases": cases_json(("[1, 2, 3]\n1", "[3, 2]"), kind="functional"),
        "private_test_cases": packed(hidden),
        "metadata": '{"func_name": "takeEnds"}',
    }
    return row | changes


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as `test6.jsonl` (or another file) of a local copy of the data set; returns the folder."""

    def write_rows(*rows: Row, name: str = "test6.jsonl") -> Path:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    return write_rows


def load(folder: Path, **options: Any) -> list[Problem]:
    return load_benchmark("livecodebench", "test", source=str(folder), **{"release": "v6", **options})


def ids(folder: Path, **options: Any) -> list[str]:
    return [problem.id for problem in load(folder, **options)]


def test_a_stdio_row_becomes_a_problem(write: Write) -> None:
    (problem,) = load(write(stdio_row()))
    assert (problem.id, problem.source, problem.mode, problem.fn_name) == ("abc400_a", "livecodebench", "stdio", None)
    assert (problem.comparator, problem.prelude, problem.cpu_limit_s) == ("lcb", "lcb", 6.0)
    assert problem.statement == stdio_row()["question_content"] and problem.starter_code == ""
    assert [(test.input, test.expected, test.visibility) for test in problem.tests] == [
        ("1 2\n", "3\n", "public"),
        ("10 -4\n", "6\n", "hidden"),
        ("0.5 0.25\n", "0.75\n", "hidden"),
    ]
    expected = {"group": "easy", "platform": "atcoder", "date": "2025-04-05", "contest_id": "abc400", "title": "Sum"}
    assert problem.meta == expected
    assert from_json(to_json(problem)) == problem


def test_a_functional_row_becomes_a_call_problem(write: Write) -> None:
    (problem,) = load(write(call_row()))
    assert (problem.mode, problem.fn_name, problem.comparator) == ("call", "takeEnds", "call_lcb")
    assert problem.starter_code == call_row()["starter_code"]
    assert problem.starter_code in problem.statement and "Rotate nums" in problem.statement
    assert [(test.input, test.expected, test.visibility) for test in problem.tests] == [
        ("[[1, 2, 3], 1]", "[3, 2]", "public"),
        ("[[5, 6, 7], 2]", "[6, 5]", "hidden"),
        ("[[1], 0]", "[1]", "hidden"),
    ]
    assert problem.meta["date"] == "2025-01-11"


TAKE_ENDS = """
class Solution:
    def takeEnds(self, nums: List[int], k: int) -> List[int]:
        turned = deque(nums)
        turned.rotate(k)
        return {value}
"""


@pytest.mark.parametrize(
    ("which", "program", "verdict"),
    [
        ("abc400_a", "a, b = map(float, input().split())\nprint(a + b)", "AC"),
        ("abc400_a", "a, b = map(float, input().split())\nprint(a - b)", "WA"),
        ("abc400_a", "print(sum(map(int, input().split())))", "RE"),
        ("3708", TAKE_ENDS.format(value="[turned[0], turned[-1]] if len(turned) > 1 else [turned[0]]"), "AC"),
        ("3708", TAKE_ENDS.format(value="(turned[0], turned[-1]) if len(turned) > 1 else (turned[0],)"), "AC"),
        ("3708", TAKE_ENDS.format(value="[turned[0], turned[-1]]"), "WA"),
        ("3708", "print([3, 2])", "RE"),
        ("1873_A", "for _ in range(int(input())):\n    print('YES' if input() in 'abc acb bac cba' else 'NO')", "AC"),
        ("1873_A", "for _ in range(int(input())):\n    print('YES')", "WA"),
    ],
)
def test_programs_are_judged(write: Write, verifier: Verifier, which: str, program: str, verdict: str) -> None:
    short = stdio_row("1873_A", private_test_cases=packed(cases_json(("3\nabc\nbca\ncba\n", "YES\nNO\nYES\n"))))
    short["public_test_cases"] = cases_json(("1\nabc\n", "YES\n"))
    problems = {problem.id: problem for problem in load(write(stdio_row(), call_row(), short))}
    (result,) = verifier.verify(problems[which], [program])
    assert result.verdict == verdict, result.reason


@pytest.fixture(scope="module")
def verifier() -> Any:
    with Verifier() as made:
        yield made


def test_the_official_loader_reads_the_same_tests(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[2] / ".venv" / "graders"
    if not (folder / "livecodebench").is_dir():
        pytest.skip("the official grader is not installed (make setup)")
    monkeypatch.syspath_prepend(str(folder))
    official = importlib.import_module("livecodebench.benchmarks.code_generation").CodeGenerationProblem
    rows = [stdio_row(), call_row(), stdio_row("1873_A", private_test_cases=packed(cases_json(("2\n", "4\n"))))]
    for row, problem in zip(rows, load(write(*rows)), strict=True):
        sample = json.loads(official(**row).get_evaluation_sample()["input_output"])
        assert [test.expected for test in problem.tests] == sample["outputs"] and problem.fn_name == sample["fn_name"]
        if problem.mode == "stdio":
            assert [test.input for test in problem.tests] == sample["inputs"]
        else:  # as the official grader makes arguments of them
            arguments = [[json.loads(line) for line in given.split("\n")] for given in sample["inputs"]]
            assert [json.loads(test.input) for test in problem.tests] == arguments


@pytest.mark.parametrize("subset", [None, "last_20_by_date"])
def test_tests_are_never_all_in_memory(write: Write, subset: str | None) -> None:
    folder = write(*(stdio_row(f"abc{n}", public_test_cases=cases_json((f"{n} " * 200_000, "1"))) for n in range(40)))
    options = {"source": str(folder), "release": "v6", "subset": subset}
    tracemalloc.start()
    taken = sum(1 for _ in stream_benchmark("livecodebench", "test", **options))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken == (20 if subset else 40)
    assert peak < (folder / "test6.jsonl").stat().st_size / 2


# --- private tests ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_packed_tests_are_read_in_every_protocol(write: Write, protocol: int) -> None:
    cases = [("1 2\n", "3\n"), ("é ∑ \N{GRINNING FACE}", "\\u0041\n"), ("7 " * 100_000, "700000\n")]
    (problem,) = load(write(stdio_row(private_test_cases=packed(cases_json(*cases), protocol))))
    assert [(test.input, test.expected) for test in problem.tests[1:]] == cases


class Command:
    """Pickles to a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_call_is_refused_and_never_made(write: Write, tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    folder = write(stdio_row(), stdio_row("abc400_b", private_test_cases=packed(Command(f"touch {marker}"), protocol)))
    with pytest.raises(DatasetError, match=r"test6.jsonl: line 2: field 'private_test_cases' .*(STACK_)?GLOBAL"):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"cantigravity\ngeohash\n.", "GLOBAL"),
        (pickle.dumps([cases_json(("1", "1"))]), "EMPTY_LIST"),
        (pickle.dumps(7), "BININT1"),
        (b"\x80\x04.", "0 texts"),
        (pickle.dumps("[]")[:-1], "exhausted"),
        (b"not a pickle", "opcode"),
        (pickle.dumps("not json"), "Expecting value"),
        (pickle.dumps('{"input": ""}'), "JSON list of objects"),
        (pickle.dumps("[1]"), "JSON list of objects"),
    ],
)
def test_other_pickles_are_refused(write: Write, data: bytes, words: str) -> None:
    folder = write(stdio_row(private_test_cases=base64.b64encode(zlib.compress(data)).decode()))
    with pytest.raises(DatasetError, match=f"line 1: field 'private_test_cases'.*{words}"):
        load(folder)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "incomplete|cut off"),
        ("{}", "base64"),
        (base64.b64encode(b"no zlib").decode(), "decompressing"),
        (base64.b64encode(zlib.compress(pickle.dumps("[]"))[:-3]).decode(), "cut off"),
        ('[{"input": "1", ', "Expecting property name"),
    ],
)
def test_damaged_private_tests_are_named(write: Write, text: str, words: str) -> None:
    with pytest.raises(DatasetError, match=f"line 1: field 'private_test_cases' cannot be decoded: .*({words})"):
        load(write(stdio_row(private_test_cases=text)))


def test_a_zlib_bomb_ends_at_the_limit(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(stdio_row(private_test_cases=packed(" " * (64 << 20))))
    monkeypatch.setattr(livecodebench, "TEXT_LIMIT", 1 << 20)
    tracemalloc.start()
    with pytest.raises(DatasetError, match="'private_test_cases'.* more than 1048576 bytes when decompressed"):
        load(folder)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


# --- rows that do not fit ---------------------------------------------------------------------


def test_a_truncated_file_names_the_line(write: Write) -> None:
    file = write(stdio_row(), stdio_row("abc400_b")) / "test6.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="test6.jsonl: line 2 is not JSON.*truncated"):
        load(file.parent)


@pytest.mark.parametrize("name", sorted(stdio_row()))
def test_a_missing_or_mistyped_column_is_named(write: Write, name: str) -> None:
    row: dict[str, Any] = dict(stdio_row())
    with pytest.raises(DatasetError, match=f"line 1: field '{name}' is int, not str"):
        load(write(row | {name: 1}))
    del row[name]
    with pytest.raises(DatasetError, match=f"line 1: no field '{name}'"):
        load(write(row))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (stdio_row(contest_date="April"), "'contest_date' is no ISO date: 'April'"),
        (stdio_row(metadata="{"), "field 'metadata' is not JSON"),
        (stdio_row(metadata="[]"), "field 'metadata' is no object"),
        (call_row(metadata='{"func_name": 3}'), "field 'metadata' is no object with a function name"),
        (call_row(metadata="{}"), "'public_test_cases': test 0: testtype 'functional', not 'stdin'.*no function"),
        (stdio_row(metadata='{"func_name": "f"}'), "test 0: testtype 'stdin', not 'functional'.*function f"),
        (stdio_row(private_test_cases=cases_json(("1", "1"), kind="file")), "'private_test_cases': test 0: .*'file'"),
        (stdio_row(public_test_cases='[{"input": "1", "testtype": "stdin"}]'), "test 0: no field 'output'"),
        (stdio_row(public_test_cases='[{"input": 1, "output": "1", "testtype": "stdin"}]'), "'input' is int"),
        (call_row(public_test_cases=cases_json(("[1] [2]", "1"), kind="functional")), "test 0: input is not one JSON"),
        (call_row(public_test_cases=cases_json(("1\n", "1"), kind="functional")), "test 0: input is not one JSON"),
        (call_row(public_test_cases=cases_json(("1", "True"), kind="functional")), "test 0: output is not one JSON"),
    ],
)
def test_a_row_that_does_not_fit_is_named(write: Write, row: Row, words: str) -> None:
    with pytest.raises(DatasetError, match=f"test6.jsonl: line 2: .*{words}"):
        load(write(stdio_row("abc400_z"), row))


def test_integers_may_be_of_any_length(write: Write) -> None:
    big = "9" * 5000
    row = call_row(public_test_cases=cases_json((f"[{big}]\n0", f"[{big}]"), kind="functional"))
    (problem,) = load(write(row))
    assert (problem.tests[0].input, problem.tests[0].expected) == (f"[[{big}], 0]", f"[{big}]")


def test_an_id_that_is_there_twice_is_named(write: Write) -> None:
    with pytest.raises(DatasetError, match="line 2: field 'question_id': 'abc400_a' is there twice"):
        load(write(stdio_row(), stdio_row()))


def test_a_row_without_tests_is_left_out_and_counted(write: Write) -> None:
    folder = write(stdio_row(), stdio_row("abc400_b", public_test_cases="[]", private_test_cases=packed("[]")))
    report = LoadReport()
    assert ids(folder, report=report) == ["abc400_a"]
    assert report.skipped == [Skipped("abc400_b", "no tests")]


# --- releases, windows, slices ----------------------------------------------------------------


def test_releases_name_their_files_and_rows() -> None:
    files = livecodebench.DATASET.files
    cumulative = [sum(file.rows or 0 for file in files[f"release_v{number}"]) for number in range(1, 7)]
    assert cumulative == [400, 511, 612, 713, 880, 1055]
    assert [file.path for file in files["release_v3"]] == ["test.jsonl", "test2.jsonl", "test3.jsonl"]
    assert files["release_latest"] == files["release_v6"] == files["v1_v6"]
    assert [(file.path, file.rows) for file in files["v6"]] == [("test6.jsonl", 175)]
    assert [(file.path, file.rows) for file in files["v4_v5"]] == [("test4.jsonl", 101), ("test5.jsonl", 167)]
    assert len(files) == 28 and len({file.sha256 for file in files["release_v6"]}) == 6


def test_only_the_files_of_the_release_are_read(write: Write) -> None:
    write(stdio_row("abc360_a"), name="test4.jsonl")
    folder = write(stdio_row("abc370_a"), name="test5.jsonl")
    report = LoadReport()
    assert ids(folder, release="v4_v5", report=report) == ["abc360_a", "abc370_a"]
    assert [(source.file, source.rows) for source in report.sources] == [("test4.jsonl", 1), ("test5.jsonl", 1)]
    assert report.sources[0].sha256 == hashlib.sha256((folder / "test4.jsonl").read_bytes()).hexdigest()
    with pytest.raises(DatasetError, match="lacks test.jsonl"):
        load(folder, release="release_v5")


DAYS = {"abc1": "2024-08-01", "abc2": "2024-09-30", "abc3": "2024-08-01", "abc4": "2025-02-01", "abc5": "2024-12-24"}


def five(write: Write, seed: int = 0) -> Path:
    rows = [stdio_row(ident, day) for ident, day in DAYS.items()]
    random.Random(seed).shuffle(rows)
    return write(*rows)


def test_a_window_includes_both_ends(write: Write) -> None:
    folder = five(write)
    assert sorted(ids(folder, start="2024-08-01", end="2024-09-30")) == ["abc1", "abc2", "abc3"]
    assert sorted(ids(folder, start="2024-08-02")) == ["abc2", "abc4", "abc5"]
    assert sorted(ids(folder, end="2024-09-29")) == ["abc1", "abc3"]


@pytest.mark.parametrize(
    ("subset", "options", "expected"),
    [
        ("first_3_by_date", {}, {"abc1", "abc3", "abc2"}),
        ("first_1_by_date", {}, {"abc1"}),
        ("last_2_by_date", {}, {"abc5", "abc4"}),
        ("last_2_by_date", {"end": "2024-12-31"}, {"abc2", "abc5"}),
        ("hash_2", {}, {"abc2", "abc4"}),
        ("hash_5", {}, set(DAYS)),
        ("held_out_2024-09-30", {}, {"abc5", "abc4"}),
    ],
)
def test_a_slice_does_not_depend_on_the_order_of_rows(
    write: Write, subset: str, options: dict[str, str], expected: set[str]
) -> None:
    for seed in range(3):
        folder = five(write, seed)
        order = [json.loads(line)["question_id"] for line in (folder / "test6.jsonl").read_text().splitlines()]
        assert ids(folder, subset=subset, **options) == [ident for ident in order if ident in expected]


def test_the_hash_rule_is_the_documented_one() -> None:
    assert sorted(DAYS, key=lambda ident: hashlib.sha256(ident.encode()).hexdigest())[:2] == ["abc2", "abc4"]


def test_a_slice_reports_each_file_and_each_erratum_once(write: Write) -> None:
    report = LoadReport()
    folder = write(stdio_row("abc311_c", "2023-07-22"), *(stdio_row(ident, day) for ident, day in DAYS.items()))
    assert ids(folder, subset="first_2_by_date", report=report) == ["abc1", "abc3"]
    assert [(source.file, source.rows) for source in report.sources] == [("test6.jsonl", 6)]
    assert [entry.id for entry in report.skipped] == ["abc311_c"]


def test_limit_stops_reading(write: Write) -> None:
    file = five(write) / "test6.jsonl"
    with file.open("a") as stream:
        stream.write("{ damaged")
    report = LoadReport()
    assert len(load(file.parent, limit=2, report=report)) == 2
    assert [source.rows for source in report.sources] == [2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"release": "release_v7"}, "no release 'release_v7'; choose release_v1"),
        ({"release": "v5_v4"}, "no release"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"start": "August"}, "start must be a date such as 2024-08-01, not 'August'"),
        ({"end": "2024-02-30"}, "end must be a date"),
        ({"subset": "first_500"}, "unknown subset 'first_500'; choose first_N_by_date"),
        ({"subset": "hash_2_by_date"}, "unknown subset"),
        ({"subset": "held_out_2024-02-30"}, "held_out_ names must be a date"),
        ({"subset": "first_6_by_date"}, "subset asks for 6 problems, but 5 fit"),
        ({"start": "2025-02-02"}, "no problem fits release v6, start='2025-02-02'"),
        ({"subset": "held_out_2025-02-01"}, "no problem fits"),
    ],
)
def test_bad_requests_are_named(write: Write, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        load(five(write), **options)


def test_another_split_is_named() -> None:
    with pytest.raises(DatasetError, match="one split, test; not 'train'"):
        load_benchmark("livecodebench", "train")


# --- errata and sources -----------------------------------------------------------------------


def test_errata_are_left_out_with_their_reason_unless_kept(write: Write) -> None:
    folder = write(
        stdio_row("abc311_c"),
        stdio_row("abc337_e"),
        stdio_row("abc350_c"),
        call_row("3221", question_title="find-the-peaks"),
        stdio_row(),
    )
    report = LoadReport()
    assert ids(folder, report=report) == ["abc400_a"]
    assert [(entry.id, entry.reason) for entry in report.skipped] == [
        ("abc311_c", "several answers"),
        ("abc337_e", "interactive"),
        ("abc350_c", "broken tests"),
        ("3221", "several answers"),
    ]
    report = LoadReport()
    assert len(load(folder, keep_errata=True, report=report)) == 5 and report.skipped == []
    assert len(livecodebench.ERRATA) == 17


def test_a_changed_upstream_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(stdio_row(), call_row())
    digest = hashlib.sha256((folder / "test6.jsonl").read_bytes()).hexdigest()
    for rows, fits in ((2, True), (175, False)):
        known = dataclasses.replace(livecodebench.DATASET, files={"v6": (HubFile("test6.jsonl", digest, rows),)})
        monkeypatch.setattr(livecodebench, "DATASET", known)
        if fits:
            report = LoadReport()
            assert len(load(folder, report=report)) == 2
            assert report.sources[0].revision == known.revision
        else:
            with pytest.raises(DatasetError, match="test6.jsonl: 2 rows where 175 are known: upstream has changed"):
                load(folder)


def test_an_unreachable_hub_names_the_files_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("CPPO_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=r"hub cannot be reached.*put test4.jsonl, test5.jsonl into a folder"):
        load_benchmark("livecodebench", "test", release="v4_v5")
