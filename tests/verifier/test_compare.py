"""Comparators: golden vectors of the official graders, properties on arbitrary text, hostile output."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lib.data.problem import Mode
from cppo_lib.errors import CPPOError
from cppo_lib.verifier import compare
from cppo_lib.verifier.child.values import Opaque, decode, encode
from cppo_lib.verifier.compare import STDIO, apps_legacy, call_apps, call_lcb, codecontests, lcb, tokens

pytestmark = pytest.mark.filterwarnings("ignore:comparator apps_legacy")
PROPERTY = settings(max_examples=150)

LCB = [
    *(("3 4", "3 4 ", True), ("3 4\n\n", "3 4", True), ("\n3 4", "3 4", True), ("3  4", "3 4", True)),
    *(("1.0", "1", True), ("1e3", "1000", True), ("0.1", "0.10", True), ("1_000", "1000", True)),
    *(("nan", "nan", True), ("inf", "Infinity", True), ("+5", "5", True), ("05", "5", True)),
    *(("-0", "0", True), ("٣", "3", True), ("1\r\n2", "1\n2", True), ("3\x0c4", "3 4", True)),
    *(("", " \n", True), ("3\n\n4", "3\n\n4", True)),
    *(("a  b", "a b", False), ("Yes", "YES", False), ("1.00000001", "1.0", False), ("NaN", "nan", False)),
    *(("1 2\n3", "1 2 3", False), ("3\n4", "3\n\n4", False), ("x 1.0", "x 1", False), ("sNaN", "1", False)),
    *(("", "0", False), ("0", "", False), ("3", "3\n4", False), ("3\n4\n5", "3\n4", False)),
    *(("\ud800", "1", False), ("3 4 5", "3 4", False), ("3  4 5", "3 4", False), ("nan  1", "nan 1", False)),
]
TOKENS = [
    *(("a  b", "a b", True), ("3\n4", "3\n\n4", True), ("1 2\n3", "1 2 3", True), ("", " \n", True)),
    *(("3\x0c4\r\n", "3 4", True), ("05", "5", True), ("+5", "5", True), ("-0", "0", True), ("-007", "-7", True)),
    *(("0" * 20_000 + "5", "5", True), ("9" * 20_000, "+" + "9" * 20_000, True)),
    *(("1.0", "1", True), ("1", "1.0", True), ("1e3", "1000", True), (".5", "0.50", True), ("5.", "5", True)),
    *(("0.30000000000000004", "0.3", True), ("2.9999999", "3", True), ("1.000001", "1.0", True)),
    *(("0.9999995e-3", "0.001", True), ("1000000.9", "1000000.0", True), ("nan", "nan", True)),
    *(("Yes", "YES", False), ("NaN", "nan", False), ("inf", "Infinity", False), ("inf", "1.0", False)),
    *(("1_000", "1000", False), ("٣", "3", False), ("0x10", "16", False), ("1e", "1", False), (".", "0", False)),
    *(("1.0000011", "1.0", False), ("2.99999", "3", False), ("1000001.1", "1000000.0", False)),
    *(("1000001.0", "1000000", False), ("1e15", "1000000000000001", False)),
    *(("1" + "0" * 29 + "1.0", "1" + "0" * 30, False), ("9" * 20_000, "9" * 19_999 + "8", False)),
    *(("", "0", False), ("0", "", False), ("3 4 5", "3 4", False), ("3", "3 4", False), ("-1", "1", False)),
    *(("1e999999999", "1", False), ("1e99999999999999999999", "1", False), ("1e999999999", "2e999999999", False)),
    ("1." + "0" * 10_000, "1.0", False),
]
CODECONTESTS = [
    *(("YES", "yes", True), ("a  B\n", "A b", True), ("1 2\n3", "1 2 3", True), ("3\v4", "3 4", True)),
    *(("1.000009", "1", True), ("+5", "5", True), ("1e3", "1000", True), ("INF", "inf", True), ("", " \n", True)),
    *(("9007199254740993", "9007199254740992", True), ("2e-9", "1e-9", True)),
    *(("1.00002", "1", False), ("1_0", "10", False), ("٣", "3", False), ("É", "é", False), ("3\x0c4", "3 4", False)),
    *(("a b", "b a", False), ("inf 1.0", "inf 1", False), ("nan 1.0", "nan 1", False), ("+-5", "-5", False)),
    *(("", "0", False), ("0", "", False), ("1 2 3", "1 2", False), ("1", "1 2", False), ("100001", "100000", False)),
]
APPS_WRONG = [
    *(("1 2 3", "3 2 1"), ("a\nb", "b\na"), ("a a b", "b a"), ("1 1 2 2", "2 1"), ("100001", "100000")),
    *(("100000000", "100000001"), ("123456789012", "123456789013"), ("1.0004 7", "1 7")),
]
"""Wrong answers that the official APPS grader accepts."""
APPS = [
    *(("a\n b \n", "a\nb", True), ("a\n\nb", "a\nb", True), ("a\x0bb", "a\nb", True), ("1.000001\n2", "1\n2", True)),
    *(("1e400", "1e500", True), ("", "\n", True), ("a  b", "a b", True), ("a\n\nb", "a\n \nb", True)),
    *(("a", "A", False), ("1", "inf", False), ("nan 2", "nan 2.0", False), ("1.002 7", "1 7", False)),
    *(
        ("a\nb", "a b", False),
        ("0\x0c1", "0\x0c1", False),
        ("1 2", "1", False),
        ("1\n2", "1", False),
        ("", "0", False),
        ("1\nx", "2\nx", False),
    ),
    *(("100001\n\n5", "100000\n5", True), ("100001\n \n5", "100000\n5", False)),
    ("1." + "0" * 10_000, "1.0", False),
]
CALL_LCB = [
    *(((1, 2), "[1, 2]", True), ([1, 2], "[1, 2]", True), ([(1, 2)], "[[1, 2]]", False), (1, "true", True)),
    *((2.0, "2", True), (0.1 + 0.2, "0.3", False), ({1, 2}, "[1, 2]", False), ({1: 2}, '{"1": 2}', False)),
    *(({"1": 2}, '{"1": 2}', True), (float("nan"), "NaN", False), (None, "null", True), ("1", "1", False)),
    *((10**5000, "1" + "0" * 5000, True), (Opaque("generator"), "null", False)),
]
CALL_APPS = [
    *((5, "[5]", True), (5, "5", True), ([1, 2], "[[1, 2]]", True), ([1, 2], "[1, 2]", True), (1, "[1, 2]", True)),
    *(((1, 2), "[[1, 2]]", True), ([(1, 2), (3,)], "[[[1, 2], [3]]]", True), ([(1, 2)], "[[1, 2]]", False)),
    *(([[(1,)]], "[[[[1]]]]", False), ({1: 2}, '{"1": 2}', True), ({1: 2}, '[{"1": 2}]', True)),
    *(({"1": 2}, '{"1": 2}', False), ({"a": 2}, '[{"a": 2}]', True), ({"a": 2, "1": 3}, '{"a": 2, "1": 3}', True)),
    *((2, "[1, 2]", False), ([], "[]", True), ([], "[[]]", True), ([(1, 2), 3], "[[[1, 2], 3]]", False)),
    *((None, "[null]", True), ("a", '"ab"', False), ({5}, "[[5]]", False), (Opaque("map"), "[null]", False)),
]
ANY_CASE = [
    *(("Yes", "YES", True), ("yEs\nnO\n", "YES NO", True), ("Yes 1E-7", "yes 0", True), ("Y", "YES", False)),
    *(("Yes No", "YES", False), ("NO", "YES", False), ("", "YES", False), ("Yes 2", "YES 3", False)),
    *(("\u212a", "k", False), ("K", "\u212a", False), ("\u00c9", "\u00e9", False), ("\u00c9", "\u00c9", True)),
]
HOSTILE = {
    "exponent": "1e999999999",
    "long exponent": "1e" + "9" * 5000,
    "million digits": "9" * 1_000_000,
    "NUL": "\x00" * 100_000,
    "lone surrogates": "\ud800" * 100_000,
    "bytes": bytes(range(256)).decode("utf-8", "surrogateescape") * 100,
    "BOM": "\ufeff1 ",
    "signs": "-" * 9999,
    "almost numbers": ("1" * 9999 + "x ") * 100,
    "million tokens": "2 " * 1_000_000,
    "million lines": "2\n" * 1_000_000,
}
spelled = st.text(alphabet="0123456789+-.eEnaifsIN_ \n\t\x00\x0c\ud800٣x", max_size=40)
captured = st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape"))
any_text = spelled | captured | st.text(max_size=40)


def vectors(rows: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("answer", "expected", "same"), rows, ids=range(len(rows)))


@vectors(LCB)
def test_lcb(answer: str, expected: str, same: bool) -> None:
    assert lcb(answer, expected) is same


@vectors(TOKENS)
def test_tokens(answer: str, expected: str, same: bool) -> None:
    assert tokens(answer, expected) is same


@vectors(ANY_CASE)
def test_tokens_any_case(answer: str, expected: str, same: bool) -> None:
    assert compare.tokens_any_case(answer, expected) is same


@vectors(TOKENS)
def test_tokens_any_case_is_tokens_where_letters_do_not_differ(answer: str, expected: str, same: bool) -> None:
    assert compare.tokens_any_case(answer, expected) is (same or answer.lower().split() == expected.lower().split())


@vectors(CODECONTESTS)
def test_codecontests(answer: str, expected: str, same: bool) -> None:
    assert codecontests(answer, expected) is same


@vectors(APPS)
def test_apps_legacy(answer: str, expected: str, same: bool) -> None:
    assert apps_legacy(answer, expected) is same


@pytest.mark.parametrize(("answer", "expected"), APPS_WRONG)
def test_only_apps_legacy_accepts_what_the_apps_grader_should_not(answer: str, expected: str) -> None:
    assert apps_legacy(answer, expected)
    assert not tokens(answer, expected)
    assert not lcb(answer, expected)


@vectors(CALL_LCB)
def test_call_lcb(answer: object, expected: str, same: bool) -> None:
    assert call_lcb(answer, expected) is same


@vectors(CALL_APPS)
def test_call_apps(answer: object, expected: str, same: bool) -> None:
    assert call_apps(answer, expected) is same


def test_another_tolerance() -> None:
    assert tokens("1.0009", "1.0", tolerance=Decimal("1e-3"))
    assert not tokens("1.0011", "1.0", tolerance=Decimal("1e-3"))


def test_apps_legacy_warns_once() -> None:
    compare._warn_of_apps_legacy.cache_clear()
    with pytest.warns(UserWarning, match="order-insensitive and accepts off-by-one above 1e5"):
        apps_legacy("1", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apps_legacy("1", "2")


def test_an_object_that_equals_everything_becomes_opaque() -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

    for same in (call_lcb, call_apps):
        assert not same(decode(encode(Equal())), "1")
        assert not same(decode(encode([Equal()])), "[1]")


def seconds(right: Callable[[], bool]) -> float:
    """CPU seconds of the quickest of three tries: neighbours slow some of them down."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        assert right()
        spent.append(time.process_time() - start)
    return min(spent)


