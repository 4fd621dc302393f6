"""Comparators: pure functions that say whether a program's answer equals the expected one.

| name | mode | for | rule |
|---|---|---|---|
| `lcb` | stdio | LiveCodeBench, rewards | line by line: equal text or equal decimals |
| `tokens` | stdio | rewards on APPS and CodeContests | tokens: text, exact integers, reals within a tolerance |
| `tokens_any_case` | stdio | the same, any letter case allowed | `tokens`, where `Yes` is `YES` |
| `codecontests` | stdio | published numbers | lower-cased tokens, numbers within 1e-5 |
| `apps_legacy` | stdio | published numbers | APPS' cascade; accepts wrong answers, and warns |
| `lcb`, `call_lcb` | call | LiveCodeBench, output prediction | `==`; a tuple at the top is a list |
| `call_apps` | call | APPS | `==` the expected value or its first item |
| `checker:NAME` | both | several right answers | a trusted function, see `register_checker` |

`lcb`, `call_lcb`, `apps_legacy`, `call_apps` and `codecontests` keep their official grader's rule, with one guard: a
token of more than `TOKEN_LIMIT` characters is never read as a number. `tests/verifier/test_compare.py` holds golden
vectors. All run in the parent on captured text and decoded built-in values, never on objects made by a program.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
import warnings
from collections.abc import Callable, Mapping
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DecimalException
from typing import Any

from cppo_lib.data.problem import Mode
from cppo_lib.errors import CPPOError

TOKEN_LIMIT = 10_000
"""Longest token read as a number (characters); longer ones must match as text."""
TOLERANCE = Decimal("1e-6")
"""How far a real number in `tokens` may be off, absolute below 1 and relative above."""
VERSIONS = {
    "lcb": 1, "tokens": 1, "tokens_any_case": 1, "codecontests": 1, "apps_legacy": 1, "call_lcb": 1, "call_apps": 1,
}  # fmt: skip
"""Raise a comparator's number with its rule, so that verdicts cached under the old one no longer count."""

Check = Callable[[str, Any, str], bool]
"""(input, output, expected) -> right; `output` is text in `stdio` mode and a built-in value in `call` mode."""

_INTEGER = re.compile(r"([+-]?)0*([0-9]+)")
_REAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPACE = re.compile(rb"[ \n\t\r\v]+")
_DOUBLE = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:inf(?:inity)?|nan)")
_WIDE = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


# LiveCodeBench ------------------------------------------------------------------------------------
def lcb(output: str, expected: str) -> bool:
    """Equal line by line after stripping: the same text, or the same list of decimal numbers."""
    left, right = output.strip(), expected.strip()
    if left.count("\n") != right.count("\n"):
        return False
    lines = zip(left.split("\n"), right.split("\n"), strict=True)
    return all(a.strip() == b.strip() or _pairwise(_same_decimals, a, b) for a, b in lines)


def _pairwise(same: Callable[[str, str], bool], output: str, expected: str) -> bool:
    """As many tokens on either side, and `same` for each pair; reads no more of `output` than that takes."""
    right = expected.split()
    left = output.split(None, len(right))
    return len(left) == len(right) and all(map(same, left, right))


def _same_decimals(token: str, wanted: str) -> bool:
    if max(len(token), len(wanted)) > TOKEN_LIMIT:
        return False
    try:
        return Decimal(token) == Decimal(wanted)
    except (DecimalException, ValueError):  # no number, or a signalling NaN
        return False


# Tokens -------------------------------------------------------------------------------------------
def tokens(output: str, expected: str, *, tolerance: Decimal = TOLERANCE) -> bool:
    """Equal token by token, whatever the white space: the rule of most judges for one right answer.

    Two tokens are equal as text, as integers of any length (`+05` is 5), or as finite reals: if one of the two has a
    point or an exponent, their difference may be `tolerance`, times the expected number where that is itself a real
    above 1. Where an integer is expected the difference stays absolute; otherwise `1000001.0` would do for `1000000`.
    """
    same = functools.partial(_same_token, tolerance=tolerance)
    return output == expected or _pairwise(same, output, expected)


def tokens_any_case(output: str, expected: str) -> bool:
    """`tokens`, with A to Z equal to a to z: for statements that allow any letter case."""
    return output == expected or _pairwise(_same_in_any_case, output, expected)


