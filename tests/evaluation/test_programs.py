"""Which programs are the same, and what they are made of, against counts by hand; odd and hostile text."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cppo_lib.errors import CPPOError
from cppo_lib.evaluation import programs
from cppo_lib.evaluation.distances import program_similarity
from cppo_lib.evaluation.programs import KERNELS, features, program_key, program_keys

SAME = [
    ("a = 1\nprint(a)", "b=1 # note\n\nprint( b )"),
    ("a = 1\nprint(a)", "\ufeffa = 1\nprint(a)"),
    ("def f(x):\n    'doc'\n    return x + 1", "def g(y):\n    return y + 1"),
    ("import math as m\nprint(m.pi)", "import math as q\nprint(q.pi)"),
    ("print([i for i in range(3)])", "print([j for j in range(3)])"),
    (
        "def f():\n    n = 0\n    def g():\n        nonlocal n\n",
        "def h():\n    k = 0\n    def g():\n        nonlocal k\n",
    ),
    ("try:\n    f()\nexcept E as e:\n    print(e)", "try:\n    f()\nexcept E as error:\n    print(error)"),
    ("match a:\n    case [x, *y]:\n        print(x, y)", "match a:\n    case [u, *v]:\n        print(u, v)"),
    ("def broken(:", "def   broken(:\n"),
]
DIFFERENT = [
    ("print(min(a))", "print(max(a))"),
    ("print(a[0])", "print(a[-1])"),
    ("print(1)", "print(True)"),
    ("a = 1\nb = 2\nprint(a)", "a = 1\nb = 2\nprint(b)"),
    ("a.sort()", "a.reverse()"),
    ("import math as math", "import cmath as cmath"),
    ("class A:\n    def __lt__(self, x): pass", "class A:\n    def __gt__(self, x): pass"),
    ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
    ("if a:\n    b()\nelse:\n    c()", "if a:\n    b()\n    c()"),
    ("def broken(:", "def broken(::"),
    ("", "pass"),
]
ODD = ["+".join(["1"] * 20_000), "(" * 500, "-" * 100_000 + "1", "lambda:" * 5_000 + "1", "x = 0x" + "f" * 9_000]
ODD += ["a\0b", "\ud800", "return 1", "x = '\\d'", "if a: pass\n" + "elif b: pass\n" * 800]


def test_programs_that_are_the_same() -> None:
    for left, right in SAME:
        assert program_key(left) == program_key(right), left
        assert all(program_similarity(left, right, kernel) == 1 for kernel in KERNELS), left


def test_programs_that_differ() -> None:
    for left, right in DIFFERENT:
        assert program_key(left) != program_key(right), left
        assert program_similarity(left, right) == program_similarity(right, left)
        assert left == "def broken(:" or program_similarity(left, right) < 1, left


def test_subtrees_by_hand() -> None:
    """print(1) has statement, call, `print`, 1; print(2) shares only `print`: 1 of 7 subtrees."""
    assert len(features(["print(1)"])[0].subtrees) == 4
    assert program_similarity("print(1)", "print(2)") == pytest.approx(1 / 7)


def test_grams_by_hand() -> None:
    """print(1) is a chain of three nodes over two leaves.

    A node with n children has n + 2 windows and a leaf one: 3 + 3 + 4 + 1 + 1 = 12 grams. The value of the constant is
    in none of them. An argument with another label changes three of the four windows over the children of the call,
    and the argument's own: 8 of 12 stay, of 16 in all.
    """
    assert len(features(["print(1)"])[0].grams) == 12
    assert program_similarity("print(1)", "print(2)", "ast") == 1
    assert program_similarity("print(1)", "print(free)", "ast") == 8 / 16


def test_grams_are_a_bag() -> None:
    """f() is a statement over a call over a name: 3 + 3 + 1 grams, and 3 of the module; twice, the module has 4.

    Windows of one child E are (**E), (*E*), (E**); of two (**E), (*EE), (EE*), (E**). Two are common, and every other
    gram of the once is in the twice: 2 + 7 shared of 3 + 7 and 4 + 14, so 9 of 19.
    """
    assert program_similarity("f()", "f()\nf()", "ast") == pytest.approx(9 / 19)
    assert program_similarity("f()", "f()\nf()", "subtrees") == 1


def test_branches_are_told_apart() -> None:
    both, one = "if a:\n    b()\nelse:\n    c()", "if a:\n    b()\n    c()"
    assert program_similarity(both, one, "ast") < 1


def test_opcodes_by_hand() -> None:
    """x = 1 loads, stores and returns None; a second assignment adds a load and a store.

    As runs of three with a blank at either end, the return takes two instructions before Python 3.12 (4 runs and 6,
    the first 4 shared) and one since (3 and 5).
    """
    expected = 4 / 6 if sys.version_info < (3, 12) else 3 / 5
    assert program_similarity("x = 1", "x = 1\ny = 2", "opcodes") == pytest.approx(expected)
    assert program_similarity("x = 1", "x = 'text'", "opcodes") == 1
    assert program_similarity("x = a + b", "x = a - b", "opcodes") < 1
    assert program_similarity("x = a < b", "x = a > b", "opcodes") < 1
    assert program_similarity("def f():\n    'doc'\n    return 1", "def f():\n    return 1", "opcodes") == 1


def test_text_that_does_not_parse_is_its_words() -> None:
    """Of `sort the list (` and `the list ( x` three of five words are common; programs have none of them."""
    for kernel in KERNELS:
        assert program_similarity("sort the list (", "the list ( x", kernel) == 3 / 5
        assert program_similarity("print ( (", "print", kernel) == 0
    assert program_similarity("return a + b", "return a + c", "opcodes") == 3 / 5  # parses, and does not compile


def test_features_keep_the_order_and_are_sets() -> None:
    wanted = ["print(3)", "print(4)", "print(3)", "x ="]
    found = features(wanted)
    assert [each.key for each in found] == [program_key(program) for program in wanted] == program_keys(wanted)
    for each in found:
        for kernel in KERNELS:
            assert (np.diff(each.of(kernel).astype(object)) > 0).all()


@pytest.mark.parametrize("text", ODD, ids=lambda text: text[:8].encode("unicode_escape").decode())
def test_odd_programs_have_a_key(text: str) -> None:
    assert program_key(text) == program_key(text) != program_key("pass")


def test_nothing_is_parsed_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("parsed in the wrong process")

    monkeypatch.setattr(ast, "parse", refuse)
    monkeypatch.setattr("builtins.compile", refuse)
    assert len(features(["print('apart')"])[0].subtrees) == 4


def test_a_program_that_kills_the_parser_counts_as_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of CPU do not suffice for 400,000 lines; the neighbours are parsed all the same, in two processes."""
    run, answered = programs._run, []

    def counted(batch: Sequence[str]) -> list[dict[str, str]]:
        answered.append(run(batch))
        return answered[-1]

    monkeypatch.setattr(programs, "_run", counted)
    before, killed, after = features(["print('before')", "a = 1\n" * 400_000, "print('after')"])
    assert [len(answers) for answers in answered] == [1, 1]
    assert len(before.grams) == len(after.grams) == 12
    assert len(killed.grams) == len(killed.subtrees) == 3  # `a`, `=` and `1`


def test_a_process_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "_SCRIPT", tmp_path / "gone.py")
    with pytest.raises(CPPOError, match="the process that parses programs failed .*gone.py.*No such file"):
        features(["print('never seen before')"])


def test_old_features_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "KEPT", 3)
    texts = [f"print('forget {number}')" for number in range(5)]
    assert len({each.key for each in features(texts)}) == 5
    assert list(programs._known) == texts[2:]