@pytest.mark.parametrize("output", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("same", STDIO.values(), ids=STDIO)
def test_hostile_output_is_refused_quickly(same: Callable[[str, str], bool], output: str) -> None:
    assert seconds(lambda: not same(output, "1")) < (1 if output.startswith("2") else 0.1)


@pytest.mark.parametrize("same", STDIO.values(), ids=STDIO)
def test_a_long_right_answer_in_another_spelling_takes_seconds_at_most(same: Callable[[str, str], bool]) -> None:
    assert seconds(lambda: same("1.0 " * 200_000, "1 " * 200_000)) < 3


@PROPERTY
@given(text=any_text, end=st.sampled_from(["", "\n", " \n", "\n\n"]))
def test_every_text_equals_itself_whatever_white_space_follows(text: str, end: str) -> None:
    for same in (lcb, tokens, compare.tokens_any_case, codecontests):
        assert same(text + end, text)
    text = "\n".join(text.splitlines())  # the APPS grader tears only the output apart at a form feed
    assert apps_legacy(text + end, text)


@PROPERTY
@given(pair=st.tuples(any_text, any_text) | st.tuples(spelled, st.just("1.0")))
def test_lcb_is_symmetric_and_nothing_raises(pair: tuple[str, str]) -> None:
    assert lcb(*pair) is lcb(*reversed(pair))
    for same in STDIO.values():
        assert same(*pair) in (True, False)


@PROPERTY
@given(
    numbers=st.lists(st.integers() | st.integers(0, 10).map(lambda power: 10 ** (4 * power)), min_size=1, max_size=6),
    index=st.integers(0, 5),
    change=st.integers(-3, 3).filter(bool) | st.integers().filter(bool),
    form=st.sampled_from(["{}", "{}.0", "{}e0", "{}.", " {}\n"]),
)
def test_tokens_refuses_any_changed_integer_and_accepts_the_right_one(
    numbers: list[int], index: int, change: int, form: str
) -> None:
    expected = " ".join(map(str, numbers))
    assert tokens("\n".join(form.format(number) for number in numbers), expected)
    numbers[index % len(numbers)] += change
    assert not tokens(" ".join(form.format(number) for number in numbers), expected)


@PROPERTY
@given(number=st.floats(-1e300, 1e300), factor=st.floats(1e-5, 1e-1), sign=st.sampled_from([1, -1]))
def test_tokens_refuses_a_real_number_that_is_off_by_more_than_the_tolerance(
    number: float, factor: float, sign: int
) -> None:
    expected, scale = f"{number:.17e}", max(1.0, abs(number))
    assert tokens(repr(number), expected)
    assert not tokens(f"{number + sign * factor * scale:.17e}", expected)


# Names --------------------------------------------------------------------------------------------
@pytest.fixture
def divisor() -> str:
    """A checker with several right answers: any divisor of the input except 1 and itself."""

    def proper_divisor(text: str, output: Any, expected: str) -> bool:
        if not (isinstance(output, str) and output.strip().isdecimal()):
            return False
        return 1 < int(output) < int(text) and int(text) % int(output) == 0

    compare.register_checker("proper_divisor", proper_divisor, version="1")
    return "checker:proper_divisor"


@pytest.mark.parametrize("mode", ["stdio", "call"])
def test_a_checker_sees_the_input(mode: Mode, divisor: str) -> None:
    check = compare.resolve(mode, divisor)
    assert check("12\n", "3\n", "4\n") and check("12\n", "4\n", "4\n")
    assert not check("12\n", "5\n", "4\n") and not check("12\n", "x", "4\n") and not check("12", 3, "4")


def test_a_checker_must_say_true_or_false() -> None:
    compare.register_checker("forgetful", lambda text, output, expected: None, version="1")  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="checker:forgetful returned None"):
        compare.resolve("stdio", "checker:forgetful")("", "", "")