def _same_in_any_case(token: str, wanted: str) -> bool:
    return _same_token(_lower(token), _lower(wanted), tolerance=TOLERANCE)


def _lower(token: str) -> str:
    """In small letters if all are ASCII: beyond them other letters become one, as the Kelvin sign and k do."""
    return token.lower() if token.isascii() else token


def _same_token(token: str, wanted: str, *, tolerance: Decimal) -> bool:
    if token == wanted:
        return True
    integer, wanted_integer = _integer_text(token), _integer_text(wanted)
    if integer and wanted_integer:
        return integer == wanted_integer
    number, right = _finite(token), _finite(wanted)
    if number is None or right is None:
        return False
    scale = Decimal(1) if wanted_integer else max(Decimal(1), right.copy_abs())
    return _WIDE.subtract(number, right).copy_abs() <= _WIDE.multiply(tolerance, scale)


def _integer_text(token: str) -> str | None:
    """An integer without plus sign and leading zeros, still as text: it may have a million digits."""
    match = _INTEGER.fullmatch(token)
    if not match:
        return None
    sign, digits = match.groups()
    return f"-{digits}" if sign == "-" and digits != "0" else str(digits)


def _finite(token: str) -> Decimal | None:
    if len(token) > TOKEN_LIMIT or not _REAL.fullmatch(token):
        return None
    try:
        return Decimal(token)
    except DecimalException:  # an exponent of twenty digits
        return None


# CodeContests -------------------------------------------------------------------------------------
def codecontests(output: str, expected: str) -> bool:
    """The official rule: ASCII-lower-cased tokens, equal in all or pairwise as text or doubles less than 1e-5 apart.

    For published numbers only: it takes 64-bit neighbours above 2**53 for equal, and anything below 1e-5 for 0.
    """
    right = _words(expected)
    left = _words(output, len(right))
    return left == right or (len(left) == len(right) and all(map(_same_double, left, right)))


def _words(text: str, most: int = 0) -> list[bytes]:
    # `lower` changes ASCII letters only on bytes, as the official one does.
    return _SPACE.split(text.encode("utf-8", "surrogatepass").lower().strip(b" \n\t\r\v"), most)


def _same_double(word: bytes, wanted: bytes) -> bool:
    if max(len(word), len(wanted)) > TOKEN_LIMIT or not (_DOUBLE.fullmatch(word) and _DOUBLE.fullmatch(wanted)):
        return word == wanted
    return abs(float(word) - float(wanted)) < 1e-5


# APPS ---------------------------------------------------------------------------------------------
@functools.cache
def _warn_of_apps_legacy() -> None:
    warnings.warn(
        "comparator apps_legacy is order-insensitive and accepts off-by-one above 1e5: use it to reproduce published "
        "APPS numbers, and tokens or lcb for everything else",
        stacklevel=3,
    )


def apps_legacy(output: str, expected: str) -> bool:
    """The official APPS cascade, from equal text to equal sets of sets of rounded numbers: reproduction only.

    It ignores the order of tokens in a line, the order of lines and repetitions. Warns once per process.
    """
    _warn_of_apps_legacy()
    lines = output.splitlines()
    if expected.strip() in ("\n".join(lines).strip(), "\n".join(line.strip() for line in lines).strip()):
        return True
    wanted = [line.strip() for line in expected.split("\n") if line]
    filled = [line for line in lines if line]
    if wanted in (lines, filled) or _close(filled, wanted):
        return True
    left = [line for line in filled if line.strip()]
    try:
        return any(_as_sets(left, read) == _as_sets(wanted, read) for read in (str, _rounded))
    except ValueError:
        return False


def _float(text: str) -> float:
    if len(text) > TOKEN_LIMIT:
        raise ValueError("too long to be read as a number")
    return float(text)


def _close(lines: list[str], wanted: list[str]) -> bool:
    """NumPy's `allclose` on one number per line."""
    if len(lines) != len(wanted):
        return False
    try:
        pairs = [(_float(line), _float(right)) for line, right in zip(lines, wanted, strict=True)]
    except ValueError:
        return False
    return all(a == b or (math.isfinite(b) and abs(a - b) <= 1e-8 + 1e-5 * abs(b)) for a, b in pairs)


def _rounded(token: str) -> float:
    return round(_float(token), 3)


def _as_sets(lines: list[str], read: Callable[[str], Any]) -> set[frozenset[Any]]:
    return {frozenset(map(read, set(line.split()))) for line in set(lines)}


