"""Programs are taken out of replies as the authors' code takes them, whatever the replies hold."""

from __future__ import annotations

import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from released import named

from cppo_lib.data.problem import Problem, Test
from cppo_lib.model.tiny import build_tokenizer
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.rollout.released import DEEPEST, LONGEST, STARTS, parses, program_of

STDIO = Problem("p", "own", "Add two numbers.", (Test("1 2\n", "3\n"),))


@pytest.mark.parametrize("row", named("replies"))
def test_programs_are_those_that_the_authors_take(row) -> None:
    style = PromptStyle("plain", build_tokenizer(["x"], 300), "released")
    assert style.program(STDIO, row["text"]) == row["program"] and style.read_by(STDIO) == "released"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```py\nx = 1\n```\n```python3 \nx = 12\n```\n```PY\nx = 3\n```", "x = 12"),  # the longest, marked or not
        ("```js\nvery long text\n```", "```js\nvery long text\n```"),
        ("if you ask me\nfor a program:\nimport sys\nprint(sys.argv)", "import sys\nprint(sys.argv)"),
        ("So:\nx = 1\nprint(x)\nThat is all!", "So:\nx = 1\nprint(x)\nThat is all!"),  # nothing parses to the end
        ("\n\n  print(1)\n", "print(1)"),
        ("", ""),
    ],
)
def test_further_replies(text, program) -> None:
    assert program_of(text) == program


HOSTILE = {
    "spaces behind a fence": "```" + " " * 10**6,
    "fences": "```" * 10**5,
    "opened blocks": "```python\n" * 10**5,
    "a long mark": "```py" + "3" * 10**6,
    "brackets": "(" * LONGEST,
    "brackets below the limit": "x = 1\n" + "[{(" * (DEEPEST // 3),
    "signs": "x = " + "-" * 15_000 + "1",
    "additions": "x = " + "1+" * 9_000 + "1",
    "attributes": "a" + ".b" * 9_000,
    "digits": "x = " + "9" * 15_000,
    "a null": "print(1)\0",
    "half a character": "print('\ud800')",
    "branches": "if a: pass\n" + "elif a: pass\n" * 1_500,
    "lines that look like code": "for x in y\n" * 1_800,
    "a program that was cut": "def f(a):\n    return a + 1\n" * 700 + "x = (",
    "much text": "print(1)\n" * 10**6,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_text_that_is_made_to_break_a_parser_is_read_in_a_moment(name) -> None:
    began = time.process_time()
    assert isinstance(program_of(HOSTILE[name]), str)
    assert time.process_time() - began < 10  # a second where nothing else runs


@given(st.text(alphabet=st.sampled_from("`py\n= x1()[]{}:\\'\"#é\0\ud800"), max_size=80))
def test_any_text_is_read_without_an_error_or_a_warning(text) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert program_of(text) in text


def test_what_is_parsed_is_bounded() -> None:
    assert parses("x" * LONGEST) and not parses("x" * (LONGEST + 1))
    assert parses("(" * DEEPEST + ")" * DEEPEST) and not parses("(" * (DEEPEST + 1) + ")" * (DEEPEST + 1))
    assert parses("print('\\d')")  # an escape that Python warns of
    wrong = "if this is prose\n"
    assert program_of("So\n" + wrong * (STARTS - 1) + "print(1)") == "print(1)"
    assert program_of("So\n" + wrong * STARTS + "print(1)").startswith("So")


def test_nothing_is_run(tmp_path) -> None:
    made = tmp_path / "made"
    assert program_of(f"open({str(made)!r}, 'w')").startswith("open") and not made.exists()