@pytest.mark.parametrize(("name", "version"), [("two words", "1"), ("", "1"), ("a/b", "1"), ("fine", "")])
def test_a_checker_needs_a_name_and_a_version(name: str, version: str) -> None:
    with pytest.raises(CPPOError, match="must be an identifier"):
        compare.register_checker(name, lambda text, output, expected: True, version=version)


def test_names_are_resolved_by_mode(divisor: str) -> None:
    assert compare.resolve("stdio", "lcb")("", "1.0", "1")
    assert compare.resolve("call", "lcb")("", (1,), "[1]")
    assert compare.known("call", "call_apps") and not compare.known("stdio", "call_apps")
    assert compare.known("stdio", divisor) and not compare.known("stdio", "checker:unheard_of")
    assert compare.choices("stdio")[:4] == ["lcb", "tokens", "tokens_any_case", "codecontests"]
    with pytest.raises(KeyError):
        compare.resolve("call", "tokens")


def test_the_nearest_name_is_offered_first(divisor: str) -> None:
    assert compare.nearest("stdio", "code_contest")[0] == "codecontests"
    assert compare.nearest("call", "checker:divisor")[0] == divisor
    assert sorted(compare.nearest("call", "?")) == sorted(compare.choices("call"))


def test_a_version_belongs_to_every_comparator_and_changes_with_a_checker(divisor: str) -> None:
    names = {*compare.choices("stdio"), *compare.choices("call")}
    assert len({compare.comparator_version(name) for name in names}) == len(names)
    before = compare.comparator_version(divisor)
    compare.register_checker("proper_divisor", lambda text, output, expected: False, version="2")
    assert compare.comparator_version(divisor) != before
    assert not compare.resolve("stdio", divisor)("12", "3", "")