# Returned values ----------------------------------------------------------------------------------
def _integer(digits: str) -> int:
    """An integer of any length; `int` itself refuses more than 4300 digits."""
    return int(digits) if len(digits) < 4000 else int(Decimal(digits))


def call_lcb(value: Any, expected: str) -> bool:
    """A returned value equals a JSON value by `==`; a tuple at the top counts as a list."""
    return bool((list(value) if isinstance(value, tuple) else value) == json.loads(expected, parse_int=_integer))


def call_apps(value: Any, expected: str) -> bool:
    """The official APPS rule: equal to the expected JSON value or, where that is a list, to its first item.

    Tuples at the top, and as the items of a list, count as lists; keys of an expected object are integers where all can
    be. APPS wraps most expected values in a list, hence the first item; where it does not, 1 is accepted for [1, 2].
    """
    value = list(value) if isinstance(value, tuple) else value
    wanted = _with_integer_keys(json.loads(expected, parse_int=_integer))
    if not isinstance(wanted, list) or not wanted:
        return bool(value == wanted)
    if value in (wanted, wanted[0]):
        return True
    if not isinstance(value, list) or not value or not isinstance(value[0], tuple):
        return False
    try:
        return bool([list(item) for item in value] == wanted[0])
    except TypeError:  # an item that is no sequence
        return False


def _with_integer_keys(wanted: Any) -> Any:
    """A dictionary, alone or first in a list, becomes a list of one with integer keys if it can."""
    body = wanted[0] if isinstance(wanted, list) and wanted else wanted
    if not isinstance(body, dict):
        return wanted
    try:
        return [{int(key): item for key, item in body.items()}]
    except ValueError:
        return wanted


# Names --------------------------------------------------------------------------------------------
STDIO: dict[str, Callable[[str, str], bool]]
STDIO = {
    "lcb": lcb,
    "tokens": tokens,
    "tokens_any_case": tokens_any_case,
    "codecontests": codecontests,
    "apps_legacy": apps_legacy,
}
CALL: dict[str, Callable[[Any, str], bool]] = {"lcb": call_lcb, "call_lcb": call_lcb, "call_apps": call_apps}
_checkers: dict[str, tuple[Check, str]] = {}


def register_checker(name: str, function: Check, *, version: str) -> None:
    """Make `function(input, output, expected) -> bool` known as comparator `checker:NAME`, here and now.

    It is trusted and runs in this process, on whatever a program has written: it must return False for an output that
    it cannot read. An exception, or a value that is no bool, is the checker's fault and never a verdict on the program.
    A name registered again takes the new function; change `version` with the rule, it is part of the cache's key.

    Raises:
        CPPOError: a name that is not made of letters, digits and underscores, or an empty version.
    """
    if not name.isidentifier() or not version:
        raise CPPOError(f"checker {name!r}, version {version!r}: the name must be an identifier, the version not empty")
    _checkers[f"checker:{name}"] = function, version


def choices(mode: Mode) -> list[str]:
    """Comparators for problems of a mode, registered checkers last."""
    return [*_table(mode), *_checkers]


def known(mode: Mode, name: str) -> bool:
    """Whether a problem of this mode can name this comparator."""
    return name in _table(mode) or name in _checkers


def nearest(mode: Mode, name: str) -> list[str]:
    """What to offer for an unknown name: the choices most like it first, then the others."""
    names = choices(mode)
    close = difflib.get_close_matches(name, names)
    return close + [other for other in names if other not in close]


def resolve(mode: Mode, name: str) -> Check:
    """The comparator as a function of (input, output, expected). Raises KeyError for one that is not `known`."""
    if name not in _checkers:
        compare = _table(mode)[name]
        return lambda text, output, expected: compare(output, expected)
    function, _ = _checkers[name]

    def check(text: str, output: Any, expected: str) -> bool:
        answer = function(text, output, expected)
        if not isinstance(answer, bool):
            raise TypeError(f"{name} returned {answer!r}, not True or False")
        return answer

    return check


def comparator_version(name: str) -> str:
    """Name and version of a comparator, for the cache's key. Raises KeyError for one that is not `known`."""
    return f"{name}/{_checkers[name][1] if name in _checkers else VERSIONS[name]}"


def _table(mode: Mode) -> Mapping[str, Callable[[Any, str], bool]]:
    return CALL if mode == "call" else STDIO
